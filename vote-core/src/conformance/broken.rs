//! Queues and stores that break one clause each, to show that the suites notice.
//!
//! Each is the one in memory with a single fault. They are also of use for testing a checker of your own.
#![allow(clippy::missing_panics_doc)]

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;

use super::{QueueHarness, StoreHarness};
use crate::{
    Lane, OptionSlug, Partition, Poll, PollSlug, Position, Queue, QueueId, Store, StoreReader, VoterKey,
    queue::{AppendError, Appended, Frame, Layout, MemoryQueue, QueueError, QueueStatus, Read, Seal},
    store::{
        Acquired, Ballot, CommitPlan, LedgerRow, Lookup, MemoryStore, QueueRecord, QueueState,
        RegisteredPoll, StoreError,
    },
};

/// What a [`BrokenQueue`] does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // Each name says it.
pub enum QueueFault {
    MakesABoxUnasked,
    RegistersItself,
    MakesAnotherBox,
    ReplacesAnyBox,
    TakesUnregistered,
    IgnoresTheIdentity,
    ReadsAnyBox,
    Reorders,
    ReadsDestructively,
    ForgetsThePosition,
    IgnoresTheLimit,
    CountsTooEarly,
    CountsFrames,
    TrimsTheAnchor,
    TrimsEverything,
    RestartsPositions,
    HidesACut,
    IgnoresTheSeal,
    SealsWithoutCounts,
    TakesAnyPartition,
    LosesAFlush,
    ForgetsOnRestart,
}

/// A queue in memory with one fault.
#[derive(Debug)]
pub struct BrokenQueue {
    inner: MemoryQueue,
    fault: QueueFault,
    appends: AtomicU64,
}

impl BrokenQueue {
    /// An empty one.
    #[must_use]
    pub fn new(fault: QueueFault) -> Self {
        Self { inner: MemoryQueue::new(), fault, appends: AtomicU64::new(0) }
    }

    /// The box that is there, whatever the caller thinks.
    async fn current(&self) -> QueueId {
        let status = self.inner.status().await.ok().flatten();
        status.map_or(QueueId([0; 16]), |status| status.id)
    }
}

#[async_trait]
impl Queue for BrokenQueue {
    fn address(&self) -> String {
        format!("broken:{:?}", self.fault)
    }

    async fn create(&self, layout: Layout, replacing: Option<QueueId>) -> Result<QueueId, QueueError> {
        let current = self.inner.status().await?.map(|status| status.id);
        let replacing = match self.fault {
            QueueFault::MakesAnotherBox => current,
            QueueFault::ReplacesAnyBox if replacing.is_some() => current,
            _ => replacing,
        };
        let id = self.inner.create(layout, replacing).await?;
        if self.fault == QueueFault::RegistersItself {
            self.inner.register(id).await?;
        }
        Ok(id)
    }

    async fn status(&self) -> Result<Option<QueueStatus>, QueueError> {
        if self.fault == QueueFault::MakesABoxUnasked {
            self.inner.create(super::layout(), None).await?;
        }
        self.inner.status().await
    }

    async fn register(&self, id: QueueId) -> Result<(), QueueError> {
        self.inner.register(id).await
    }

    async fn append(&self, id: QueueId, frames: &[Frame]) -> Result<Vec<Appended>, AppendError> {
        let count = self.appends.fetch_add(1, Ordering::Relaxed);
        let mut frames = frames.to_vec();
        match self.fault {
            QueueFault::TakesUnregistered => self.inner.register(id).await.unwrap_or_default(),
            QueueFault::IgnoresTheIdentity => return self.inner.append(self.current().await, &frames).await,
            QueueFault::Reorders => frames.reverse(),
            QueueFault::CountsFrames => frames.iter_mut().for_each(|frame| frame.votes = 1),
            QueueFault::TakesAnyPartition => {
                let partitions = super::layout().partitions;
                frames.retain(|frame| partitions.contains(frame.partition));
            }
            QueueFault::LosesAFlush if count == 40 => {
                return Ok(frames.iter().map(|_| Appended::Stored(Position::START)).collect());
            }
            QueueFault::IgnoresTheSeal => {
                // Under another name, which is not sealed.
                for frame in &mut frames {
                    frame.poll = "unsealed".parse().unwrap_or(frame.poll);
                }
            }
            QueueFault::RestartsPositions if count == 1 => {
                return Ok(vec![Appended::Stored(
                    Position::from_bytes(&1_u64.to_be_bytes()).unwrap_or_default(),
                )]);
            }
            _ => {}
        }
        self.inner.append(id, &frames).await
    }

