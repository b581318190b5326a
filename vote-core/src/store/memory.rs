//! A store in memory, for tests and examples: everything is lost with the process.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;

use super::{
    Catalog, MAX_CLOCK_DIFFERENCE, Session, Store, StoreError, WorkerId, WorkerRecord, not_prepared,
    same_layout,
};
use crate::{
    Clock, DurabilityProblem, OptionSlug, Partition, Poll, PollSlug, Position, QueueId, SystemClock,
    Timestamp, VoterKey,
    count::{
        Ballot, Decision, LedgerEntry, QuarantineKey, QuarantineRow, QueueRecord, RegisteredPoll, SealRecord,
    },
    queue::Layout,
};

mod accounts;
mod commit;
#[cfg(feature = "conformance")]
mod faults;
mod polls;
mod quarantine;
mod queues;
mod reader;
mod session;
mod withdrawal;
mod workers;

use session::MemorySession;

/// A store in memory, lost with the process. Clones share the same content.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    data: Arc<Mutex<Data>>,
    clock: Arc<dyn Clock>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::with_clock(Arc::new(SystemClock))
    }
}

/// Copy of what a [`MemoryStore`] held at a moment, to [restore](MemoryStore::restore).
#[derive(Debug, Clone)]
pub struct MemoryStoreImage(Data);

#[derive(Debug, Default, Clone)]
struct Data {
    layout: Option<Layout>,
    polls: Vec<RegisteredPoll>,
    partitions: BTreeMap<Partition, PartitionData>,
    queues: BTreeMap<QueueId, QueueRecord>,
    seals: BTreeMap<(QueueId, PollSlug), SealRecord>,
    revision: u64,
    completions: BTreeMap<(PollSlug, Partition), u64>,
    dropped: BTreeSet<(QueueId, PollSlug, Timestamp)>,
    workers: BTreeMap<WorkerId, (WorkerRecord, Timestamp)>,
    /// Number of sessions ever opened, and the number of the latest one.
    sessions: u64,
}

#[derive(Debug, Default, Clone)]
struct PartitionData {
    owner: Option<u64>,
    rows: Rows,
}

/// Everything that a commit moves.
#[derive(Debug, Default, Clone)]
struct Rows {
    version: u64,
    votes: BTreeMap<(PollSlug, VoterKey), Ballot>,
    tally: BTreeMap<(PollSlug, OptionSlug), i64>,
    tally_changed_at: BTreeMap<PollSlug, Timestamp>,
    positions: BTreeMap<QueueId, Position>,
    ledger: BTreeMap<(QueueId, String), LedgerEntry>,
    quarantine: BTreeMap<(QueueId, Position), QuarantineRow>,
}

