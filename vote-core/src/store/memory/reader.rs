//! Read access to a store in memory.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::{MemoryStore, accounts::MemorySnapshot};
use crate::{
    Partition, PollSlug, Position, QueueId, VoterKey,
    count::{Ballot, QuarantineKey, QuarantineRow, QuarantineState, QueueRecord, RegisteredPoll},
    queue::Layout,
    store::{Snapshot, StoreError, StoreReader},
};

#[async_trait]
impl StoreReader for MemoryStore {
    async fn layout(&self) -> Result<Option<Layout>, StoreError> {
        Ok(self.lock().layout)
    }

    async fn polls(&self) -> Result<Vec<RegisteredPoll>, StoreError> {
        Ok(self.lock().polls.clone())
    }

    async fn ballot(&self, poll: PollSlug, voter: VoterKey) -> Result<Option<Ballot>, StoreError> {
        Ok(self.lock().partitions.values().find_map(|p| p.rows.votes.get(&(poll, voter)).copied()))
    }

    async fn position(&self, queue: QueueId, partition: Partition) -> Result<Position, StoreError> {
        let data = self.lock();
        Ok(data
            .partitions
            .get(&partition)
            .and_then(|p| p.rows.positions.get(&queue).copied())
            .unwrap_or_default())
    }

    async fn quarantined(
        &self,
        queue: QueueId,
        partition: Partition,
        position: Position,
    ) -> Result<Option<QuarantineRow>, StoreError> {
        let data = self.lock();
        let row = data.partitions.get(&partition).and_then(|p| p.rows.quarantine.get(&(queue, position)));
        Ok(row.filter(|row| row.state != QuarantineState::Counted).cloned())
    }

    async fn positions(
        &self,
        queues: &[QueueId],
    ) -> Result<BTreeMap<(QueueId, Partition), Position>, StoreError> {
        let mut positions = self.lock().positions();
        positions.retain(|(queue, _), _| queues.contains(queue));
        Ok(positions)
    }

    async fn positions_in(
        &self,
        partitions: &[Partition],
    ) -> Result<BTreeMap<(QueueId, Partition), Position>, StoreError> {
        let mut positions = self.lock().positions();
        positions.retain(|(_, partition), _| partitions.contains(partition));
        Ok(positions)
    }

    async fn queue(&self, queue: QueueId) -> Result<Option<QueueRecord>, StoreError> {
        Ok(self.lock().queues.get(&queue).cloned())
    }

    async fn queues(&self) -> Result<Vec<QueueRecord>, StoreError> {
        Ok(self.lock().queues.values().cloned().collect())
    }

    async fn quarantine(
        &self,
        after: Option<QuarantineKey>,
        limit: usize,
    ) -> Result<Vec<QuarantineRow>, StoreError> {
        Ok(self.lock().page(after, limit))
    }

    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        Ok(Box::new(MemorySnapshot { taken_at: self.now(), data: self.lock().clone() }))
    }
}
