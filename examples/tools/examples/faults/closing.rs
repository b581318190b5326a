//! Closes one poll during the run, and watches the states of all polls.

use std::time::{Duration, Instant};

use vote_testkit::Service;

use crate::{
    electorate::CLOSING,
    journal::now,
    operator::Operator,
    pipeline::Pipeline,
    polls::{Due, Watch},
    postgres::Postgres,
    report::Report,
    variant::Calendar,
};

/// Interval at which the states of the polls are read from the store.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Closing of one poll during the run, and the watch over all polls.
#[derive(Debug)]
pub(crate) struct ClosingTime {
    operator: Operator,
    pub(crate) watch: Watch,
    start: Instant,
    look_at: Instant,
}

impl ClosingTime {
    pub(crate) fn new(pipeline: &Pipeline, calendar: Calendar, start: Instant) -> Self {
        let Calendar { times, orders, due } = calendar;
        let due = due.map_or(Due::ByHand, |due| Due::At(due.as_micros()));
        let open = Due::At(times.open.as_micros());
        // Not through a proxy, as an operator on another machine.
        let store = Postgres::url(pipeline.postgres.address());
        let operator = Operator::new(Service::binary("vote-worker"), store, orders);
        let watch = Watch::new([(CLOSING.to_owned(), due), ("keep-last".to_owned(), open)]);
        Self { operator, watch, start, look_at: start }
    }

    /// Runs the operator's commands when they are due, and checks the polls at intervals if the store can be asked.
    ///
    /// # Errors
    /// Fails if a command can't be run or the store can't be read, which implies nothing about the pipeline.
    pub(crate) fn tend(
        &mut self,
        pipeline: &Pipeline,
        can_ask: bool,
        report: &mut Report,
    ) -> Result<(), String> {
        let second = self.start.elapsed();
        if let Some(message) = self.operator.tend(second)? {
            eprintln!("faults: {:6.1} s: {message}", second.as_secs_f64());
        }
        if !can_ask || Instant::now() < self.look_at {
            return Ok(());
        }
        let states = pipeline.postgres.polls()?;
        let clock = pipeline.clocks.postgres.history();
        self.watch.look(&states, now(), clock, self.operator.has_begun());
        self.look_at = Instant::now() + LOOK_EVERY;
        let note = |is_so: bool, seen: &mut Option<f64>, what: &str| {
            if is_so && seen.is_none() {
                let second = (second.as_secs_f64() * 1000.0).round() / 1000.0;
                eprintln!("faults: {second:6.1} s: poll {CLOSING} is {what}");
                *seen = Some(second);
            }
        };
        note(self.watch.is_closed(CLOSING), &mut report.closed_seconds, "closed");
        note(self.watch.is_final(CLOSING), &mut report.final_seconds, "final");
        Ok(())
    }

    /// Checks the polls once more, after all votes are counted.
    ///
    /// # Errors
    /// Fails if the store can't be read, which implies nothing about the pipeline.
    pub(crate) fn check_now(&mut self, pipeline: &Pipeline, report: &mut Report) -> Result<(), String> {
        self.look_at = self.start;
        self.tend(pipeline, true, report)
    }

    /// Records that the store was rolled back by some seconds. The operator's commands are repeated, as the handbook
    /// demands.
    pub(crate) fn store_was_set_back(&mut self) {
        self.watch.store_was_set_back();
        self.operator.repeat();
    }

    /// Returns whether all commands are done and the poll is final.
    pub(crate) fn is_ended(&self) -> bool {
        self.operator.is_done() && self.watch.is_final(CLOSING)
    }
}
