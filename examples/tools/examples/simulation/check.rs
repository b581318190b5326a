//! The checks of a history.
//!
//! While it runs, they compare audit, closing and finality with what really happened, and require that votes which
//! workers reach are counted. At the end, they check every vote.

mod moment;
mod progress;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;
use vote_core::{
    OptionSlug, PollSlug, QueueId,
    count::{
        Ballot, QueueState, RegisteredPoll,
        audit::{self, Verdict},
    },
};
use vote_results::receipts::ReceiptStatus;

use crate::{
    operator,
    truth::Truth,
    voters::{Acknowledged, Journal},
    world::World,
};
use moment::{Moment, is_forgotten, is_retired, receipt_status};
use progress::Progress;

/// An audit that holds must account for votes that were acknowledged at least this long before.
const KNOWN_AFTER: Duration = Duration::from_secs(15);
/// Time within which an undisturbed worker gives a sign of life.
const BEATEN_WITHIN: Duration = Duration::from_secs(2);
/// A clock that loses more microseconds than this between two checks was set back.
const STEP: i64 = 1_000_000;
/// Difference of clocks that does no harm, in microseconds.
const CLOCK_TOLERANCE: i64 = 30_000_000;
/// A worker that reaches a queue that lost data reports it as diverged within this time.
const NAMED_WITHIN: Duration = Duration::from_secs(10);
/// One check of this many compares all votes, the others only those that were not counted before.
const CHECK_ALL_EVERY: u32 = 20;
/// Problems found, the first one of each kind.
#[derive(Debug, Default)]
struct Problems {
    found: Vec<String>,
    kinds: BTreeSet<&'static str>,
}

impl Problems {
    /// Records a problem if it is the first of its kind.
    fn add(&mut self, world: &World, kind: &'static str, problem: impl FnOnce() -> String) {
        if self.kinds.insert(kind) {
            let at = world.start.elapsed().as_secs_f64();
            self.found.push(format!("at {at:.1} s: {kind}: {}", problem()));
        }
    }
}

/// The checks of a history.
#[derive(Debug)]
pub(crate) struct Checks {
    problems: Problems,
    progress: Progress,
    /// Number of votes, in the order of their answers, before the first that was not counted at the last check.
    counted: usize,
    /// Number of checks.
    checks: u32,
    /// Error of the database's clock at the last check, in microseconds.
    database_error: i64,
    /// Time when that clock was set back, until a worker has given a sign of life since, by which the database notices.
    set_back_at: Option<Instant>,
    /// The tally of each final poll when it was first seen final.
    finals: BTreeMap<PollSlug, Vec<(OptionSlug, u64)>>,
    /// Times since when counts of queues that lost data contradict each other.
    contradicts_since: BTreeMap<QueueId, Instant>,
    /// Highest number of microseconds by which the clocks of the database and of a worker were both ahead.
    ahead: i64,
    /// Number of polls that became final while faults were injected.
    pub(crate) finals_under_faults: u64,
    /// Number of audits.
    pub(crate) audits: u64,
}

impl Checks {
    /// Creates the checks of a new history.
    pub(crate) fn new() -> Self {
        Self {
            problems: Problems::default(),
            progress: Progress::new(),
            counted: 0,
            checks: 0,
            database_error: 0,
            set_back_at: None,
            finals: BTreeMap::new(),
            contradicts_since: BTreeMap::new(),
            ahead: 0,
            finals_under_faults: 0,
            audits: 0,
        }
    }

    /// Returns the problems found, the first one of each kind.
    pub(crate) fn into_problems(self) -> Vec<String> {
        self.problems.found
    }

    /// Records a problem that was found outside the checks.
    pub(crate) fn note(&mut self, problem: String) {
        self.problems.found.push(problem);
    }

    /// Records a problem if it is the first of its kind.
    fn found(&mut self, world: &World, kind: &'static str, problem: impl FnOnce() -> String) {
        self.problems.add(world, kind, problem);
    }

