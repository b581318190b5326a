//! Implements [`Store`] and [`StoreReader`] for `Arc` of a store, and [`StoreReader`] for stores that hold a reader.

use std::{collections::BTreeMap, ops::Deref, sync::Arc, time::Duration};

use async_trait::async_trait;

use super::{Catalog, Session, Snapshot, Store, StoreError, StoreReader, WorkerRecord};
use crate::{
    DurabilityProblem, Partition, Poll, PollSlug, Position, QueueId, Timestamp, VoterKey,
    count::{Ballot, Decision, QuarantineKey, QuarantineRow, QueueRecord, RegisteredPoll, SealRecord},
    queue::Layout,
};

/// Implements [`StoreReader`] for a type by the reader that one of its methods returns.
macro_rules! forward_reader {
    ($type:ty, $target:ident $(, $S:ident)?) => {
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl $(<$S: StoreReader + ?Sized>)? StoreReader for $type {
            async fn layout(&self) -> Result<Option<Layout>, StoreError> {
                self.$target().layout().await
            }
            async fn polls(&self) -> Result<Vec<RegisteredPoll>, StoreError> {
                self.$target().polls().await
            }
            async fn ballot(&self, poll: PollSlug, voter: VoterKey) -> Result<Option<Ballot>, StoreError> {
                self.$target().ballot(poll, voter).await
            }
            async fn position(&self, queue: QueueId, partition: Partition) -> Result<Position, StoreError> {
                self.$target().position(queue, partition).await
            }
            async fn quarantined(
                &self,
                queue: QueueId,
                partition: Partition,
                position: Position,
            ) -> Result<Option<QuarantineRow>, StoreError> {
                self.$target().quarantined(queue, partition, position).await
            }
            async fn positions(&self, queue: QueueId) -> Result<BTreeMap<Partition, Position>, StoreError> {
                self.$target().positions(queue).await
            }
            async fn all_positions(&self) -> Result<BTreeMap<(QueueId, Partition), Position>, StoreError> {
                self.$target().all_positions().await
            }
            async fn queues(&self) -> Result<Vec<QueueRecord>, StoreError> {
                self.$target().queues().await
            }
            async fn quarantine(
                &self,
                after: Option<QuarantineKey>,
                limit: usize,
            ) -> Result<Vec<QuarantineRow>, StoreError> {
                self.$target().quarantine(after, limit).await
            }
            async fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
                self.$target().snapshot().await
            }
        }
    };
}

forward_reader!(Arc<S>, deref, S);
#[cfg(feature = "sqlite")]
forward_reader!(super::SqliteStore, reader);

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: Store + ?Sized> Store for Arc<S> {
    async fn prepare(&self, layout: Layout) -> Result<(), StoreError> {
        (**self).prepare(layout).await
    }
    async fn register_poll(&self, poll: &Poll) -> Result<RegisteredPoll, StoreError> {
        (**self).register_poll(poll).await
    }
    async fn catalog(&self) -> Result<Catalog, StoreError> {
        (**self).catalog().await
    }
    async fn close_poll(&self, poll: PollSlug) -> Result<Option<RegisteredPoll>, StoreError> {
        (**self).close_poll(poll).await
    }
    async fn close_due_polls(&self, grace: Duration, now: Timestamp) -> Result<Vec<PollSlug>, StoreError> {
        (**self).close_due_polls(grace, now).await
    }
    async fn reschedule_poll(
        &self,
        poll: PollSlug,
        closes_at: Option<Timestamp>,
        reason: &str,
    ) -> Result<Option<RegisteredPoll>, StoreError> {
        (**self).reschedule_poll(poll, closes_at, reason).await
    }
    async fn withdraw_poll(
        &self,
        poll: PollSlug,
        reason: &str,
    ) -> Result<Option<RegisteredPoll>, StoreError> {
        (**self).withdraw_poll(poll, reason).await
    }
    async fn keep_poll(&self, poll: PollSlug, withdrawn_at: Timestamp) -> Result<(), StoreError> {
        (**self).keep_poll(poll, withdrawn_at).await
    }
    async fn note_given_up(
        &self,
        queue: QueueId,
        poll: PollSlug,
        withdrawn_at: Timestamp,
    ) -> Result<(), StoreError> {
        (**self).note_given_up(queue, poll, withdrawn_at).await
    }
    async fn note_seal(&self, seal: &SealRecord) -> Result<SealRecord, StoreError> {
        (**self).note_seal(seal).await
    }
    async fn finish_poll(&self, poll: PollSlug) -> Result<bool, StoreError> {
        (**self).finish_poll(poll).await
    }
    async fn beat(&self, worker: &WorkerRecord) -> Result<(), StoreError> {
        (**self).beat(worker).await
    }
    async fn report(&self, queues: &[QueueRecord]) -> Result<(), StoreError> {
        (**self).report(queues).await
    }
    async fn retire(&self, queue: QueueId, reason: &str) -> Result<bool, StoreError> {
        (**self).retire(queue, reason).await
    }
    async fn decide(&self, frames: &[QuarantineKey], decision: &Decision) -> Result<u64, StoreError> {
        (**self).decide(frames, decision).await
    }
    async fn durability_problems(&self) -> Result<Vec<DurabilityProblem>, StoreError> {
        (**self).durability_problems().await
    }
    async fn open_session(&self) -> Result<Box<dyn Session>, StoreError> {
        (**self).open_session().await
    }
}
