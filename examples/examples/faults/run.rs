//! A run: start, cast and break, heal, drain, check.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rand::RngExt;
use tokio::runtime::Handle;

use crate::{
    args::{Args, Sabotage},
    audit::{self, Auditor, Audits, Heard, Verdict},
    cast::Course,
    electorate::Electorate,
    fault::Group,
    inject::Active,
    pipeline::Pipeline,
    report::Report,
    schedule::{self, AT_A_TIME, Planned},
    verify::{Findings, verify},
};

/// How often it is looked what is to be done.
const TICK: Duration = Duration::from_millis(20);
/// A ledger that does not add up stays so: whoever finds that so often in a row need not wait for the drain.
const BROKEN_FOR_GOOD: u32 = 5;
/// How often the drain is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What is wrong, and the figures.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) report: Report,
    pub(crate) examples: Vec<String>,
}

/// Runs all of it in `folder`; none if interrupted.
///
/// # Errors
/// When something failed that says nothing of the pipeline.
pub(crate) fn run(
    args: &Args,
    seed: u64,
    folder: &Path,
    runtime: &Handle,
    interrupted: &AtomicBool,
) -> Result<Option<Ended>, String> {
    let mut pipeline = Pipeline::start(args, folder, runtime)?;
    let result = run_on(&mut pipeline, args, seed, runtime, interrupted);
    pipeline.save_logs();
    result
}

fn run_on(
    pipeline: &mut Pipeline,
    args: &Args,
    seed: u64,
    runtime: &Handle,
    interrupted: &AtomicBool,
) -> Result<Option<Ended>, String> {
    let auditor = Auditor {
        program: pipeline.results_program.clone(),
        environment: pipeline.results_environment.clone(),
    };
    let course = Arc::new(Course::new(Electorate::new(seed)?, pipeline.public.clone(), args.rate));
    let casting = runtime.spawn(Arc::clone(&course).run());
    let audits = Audits::start(auditor.clone(), args.audit_every);
    let start = Instant::now();
    let mut report = Report { seed, ..Report::default() };
    let unbalanced = break_things(pipeline, args, seed, start, interrupted, &mut report)?;
    report.duration_s = rounded(start.elapsed().as_secs_f64());
    course.stop();
    runtime.block_on(casting).map_err(|e| e.to_string())??;
    let mut heard = audits.end();
    heard.failures.extend(unbalanced);
    if interrupted.load(Ordering::Relaxed) {
        return Ok(None);
    }
    eprintln!("faults: all is healed, waiting for the drain");
    report.drain_seconds = drain(pipeline, args, &auditor, start, interrupted, &mut heard, &mut report)?;
    let journal = course.journal.take();
    let counted = pipeline.postgres.counted()?;
    let findings = verify(&course.electorate.polls, &journal, &counted);
    report.count(&journal);
    report.rows = counted.rows.len() as u64;
    report.double_votes = course.double.load(Ordering::Relaxed);
    report.at_once = course.at_once.load(Ordering::Relaxed);
    report.visits_again = course.again.load(Ordering::Relaxed);
    let [redis, store] = pipeline.interfered();
    (report.redis_replies_cut, report.redis_replies_stalled) = redis;
    (report.store_replies_cut, report.store_replies_stalled) = store;
    let examples = conclude(&mut report, findings, heard);
    Ok(Some(Ended { report, examples }))
}