    async fn read(
        &self,
        id: QueueId,
        partition: Partition,
        after: Position,
        limit: usize,
    ) -> Result<Read, QueueError> {
        let (id, after, limit) = match self.fault {
            QueueFault::ReadsAnyBox => (self.current().await, after, limit),
            QueueFault::ForgetsThePosition => (id, Position::START, limit),
            QueueFault::IgnoresTheLimit => (id, after, usize::MAX >> 1),
            _ => (id, after, limit),
        };
        let mut read = match self.inner.read(id, partition, after, limit).await {
            Err(QueueError::Cut(_)) if self.fault == QueueFault::HidesACut => Read::default(),
            other => other?,
        };
        match self.fault {
            QueueFault::CountsTooEarly => read.accepted = Some(crate::queue::Counters::new()),
            QueueFault::ReadsDestructively => {
                if let Some(last) = read.entries.last() {
                    self.inner.trim(id, partition, last.position).await?;
                }
            }
            _ => {}
        }
        Ok(read)
    }

    async fn trim(&self, id: QueueId, partition: Partition, upto: Position) -> Result<(), QueueError> {
        let beyond = |number: u64| Position::from_bytes(&number.to_be_bytes()).unwrap_or_default();
        match self.fault {
            QueueFault::TrimsTheAnchor => {
                let mut next = [0; 8];
                next.copy_from_slice(upto.as_bytes());
                self.inner.trim(id, partition, beyond(u64::from_be_bytes(next) + 1)).await
            }
            QueueFault::TrimsEverything => self.inner.trim(id, partition, beyond(u64::MAX)).await,
            _ => self.inner.trim(id, partition, upto).await,
        }
    }

    async fn seal(&self, id: QueueId, poll: PollSlug) -> Result<Seal, QueueError> {
        let mut seal = self.inner.seal(id, poll).await?;
        if self.fault == QueueFault::SealsWithoutCounts {
            seal.accepted.fill(0);
        }
        Ok(seal)
    }

    async fn check(&self) -> Result<Vec<String>, QueueError> {
        self.inner.check().await
    }
}

/// Makes queues with a fault.
#[derive(Debug, Clone, Copy)]
pub struct BrokenQueues(pub QueueFault);

#[async_trait]
impl QueueHarness for BrokenQueues {
    async fn fresh(&self) -> Arc<dyn Queue> {
        Arc::new(BrokenQueue::new(self.0))
    }

    async fn reopen(&self, queue: Arc<dyn Queue>) -> Arc<dyn Queue> {
        if self.0 == QueueFault::ForgetsOnRestart { self.fresh().await } else { queue }
    }
}

/// What a [`BrokenStore`] does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // Each name says it.
pub enum StoreFault {
    InventsALayout,
    TakesAnyLayout,
    ReplacesPolls,
    SharesPartitions,
    KeepsPartitionsOfTheDead,
    CountsOneLane,
    DropsAVote,
    DropsTheTally,
    DropsTheLedger,
    ForgetsThePosition,
    DropsTheQuarantine,
    IgnoresTheVersion,
    UpsertsByItself,
    ReplacesWithoutLooking,
    DropsReplacements,
    AddsUpTheAcceptedCount,
    LooksUpHalf,
    ForgetsOnRestart,
    RevivesCutQueues,
    KeepsTheFirstReport,
    Reorders,
}

/// A store in memory with one fault.
#[derive(Debug)]
pub struct BrokenStore {
    inner: MemoryStore,
    fault: StoreFault,
}

impl BrokenStore {
    /// An empty one.
    #[must_use]
    pub fn new(fault: StoreFault) -> Self {
        Self { inner: MemoryStore::new(), fault }
    }
}

