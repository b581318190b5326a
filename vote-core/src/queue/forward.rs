//! The trait for pointers to queues.

use std::sync::Arc;

use async_trait::async_trait;

use super::{
    AppendError, Appended, Frame, Layout, PollRecord, Position, Queue, QueueError, QueueId, QueueStatus,
    Read, Room, Seal, Unread,
};
use crate::{Partition, PollSlug};

macro_rules! forward {
    ($pointer:ident) => {
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<Q: Queue + ?Sized> Queue for $pointer<Q> {
            fn address(&self) -> String {
                (**self).address()
            }
            async fn create(
                &self,
                layout: Layout,
                replacing: Option<QueueId>,
            ) -> Result<QueueId, QueueError> {
                (**self).create(layout, replacing).await
            }
            async fn status(&self) -> Result<Option<QueueStatus>, QueueError> {
                (**self).status().await
            }
            async fn register(&self, id: QueueId) -> Result<(), QueueError> {
                (**self).register(id).await
            }
            async fn record_polls(
                &self,
                id: QueueId,
                polls: &[PollRecord],
            ) -> Result<Vec<PollSlug>, QueueError> {
                (**self).record_polls(id, polls).await
            }
            async fn append(&self, id: QueueId, frames: &[Frame]) -> Result<Vec<Appended>, AppendError> {
                (**self).append(id, frames).await
            }
            async fn read(
                &self,
                id: QueueId,
                partition: Partition,
                after: Position,
                limit: usize,
            ) -> Result<Read, QueueError> {
                (**self).read(id, partition, after, limit).await
            }
            async fn trim(
                &self,
                id: QueueId,
                partition: Partition,
                upto: Position,
            ) -> Result<(), QueueError> {
                (**self).trim(id, partition, upto).await
            }
            async fn seal(&self, id: QueueId, poll: PollSlug) -> Result<Seal, QueueError> {
                (**self).seal(id, poll).await
            }
            async fn unread(
                &self,
                id: QueueId,
                after: &[Position],
                limit: usize,
            ) -> Result<Vec<Unread>, QueueError> {
                (**self).unread(id, after, limit).await
            }
            async fn check(&self) -> Result<Vec<String>, QueueError> {
                (**self).check().await
            }
            async fn room(&self) -> Result<Option<Room>, QueueError> {
                (**self).room().await
            }
        }
    };
}
forward!(Arc);
forward!(Box);
