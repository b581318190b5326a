//! The worker: reads all queues, deduplicates the votes, and commits each vote to the store exactly once.
//!
//! [`run`] does this for any queues and any store. The binary `vote-worker` runs it on Redis and Postgres. For the
//! code, start with `lane` (the main loop), `schedule` (which partition is committed next) and `monitor` (how a queue
//! is watched, and what happens when it is down or has lost data).

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use vote_core::{
    Clock, Partitions, PepperFingerprint, Polls, Store, StoreReader, WorkerId,
    queue::Layout,
    store::{StoreError, WorkerRecord},
};
use vote_service::Shutdown;

pub mod commands;
pub mod config;
mod duty;
mod error;
mod grouped;
pub mod health;
mod lane;
pub mod metrics;
mod monitor;
mod owned;
mod ownership;
mod places;
mod positions;
mod presence;
mod problem_log;
mod rebalance;
mod registry;
mod reports;
pub mod schedule;
mod source;
mod tasks;
mod timeout;
mod trim;
mod upkeep;
mod witness;

pub use error::WorkerError;
pub use health::Health;
pub use source::{Connect, Source};
pub use witness::Witness;

use lane::LaneParts;
use monitor::{Claims, MonitorParts};
use ownership::Ownership;
use positions::Positions;
use presence::Presence;
use registry::Registry;
use reports::Reports;
use tasks::{Ended, Tasks};
use upkeep::Upkeep;
use witness::Witnesses;

/// Pause before an unavailable or non-durable store is tried again.
const RETRY_EVERY: Duration = Duration::from_secs(2);

/// What the worker is built from.
#[derive(Debug, Clone)]
pub struct Parts {
    /// Store that votes are committed to.
    pub store: Arc<dyn Store>,
    /// Standbys that the store may fail over to. Queues keep committed entries until every witness shows them.
    pub witnesses: Vec<Witness>,
    /// Identity of this worker process: a new one at each start, [random](WorkerId::random).
    pub id: WorkerId,
    /// Where the queues are.
    pub sources: Vec<Source>,
    /// The polls to register.
    pub polls: Polls,
    /// Source of the current time.
    pub clock: Arc<dyn Clock>,
    /// Problems that keep the worker from being ready, for the admin routes.
    pub health: Health,
}

/// Settings of [`run`].
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Number of lanes.
    pub lanes: usize,
    /// Number of partitions that the store must have. `None`: as an existing store has; 16 for a new one.
    pub partitions: Option<Partitions>,
    /// Fingerprint of the pepper that the frontends use.
    pub fingerprint: PepperFingerprint,
    /// How long queues keep committed entries.
    pub trim_delay: Duration,
    /// Time from a poll's `closes_at` until it is closed, for votes that are on their way.
    pub close_grace: Duration,
    /// Whether to commit to a store that may lose commits in a power failure. For tests and laptops.
    pub allow_volatile: bool,
}

impl From<&config::Config> for Options {
    fn from(config: &config::Config) -> Self {
        Self {
            lanes: config.lanes,
            partitions: config.partitions,
            fingerprint: config.pepper.fingerprint(),
            trim_delay: config.trim_delay,
            close_grace: config.close_grace,
            allow_volatile: config.allow_volatile,
        }
    }
}