    /// Checks the present state.
    pub(crate) fn check(
        &mut self,
        world: &World,
        truth: &mut Truth,
        journal: &Journal,
    ) -> Result<(), String> {
        // A counted vote stays counted unless the database loses it. That is checked less often, since it takes long.
        self.checks += 1;
        let trusted = if self.checks.is_multiple_of(CHECK_ALL_EVERY) { 0 } else { self.counted };
        let moment = Moment::of(world, journal, trusted)?;
        let first_uncounted = moment.uncounted.first().map(|vote| vote.at);
        self.counted =
            first_uncounted.map_or(journal.acknowledged.len(), |at| journal.acknowledged_before(at).len());
        let is_closed = |poll: &&RegisteredPoll| poll.closed_at.is_some();
        moment.accounts.polls.iter().filter(is_closed).for_each(|poll| truth.became_closed(poll.slug));
        self.progress.note_clear_paths(world, truth, self.finals.keys());
        self.note_set_back(world);
        if world.database.is_up() {
            self.check_audit(world, truth, journal, &moment);
        }
        self.check_closing(world, truth, &moment);
        self.check_closing_times(world, &moment);
        self.check_finals(world, truth, &moment);
        self.progress.check(world, truth, &moment, &mut self.problems);
        if let Some(ended) = world.ended_by_itself() {
            self.found(world, "a process ended by itself", || ended);
        }
        Ok(())
    }

    /// Checks that the audit reports no loss or error that does not exist, and holds only if no vote is missing.
    fn check_audit(&mut self, world: &World, truth: &Truth, journal: &Journal, moment: &Moment) {
        self.audits += 1;
        let audit = audit::audit(&moment.accounts, None);
        for queue in moment.accounts.queues.iter().filter(|queue| queue.state == QueueState::Diverged) {
            let server = Moment::server_of(world, queue);
            let may_have_diverged = server.is_some_and(|server| truth.may_have_diverged(server));
            if !may_have_diverged && !truth.may_be_active_again(queue.id) {
                self.found(world, "reported as diverged, but lost nothing", || {
                    format!("{} {}", queue.id, queue.reason)
                });
            }
        }
        // Queues that are reported as diverged were checked above. A loss of data may first appear as counts that
        // contradict each other, until a worker reports it. Any other problem contradicts the conservation invariant.
        let mut contradicts = BTreeSet::new();
        for problem in &audit.problems {
            match moment.accounts.queues.iter().find(|queue| problem.queue() == Some(queue.id)) {
                Some(queue) if queue.state == QueueState::Diverged => {}
                Some(queue)
                    if Moment::server_of(world, queue).is_some_and(|s| truth.may_have_diverged(s)) =>
                {
                    contradicts.insert(queue.id);
                }
                _ => self.found(world, "the audit is wrong", || problem.to_string()),
            }
        }
        self.contradicts_since.retain(|queue, _| contradicts.contains(queue));
        for queue in contradicts {
            let since = self.contradicts_since.entry(queue).or_insert_with(Instant::now).elapsed();
            let server = world.servers.iter().position(|server| server.holds(queue));
            if since > NAMED_WITHIN
                && server.is_some_and(|server| self.progress.clear_for(server) > NAMED_WITHIN)
            {
                self.found(world, "lost data, but is not reported as diverged", || queue.to_string());
            }
        }
        if audit.verdict == Verdict::Holds && self.set_back_at.is_none() {
            let is_excused = |vote: &Acknowledged| {
                truth.may_be_lost_unseen(vote)
                    || (truth.may_be_lost(vote) && journal.may_be_made_up_for(vote))
                    || truth.may_be_late(vote)
                    || is_retired(moment, vote)
                    || (truth.failed_over() && is_forgotten(moment, vote))
                    // The operator rejected such votes.
                    || truth.is_of_forgotten_definition(vote)
            };
            let is_missing = |vote: &&Acknowledged| vote.at.elapsed() > KNOWN_AFTER && !is_excused(vote);
            if let Some(vote) = moment.uncounted.iter().find(is_missing) {
                self.found(world, "the audit holds, but a vote is missing", || format!("{vote:?}"));
            }
        }
    }

    /// Checks that no poll is closed before its time.
    fn check_closing(&mut self, world: &World, truth: &Truth, moment: &Moment) {
        let database = world.database.process.clock_error();
        let together = world.workers().iter().map(|worker| worker.process.clock_error().min(database)).max();
        self.ahead = self.ahead.max(together.unwrap_or_default());
        for poll in moment.accounts.polls.iter().filter(|poll| poll.closed_at.is_some()) {
            let due = poll.closes_at;
            let latest = world.now().saturating_add(self.ahead.max(0) + CLOCK_TOLERANCE);
            if !truth.is_closed_by_hand(poll.slug) && due.is_none_or(|due| due > latest) {
                self.found(world, "closed early", || format!("{}, due at {due:?}", poll.slug));
            }
        }
    }