#[async_trait]
impl StoreReader for BrokenStore {
    async fn layout(&self) -> Result<Option<Layout>, StoreError> {
        match self.fault {
            StoreFault::InventsALayout => Ok(Some(super::layout())),
            _ => self.inner.layout().await,
        }
    }
    async fn polls(&self) -> Result<Vec<RegisteredPoll>, StoreError> {
        self.inner.polls().await
    }
    async fn tally(&self, poll: PollSlug) -> Result<Vec<(OptionSlug, u64)>, StoreError> {
        self.inner.tally(poll).await
    }
    async fn ballot(&self, poll: PollSlug, voter: VoterKey) -> Result<Option<Ballot>, StoreError> {
        self.inner.ballot(poll, voter).await
    }
    async fn position(&self, queue: QueueId, partition: Partition) -> Result<Position, StoreError> {
        self.inner.position(queue, partition).await
    }
    async fn quarantined(
        &self,
        queue: QueueId,
        partition: Partition,
        position: Position,
    ) -> Result<Option<String>, StoreError> {
        self.inner.quarantined(queue, partition, position).await
    }
    async fn ledger(&self) -> Result<Vec<LedgerRow>, StoreError> {
        self.inner.ledger().await
    }
    async fn queues(&self) -> Result<Vec<QueueRecord>, StoreError> {
        let mut queues = self.inner.queues().await?;
        if self.fault == StoreFault::RevivesCutQueues {
            queues.iter_mut().for_each(|queue| queue.state = QueueState::Active);
        }
        Ok(queues)
    }
}

#[async_trait]
impl Store for BrokenStore {
    async fn prepare(&self, layout: Layout) -> Result<(), StoreError> {
        match self.inner.prepare(layout).await {
            Err(StoreError::Layout(_)) if self.fault == StoreFault::TakesAnyLayout => Ok(()),
            other => other,
        }
    }
    async fn register_poll(&self, poll: &Poll) -> Result<RegisteredPoll, StoreError> {
        match self.fault {
            StoreFault::ReplacesPolls => {
                self.inner.register_poll(poll).await?;
                Ok(RegisteredPoll::from(poll))
            }
            _ => self.inner.register_poll(poll).await,
        }
    }
    async fn report(&self, queues: &[QueueRecord]) -> Result<(), StoreError> {
        if self.fault == StoreFault::KeepsTheFirstReport && !self.inner.queues().await?.is_empty() {
            return Ok(());
        }
        self.inner.report(queues).await
    }
    async fn check(&self) -> Result<Vec<String>, StoreError> {
        self.inner.check().await
    }
    async fn open_lane(&self) -> Result<Box<dyn Lane>, StoreError> {
        let inner = self.inner.open_lane().await?;
        if self.fault == StoreFault::KeepsPartitionsOfTheDead {
            // The lane is not dropped with its handle, so its partitions stay taken.
            let lane: &'static mut dyn Lane = Box::leak(inner);
            return Ok(Box::new(BrokenLane {
                inner: Held::Leaked(lane),
                store: self.inner.clone(),
                fault: self.fault,
            }));
        }
        Ok(Box::new(BrokenLane { inner: Held::Owned(inner), store: self.inner.clone(), fault: self.fault }))
    }
}

#[derive(Debug)]
enum Held {
    Owned(Box<dyn Lane>),
    Leaked(&'static mut dyn Lane),
}

#[derive(Debug)]
struct BrokenLane {
    inner: Held,
    store: MemoryStore,
    fault: StoreFault,
}

impl BrokenLane {
    fn lane(&mut self) -> &mut dyn Lane {
        match &mut self.inner {
            Held::Owned(lane) => &mut **lane,
            Held::Leaked(lane) => &mut **lane,
        }
    }

    /// The version the partition has, whatever the caller thinks.
    async fn version(&mut self, partition: Partition) -> Result<u64, StoreError> {
        let mut other = self.store.open_lane().await?;
        let acquired = match self.lane().acquire(partition).await? {
            Some(acquired) => Some(acquired),
            None => other.acquire(partition).await?,
        };
        Ok(acquired.map_or(1, |acquired| acquired.version))
    }

