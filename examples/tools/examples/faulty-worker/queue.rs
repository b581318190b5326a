//! A queue that is trimmed before its entries are committed.

use std::sync::Arc;

use async_trait::async_trait;
use vote_core::{
    DurabilityProblem, Partition, PollDigest, PollSlug, Position, Queue, QueueId,
    queue::{
        AppendError, Appended, Backlog, Frame, Layout, PollRecord, QueueError, QueueStatus, Read, Seal, Usage,
    },
};

use crate::fault::Fault;

/// Queue that forwards all calls to another one, with a fault.
#[derive(Debug)]
pub(crate) struct FaultyQueue {
    inner: Arc<dyn Queue>,
    fault: Fault,
}

impl FaultyQueue {
    pub(crate) fn new(inner: Arc<dyn Queue>, fault: Fault) -> Self {
        Self { inner, fault }
    }
}

#[async_trait]
impl Queue for FaultyQueue {
    fn address(&self) -> String {
        self.inner.address()
    }

    async fn create(&self, layout: Layout, replacing: Option<QueueId>) -> Result<QueueId, QueueError> {
        self.inner.create(layout, replacing).await
    }

    async fn status(&self) -> Result<Option<QueueStatus>, QueueError> {
        self.inner.status().await
    }

    async fn activate(&self, id: QueueId) -> Result<(), QueueError> {
        self.inner.activate(id).await
    }

    async fn record_polls(&self, id: QueueId, polls: &[PollRecord]) -> Result<Vec<PollSlug>, QueueError> {
        self.inner.record_polls(id, polls).await
    }

    async fn give_up_poll(
        &self,
        id: QueueId,
        poll: PollSlug,
        digest: PollDigest,
    ) -> Result<bool, QueueError> {
        self.inner.give_up_poll(id, poll, digest).await
    }

    async fn note_clock(&self, id: QueueId, ahead: i64) -> Result<(), QueueError> {
        self.inner.note_clock(id, ahead).await
    }

    async fn append(&self, id: QueueId, frames: &[Frame]) -> Result<Vec<Appended>, AppendError> {
        self.inner.append(id, frames).await
    }

    async fn read(
        &self,
        id: QueueId,
        partition: Partition,
        after: Position,
        limit: usize,
    ) -> Result<Read, QueueError> {
        let read = self.inner.read(id, partition, after, limit).await?;
        if self.fault == Fault::TrimFirst
            && let Some(last) = read.entries.last()
        {
            self.inner.trim(id, partition, last.position).await?;
        }
        Ok(read)
    }

    async fn trim(&self, id: QueueId, partition: Partition, upto: Position) -> Result<(), QueueError> {
        self.inner.trim(id, partition, upto).await
    }

    async fn seal(&self, id: QueueId, poll: PollSlug) -> Result<Seal, QueueError> {
        self.inner.seal(id, poll).await
    }

    async fn backlog(
        &self,
        id: QueueId,
        after: &[Position],
        limit: usize,
    ) -> Result<Vec<Backlog>, QueueError> {
        self.inner.backlog(id, after, limit).await
    }

    async fn durability_problems(&self) -> Result<Vec<DurabilityProblem>, QueueError> {
        self.inner.durability_problems().await
    }

    async fn usage(&self) -> Result<Option<Usage>, QueueError> {
        self.inner.usage().await
    }
}
