//! One history, from its seed to its outcome.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{
    runtime,
    time::{Instant, sleep},
};
use vote_core::{
    Store, StoreReader, audit,
    store::{Books, Decision, QuarantineRow, QueueRecord, QueueState},
};

use crate::{
    check::Checks,
    history::{self, DURATION, Kind, Planned},
    inject::{self, Standing},
    process::State,
    server::at_once,
    truth::Truth,
    voters::Voters,
    world::World,
};

/// How often things are looked at.
const TICK: Duration = Duration::from_millis(500);
/// How long the pipeline gets, once all is healed, before polls are closed by hand.
const SETTLE: Duration = Duration::from_secs(30);
/// How long it may take then until all is final, with an operator who does what has to be done.
const FINAL_LIMIT: Duration = Duration::from_secs(240);
/// When the operator retires queues that lost data.
const RETIRE_AFTER: Duration = Duration::from_secs(45);

/// What came of a history.
#[derive(Debug, Default, Clone)]
pub(crate) struct Outcome {
    pub(crate) problems: Vec<String>,
    pub(crate) faults: BTreeMap<String, u64>,
    pub(crate) acknowledged: u64,
    pub(crate) unknown: u64,
    pub(crate) diverged: u64,
    pub(crate) finals_under_faults: u64,
    pub(crate) audits: u64,
    /// Two runs of one history have the same.
    pub(crate) digest: u64,
}

/// Runs the history with this seed and these faults.
pub(crate) fn run(seed: u64, plan: &[Planned]) -> Result<Outcome, String> {
    let runtime = paused_runtime(seed).map_err(|e| e.to_string())?;
    let outcome = runtime.block_on(history(seed, plan));
    runtime.shutdown_background();
    outcome
}

#[cfg(tokio_unstable)]
fn paused_runtime(seed: u64) -> std::io::Result<runtime::Runtime> {
    // The order in which `select!` looks at its branches follows from this seed.
    let seed = runtime::RngSeed::from_bytes(&seed.to_be_bytes());
    runtime::Builder::new_current_thread().enable_time().start_paused(true).rng_seed(seed).build()
}

#[cfg(not(tokio_unstable))]
fn paused_runtime(_seed: u64) -> std::io::Result<runtime::Runtime> {
    Err(std::io::Error::other("this build can't repeat a history; use `deploy/simulate`"))
}

async fn history(seed: u64, plan: &[Planned]) -> Result<Outcome, String> {
    let kind = Kind::of(seed);
    let (polls, old_file) = history::polls(seed, kind)?;
    let world = Arc::new(World::start(seed, kind, polls));
    let mut truth = Truth::new(Instant::now());
    let mut checks = Checks::new();
    let mut voters = Voters::start(&world, seed);
    let mut standing = Standing::default();
    let mut plan = plan.iter().peekable();
    while world.start.elapsed() < DURATION {
        sleep(TICK).await;
        world.servers.iter().for_each(|server| server.keep_image());
        if world.database.is_up() {
            world.database.keep_image();
        }
        world.database.replicate_to(&world.standby);
        world.database.tend_sessions();
        standing.end_due(false, &world, &mut truth);
        checks.check(&world, &mut truth, &voters.journal())?;
        while let Some(planned) = plan.next_if(|planned| planned.at <= world.start.elapsed()) {
            standing.begin(planned, &world, &mut truth, &old_file);
        }
    }
    standing.end_due(true, &world, &mut truth);
    voters.leave().await;
    watch_for(SETTLE, &world, &mut truth, &mut checks, &voters).await?;
    finish(&world, &mut truth, &mut checks, &voters).await?;
    watch_for(SETTLE, &world, &mut truth, &mut checks, &voters).await?;
    reject_what_came_late(&world)?;
    let journal = std::mem::take(&mut *voters.journal());
    checks.check_all(&world, &truth, &journal).await?;
    let books = books(&world)?;
    world.workers().iter().for_each(|worker| worker.process.set(State::Dead));
    Ok(Outcome {
        acknowledged: journal.acknowledged.len() as u64,
        unknown: journal.unknown.len() as u64,
        diverged: books.queues.iter().filter(|queue| queue.state.is_over()).count() as u64,
        finals_under_faults: checks.finals_under_faults,
        audits: checks.audits,
        digest: digest(&books, &[journal.sent, journal.refused, journal.acknowledged.len() as u64]),
        problems: checks.problems,
        faults: BTreeMap::new(),
    })
}

async fn watch_for(
    time: Duration,
    world: &World,
    truth: &mut Truth,
    checks: &mut Checks,
    voters: &Voters,
) -> Result<(), String> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        sleep(TICK).await;
        world.database.tend_sessions();
        checks.check(world, truth, &voters.journal())?;
    }
    Ok(())
}

/// Closes all polls and waits until they are final, doing what an operator has to do: retire what lost data.
async fn finish(
    world: &World,
    truth: &mut Truth,
    checks: &mut Checks,
    voters: &Voters,
) -> Result<(), String> {
    for poll in &world.polls {
        inject::close(world, truth, poll.slug.as_str());
    }
    let started = Instant::now();
    loop {
        watch_for(TICK, world, truth, checks, voters).await?;
        let books = books(world)?;
        if books.polls.iter().all(|poll| poll.final_at.is_some()) {
            return Ok(());
        }
        if started.elapsed() > FINAL_LIMIT {
            let unfinished = books.polls.iter().filter(|poll| poll.final_at.is_none());
            let why: Vec<_> = unfinished.flat_map(|poll| audit::obstacles(&books, poll.slug)).collect();
            checks.problems.push(format!("never final: {why:?}"));
            return Ok(());
        }
        if started.elapsed() > RETIRE_AFTER {
            retire(world, &books)?;
        }
    }
}

/// Retires what will not come back, and what lost data once all that is left of it is read.
fn retire(world: &World, books: &Books) -> Result<(), String> {
    let gone = audit::not_heard_of(books);
    let is_read = |queue: &QueueRecord| {
        let mut remains = books.queues.iter().filter(|record| record.remains_of == Some(queue.id));
        remains.all(|record| record.state.is_over() || audit::is_read_to_the_end(books, record))
    };
    let retired = books.queues.iter().filter(|queue| match queue.state {
        QueueState::Active => gone.contains(&queue.id),
        QueueState::Cut => is_read(queue),
        QueueState::Retired => false,
    });
    for queue in retired {
        let reason = "the simulation lost its data";
        at_once(world.database.store.retire(queue.id, reason)).map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// Rejects what came for a poll after it was final: votes that were counted before, read again from what was left of a
/// queue that lost data, and votes that such a queue took since it had forgotten that it was sealed.
fn reject_what_came_late(world: &World) -> Result<(), String> {
    let store = &world.database.store;
    let rows = at_once(store.quarantine(None, usize::MAX)).map_err(|e| e.to_string())?;
    let late: Vec<_> = rows.iter().filter(|row| row.state.is_pending()).map(QuarantineRow::key).collect();
    let decision = Decision::Reject("the poll was final".to_owned());
    at_once(store.decide(&late, &decision)).map(drop).map_err(|e| e.to_string())
}

fn books(world: &World) -> Result<Books, String> {
    let mut snapshot = at_once(world.database.store.snapshot()).map_err(|e| e.to_string())?;
    at_once(snapshot.books(true)).map_err(|e| e.to_string())
}

/// A number that two runs of one history have in common, if they did the same.
fn digest(books: &Books, counts: &[u64]) -> u64 {
    let text = format!("{books:?}{counts:?}");
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
