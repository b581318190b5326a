//! A queue that is trimmed too early.

use std::sync::Arc;

use async_trait::async_trait;
use vote_core::{
    Partition, PollSlug, Position, Queue, QueueId,
    queue::{
        AppendError, Appended, Frame, Layout, PollRecord, QueueError, QueueStatus, Read, Room, Seal, Unread,
    },
};

use crate::fault::Fault;

/// The queue inside, with a fault.
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

    async fn register(&self, id: QueueId) -> Result<(), QueueError> {
        self.inner.register(id).await
    }

    async fn record_polls(&self, id: QueueId, polls: &[PollRecord]) -> Result<Vec<PollSlug>, QueueError> {
        self.inner.record_polls(id, polls).await
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

    async fn unread(&self, id: QueueId, after: &[Position], limit: usize) -> Result<Vec<Unread>, QueueError> {
        self.inner.unread(id, after, limit).await
    }

    async fn check(&self) -> Result<Vec<String>, QueueError> {
        self.inner.check().await
    }

    async fn room(&self) -> Result<Option<Room>, QueueError> {
        self.inner.room().await
    }
}