    /// Makes replacements of inserts that would be refused.
    async fn upsert(&mut self, plan: &mut CommitPlan) -> Result<(), StoreError> {
        for poll in &mut plan.polls {
            let mut inserts = Vec::new();
            for ballot in poll.inserts.drain(..) {
                match self.store.ballot(poll.poll, ballot.voter).await? {
                    Some(stands) => poll.replacements.push((stands, ballot)),
                    None => inserts.push(ballot),
                }
            }
            poll.inserts = inserts;
        }
        Ok(())
    }

    /// Makes replacements expect what stands.
    async fn expect_what_stands(&mut self, plan: &mut CommitPlan) -> Result<(), StoreError> {
        for poll in &mut plan.polls {
            for (old, _) in &mut poll.replacements {
                if let Some(stands) = self.store.ballot(poll.poll, old.voter).await? {
                    *old = stands;
                }
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Lane for BrokenLane {
    async fn live_lanes(&mut self) -> Result<u32, StoreError> {
        match self.fault {
            StoreFault::CountsOneLane => Ok(1),
            _ => self.lane().live_lanes().await,
        }
    }

    async fn acquire(&mut self, partition: Partition) -> Result<Option<Acquired>, StoreError> {
        match (self.lane().acquire(partition).await?, self.fault) {
            (None, StoreFault::SharesPartitions) => {
                Ok(Some(Acquired { version: 0, checkpoints: std::collections::BTreeMap::new() }))
            }
            (other, _) => Ok(other),
        }
    }

    async fn release(&mut self, partition: Partition) -> Result<(), StoreError> {
        self.lane().release(partition).await
    }

    async fn lookup(
        &mut self,
        partition: Partition,
        poll: PollSlug,
        voters: &[VoterKey],
        lookup: Lookup,
    ) -> Result<Vec<Ballot>, StoreError> {
        let mut found = self.lane().lookup(partition, poll, voters, lookup).await?;
        if self.fault == StoreFault::LooksUpHalf {
            found.truncate(found.len() / 2);
        }
        Ok(found)
    }

    async fn commit(&mut self, plan: &CommitPlan) -> Result<(), StoreError> {
        let mut plan = plan.clone();
        match self.fault {
            StoreFault::DropsAVote => plan
                .polls
                .iter_mut()
                .for_each(|poll| poll.inserts.truncate(poll.inserts.len().saturating_sub(1))),
            StoreFault::DropsTheTally => plan.polls.iter_mut().for_each(|poll| poll.tally.clear()),
            StoreFault::DropsTheLedger => plan.ledger.clear(),
            StoreFault::ForgetsThePosition => plan.positions.clear(),
            StoreFault::DropsTheQuarantine => plan.quarantine.clear(),
            StoreFault::IgnoresTheVersion => plan.version = self.version(plan.partition).await?,
            StoreFault::UpsertsByItself => self.upsert(&mut plan).await?,
            StoreFault::ReplacesWithoutLooking => self.expect_what_stands(&mut plan).await?,
            StoreFault::DropsReplacements => plan.polls.iter_mut().for_each(|poll| poll.replacements.clear()),
            StoreFault::AddsUpTheAcceptedCount => {
                let before = self.store.ledger().await?;
                for entry in &mut plan.ledger {
                    let same =
                        |row: &&LedgerRow| row.entry.queue == entry.queue && row.entry.poll == entry.poll;
                    entry.accepted += before.iter().find(same).map_or(0, |row| row.entry.accepted);
                }
            }
            // Keeps what was there, in whatever order votes came.
            StoreFault::Reorders => {
                for poll in &mut plan.polls {
                    poll.replacements.clear();
                    poll.tally.clear();
                    for ballot in &poll.inserts {
                        *poll.tally.entry(ballot.option).or_default() += 1;
                    }
                }
            }
            _ => {}
        }
        self.lane().commit(&plan).await
    }
}

/// Makes stores with a fault.
#[derive(Debug, Clone, Copy)]
pub struct BrokenStores(pub StoreFault);

#[async_trait]
impl StoreHarness for BrokenStores {
    async fn fresh(&self) -> Arc<dyn Store> {
        Arc::new(BrokenStore::new(self.0))
    }

    async fn reopen(&self, store: Arc<dyn Store>) -> Arc<dyn Store> {
        if self.0 == StoreFault::ForgetsOnRestart { self.fresh().await } else { store }
    }
}
