//! The worker: reads all queues, deduplicates, and commits to the store, each vote once.
//!
//! [`run`] does it for any queues and any store. The binary `vote-worker` wires Redis and Postgres into it. Read
//! `lane` for the loop, `schedule` for what goes first, `monitor` for what becomes of a queue that is down.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use vote_core::{
    Clock, Partitions, PepperFingerprint, Polls, Store,
    queue::Layout,
    store::{StoreError, WorkerId, WorkerRecord},
};
use vote_service::Shutdown;

pub mod commands;
pub mod config;
mod duty;
mod error;
pub mod health;
mod lane;
pub mod metrics;
mod monitor;
mod partition;
mod presence;
mod registry;
pub mod schedule;
mod source;
mod tasks;
mod trim;
mod upkeep;
mod witness;

pub use error::WorkerError;
pub use health::Health;
pub use source::{Connect, Source};
pub use witness::Witness;

use lane::LaneParts;
use monitor::{Claims, MonitorParts};
use presence::Presence;
use registry::Registry;
use tasks::{Ended, Tasks};
use upkeep::Upkeep;
use witness::Witnesses;

/// How often a store that is not there or not fit is tried.
const RETRY_EVERY: Duration = Duration::from_secs(2);

/// What the worker works with.
#[derive(Debug, Clone)]
pub struct Parts {
    /// Where votes go.
    pub store: Arc<dyn Store>,
    /// Standbys that the store may fail over to. Queues keep what is committed until each of these shows it.
    pub witnesses: Vec<Witness>,
    /// Where they come from.
    pub sources: Vec<Source>,
    /// The polls to register.
    pub polls: Polls,
    /// What the time is.
    pub clock: Arc<dyn Clock>,
    /// What keeps the worker from being ready, for the admin routes.
    pub health: Health,
}

/// How the worker works.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How many lanes.
    pub lanes: usize,
    /// How many partitions a new store gets. If not given, 16; a store that has a number keeps it.
    pub partitions: Option<Partitions>,
    /// Which pepper the frontends have.
    pub fingerprint: PepperFingerprint,
    /// How long queues keep what is committed.
    pub trim_delay: Duration,
    /// How long after its `closes_at` a poll is closed: votes that are on their way get that long.
    pub close_grace: Duration,
    /// Commit to a store that may lose commits when power fails. For tests and laptops.
    pub allow_volatile: bool,
}

/// Runs the worker until shutdown. A store or a queue that is down is tried again and again.
///
/// # Errors
/// [`WorkerError::Store`] when the store was made for another number of partitions or another pepper, which no waiting
/// mends; [`WorkerError::Ended`] when one of the worker's tasks ended by itself, which is a bug: end the process, so that
/// it is started again, since the others would go on as if nothing was missing.
pub async fn run(parts: Parts, options: Options, shutdown: Shutdown) -> Result<(), WorkerError> {
    let Some((layout, registry)) = prepare(&parts, &options, &shutdown).await? else { return Ok(()) };
    metrics::partitions(layout.partitions.count());
    let (tasks, mut ended) = Tasks::new();
    let lanes = u32::try_from(options.lanes).unwrap_or(u32::MAX);
    // Compared and never ordered: a simulation repeats a history whatever it is.
    let id = WorkerId::random().map_err(|e| StoreError::Unavailable(Box::new(e)))?;
    let me = WorkerRecord { id, lanes, unreached: BTreeSet::new() };
    let presence = Presence::new(Arc::clone(&parts.store), registry.clone(), parts.health.clone(), me);
    let monitor_parts = MonitorParts {
        store: Arc::clone(&parts.store),
        layout,
        clock: Arc::clone(&parts.clock),
        registry: registry.clone(),
        claims: Claims::default(),
        tasks: tasks.clone(),
    };
    // Everything of this worker ends with it, also where one of its parts ends by itself.
    let stop = shutdown.child();
    let queues = source::discover(parts.sources, monitor_parts, stop.clone());
    let upkeep = Upkeep {
        store: Arc::clone(&parts.store),
        registry: registry.clone(),
        presence: presence.clone(),
        queues: queues.clone(),
        clock: Arc::clone(&parts.clock),
        health: parts.health.clone(),
        grace: options.close_grace,
        allow_volatile: options.allow_volatile,
    };
    let upkeep = tokio::spawn(upkeep.run(stop.clone()));
    let witnesses = Witnesses::ask(parts.witnesses, &tasks, &stop);
    let lane_parts = LaneParts {
        store: parts.store,
        layout,
        registry,
        presence,
        tasks,
        queues,
        trim_delay: options.trim_delay,
        witnesses,
        health: parts.health,
    };
    let mut lanes = tokio::task::JoinSet::new();
    for number in 0..options.lanes {
        lanes.spawn(lane::run(number, lane_parts.clone(), stop.clone()));
    }
    let result = tokio::select! {
        result = join(lanes, upkeep) => result,
        Some(Ended { task, reason }) = ended.recv() => Err(WorkerError::Ended { task, reason }),
    };
    stop.trigger();
    result
}