impl MemoryStore {
    /// Returns an empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns an empty store with a given clock in place of the system's.
    #[must_use]
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self { data: Arc::default(), clock }
    }

    /// Returns a copy of everything committed, as a backup or a standby of a server has it.
    #[must_use]
    pub fn image(&self) -> MemoryStoreImage {
        MemoryStoreImage(self.lock().clone())
    }

    /// Replaces everything committed by a copy, as a server does that starts from a backup: what was committed after
    /// the copy was taken is lost. No session owns a partition then.
    pub fn restore(&self, image: &MemoryStoreImage) {
        let mut data = self.lock();
        let sessions = data.sessions;
        *data = Data { sessions, ..image.0.clone() };
        data.partitions.values_mut().for_each(|partition| partition.owner = None);
    }

    /// Frees all partitions, as a server does that loses its locks. Sessions that owned one do not notice.
    pub fn lose_locks(&self) {
        self.lock().partitions.values_mut().for_each(|partition| partition.owner = None);
    }

    /// Returns the partitions that no session owns.
    #[must_use]
    pub fn unowned(&self) -> Vec<Partition> {
        let data = self.lock();
        let unowned = data.partitions.iter().filter(|(_, partition)| partition.owner.is_none());
        unowned.map(|(partition, _)| *partition).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Data> {
        // A commit checks everything before it changes anything, so no panic leaves half of one.
        self.data.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the time of the store's clock.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

impl Data {
    fn partition(&mut self, partition: Partition) -> Result<&mut PartitionData, StoreError> {
        self.partitions.get_mut(&partition).ok_or(StoreError::UnknownPartition(partition))
    }

    fn rows(&self) -> impl Iterator<Item = (Partition, &Rows)> {
        self.partitions.iter().map(|(partition, data)| (*partition, &data.rows))
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn prepare(&self, layout: Layout) -> Result<(), StoreError> {
        let mut data = self.lock();
        let recorded = *data.layout.get_or_insert(layout);
        for partition in recorded.partitions.iter() {
            data.partitions.entry(partition).or_default();
        }
        same_layout(recorded, layout)
    }

    async fn register_poll(&self, poll: &Poll) -> Result<RegisteredPoll, StoreError> {
        Ok(self.lock().register(poll))
    }

    async fn catalog(&self, known: Option<&Catalog>) -> Result<Catalog, StoreError> {
        let taken_at = self.now();
        let data = self.lock();
        let late = data.queues.values().filter(|queue| queue.is_late(taken_at));
        let catalog = Catalog {
            taken_at,
            version: 0,
            revision: data.revision,
            queues: Arc::new(data.queues.iter().map(|(id, queue)| (*id, queue.into())).collect()),
            polls: Arc::new(data.polls.clone()),
            dropped: Arc::new(data.dropped().collect()),
            sealed: data.sealed().collect(),
            late: late.map(|queue| (queue.id, queue.seen_at)).collect(),
            workers: data.alive(taken_at).map(|worker| (worker.id, worker.clone())).collect(),
        };
        Ok(catalog.versioned(known))
    }

    async fn close_poll(&self, poll: PollSlug) -> Result<Option<RegisteredPoll>, StoreError> {
        let now = self.now();
        Ok(self.lock().close(poll, now))
    }

    async fn close_due_polls(&self, grace: Duration, now: Timestamp) -> Result<Vec<PollSlug>, StoreError> {
        let ours = self.now();
        if ours.as_micros().abs_diff(now.as_micros()) > MAX_CLOCK_DIFFERENCE.as_micros() as u64 {
            return Ok(Vec::new());
        }
        Ok(self.lock().close_due(grace, ours))
    }

    async fn reschedule_poll(
        &self,
        poll: PollSlug,
        closes_at: Option<Timestamp>,
        reason: &str,
    ) -> Result<Option<RegisteredPoll>, StoreError> {
        let now = self.now();
        self.lock().reschedule(poll, closes_at, reason, now)
    }

    async fn withdraw_poll(
        &self,
        poll: PollSlug,
        reason: &str,
    ) -> Result<Option<RegisteredPoll>, StoreError> {
        let now = self.now();
        self.lock().withdraw(poll, reason, now)
    }

    async fn undo_withdrawal(&self, poll: PollSlug, withdrawn_at: Timestamp) -> Result<(), StoreError> {
        self.lock().undo_withdrawal(poll, withdrawn_at);
        Ok(())
    }

    async fn record_dropped(
        &self,
        queue: QueueId,
        poll: PollSlug,
        withdrawn_at: Timestamp,
    ) -> Result<(), StoreError> {
        self.lock().dropped.insert((queue, poll, withdrawn_at));
        Ok(())
    }

    async fn record_seal(&self, seal: &SealRecord) -> Result<SealRecord, StoreError> {
        Ok(self.lock().record_seal(seal))
    }

    async fn finalize_poll(&self, poll: PollSlug) -> Result<bool, StoreError> {
        let now = self.now();
        Ok(self.lock().finish(poll, now))
    }

    async fn report(&self, queues: &[QueueRecord]) -> Result<(), StoreError> {
        let now = self.now();
        self.lock().report(queues, now);
        Ok(())
    }

    async fn heartbeat(&self, worker: &WorkerRecord) -> Result<(), StoreError> {
        let now = self.now();
        self.lock().record_worker(worker, now);
        Ok(())
    }

    async fn retire(&self, queue: QueueId, reason: &str) -> Result<bool, StoreError> {
        Ok(self.lock().retire(queue, reason))
    }

    async fn decide(&self, frames: &[QuarantineKey], decision: &Decision) -> Result<u64, StoreError> {
        Ok(self.lock().decide(frames, decision))
    }

    async fn durability_problems(&self) -> Result<Vec<DurabilityProblem>, StoreError> {
        Ok(vec![DurabilityProblem::InMemory { what: "store", instead: "SQLite or Postgres" }])
    }

    async fn open_session(&self) -> Result<Box<dyn Session>, StoreError> {
        let mut data = self.lock();
        data.layout.ok_or_else(|| not_prepared("the store in memory"))?;
        data.sessions += 1;
        Ok(Box::new(MemorySession { store: self.clone(), number: data.sessions }))
    }
}
