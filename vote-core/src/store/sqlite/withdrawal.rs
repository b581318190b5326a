//! Withdrawn polls in a SQLite store, whose names can be registered with another definition.

use std::collections::BTreeSet;

use super::{queue_id, registered};
use crate::{
    Poll, PollSlug, QueueId, Timestamp,
    count::RegisteredPoll,
    sqlite::{Failure, Transaction},
    store::{StoreError, withdrawal},
};

/// Withdraws a poll. After an error, drop the transaction.
pub(super) async fn withdraw(
    tx: &mut Transaction<'_>,
    poll: PollSlug,
    reason: &str,
    now: Timestamp,
) -> Result<Option<RegisteredPoll>, StoreError> {
    let update = sqlx::query(
        "UPDATE polls SET withdrawn_reason = ?3, withdrawn_at =
             -- Later than what was undone, even if the clock was set back: queues compare the two.
             max(?2, coalesce(undone_withdrawal + 1, ?2))
         WHERE slug = ?1 AND closed_at IS NULL AND withdrawn_at IS NULL
           AND NOT EXISTS (SELECT 1 FROM ledger WHERE poll = ?1)
           AND NOT EXISTS (SELECT 1 FROM queue_polls WHERE poll = ?1 AND accepted > 0)",
    );
    tx.run(update.bind(poll.as_str()).bind(now.as_micros()).bind(reason)).await?;
    match registered::find(tx, poll).await? {
        Some(found) if found.withdrawal.is_none() => Err(withdrawal::refused(&found)),
        found => Ok(found),
    }
}

/// Undoes the withdrawal that was made at a time.
pub(super) async fn undo(tx: &mut Transaction<'_>, poll: PollSlug, at: Timestamp) -> Result<(), Failure> {
    let update = sqlx::query(
        "UPDATE polls SET undone_withdrawal = withdrawn_at, withdrawn_at = NULL, withdrawn_reason = NULL
         WHERE slug = ?1 AND withdrawn_at = ?2",
    );
    tx.run(update.bind(poll.as_str()).bind(at.as_micros())).await.map(drop)
}

/// Records that a queue has dropped the poll that was withdrawn at a time.
pub(super) async fn note(
    tx: &mut Transaction<'_>,
    queue: QueueId,
    poll: PollSlug,
    at: Timestamp,
) -> Result<(), Failure> {
    let insert = sqlx::query(
        "INSERT INTO dropped_polls SELECT ?1, poll, withdrawn_at FROM polls WHERE slug = ?2 AND withdrawn_at = ?3
         ON CONFLICT DO NOTHING",
    );
    tx.run(insert.bind(&queue.0[..]).bind(poll.as_str()).bind(at.as_micros())).await.map(drop)
}

/// Returns each queue that has dropped a withdrawn poll, and that poll.
pub(super) async fn dropped(tx: &mut Transaction<'_>) -> Result<BTreeSet<(QueueId, PollSlug)>, Failure> {
    let query = sqlx::query_as(
        "SELECT g.queue, p.slug FROM polls AS p JOIN dropped_polls AS g USING (poll, withdrawn_at)
         WHERE instr(p.slug, '#') = 0",
    );
    let rows: Vec<(Vec<u8>, String)> = tx.all(query).await?;
    let pair = |(queue, slug): (Vec<u8>, String)| {
        Ok((queue_id(tx, queue)?, slug.parse().map_err(|e| tx.damaged(e))?))
    };
    rows.into_iter().map(pair).collect()
}

/// Frees the name of a withdrawn poll if every queue has dropped it, and raises the versions of all partitions; returns
/// whether the name is free.
pub(super) async fn make_way(
    tx: &mut Transaction<'_>,
    found: &RegisteredPoll,
    poll: &Poll,
) -> Result<bool, Failure> {
    if !found.makes_way_for(poll) {
        return Ok(false);
    }
    let update = sqlx::query(
        "UPDATE polls AS p SET slug = slug || '#' || poll
         WHERE slug = ?1 AND withdrawn_at IS NOT NULL
           AND NOT EXISTS (SELECT 1 FROM ledger WHERE poll = ?1)
           AND NOT EXISTS (SELECT 1 FROM queue_polls WHERE poll = ?1 AND accepted > 0) AND NOT EXISTS (
             SELECT 1 FROM queues AS q WHERE state <> 'retired' AND original_id IS NULL AND NOT EXISTS (
                 SELECT 1 FROM dropped_polls AS g
                 WHERE g.queue = q.queue AND g.poll = p.poll AND g.withdrawn_at = p.withdrawn_at))",
    );
    let is_free = tx.run(update.bind(poll.slug.as_str())).await?.rows_affected() > 0;
    if is_free {
        tx.run(sqlx::query("UPDATE partitions SET version = version + 1")).await?;
    }
    Ok(is_free)
}
