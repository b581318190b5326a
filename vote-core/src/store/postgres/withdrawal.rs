//! Withdrawn polls in Postgres.

use std::collections::BTreeSet;

use super::{Moment, PostgresStore, Uuid, polls::queue_and_poll};
use crate::{
    PollSlug, QueueId, Timestamp,
    count::RegisteredPoll,
    store::{StoreError, withdrawal},
};

impl PostgresStore {
    pub(super) async fn withdraw(
        &self,
        poll: PollSlug,
        reason: &str,
    ) -> Result<Option<RegisteredPoll>, StoreError> {
        let query = sqlx::query(
            "UPDATE polls SET withdrawn_reason = $2, withdrawn_at =
                 -- Later than what was undone, even if the clock was set back: queues compare the two.
                 greatest(clock_timestamp(), undone_withdrawal + interval '1 microsecond')
             WHERE slug = $1 AND closed_at IS NULL AND withdrawn_at IS NULL
               AND NOT EXISTS (SELECT FROM ledger WHERE poll = $1)
               AND NOT EXISTS (SELECT FROM queues WHERE (accepted ->> $1)::bigint > 0)",
        );
        self.execute(query.bind(poll.as_str()).bind(reason)).await?;
        match self.find(poll).await? {
            Some(found) if found.withdrawal.is_none() => Err(withdrawal::refused(&found)),
            found => Ok(found),
        }
    }

    pub(super) async fn undo_withdrawal(
        &self,
        poll: PollSlug,
        withdrawn_at: Timestamp,
    ) -> Result<(), StoreError> {
        let query = sqlx::query(
            "UPDATE polls SET undone_withdrawal = withdrawn_at, withdrawn_at = NULL, withdrawn_reason = NULL
             WHERE slug = $1 AND withdrawn_at = $2",
        );
        self.execute(query.bind(poll.as_str()).bind(Moment(withdrawn_at))).await.map(drop)
    }

    pub(super) async fn record_dropped(
        &self,
        queue: QueueId,
        poll: PollSlug,
        withdrawn_at: Timestamp,
    ) -> Result<(), StoreError> {
        let query = sqlx::query(
            "INSERT INTO dropped_polls SELECT $1, poll, withdrawn_at FROM polls WHERE slug = $2 AND withdrawn_at = $3
             ON CONFLICT DO NOTHING",
        );
        self.execute(query.bind(Uuid(queue.0)).bind(poll.as_str()).bind(Moment(withdrawn_at))).await.map(drop)
    }

    /// Returns each queue that has dropped a withdrawn poll, and that poll.
    pub(super) async fn dropped(&self) -> Result<BTreeSet<(QueueId, PollSlug)>, StoreError> {
        let query = sqlx::query(
            "SELECT g.queue, p.slug AS poll FROM polls p JOIN dropped_polls g USING (poll, withdrawn_at)
             WHERE position('#' in p.slug) = 0",
        );
        self.rows(query).await?.iter().map(queue_and_poll).collect()
    }

    /// Frees the name of a withdrawn poll if every queue has dropped it, and raises the versions of all partitions.
    pub(super) async fn make_way(&self, poll: PollSlug) -> Result<(), StoreError> {
        // The partitions in one order, so that two of these statements can't wait for each other.
        let query = sqlx::query(
            "WITH freed AS (
                 UPDATE polls p SET slug = slug || '#' || poll
                 WHERE slug = $1 AND withdrawn_at IS NOT NULL
                   AND NOT EXISTS (SELECT FROM ledger WHERE poll = $1)
                   AND NOT EXISTS (SELECT FROM queues WHERE (accepted ->> $1)::bigint > 0) AND NOT EXISTS (
                     SELECT FROM queues q WHERE state <> 'retired' AND original_id IS NULL AND NOT EXISTS (
                         SELECT FROM dropped_polls g
                         WHERE g.queue = q.queue AND g.poll = p.poll AND g.withdrawn_at = p.withdrawn_at))
                 RETURNING poll)
             UPDATE partitions SET version = version + 1 WHERE partition IN (
                 SELECT partition FROM partitions WHERE EXISTS (SELECT FROM freed) ORDER BY partition FOR UPDATE)",
        );
        self.execute(query.bind(poll.as_str())).await.map(drop)
    }
}