/// Waits for the tasks that end at the shutdown, and for nothing else.
async fn join(
    mut lanes: tokio::task::JoinSet<()>,
    upkeep: tokio::task::JoinHandle<()>,
) -> Result<(), WorkerError> {
    let ended = |task: &str, e: tokio::task::JoinError| WorkerError::Ended {
        task: task.to_owned(),
        reason: e.to_string(),
    };
    let lanes = async {
        while let Some(lane) = lanes.join_next().await {
            lane.map_err(|e| ended("a lane", e))?;
        }
        Ok(())
    };
    let upkeep = async { upkeep.await.map_err(|e| ended("upkeep", e)) };
    tokio::try_join!(lanes, upkeep).map(drop)
}

/// Waits for the store, checks it, and registers the polls; none if shutdown was requested before that was done.
async fn prepare(
    parts: &Parts,
    options: &Options,
    shutdown: &Shutdown,
) -> Result<Option<(Layout, Registry)>, StoreError> {
    while !shutdown.is_requested() {
        match try_prepare(parts, options).await {
            Ok(prepared) => {
                if parts.health.set(health::STORE, Ok(())) {
                    tracing::info!("the store is ready");
                }
                return Ok(Some(prepared));
            }
            Err(e @ StoreError::Layout(_)) => return Err(e),
            Err(e) => {
                if parts.health.set(health::STORE, Err(e.to_string())) {
                    tracing::warn!("waiting for the store: {e}");
                }
            }
        }
        tokio::select! {
            () = shutdown.requested() => {}
            () = tokio::time::sleep(RETRY_EVERY) => {}
        }
    }
    Ok(None)
}

async fn try_prepare(parts: &Parts, options: &Options) -> Result<(Layout, Registry), StoreError> {
    let problems = parts.store.check().await?;
    if !problems.is_empty() && !options.allow_volatile {
        return Err(StoreError::NotPrepared(problems.join("; ")));
    }
    let stands = parts.store.layout().await?;
    let partitions = options.partitions.or(stands.map(|layout| layout.partitions)).unwrap_or_default();
    let layout = Layout { partitions, fingerprint: options.fingerprint };
    parts.store.prepare(layout).await?;
    let registry =
        Registry::open(Arc::clone(&parts.store), Arc::clone(&parts.clock), parts.polls.clone()).await?;
    Ok((layout, registry))
}

/// Opens the witnesses of a configuration. None of them needs to be there yet.
///
/// # Errors
/// When an address can't be used.
pub async fn open_witnesses(config: &config::Config) -> Result<Vec<Witness>, StoreError> {
    let mut witnesses = Vec::new();
    for address in &config.witnesses {
        let store = address.open_read_only(&config.store_schema).await?;
        witnesses.push(Witness { name: address.to_string(), store });
    }
    if !config.witnesses.is_empty() && config.witnesses.iter().all(|witness| *witness == config.store) {
        tracing::warn!("the store is its own witness: a failover may lose what no standby has");
    }
    Ok(witnesses)
}

/// Opens the store of a configuration, and makes its tables if it says so, trying again while the server is down.
///
/// # Errors
/// When the address can't be used.
pub async fn open_store(
    config: &config::Config,
    health: &Health,
    shutdown: &Shutdown,
) -> Result<Arc<dyn Store>, StoreError> {
    let store = config.store.open(&config.store_schema).await?;
    while config.migrate && !shutdown.is_requested() {
        match config.store.migrate(&config.store_schema).await {
            Ok(()) => break,
            Err(e) => {
                if health.set(health::STORE, Err(e.to_string())) {
                    tracing::warn!("waiting for the store: {e}");
                }
            }
        }
        tokio::select! {
            () = shutdown.requested() => {}
            () = tokio::time::sleep(RETRY_EVERY) => {}
        }
    }
    Ok(store)
}
