//! Counting of calls: queues, stores and sessions that count each call by its name, and the rows of some.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use vote_core::{
    Partition, Position, Queue, QueueId, Session, Store,
    count::{CommitPlan, QueueRecord},
    queue::{AppendError, Appended, Frame, Look, QueueError, QueueLayer, QueueStatus, Read},
    store::{Catalog, SessionLayer, StoreError, StoreLayer, StoreReaderLayer},
};

/// Counts by scope (`queue`, `store` or `session`) and name. A name with a space is that of a quantity, such as
/// `read entries`; others are names of methods.
#[derive(Debug, Default)]
pub(crate) struct Counts(Mutex<BTreeMap<(&'static str, &'static str), u64>>);

impl Counts {
    pub(crate) fn add(&self, scope: &'static str, name: &'static str, n: u64) {
        *self.0.lock().unwrap().entry((scope, name)).or_default() += n;
    }

    /// Waits for a call, and adds how long it took.
    async fn timed<T>(&self, scope: &'static str, name: &'static str, call: impl Future<Output = T>) -> T {
        let start = Instant::now();
        let answer = call.await;
        self.add(scope, name, start.elapsed().as_micros() as u64);
        answer
    }

    /// Returns the counts, and starts again at zero.
    pub(crate) fn take(&self) -> BTreeMap<String, u64> {
        let counts = std::mem::take(&mut *self.0.lock().unwrap());
        counts.into_iter().map(|((scope, name), n)| (format!("{scope}.{name}"), n)).collect()
    }
}

/// A queue whose calls are counted.
#[derive(Debug)]
pub(crate) struct CountedQueue {
    pub(crate) inner: Arc<dyn Queue>,
    pub(crate) counts: Arc<Counts>,
}

#[async_trait]
impl QueueLayer for CountedQueue {
    fn inner(&self) -> &dyn Queue {
        &self.inner
    }

    fn on_call(&self, method: &'static str) {
        self.counts.add("queue", method, 1);
    }

    async fn append(&self, id: QueueId, frames: &[Frame]) -> Result<Vec<Appended>, AppendError> {
        self.counts.add("queue", "append frames", frames.len() as u64);
        self.counts.timed("queue", "append µs", self.inner.append(id, frames)).await
    }

    async fn look(&self, partitions: &[Partition]) -> Result<Option<Look>, QueueError> {
        self.counts.timed("queue", "look µs", self.inner.look(partitions)).await
    }

    async fn status(&self) -> Result<Option<QueueStatus>, QueueError> {
        self.counts.timed("queue", "status µs", self.inner.status()).await
    }

    async fn read(
        &self,
        id: QueueId,
        partition: Partition,
        after: Position,
        limit: usize,
    ) -> Result<Read, QueueError> {
        let read = self.inner.read(id, partition, after, limit).await?;
        match read.entries.len() as u64 {
            0 => self.counts.add("queue", "read (empty)", 1),
            entries => self.counts.add("queue", "read entries", entries),
        }
        Ok(read)
    }
}

/// A store whose calls are counted, and whose commits can be delayed.
#[derive(Debug)]
pub(crate) struct CountedStore {
    pub(crate) inner: Arc<dyn Store>,
    pub(crate) counts: Arc<Counts>,
    pub(crate) commit_delay: Duration,
}

#[async_trait]
impl StoreReaderLayer for CountedStore {
    type Inner = dyn Store;

    async fn inner(&self) -> Result<&Self::Inner, StoreError> {
        Ok(&self.inner)
    }

    fn on_call(&self, method: &'static str) {
        self.counts.add("store", method, 1);
    }
}

#[async_trait]
impl StoreLayer for CountedStore {
    async fn catalog(&self, known: Option<&Catalog>) -> Result<Catalog, StoreError> {
        let catalog = self.inner.catalog(known).await?;
        // With the version that is known, no queue was read.
        let is_known = known.is_some_and(|known| known.version == catalog.version);
        let queues = if is_known { 0 } else { catalog.queues.len() as u64 };
        self.counts.add("store", "catalog queues", queues);
        Ok(catalog)
    }

    async fn report(&self, queues: &[QueueRecord]) -> Result<(), StoreError> {
        self.counts.add("store", "report rows", queues.len() as u64);
        self.inner.report(queues).await
    }

    async fn open_session(&self) -> Result<Box<dyn Session>, StoreError> {
        let inner = self.inner.open_session().await?;
        let (counts, commit_delay) = (Arc::clone(&self.counts), self.commit_delay);
        Ok(Box::new(CountedSession { inner, counts, commit_delay }))
    }
}

/// A session whose calls are counted.
#[derive(Debug)]
struct CountedSession {
    inner: Box<dyn Session>,
    counts: Arc<Counts>,
    commit_delay: Duration,
}

#[async_trait]
impl SessionLayer for CountedSession {
    fn inner(&mut self) -> &mut dyn Session {
        &mut *self.inner
    }

    fn on_call(&self, method: &'static str) {
        self.counts.add("session", method, 1);
    }

    async fn commit(&mut self, plan: &CommitPlan) -> Result<(), StoreError> {
        let votes: usize = plan.polls.iter().map(|poll| poll.inserts.len() + poll.replacements.len()).sum();
        self.counts.add("session", "commit ballots", votes as u64);
        self.counts.add("session", "commit ledger rows", plan.ledger.len() as u64);
        self.counts.add("session", "commit positions", plan.positions.len() as u64);
        if !self.commit_delay.is_zero() {
            tokio::time::sleep(self.commit_delay).await;
        }
        self.counts.timed("session", "commit µs", self.inner.commit(plan)).await
    }
}
