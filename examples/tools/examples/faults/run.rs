//! A run: start the pipeline, cast votes and inject faults, heal, drain, check.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::runtime::Handle;
use vote_core::{Clock as _, SystemClock};
use vote_tools::command::rounded;

use crate::{
    args::{Args, Sabotage},
    audit::{self, Auditor, Audits, Heard, Verdict},
    cast::LoadRun,
    closing::ClosingTime,
    electorate::{CLOSING, Electorate},
    fault::Kind,
    inject::Active,
    pipeline::Pipeline,
    report::Report,
    schedule::{self, AT_A_TIME, Planned},
    variant::Variant,
    verify::{Circumstances, Findings, verify},
};

/// Interval at which due faults and other actions are checked for.
const TICK: Duration = Duration::from_millis(20);
/// Number of broken audits in a row after which the drain is not awaited: the conservation invariant, once broken,
/// stays broken.
const BROKEN_FOR_GOOD: u32 = 5;
/// Interval of checks whether the pipeline is drained.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Result of a run that was not interrupted.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) report: Report,
    /// Descriptions of the problems found.
    pub(crate) examples: Vec<String>,
}

/// Performs a run in `folder`. Returns `None` if interrupted.
///
/// # Errors
/// Fails if something goes wrong that implies nothing about the pipeline.
pub(crate) fn run(
    args: &Args,
    seed: u64,
    folder: &Path,
    runtime: &Handle,
    interrupted: &AtomicBool,
) -> Result<Option<Ended>, String> {
    let variant = Variant::of(seed, &args.only);
    let calendar = variant.calendar(SystemClock.now(), args.duration, args.drain);
    let mut pipeline = Pipeline::start(args, variant, calendar.times, folder, runtime)?;
    let start = Instant::now();
    let run = Run {
        closing: ClosingTime::new(&pipeline, calendar, start),
        pipeline: &mut pipeline,
        args,
        start,
        interrupted,
        report: Report {
            seed,
            closing: variant.closing.name(),
            rolls_back: variant.rolls_back,
            ..Report::default()
        },
    };
    let result = run.finish(seed, &variant.kinds(&args.only), runtime);
    pipeline.save_logs();
    result
}

/// Run in progress.
struct Run<'a> {
    pipeline: &'a mut Pipeline,
    args: &'a Args,
    start: Instant,
    interrupted: &'a AtomicBool,
    closing: ClosingTime,
    report: Report,
}

