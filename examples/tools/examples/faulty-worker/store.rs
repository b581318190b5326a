//! A store whose commits leave out the positions or ignore the version, or whose partitions can have several owners.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use vote_core::{
    DurabilityProblem, Partition, Poll, PollSlug, Position, QueueId, Session, Store, StoreReader, Timestamp,
    VoterKey,
    count::{
        Ballot, CommitPlan, Decision, QuarantineKey, QuarantineRow, QuarantinedFrame, QueueRecord,
        RegisteredPoll, SealRecord, audit::Finding,
    },
    queue::Layout,
    store::{Acquired, Catalog, Lookup, Snapshot, StoreError, WorkerRecord},
};

use crate::fault::Fault;

/// Store that forwards all calls to another one, with a fault.
#[derive(Debug)]
pub(crate) struct FaultyStore {
    inner: Arc<dyn Store>,
    fault: Fault,
}

impl FaultyStore {
    pub(crate) fn new(inner: Arc<dyn Store>, fault: Fault) -> Self {
        Self { inner, fault }
    }
}

#[async_trait]
impl StoreReader for FaultyStore {
    async fn layout(&self) -> Result<Option<Layout>, StoreError> {
        self.inner.layout().await
    }
    async fn polls(&self) -> Result<Vec<RegisteredPoll>, StoreError> {
        self.inner.polls().await
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
    ) -> Result<Option<QuarantineRow>, StoreError> {
        self.inner.quarantined(queue, partition, position).await
    }
    async fn positions(&self, queue: QueueId) -> Result<BTreeMap<Partition, Position>, StoreError> {
        self.inner.positions(queue).await
    }
    async fn all_positions(&self) -> Result<BTreeMap<(QueueId, Partition), Position>, StoreError> {
        self.inner.all_positions().await
    }
    async fn queues(&self) -> Result<Vec<QueueRecord>, StoreError> {
        self.inner.queues().await
    }
    async fn quarantine(
        &self,
        after: Option<QuarantineKey>,
        limit: usize,
    ) -> Result<Vec<QuarantineRow>, StoreError> {
        self.inner.quarantine(after, limit).await
    }
    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        self.inner.snapshot().await
    }
}

#[async_trait]
impl Store for FaultyStore {
    async fn prepare(&self, layout: Layout) -> Result<(), StoreError> {
        self.inner.prepare(layout).await
    }
    async fn register_poll(&self, poll: &Poll) -> Result<RegisteredPoll, StoreError> {
        self.inner.register_poll(poll).await
    }
    async fn catalog(&self) -> Result<Catalog, StoreError> {
        let mut catalog = self.inner.catalog().await?;
        if self.fault.shares() {
            // A worker that knows of no other takes all partitions.
            catalog.workers.clear();
        }
        Ok(catalog)
    }
    async fn close_poll(&self, poll: PollSlug) -> Result<Option<RegisteredPoll>, StoreError> {
        self.inner.close_poll(poll).await
    }
    async fn close_due_polls(&self, grace: Duration, now: Timestamp) -> Result<Vec<PollSlug>, StoreError> {
        self.inner.close_due_polls(grace, now).await
    }
    async fn reschedule_poll(
        &self,
        poll: PollSlug,
        closes_at: Option<Timestamp>,
        reason: &str,
    ) -> Result<Option<RegisteredPoll>, StoreError> {
        self.inner.reschedule_poll(poll, closes_at, reason).await
    }
    async fn withdraw_poll(
        &self,
        poll: PollSlug,
        reason: &str,
    ) -> Result<Option<RegisteredPoll>, StoreError> {
        self.inner.withdraw_poll(poll, reason).await
    }
    async fn keep_poll(&self, poll: PollSlug, withdrawn_at: Timestamp) -> Result<(), StoreError> {
        self.inner.keep_poll(poll, withdrawn_at).await
    }
    async fn note_given_up(
        &self,
        queue: QueueId,
        poll: PollSlug,
        withdrawn_at: Timestamp,
    ) -> Result<(), StoreError> {
        self.inner.note_given_up(queue, poll, withdrawn_at).await
    }
    async fn note_seal(&self, seal: &SealRecord) -> Result<SealRecord, StoreError> {
        self.inner.note_seal(seal).await
    }
    async fn finish_poll(&self, poll: PollSlug) -> Result<bool, StoreError> {
        self.inner.finish_poll(poll).await
    }
    async fn beat(&self, worker: &WorkerRecord) -> Result<(), StoreError> {
        self.inner.beat(worker).await
    }
    async fn report(&self, queues: &[QueueRecord]) -> Result<(), StoreError> {
        self.inner.report(queues).await
    }
    async fn retire(&self, queue: QueueId, reason: &str) -> Result<bool, StoreError> {
        self.inner.retire(queue, reason).await
    }
    async fn decide(&self, frames: &[QuarantineKey], decision: &Decision) -> Result<u64, StoreError> {
        self.inner.decide(frames, decision).await
    }
    async fn durability_problems(&self) -> Result<Vec<DurabilityProblem>, StoreError> {
        self.inner.durability_problems().await
    }
    async fn open_session(&self) -> Result<Box<dyn Session>, StoreError> {
        Ok(Box::new(FaultySession { inner: self.inner.open_session().await?, fault: self.fault }))
    }
}

/// Session that forwards all calls to another one, with a fault.
#[derive(Debug)]
struct FaultySession {
    inner: Box<dyn Session>,
    fault: Fault,
}

impl FaultySession {
    /// Returns the current version of a partition.
    async fn version(&mut self, partition: Partition) -> Result<Option<u64>, StoreError> {
        Ok(self.acquire(partition).await?.map(|acquired| acquired.version))
    }
}

#[async_trait]
impl Session for FaultySession {
    async fn unowned(&mut self) -> Result<Vec<Partition>, StoreError> {
        self.inner.unowned().await
    }

    async fn acquire(&mut self, partition: Partition) -> Result<Option<Acquired>, StoreError> {
        let acquired = self.inner.acquire(partition).await?;
        if self.fault.shares() && acquired.is_some() {
            // So that another session can acquire it as well.
            self.inner.release(partition).await?;
        }
        Ok(acquired)
    }

    async fn release(&mut self, partition: Partition) -> Result<(), StoreError> {
        self.inner.release(partition).await
    }

    async fn lookup(
        &mut self,
        partition: Partition,
        poll: PollSlug,
        voters: &[VoterKey],
        lookup: Lookup,
    ) -> Result<Vec<Ballot>, StoreError> {
        // What a lane knows about a partition without a lookup is only valid while no other lane commits to it.
        let lookup = if self.fault.shares() { Lookup::Exhaustive } else { lookup };
        self.inner.lookup(partition, poll, voters, lookup).await
    }

    async fn replays(
        &mut self,
        partition: Partition,
        limit: usize,
    ) -> Result<Vec<QuarantinedFrame>, StoreError> {
        self.inner.replays(partition, limit).await
    }

    async fn commit(&mut self, plan: &CommitPlan) -> Result<(), StoreError> {
        let mut plan = plan.clone();
        match self.fault {
            Fault::ForgetPosition => plan.positions.clear(),
            Fault::IgnoreVersion => {
                if let Some(version) = self.version(plan.partition).await? {
                    plan.version = version;
                }
            }
            Fault::TrimFirst | Fault::SharePartitions => {}
        }
        self.inner.commit(&plan).await
    }

    async fn complete(
        &mut self,
        partition: Partition,
        version: u64,
        poll: PollSlug,
    ) -> Result<Vec<Finding>, StoreError> {
        self.inner.complete(partition, version, poll).await
    }
}
