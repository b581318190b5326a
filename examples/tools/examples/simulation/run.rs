//! Runs one history, from its seed to its outcome.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{
    runtime,
    time::{Instant, sleep},
};
use vote_core::count::{Accounts, QueueRecord, QueueState, RegisteredPoll, audit};

use crate::{
    check::Checks,
    history::{DURATION, Files, Kind, Planned},
    inject::{self, ActiveFaults},
    operator,
    process::State,
    trace,
    truth::Truth,
    voters::Voters,
    world::World,
};

/// Interval of the checks while faults are injected.
const TICK: Duration = Duration::from_millis(500);
/// Interval of the checks after all faults have ended.
const CALM_TICK: Duration = Duration::from_secs(2);
/// Time between the end of all faults and the closing of all polls by hand.
const SETTLE: Duration = Duration::from_secs(32);
/// Time for which final tallies are checked.
const REST: Duration = Duration::from_secs(10);
/// Maximum time from the first closing by hand until all polls are final, with an operator who does what is necessary.
const FINAL_LIMIT: Duration = Duration::from_secs(240);
/// Time after that closing when the operator retires queues that lost data.
const RETIRE_AFTER: Duration = Duration::from_secs(45);

/// The outcome of a history: the problems found, and counts.
#[derive(Debug, Default, Clone)]
pub(crate) struct Outcome {
    pub(crate) problems: Vec<String>,
    /// Numbers of injected faults, by name.
    pub(crate) faults: BTreeMap<String, u64>,
    /// Votes that were acknowledged.
    pub(crate) acknowledged: u64,
    /// Votes that got no answer.
    pub(crate) unknown: u64,
    /// Queues that have ended: all of them were retired, unless a problem is reported.
    pub(crate) ended: u64,
    /// Polls that became final while faults were injected.
    pub(crate) finals_under_faults: u64,
    /// Audits that were checked.
    pub(crate) audits: u64,
    /// A hash of the final accounts and counts: equal in all runs of one history.
    pub(crate) digest: u64,
}

/// Runs the history of a seed with the given faults.
pub(crate) fn run(seed: u64, plan: &[Planned]) -> Result<Outcome, String> {
    let runtime = paused_runtime(seed).map_err(|e| e.to_string())?;
    let outcome = runtime.block_on(history(seed, plan));
    runtime.shutdown_background();
    outcome
}

/// Returns a runtime on one thread whose time passes only by waiting.
#[cfg(tokio_unstable)]
fn paused_runtime(seed: u64) -> std::io::Result<runtime::Runtime> {
    // The order in which `select!` polls its branches depends on this seed.
    let seed = runtime::RngSeed::from_bytes(&seed.to_be_bytes());
    runtime::Builder::new_current_thread().enable_time().start_paused(true).rng_seed(seed).build()
}

#[cfg(not(tokio_unstable))]
fn paused_runtime(_seed: u64) -> std::io::Result<runtime::Runtime> {
    Err(std::io::Error::other(
        "this build can't repeat a history: run `deploy/simulate`, which sets `--cfg tokio_unstable`",
    ))
}

async fn history(seed: u64, plan: &[Planned]) -> Result<Outcome, String> {
    let kind = Kind::of(seed);
    let world = Arc::new(World::start(seed, kind, Files::of(seed, kind)?));
    trace::begin(world.start);
    let mut truth = Truth::new(Instant::now());
    let mut checks = Checks::new();
    let mut voters = Voters::start(&world, seed);
    let mut active = ActiveFaults::default();
    let mut plan = plan.iter().peekable();
    while world.start.elapsed() < DURATION {
        sleep(TICK).await;
        world.keep_images();
        world.database.tend_sessions();
        active.end_due(false, &world, &mut truth);
        checks.check(&world, &mut truth, &voters.journal())?;
        while let Some(planned) = plan.next_if(|planned| planned.at <= world.start.elapsed()) {
            active.begin(planned, &world, &mut truth);
        }
    }
    active.end_due(true, &world, &mut truth);
    inject::finish_updates(&world, &mut truth);
    voters.leave();
    while !voters.are_gone() {
        watch_for(TICK, &world, &mut truth, &mut checks, &voters).await?;
    }
    watch_for(SETTLE, &world, &mut truth, &mut checks, &voters).await?;
    finish(&world, &mut truth, &mut checks, &voters).await?;
    watch_for(REST, &world, &mut truth, &mut checks, &voters).await?;
    operator::decide(&world, &operator::reject());
    let journal = std::mem::take(&mut *voters.journal());
    checks.check_all(&world, &truth, &journal).await?;
    let accounts = operator::accounts(&world)?;
    world.workers().iter().for_each(|worker| worker.process.set(State::Dead));
    Ok(Outcome {
        acknowledged: journal.acknowledged.len() as u64,
        unknown: journal.unknown.len() as u64,
        ended: accounts.queues.iter().filter(|queue| queue.state.is_ended()).count() as u64,
        finals_under_faults: checks.finals_under_faults,
        audits: checks.audits,
        digest: digest(&accounts, &[journal.sent, journal.refused, journal.acknowledged.len() as u64]),
        problems: checks.into_problems(),
        faults: BTreeMap::new(),
    })
}

/// Lets the given time pass and checks the pipeline meanwhile.
async fn watch_for(
    time: Duration,
    world: &World,
    truth: &mut Truth,
    checks: &mut Checks,
    voters: &Voters,
) -> Result<(), String> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        sleep(CALM_TICK).await;
        world.database.tend_sessions();
        checks.check(world, truth, &voters.journal())?;
    }
    Ok(())
}

/// Closes all polls and waits until they are final. Does what an operator has to do: retires queues that lost data.
async fn finish(
    world: &World,
    truth: &mut Truth,
    checks: &mut Checks,
    voters: &Voters,
) -> Result<(), String> {
    let started = Instant::now();
    loop {
        // In each round, since a poll that was withdrawn may have been registered with another definition meanwhile.
        for poll in &world.files.full {
            operator::close(world, truth, poll.slug.as_str());
        }
        watch_for(CALM_TICK, world, truth, checks, voters).await?;
        let accounts = operator::accounts(world)?;
        let unfinished = |poll: &&RegisteredPoll| poll.final_at.is_none() && poll.withdrawal.is_none();
        // The operator still has to retire these, even if every other poll is final and the rest stays withdrawn.
        let is_diverged = |queue: &QueueRecord| queue.state == QueueState::Diverged;
        if !accounts.polls.iter().any(|poll| unfinished(&poll)) && !accounts.queues.iter().any(is_diverged) {
            return Ok(());
        }
        if started.elapsed() > FINAL_LIMIT {
            let unfinished = accounts.polls.iter().filter(unfinished);
            let why: Vec<_> = unfinished.flat_map(|poll| audit::obstacles(&accounts, poll.slug)).collect();
            checks.note(format!("not final in time: {why:?}"));
            return Ok(());
        }
        if started.elapsed() > RETIRE_AFTER {
            operator::retire(world, &accounts)?;
            if truth.may_have_changed_definitions() {
                operator::decide(world, &operator::reject());
            }
        }
    }
}

/// Returns a hash of the accounts and some counts (FNV-1a), by which two runs of one history are compared.
fn digest(accounts: &Accounts, counts: &[u64]) -> u64 {
    let text = format!("{accounts:?}{counts:?}");
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