impl Run<'_> {
    fn finish(mut self, seed: u64, kinds: &[Kind], runtime: &Handle) -> Result<Option<Ended>, String> {
        let auditor = Auditor {
            program: self.pipeline.results_program.clone(),
            environment: self.pipeline.results_environment.clone(),
        };
        let args = self.args;
        let course = Arc::new(LoadRun::new(Electorate::new(seed)?, self.pipeline.public.clone(), args.rate));
        let casting = runtime.spawn(Arc::clone(&course).run());
        let audits = Audits::start(auditor.clone(), args.audit_every);
        let plan = schedule::plan(seed, kinds, args.fault_every, args.duration);
        let unbalanced = self.break_things(plan, &course)?;
        self.report.duration_s = rounded(self.start.elapsed().as_secs_f64());
        course.stop();
        runtime.block_on(casting).map_err(|e| e.to_string())??;
        let mut heard = audits.end();
        heard.failures.extend(unbalanced);
        if self.is_interrupted() {
            return Ok(None);
        }
        eprintln!("faults: all faults healed; waiting for the pipeline to drain");
        self.report.drain_seconds = self.drain(&auditor, &mut heard)?;
        let journal = course.journal.take();
        let counted = self.pipeline.postgres.counted()?;
        self.closing.check_now(self.pipeline, &mut self.report)?;
        let during = Circumstances {
            clocks: self.pipeline.clocks.frontends.each_ref().map(|clock| clock.history().clone()),
            differing: self.pipeline.differing.clone(),
        };
        let findings = verify(&course.electorate.polls, &journal, &counted, &during);
        let Self { pipeline, closing, mut report, .. } = self;
        report.count(&journal, &during);
        report.rows = counted.rows.len() as u64;
        let of_closing = counted.tally.iter().filter(|((poll, _), _)| poll == CLOSING);
        report.final_votes = of_closing.map(|(_, votes)| votes).sum();
        report.double_votes = course.double.load(Ordering::Relaxed);
        report.at_once = course.at_once.load(Ordering::Relaxed);
        report.visits_again = course.again.load(Ordering::Relaxed);
        let [redis, store] = pipeline.interfered();
        (report.redis_replies_cut, report.redis_replies_stalled) = redis;
        (report.store_replies_cut, report.store_replies_stalled) = store;
        let examples = conclude(&mut report, findings, heard, closing.watch.failures);
        Ok(Some(Ended { report, examples }))
    }

    fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    fn second(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// Injects faults until the time is over, and heals them. Returns the problems found in the ledger meanwhile.
    fn break_things(&mut self, plan: Vec<Planned>, course: &LoadRun) -> Result<Vec<String>, String> {
        let (args, start) = (self.args, self.start);
        let mut plan = plan.into_iter().peekable();
        let mut look_at = start + args.audit_every;
        let mut unbalanced = Vec::new();
        let mut active: Vec<Active> = Vec::new();
        let mut delete_at = (args.sabotage == Some(Sabotage::DeleteEntry)).then(|| start + args.duration / 2);
        while start.elapsed() < args.duration && !self.is_interrupted() {
            std::thread::sleep(TICK);
            self.supervise();
            for fault in &mut active {
                fault.tend(self.pipeline)?;
            }
            for due in active.extract_if(.., |fault| fault.is_due()) {
                eprintln!("faults: {:6.1} s: healed {}", self.second(), due.fault.kind.name());
                self.heal(due)?;
            }
            let can_ask = !active.iter().any(Active::keeps_from_asking);
            self.closing.tend(self.pipeline, can_ask, &mut self.report)?;
            if self.closing.watch.is_closed(CLOSING) {
                course.note_closed();
            }
            if Instant::now() >= look_at && can_ask {
                look_at = Instant::now() + args.audit_every;
                self.report.ledger_checks += 1;
                unbalanced.extend(self.pipeline.postgres.unbalanced());
            }
            if delete_at.is_some_and(|at| Instant::now() >= at) && active.is_empty() {
                delete_at = None;
                delete_entry(self.pipeline)?;
            }
            // Restarts take time, so that faults may be injected later than planned.
            let free = |planned: &Planned| {
                planned.at <= start.elapsed()
                    && active.len() < AT_A_TIME
                    && !active.iter().any(|fault| fault.group() == planned.fault.kind.group())
            };
            if delete_at.is_some_and(|at| Instant::now() >= at) {
                continue;
            }
            let Some(Planned { fault, .. }) = plan.next_if(free) else { continue };
            let second = self.second();
            let (injected, note) = Active::inject(fault, self.pipeline, args.everysec)?;
            let name = fault.kind.name();
            let (target, length) = (fault.target, fault.length.as_secs_f64());
            eprintln!("faults: {second:6.1} s: {name} {target} for {length:.1} s {note}");
            *self.report.faults.entry(name).or_default() += 1;
            self.report.fault_count += 1;
            active.push(injected);
        }
        for fault in active {
            self.heal(fault)?;
        }
        self.pipeline.pass_all();
        Ok(unbalanced)
    }

    fn heal(&mut self, fault: Active) -> Result<(), String> {
        let kind = fault.fault.kind;
        fault.heal(self.pipeline)?;
        if kind == Kind::RollBackPostgres {
            self.closing.store_was_set_back();
        }
        Ok(())
    }

    fn supervise(&mut self) {
        for exit in self.pipeline.supervise() {
            eprintln!("faults: {exit}");
            self.report.unexpected_exits.push(exit);
        }
    }

    /// Waits until all votes are counted and the closed poll is final. Returns how long that took in seconds, or `None`
    /// if it did not happen.
    fn drain(&mut self, auditor: &Auditor, heard: &mut Heard) -> Result<Option<f64>, String> {
        let (began, mut broken, mut last_status) = (Instant::now(), 0, String::new());
        while began.elapsed() < self.args.drain && broken < BROKEN_FOR_GOOD && !self.is_interrupted() {
            self.supervise();
            self.closing.tend(self.pipeline, true, &mut self.report)?;
            let verdict = auditor.ask();
            audit::note(heard, self.start, &verdict);
            let backlog = self.pipeline.backlog()?;
            for row in self.pipeline.postgres.unbalanced() {
                heard.failures.push(row);
                broken = BROKEN_FOR_GOOD;
            }
            broken = if matches!(verdict, Verdict::Broken(_)) { broken + 1 } else { 0 };
            let is_final = self.closing.is_ended();
            if verdict == Verdict::Holds && backlog.is_empty() && is_final {
                return Ok(Some(rounded(began.elapsed().as_secs_f64())));
            }
            let closed = if is_final { "final" } else { "not final" };
            let backlog = backlog.len();
            let status = format!(
                "{verdict:?}; {backlog} counters of Redis not reached by the ledger; poll {CLOSING} is {closed}"
            );
            if status != last_status {
                eprintln!("faults: not drained: {status}");
                last_status = status;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(None)
    }
}

/// Deletes an entry that no worker has read from a queue, as an operator might by mistake.
fn delete_entry(pipeline: &Pipeline) -> Result<(), String> {
    pipeline.workers.iter().for_each(|worker| worker.signal("STOP"));
    // Until the queue has entries that the stopped workers have not read.
    std::thread::sleep(Duration::from_secs(2));
    let deleted = pipeline.delete_newest_entry();
    pipeline.workers.iter().for_each(|worker| worker.signal("CONT"));
    eprintln!("faults: deleted {}", deleted?);
    Ok(())
}

/// Completes the report with all findings, and returns their descriptions.
fn conclude(
    report: &mut Report,
    findings: Findings,
    heard: Heard,
    poll_failures: Vec<String>,
) -> Vec<String> {
    report.exact = findings.is_exact()
        && heard.failures.is_empty()
        && poll_failures.is_empty()
        && report.drain_seconds.is_some();
    report.lost = findings.lost;
    report.double_counted = findings.double_counted;
    report.wrongly_counted = findings.wrongly_counted;
    report.wrongly_taken = findings.wrongly_taken;
    report.wrongly_refused = findings.wrongly_refused;
    report.poll_failures = poll_failures.len() as u64;
    report.audits = heard.audits;
    report.audits_unavailable = heard.unavailable;
    report.audit_failures = heard.failures.len() as u64;
    let mut examples = findings.examples;
    examples.extend(heard.failures);
    examples.extend(poll_failures);
    if report.drain_seconds.is_none() {
        examples.push("the pipeline was not drained in time".to_owned());
    }
    examples
}