    /// Checks that closing times are those of the file, or those to which the operator moved them.
    fn check_closing_times(&mut self, world: &World, moment: &Moment) {
        for poll in &moment.accounts.polls {
            let expected = match poll.reschedules.last() {
                Some(last) if last.reason == operator::RESCHEDULED => last.to,
                _ => world.files.full.get(poll.slug.as_str()).and_then(|poll| poll.closes_at),
            };
            if poll.closes_at != expected {
                self.found(world, "a closing time moved without the operator", || format!("{poll:?}"));
            }
        }
    }

    /// Checks that final tallies do not change.
    fn check_finals(&mut self, world: &World, truth: &Truth, moment: &Moment) {
        for poll in moment.accounts.polls.iter().filter(|poll| poll.final_at.is_some()) {
            let tally = moment.accounts.tally_of(poll.slug);
            match self.finals.get(&poll.slug) {
                None => {
                    self.finals_under_faults += u64::from(world.start.elapsed() < crate::history::DURATION);
                    self.finals.insert(poll.slug, tally);
                }
                Some(before) if *before != tally && !truth.may_take_back_finality() => {
                    let before = format!("{before:?}");
                    self.found(world, "a final tally changed", || {
                        format!("{}: {before}, {tally:?}", poll.slug)
                    });
                }
                Some(_) => {}
            }
        }
    }

    /// Notes when the database's clock was set back, and when the database must know it.
    fn note_set_back(&mut self, world: &World) {
        let error = world.database.process.clock_error();
        if error + STEP < self.database_error {
            self.set_back_at = Some(Instant::now());
        }
        self.database_error = error;
        if self.progress.has_beaten(BEATEN_WITHIN) {
            self.set_back_at.take_if(|at| at.elapsed() >= BEATEN_WITHIN);
        }
    }

    /// Checks every vote at the end of a history.
    pub(crate) async fn check_all(
        &mut self,
        world: &World,
        truth: &Truth,
        journal: &Journal,
    ) -> Result<(), String> {
        let moment = Moment::of(world, journal, 0)?;
        for vote in &journal.acknowledged {
            if !moment.counts(vote) && !truth.may_be_lost(vote) && !truth.may_be_late(vote) {
                self.found(world, "lost", || format!("{vote:?}"));
            }
            let status = receipt_status(world, &moment, vote).await?;
            let is_counted = matches!(status, ReceiptStatus::Counted | ReceiptStatus::Superseded);
            if is_counted != moment.counts(vote) {
                self.found(world, "the receipt is wrong", || format!("{status:?}: {vote:?}"));
            }
            let may_be_late = matches!(status, ReceiptStatus::Quarantined { .. }) && truth.may_be_late(vote);
            if !is_counted && !truth.may_be_lost(vote) && !may_be_late {
                self.found(world, "the receipt reports a vote as lost that can't be", || {
                    format!("{status:?}: {vote:?}")
                });
            }
        }
        let sent = journal
            .acknowledged
            .iter()
            .map(|vote| &vote.vote)
            .chain(journal.unknown.iter().map(|other| &other.vote));
        let sent: BTreeSet<_> = sent.map(|vote| (vote.poll, vote.voter, vote.option, vote.cast_at)).collect();
        for counted in &moment.counted {
            let was_sent = |b: &&Ballot| sent.contains(&(counted.poll, b.voter, b.option, b.cast_at));
            if let Some(ballot) = counted.ballots.iter().find(|ballot| !was_sent(ballot)) {
                self.found(world, "counted, but never cast", || format!("{ballot:?}"));
            }
        }
        let audit = audit::audit(&moment.accounts, None);
        if audit.verdict != Verdict::Holds {
            self.found(world, "all queues are drained, but the audit does not hold", || {
                format!("{}: {:?} {:?}", audit.verdict, audit.problems, audit.outstanding)
            });
        }
        Ok(())
    }
}
