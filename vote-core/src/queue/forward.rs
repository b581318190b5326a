//! Implements [`Queue`] for `Arc` and `Box` of a queue.

use std::sync::Arc;

use async_trait::async_trait;

use super::{
    AppendError, Appended, Backlog, Frame, Layout, PollRecord, Position, Queue, QueueError, QueueId,
    QueueStatus, Read, Seal, Usage,
};
use crate::{DurabilityProblem, Partition, PollDigest, PollSlug};

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
            async fn activate(&self, id: QueueId) -> Result<(), QueueError> {
                (**self).activate(id).await
            }
            async fn record_polls(
                &self,
                id: QueueId,
                polls: &[PollRecord],
            ) -> Result<Vec<PollSlug>, QueueError> {
                (**self).record_polls(id, polls).await
            }
            async fn give_up_poll(
                &self,
                id: QueueId,
                poll: PollSlug,
                digest: PollDigest,
            ) -> Result<bool, QueueError> {
                (**self).give_up_poll(id, poll, digest).await
            }
            async fn note_clock(&self, id: QueueId, ahead: i64) -> Result<(), QueueError> {
                (**self).note_clock(id, ahead).await
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
            async fn backlog(
                &self,
                id: QueueId,
                after: &[Position],
                limit: usize,
            ) -> Result<Vec<Backlog>, QueueError> {
                (**self).backlog(id, after, limit).await
            }
            async fn durability_problems(&self) -> Result<Vec<DurabilityProblem>, QueueError> {
                (**self).durability_problems().await
            }
            async fn usage(&self) -> Result<Option<Usage>, QueueError> {
                (**self).usage().await
            }
        }
    };
}
forward!(Arc);
forward!(Box);