/// Runs the worker until shutdown. Retries while the store or a queue is unavailable.
///
/// # Errors
/// - [`WorkerError::Store`] if the store was prepared for another number of partitions or another pepper, which no
///   retry can change.
/// - [`WorkerError::Ended`] if one of the worker's tasks ended by itself, which is a bug. End the process, so that it
///   is restarted: the other tasks would go on as if nothing was missing.
pub async fn run(parts: Parts, options: Options, shutdown: Shutdown) -> Result<(), WorkerError> {
    metrics::describe();
    let Some((layout, registry)) = prepare(&parts, &options, &shutdown).await? else { return Ok(()) };
    metrics::partitions(layout.partitions.count());
    let (tasks, mut ended) = Tasks::new();
    let lanes = u32::try_from(options.lanes).unwrap_or(u32::MAX);
    let (me, ownership) = (parts.id, Ownership::default());
    let watched = Arc::new(AtomicUsize::new(0));
    let monitor_parts = MonitorParts {
        store: Arc::clone(&parts.store),
        layout,
        me,
        clock: Arc::clone(&parts.clock),
        registry: registry.clone(),
        positions: Positions::new(Arc::clone(&parts.store) as Arc<dyn StoreReader>, Arc::clone(&watched)),
        reports: Reports::new(Arc::clone(&parts.store), Arc::clone(&watched)),
        ownership: ownership.clone(),
        claims: Claims::default(),
        tasks: tasks.clone(),
        watched,
    };
    let me = WorkerRecord { id: me, lanes, unreached: BTreeSet::new() };
    let presence = Presence::new(Arc::clone(&parts.store), registry.clone(), parts.health.clone(), me);
    // Ends all tasks of this worker when it ends, even if that is because one of them ended by itself.
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
    let witnesses = Witnesses::ask(parts.witnesses, &ownership, &tasks, &stop);
    let lane_parts = LaneParts {
        store: parts.store,
        layout,
        registry,
        presence,
        ownership,
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

/// Waits for the lanes and the upkeep, which end at shutdown only.
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

/// Waits for the store, checks it, and registers the polls; `None` if shutdown was requested first.
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
            Err(e) if e.is_wrong_setting() => return Err(e),
            Err(e) => {
                if parts.health.set(health::STORE, Err(e.to_string())) {
                    tracing::warn!("the store can't be used yet, trying again: {e}");
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
    let problems = parts.store.durability_problems().await?;
    if !problems.is_empty() && !options.allow_volatile {
        return Err(StoreError::NotDurable(problems));
    }
    let existing = parts.store.layout().await?;
    let partitions = options.partitions.or(existing.map(|layout| layout.partitions)).unwrap_or_default();
    let layout = Layout { partitions, fingerprint: options.fingerprint };
    parts.store.prepare(layout).await?;
    let registry =
        Registry::open(Arc::clone(&parts.store), Arc::clone(&parts.clock), parts.polls.clone()).await?;
    Ok((layout, registry))
}

/// Opens the witnesses of a configuration. They need not be reachable yet.
///
/// # Errors
/// [`WorkerError::Store`] if an address is invalid.
pub async fn open_witnesses(config: &config::Config) -> Result<Vec<Witness>, WorkerError> {
    let mut witnesses = Vec::new();
    for address in &config.witnesses {
        let store = address.open_read_only(&config.store_schema).await?;
        witnesses.push(Witness { name: address.to_string(), store });
    }
    if !config.witnesses.is_empty() && config.witnesses.iter().all(|witness| *witness == config.store) {
        tracing::warn!(
            "the only witness is the store itself: a failover may lose commits that no standby has; name the standbys \
             in VOTE_STORE_WITNESS"
        );
    }
    Ok(witnesses)
}

/// Opens the store of a configuration; creates or updates its tables if the configuration says so, and retries while
/// the server is down.
///
/// # Errors
/// [`WorkerError::Store`] if a setting is [wrong](StoreError::is_wrong_setting): if the address is invalid, for example,
/// or leads to something that is not a store.
pub async fn open_store(
    config: &config::Config,
    health: &Health,
    shutdown: &Shutdown,
) -> Result<Arc<dyn Store>, WorkerError> {
    let store = config.store.open(&config.store_schema).await?;
    while config.migrate && !shutdown.is_requested() {
        match config.store.migrate(&config.store_schema).await {
            Ok(()) => break,
            Err(e) if e.is_wrong_setting() => return Err(e.into()),
            Err(e) => {
                if health.set(health::STORE, Err(e.to_string())) {
                    tracing::warn!("the tables of the store can't be updated yet, trying again: {e}");
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