/// Injects faults until the time is over, and heals them. Says what was wrong in the ledger meanwhile.
fn break_things(
    pipeline: &mut Pipeline,
    args: &Args,
    seed: u64,
    start: Instant,
    interrupted: &AtomicBool,
    report: &mut Report,
) -> Result<Vec<String>, String> {
    let mut plan = schedule::plan(seed, &args.only, args.fault_every, args.duration).into_iter().peekable();
    let mut look_at = start + args.audit_every;
    let mut unbalanced = Vec::new();
    let mut active: Vec<Active> = Vec::new();
    let mut delete_at = (args.sabotage == Some(Sabotage::DeleteEntry)).then(|| start + args.duration / 2);
    while start.elapsed() < args.duration && !interrupted.load(Ordering::Relaxed) {
        std::thread::sleep(TICK);
        supervise(pipeline, report);
        for fault in &mut active {
            fault.tend(pipeline)?;
        }
        for due in active.extract_if(.., |fault| fault.is_due()) {
            eprintln!("faults: {:6.1} s: healed {}", start.elapsed().as_secs_f64(), due.fault.kind.name());
            due.heal(pipeline)?;
        }
        // Not while Postgres is down, which would be an error.
        if Instant::now() >= look_at && !active.iter().any(|fault| fault.group() == Group::Postgres) {
            look_at = Instant::now() + args.audit_every;
            report.ledger_checks += 1;
            unbalanced.extend(pipeline.postgres.unbalanced());
        }
        if delete_at.is_some_and(|at| Instant::now() >= at) && active.is_empty() {
            delete_at = None;
            delete_entry(pipeline)?;
        }
        // Restarts take time, so that the plan may be late.
        let free = |planned: &Planned| {
            planned.at <= start.elapsed()
                && active.len() < AT_A_TIME
                && !active.iter().any(|fault| fault.group() == planned.fault.kind.group())
        };
        if delete_at.is_some_and(|at| Instant::now() >= at) {
            continue;
        }
        let Some(Planned { fault, .. }) = plan.next_if(free) else { continue };
        let second = start.elapsed().as_secs_f64();
        let (injected, note) = Active::inject(fault, pipeline, args.everysec)?;
        let name = fault.kind.name();
        eprintln!(
            "faults: {second:6.1} s: {name} {} for {:.1} s {note}",
            fault.target,
            fault.length.as_secs_f64()
        );
        *report.faults.entry(name).or_default() += 1;
        report.fault_count += 1;
        active.push(injected);
    }
    for fault in active {
        fault.heal(pipeline)?;
    }
    pipeline.pass_all();
    Ok(unbalanced)
}

fn supervise(pipeline: &mut Pipeline, report: &mut Report) {
    for exit in pipeline.supervise() {
        eprintln!("faults: {exit}");
        report.unexpected_exits.push(exit);
    }
}

/// Deletes one entry from a queue that nobody has read, as a hand might that meant another.
fn delete_entry(pipeline: &Pipeline) -> Result<(), String> {
    pipeline.workers.iter().for_each(|worker| worker.signal("STOP"));
    // Until there are votes that came after.
    std::thread::sleep(Duration::from_secs(2));
    let deleted = pipeline.delete_newest_entry();
    pipeline.workers.iter().for_each(|worker| worker.signal("CONT"));
    eprintln!("faults: deleted {}", deleted?);
    Ok(())
}

/// Waits until all is counted; how long that took, or none if it never was.
fn drain(
    pipeline: &mut Pipeline,
    args: &Args,
    auditor: &Auditor,
    start: Instant,
    interrupted: &AtomicBool,
    heard: &mut Heard,
    report: &mut Report,
) -> Result<Option<f64>, String> {
    let (began, mut broken, mut waits_for) = (Instant::now(), 0, String::new());
    while began.elapsed() < args.drain && broken < BROKEN_FOR_GOOD && !interrupted.load(Ordering::Relaxed) {
        supervise(pipeline, report);
        let verdict = auditor.ask();
        audit::note(heard, start, &verdict);
        let unread = pipeline.unread()?;
        for row in pipeline.postgres.unbalanced() {
            heard.failures.push(row);
            broken = BROKEN_FOR_GOOD;
        }
        broken = if matches!(verdict, Verdict::Broken(_)) { broken + 1 } else { 0 };
        if verdict == Verdict::Holds && unread.is_empty() {
            return Ok(Some(rounded(began.elapsed().as_secs_f64())));
        }
        let waits = format!("{verdict:?}; {} counters of Redis not read to their end", unread.len());
        if waits != waits_for {
            eprintln!("faults: not drained: {waits}");
            waits_for = waits;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(None)
}

/// Puts the verdict into the report; what is wrong, in words.
fn conclude(report: &mut Report, findings: Findings, heard: Heard) -> Vec<String> {
    report.exact = findings.is_exact() && heard.failures.is_empty() && report.drain_seconds.is_some();
    report.lost = findings.lost;
    report.double_counted = findings.double_counted;
    report.wrongly_counted = findings.wrongly_counted;
    report.audits = heard.audits;
    report.audits_unavailable = heard.unavailable;
    report.audit_failures = heard.failures.len() as u64;
    let mut examples = findings.examples;
    examples.extend(heard.failures);
    if report.drain_seconds.is_none() {
        examples.push("the pipeline was not drained in time".to_owned());
    }
    examples
}

/// A seed that every JSON reader keeps as it is.
pub(crate) fn random_seed() -> u64 {
    rand::rng().random::<u64>() >> 11
}

fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}
