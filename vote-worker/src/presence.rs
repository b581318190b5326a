//! Tells the other workers that this one lives, and which queues it does not reach though others do.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};
use vote_core::{
    QueueId, Store,
    store::{Catalog, QueueState, StoreError, WorkerRecord},
};

use crate::{
    duty::Duty,
    health::{self, Health},
    monitor::View,
    registry::Registry,
    source::Queues,
};

/// A queue that was reported within this time is alive. Workers report every two seconds, as of a moment before.
const ALIVE_WITHIN: Duration = Duration::from_secs(8);
/// How long a queue may be out of sight before the others are told.
const PATIENCE: Duration = Duration::from_secs(5);

/// A lane that failed is left out until it worked for this long. One that fails again and again would else hold its share
/// of the partitions, and hardly get on with them.
const PROBATION: Duration = Duration::from_secs(5);
/// A lane that waits for the store for longer than this is left out, too: it may wait for 20 s, and others could go on.
const SILENCE: Duration = Duration::from_secs(5);

/// How a lane does.
#[derive(Debug, Clone, Copy, Default)]
struct LaneState {
    opened_at: Option<Instant>,
    failed_at: Option<Instant>,
    /// When the store last did what it was asked.
    answered_at: Option<Instant>,
}

impl LaneState {
    fn is_up(&self) -> bool {
        let failed_lately = self.failed_at.is_some_and(|at| at.elapsed() < 2 * PROBATION);
        if self.answered_at.is_none_or(|at| at.elapsed() > SILENCE) {
            return false;
        }
        self.opened_at.is_some_and(|at| !failed_lately || at.elapsed() >= PROBATION)
    }
}

/// This worker, as the others see it. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Presence {
    store: Arc<dyn Store>,
    registry: Registry,
    health: Health,
    me: Arc<Mutex<WorkerRecord>>,
    lanes: Arc<Mutex<Vec<LaneState>>>,
    /// Since when queues that live are out of sight.
    missing: Arc<Mutex<BTreeMap<QueueId, Instant>>>,
}

impl Presence {
    pub(crate) fn new(store: Arc<dyn Store>, registry: Registry, health: Health, me: WorkerRecord) -> Self {
        let lanes = vec![LaneState::default(); me.lanes as usize];
        Self {
            store,
            registry,
            health,
            me: Arc::new(Mutex::new(me)),
            lanes: Arc::new(Mutex::new(lanes)),
            missing: Arc::default(),
        }
    }

    /// This worker, with the lanes that are up.
    fn me(&self) -> WorkerRecord {
        let lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let up = lanes.iter().filter(|lane| lane.is_up()).count();
        let me = self.me.lock().unwrap_or_else(PoisonError::into_inner);
        WorkerRecord { lanes: u32::try_from(up).unwrap_or(u32::MAX), ..me.clone() }
    }

    fn set_lane(&self, number: usize, set: impl FnOnce(&mut LaneState)) {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner).get_mut(number).map(set);
    }

    /// A lane has its session with the store.
    pub(crate) fn lane_opened(&self, number: usize) {
        let now = Some(Instant::now());
        self.set_lane(number, |lane| (lane.opened_at, lane.answered_at) = (now, now));
    }

    /// The store did what a lane asked.
    pub(crate) fn lane_works(&self, number: usize) {
        self.set_lane(number, |lane| lane.answered_at = Some(Instant::now()));
    }

    /// A lane lost its session with the store.
    pub(crate) fn lane_failed(&self, number: usize) {
        self.set_lane(number, |lane| {
            *lane = LaneState { failed_at: Some(Instant::now()), ..LaneState::default() }
        });
    }

    /// What a lane of this worker is to own now.
    pub(crate) fn duty(&self, number: usize) -> Duty {
        let (me, catalog) = (self.me(), self.registry.catalog());
        let is_up = {
            let lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
            lanes.get(number).is_some_and(LaneState::is_up)
        };
        let others = catalog.workers.values().any(|worker| worker.id != me.id && worker.lanes > 0);
        if !is_up && (others || me.lanes > 0) {
            return Duty::Nothing;
        }
        Duty::of(&me, &catalog.workers, self.registry.store_time())
    }

    /// Gives a sign of life.
    pub(crate) async fn beat(&self, queues: &watch::Receiver<Arc<Queues>>) -> Result<(), StoreError> {
        let unreached = self.unreached(&self.registry.catalog(), &queues.borrow());
        self.report(&unreached);
        self.me.lock().unwrap_or_else(PoisonError::into_inner).unreached = unreached;
        self.store.beat(&self.me()).await
    }

    /// Tells the others that this worker is about to end. If that fails they find out a few seconds later.
    pub(crate) async fn leave(&self) {
        let gone = WorkerRecord { lanes: 0, ..self.me() };
        if let Err(e) = self.store.beat(&gone).await {
            tracing::debug!("the other workers could not be told that this one ends: {e}");
        }
    }

    /// Queues that others reported lately and that this worker has not reached for some time.
    fn unreached(&self, catalog: &Catalog, queues: &Queues) -> BTreeSet<QueueId> {
        let reached: BTreeSet<QueueId> = queues
            .values()
            .filter_map(|monitored| match monitored.view() {
                View::Open { id, .. } => Some(id),
                View::Shut => None,
            })
            .collect();
        let lives = |id: &QueueId| {
            let record = catalog.queues.get(id);
            record.is_some_and(|record| {
                record.state == QueueState::Active
                    && record.remains_of.is_none()
                    && catalog.was_seen_within(*id, ALIVE_WITHIN)
            })
        };
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        missing.retain(|id, _| !reached.contains(id) && lives(id));
        for id in catalog.queues.keys().filter(|id| !reached.contains(id) && lives(id)) {
            missing.entry(*id).or_insert_with(Instant::now);
        }
        missing.iter().filter(|(_, since)| since.elapsed() >= PATIENCE).map(|(id, _)| *id).collect()
    }

    /// Shows what is out of sight where operators look.
    fn report(&self, unreached: &BTreeSet<QueueId>) {
        let catalog = self.registry.catalog();
        let names: Vec<String> = unreached
            .iter()
            .filter_map(|id| Some(format!("{id} at {}", catalog.queues.get(id)?.address)))
            .collect();
        let state = match names.as_slice() {
            [] => Ok(()),
            names => Err(format!("other workers reach these, and this one does not: {}", names.join(", "))),
        };
        if self.health.set(health::QUEUES, state.clone()) {
            match state {
                Ok(()) => tracing::info!("this worker reaches every queue that others reach"),
                Err(text) => {
                    tracing::warn!("queues: {text}. Its partitions are left to workers that reach more")
                }
            }
        }
    }
}
