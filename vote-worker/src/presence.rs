//! Presence of this worker: tells the others that it is alive, and which queues it does not reach although others do.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};
use vote_core::{
    QueueId, Store,
    count::QueueState,
    store::{Catalog, StoreError, WorkerRecord},
};

use crate::{
    duty::Duty,
    health::{self, Health},
    monitor::QueueView,
    registry::Registry,
    source::Queues,
    timeout::with_timeout,
};

/// A queue that was reported within this time is alive. Workers report every two seconds, as of a moment earlier.
const ALIVE_WITHIN: Duration = Duration::from_secs(6);
/// How long a queue may be out of reach before the others are told. Longer than [`ALIVE_WITHIN`]: a server that ended
/// is dead for all workers by then, and no partition changes hands because one worker noticed it before another.
const UNREACHED_AFTER: Duration = Duration::from_secs(7);

/// A lane that failed does not count until it has worked for this long. Otherwise, a lane that fails again and again
/// would hold its share of the partitions and make hardly any progress with them.
const PROBATION: Duration = Duration::from_secs(5);
/// A lane that has waited for the store for longer than this does not count either: it may wait for 20 s, while others
/// could make progress.
const SILENCE: Duration = Duration::from_secs(5);

/// State of a lane.
#[derive(Debug, Clone, Copy, Default)]
struct LaneState {
    opened_at: Option<Instant>,
    failed_at: Option<Instant>,
    /// When a call to the store last succeeded.
    answered_at: Option<Instant>,
}

impl LaneState {
    /// Returns whether the lane works, and so counts when partitions are shared out.
    fn is_up(&self) -> bool {
        let failed_lately = self.failed_at.is_some_and(|at| at.elapsed() < 2 * PROBATION);
        if self.answered_at.is_none_or(|at| at.elapsed() > SILENCE) {
            return false;
        }
        self.opened_at.is_some_and(|at| !failed_lately || at.elapsed() >= PROBATION)
    }
}

/// This worker as the others see it. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Presence {
    store: Arc<dyn Store>,
    registry: Registry,
    health: Health,
    me: Arc<Mutex<WorkerRecord>>,
    lanes: Arc<Mutex<Vec<LaneState>>>,
    /// Queues that are alive and out of reach, and since when.
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

    /// Returns this worker's record, with the number of lanes that are up.
    fn me(&self) -> WorkerRecord {
        let lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let up = lanes.iter().filter(|lane| lane.is_up()).count();
        let me = self.me.lock().unwrap_or_else(PoisonError::into_inner);
        WorkerRecord { lanes: u32::try_from(up).unwrap_or(u32::MAX), ..me.clone() }
    }

    fn set_lane(&self, number: usize, set: impl FnOnce(&mut LaneState)) {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner).get_mut(number).map(set);
    }

    /// Records that a lane has opened a session with the store.
    pub(crate) fn lane_opened(&self, number: usize) {
        let now = Some(Instant::now());
        self.set_lane(number, |lane| (lane.opened_at, lane.answered_at) = (now, now));
    }

    /// Records that a lane's call to the store has succeeded.
    pub(crate) fn lane_works(&self, number: usize) {
        self.set_lane(number, |lane| lane.answered_at = Some(Instant::now()));
    }

    /// Records that a lane has lost its session with the store.
    pub(crate) fn lane_failed(&self, number: usize) {
        self.set_lane(number, |lane| {
            *lane = LaneState { failed_at: Some(Instant::now()), ..LaneState::default() }
        });
    }

    /// Returns whether this worker is the first of those that are alive: the one that does what one of them has to do.
    pub(crate) fn is_first(&self) -> bool {
        let me = self.me.lock().unwrap_or_else(PoisonError::into_inner).id;
        self.registry.catalog().workers.keys().next().is_none_or(|first| *first >= me)
    }

    /// Returns what a lane of this worker should own now.
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

    /// Sends a heartbeat.
    pub(crate) async fn heartbeat(&self, queues: &watch::Receiver<Arc<Queues>>) -> Result<(), StoreError> {
        let unreached = self.unreached(&self.registry.catalog(), &queues.borrow());
        self.report(&unreached);
        self.me.lock().unwrap_or_else(PoisonError::into_inner).unreached = unreached;
        with_timeout(self.store.heartbeat(&self.me())).await
    }

    /// Tells the others that this worker is about to end. If that fails, they find out a few seconds later.
    pub(crate) async fn leave(&self) {
        let gone = WorkerRecord { lanes: 0, ..self.me() };
        if let Err(e) = with_timeout(self.store.heartbeat(&gone)).await {
            tracing::debug!("can't tell the other workers that this one ends: {e}");
        }
    }

    /// Returns the queues that others reported lately and that this worker has not reached for some time.
    fn unreached(&self, catalog: &Catalog, queues: &Queues) -> BTreeSet<QueueId> {
        let reached: BTreeSet<QueueId> = queues
            .values()
            .filter_map(|monitored| match monitored.view() {
                QueueView::Open { id, .. } => Some(id),
                QueueView::Unreadable => None,
            })
            .collect();
        let is_alive = |id: &QueueId| {
            let record = catalog.queues.get(id);
            record.is_some_and(|record| {
                record.state == QueueState::Active
                    && record.original_id.is_none()
                    && catalog.was_seen_within(*id, ALIVE_WITHIN)
            })
        };
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        missing.retain(|id, _| !reached.contains(id) && is_alive(id));
        for id in catalog.queues.keys().filter(|id| !reached.contains(id) && is_alive(id)) {
            missing.entry(*id).or_insert_with(Instant::now);
        }
        missing.iter().filter(|(_, since)| since.elapsed() >= UNREACHED_AFTER).map(|(id, _)| *id).collect()
    }

    /// Publishes the queues out of reach in the health and in the log.
    fn report(&self, unreached: &BTreeSet<QueueId>) {
        let catalog = self.registry.catalog();
        let names: Vec<String> = unreached
            .iter()
            .filter_map(|id| Some(format!("{id} at {}", catalog.queues.get(id)?.address)))
            .collect();
        let state = match names.as_slice() {
            [] => Ok(()),
            names => Err(format!("this worker can't reach queues that others reach: {}", names.join(", "))),
        };
        if self.health.set(health::QUEUES, state.clone()) {
            match state {
                Ok(()) => tracing::info!("this worker again reaches every queue that others reach"),
                Err(text) => {
                    tracing::warn!(
                        "{text}; check its network. Workers that reach more take over its partitions"
                    )
                }
            }
        }
    }
}
