//! Read access to a SQLite store.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use async_trait::async_trait;

use super::{SCHEMA, accounts, accounts::SqliteSnapshot, quarantine, queues, registered, timestamp};
use crate::{
    Partition, PollSlug, Position, QueueId, VoterKey,
    count::{Ballot, QuarantineKey, QuarantineRow, QueueRecord, RegisteredPoll},
    queue::Layout,
    sqlite::{Connections, Transaction},
    store::{Snapshot, StoreError, StoreReader},
};

/// Read access to a store in a SQLite file, which may be in use by another process. Clones share the connections.
#[derive(Debug, Clone)]
pub struct SqliteReader {
    connections: Arc<Connections>,
}

impl SqliteReader {
    /// Opens the file of a store that a worker has created.
    ///
    /// # Errors
    /// - [`StoreError::NotPrepared`] if the file or its tables do not exist yet.
    /// - [`StoreError::OlderVersion`] if a worker of an older version made the tables.
    /// - Those of [`SqliteStore::open`](super::SqliteStore::open).
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        Ok(Self::new(SCHEMA.open_read_only(path).await?))
    }

    pub(super) fn new(connections: Connections) -> Self {
        Self { connections: Arc::new(connections) }
    }

    pub(super) async fn read(&self) -> Result<Transaction<'_>, StoreError> {
        Ok(self.connections.begin().await?)
    }
}

#[async_trait]
impl StoreReader for SqliteReader {
    async fn layout(&self) -> Result<Option<Layout>, StoreError> {
        let mut tx = self.read().await?;
        let layout = super::layout(&mut tx).await?;
        tx.commit().await?;
        Ok(layout)
    }

    async fn polls(&self) -> Result<Vec<RegisteredPoll>, StoreError> {
        let mut tx = self.read().await?;
        let polls = registered::all(&mut tx).await?;
        tx.commit().await?;
        Ok(polls)
    }

    async fn ballot(&self, poll: PollSlug, voter: VoterKey) -> Result<Option<Ballot>, StoreError> {
        let mut tx = self.read().await?;
        let query = sqlx::query_as(
            "SELECT o.slug, v.cast_at
             FROM polls AS p JOIN votes AS v USING (poll) JOIN options AS o USING (poll, option)
             WHERE p.slug = ?1 AND v.voter = ?2",
        );
        let row: Option<(String, i64)> = tx.one(query.bind(poll.as_str()).bind(&voter.0[..])).await?;
        let ballot = match row {
            None => None,
            Some((option, cast_at)) => Some(Ballot {
                voter,
                option: option.parse().map_err(|e| tx.damaged(e))?,
                cast_at: timestamp(&tx, cast_at)?,
            }),
        };
        tx.commit().await?;
        Ok(ballot)
    }

    async fn position(&self, queue: QueueId, partition: Partition) -> Result<Position, StoreError> {
        let mut tx = self.read().await?;
        let query = sqlx::query_as("SELECT position FROM checkpoints WHERE partition = ?1 AND queue = ?2");
        let row: Option<(Vec<u8>,)> = tx.one(query.bind(partition.0).bind(&queue.0[..])).await?;
        let position = row.map(|(bytes,)| super::position(&tx, &bytes)).transpose()?;
        tx.commit().await?;
        Ok(position.unwrap_or_default())
    }

    async fn quarantined(
        &self,
        queue: QueueId,
        partition: Partition,
        position: Position,
    ) -> Result<Option<QuarantineRow>, StoreError> {
        let mut tx = self.read().await?;
        let row = quarantine::one(&mut tx, QuarantineKey { queue, partition, position }).await?;
        tx.commit().await?;
        Ok(row)
    }

    async fn positions(
        &self,
        queues: &[QueueId],
    ) -> Result<BTreeMap<(QueueId, Partition), Position>, StoreError> {
        let mut tx = self.read().await?;
        let mut positions = accounts::positions(&mut tx, None).await?;
        tx.commit().await?;
        positions.retain(|(queue, _), _| queues.contains(queue));
        Ok(positions)
    }

    async fn positions_in(
        &self,
        partitions: &[Partition],
    ) -> Result<BTreeMap<(QueueId, Partition), Position>, StoreError> {
        let mut tx = self.read().await?;
        let mut positions = accounts::positions(&mut tx, None).await?;
        tx.commit().await?;
        positions.retain(|(_, partition), _| partitions.contains(partition));
        Ok(positions)
    }

    async fn queue(&self, queue: QueueId) -> Result<Option<QueueRecord>, StoreError> {
        Ok(self.queues().await?.into_iter().find(|record| record.id == queue))
    }

    async fn queues(&self) -> Result<Vec<QueueRecord>, StoreError> {
        let mut tx = self.read().await?;
        let queues = queues::all(&mut tx).await?;
        tx.commit().await?;
        Ok(queues)
    }

    async fn quarantine(
        &self,
        after: Option<QuarantineKey>,
        limit: usize,
    ) -> Result<Vec<QuarantineRow>, StoreError> {
        let mut tx = self.read().await?;
        let rows = quarantine::page(&mut tx, after, limit).await?;
        tx.commit().await?;
        Ok(rows)
    }

    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        Ok(Box::new(SqliteSnapshot::take(&self.connections).await?))
    }
}
