//! Read access to the store, for the results service and for audits.

use std::collections::BTreeMap;

use async_trait::async_trait;
use sqlx::{Row, postgres::PgRow};

use super::{
    Moment, PostgresStore, Uuid, damaged, polls, position, quarantine, queues, rows,
    snapshot::PostgresSnapshot,
};
use crate::{
    Partition, Partitions, PepperFingerprint, PollSlug, Position, QueueId, VoterKey,
    count::{Ballot, QuarantineKey, QuarantineRow, QueueRecord, RegisteredPoll},
    queue::Layout,
    store::{Snapshot, StoreError, StoreReader, withdrawal},
};

/// Query of the layout, if the store was prepared.
pub(super) const LAYOUT: &str = "SELECT partitions, fingerprint FROM meta";

/// Reads a row of [`LAYOUT`].
pub(super) fn layout(row: &PgRow) -> Result<Layout, StoreError> {
    let partitions: i16 = row.get("partitions");
    let fingerprint: Vec<u8> = row.get("fingerprint");
    Ok(Layout {
        partitions: u16::try_from(partitions)
            .ok()
            .and_then(|n| Partitions::new(n).ok())
            .ok_or_else(|| damaged("layout"))?,
        fingerprint: PepperFingerprint(fingerprint.as_slice().try_into().map_err(|_| damaged("layout"))?),
    })
}

#[async_trait]
impl StoreReader for PostgresStore {
    async fn layout(&self) -> Result<Option<Layout>, StoreError> {
        self.rows(sqlx::query(LAYOUT)).await?.first().map(layout).transpose()
    }

    async fn polls(&self) -> Result<Vec<RegisteredPoll>, StoreError> {
        let rows = self.rows(sqlx::query(polls::ALL)).await?;
        Ok(withdrawal::fold(rows.iter().map(polls::registered).collect::<Result<_, _>>()?))
    }

    async fn ballot(&self, poll: PollSlug, voter: VoterKey) -> Result<Option<Ballot>, StoreError> {
        let rows = self
            .rows(
                sqlx::query(
                    "SELECT o.slug, v.cast_at FROM polls p JOIN votes v USING (poll) JOIN options o USING (poll, option)
                     WHERE p.slug = $1 AND v.voter = $2",
                )
                .bind(poll.as_str())
                .bind(Uuid(voter.0)),
            )
            .await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let option = row.get::<String, _>("slug").parse().map_err(|_| damaged("option"))?;
        let cast_at = row.try_get::<Moment, _>("cast_at").map_err(|_| damaged("time"))?.0;
        Ok(Some(Ballot { voter, option, cast_at }))
    }

    async fn position(&self, queue: QueueId, partition: Partition) -> Result<Position, StoreError> {
        let query = sqlx::query("SELECT position FROM checkpoints WHERE queue = $1 AND partition = $2");
        let rows = self.rows(query.bind(Uuid(queue.0)).bind(partition.0 as i16)).await?;
        rows.first().map_or(Ok(Position::START), |row| position(row.get("position")))
    }

    async fn quarantined(
        &self,
        queue: QueueId,
        partition: Partition,
        position: Position,
    ) -> Result<Option<QuarantineRow>, StoreError> {
        let query = sqlx::query(
            "SELECT * FROM quarantine
             WHERE queue = $1 AND partition = $2 AND position = $3 AND state <> 'counted'",
        )
        .bind(Uuid(queue.0))
        .bind(partition.0 as i16)
        .bind(position.as_bytes());
        self.rows(query).await?.first().map(quarantine::row).transpose()
    }

    async fn positions(
        &self,
        queues: &[QueueId],
    ) -> Result<BTreeMap<(QueueId, Partition), Position>, StoreError> {
        let query = sqlx::query(
            "SELECT queue, partition, position FROM partitions JOIN checkpoints USING (partition)
                 WHERE queue = ANY ($1)",
        );
        let queues: Vec<Uuid> = queues.iter().map(|queue| Uuid(queue.0)).collect();
        positions(&self.rows(query.bind(queues)).await?)
    }

    async fn positions_in(
        &self,
        partitions: &[Partition],
    ) -> Result<BTreeMap<(QueueId, Partition), Position>, StoreError> {
        let query =
            sqlx::query("SELECT queue, partition, position FROM checkpoints WHERE partition = ANY ($1)");
        let partitions: Vec<i16> = partitions.iter().map(|partition| partition.0 as i16).collect();
        positions(&self.rows(query.bind(partitions)).await?)
    }

    async fn queue(&self, queue: QueueId) -> Result<Option<QueueRecord>, StoreError> {
        let rows = self.rows(sqlx::query(queues::ONE).bind(Uuid(queue.0))).await?;
        rows.first().map(queues::record).transpose()
    }

    async fn queues(&self) -> Result<Vec<QueueRecord>, StoreError> {
        self.rows(sqlx::query(queues::ALL)).await?.iter().map(queues::record).collect()
    }

    async fn quarantine(
        &self,
        after: Option<QuarantineKey>,
        limit: usize,
    ) -> Result<Vec<QuarantineRow>, StoreError> {
        let rows = self.rows(quarantine::page(after, limit)).await?;
        rows.iter().map(quarantine::row).collect()
    }

    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        Ok(Box::new(PostgresSnapshot::open(self).await?))
    }
}

fn positions(rows: &[PgRow]) -> Result<BTreeMap<(QueueId, Partition), Position>, StoreError> {
    let of = |row: &PgRow| (QueueId(row.get::<Uuid, _>("queue").0), rows::partition(row));
    rows.iter().map(|row| Ok((of(row), position(row.get("position"))?))).collect()
}
