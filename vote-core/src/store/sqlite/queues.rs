//! What workers last saw of queues, in a SQLite store.

use std::collections::BTreeMap;

use super::{json::json, position, queue_id, revision, timestamp, workers};
use crate::{
    Position, QueueId, Timestamp,
    count::{QueueRecord, QueueState},
    queue::Counters,
    sqlite::{Failure, Transaction, signed},
};

/// Returns all queues, in the order of their identities.
pub(super) async fn all(tx: &mut Transaction<'_>) -> Result<Vec<QueueRecord>, Failure> {
    let query = sqlx::query_as(
        "SELECT queue, original_id, address, server, reporter, seen_at, queued_complete, backlog, state, reason
         FROM queues",
    );
    type Row = (Vec<u8>, Option<Vec<u8>>, String, String, Option<Vec<u8>>, i64, bool, u64, String, String);
    let rows: Vec<Row> = tx.all(query).await?;
    let mut queues = BTreeMap::new();
    for (id, original_id, address, server, reporter, seen_at, queued_complete, backlog, state, reason) in rows
    {
        let id = queue_id(tx, id)?;
        let known = QueueState::ALL.into_iter().find(|known| known.as_str() == state);
        let record = QueueRecord {
            id,
            original_id: original_id.map(|id| queue_id(tx, id)).transpose()?,
            address,
            server,
            reporter: reporter.map(|id| workers::worker_id(tx, id)).transpose()?,
            seen_at: timestamp(tx, seen_at)?,
            accepted: Counters::new(),
            queued: Counters::new(),
            queued_complete,
            ends: Vec::new(),
            backlog,
            state: known.ok_or_else(|| tx.damaged(format!("the state {state:?} of a queue")))?,
            reason,
        };
        queues.insert(id, record);
    }
    let query = sqlx::query_as("SELECT queue, poll, accepted, queued FROM queue_polls");
    type Counts = (Vec<u8>, String, Option<u64>, Option<u64>);
    let rows: Vec<Counts> = tx.all(query).await?;
    for (id, poll, accepted, queued) in rows {
        let Some(record) = queues.get_mut(&queue_id(tx, id)?) else { continue };
        record.accepted.extend(accepted.map(|votes| (poll.clone(), votes)));
        record.queued.extend(queued.map(|votes| (poll, votes)));
    }
    let query = sqlx::query_as("SELECT queue, position FROM queue_ends ORDER BY queue, partition");
    let rows: Vec<(Vec<u8>, Vec<u8>)> = tx.all(query).await?;
    for (id, end) in rows {
        let Some(record) = queues.get_mut(&queue_id(tx, id)?) else { continue };
        record.ends.push(position(tx, &end)?);
    }
    Ok(queues.into_values().collect())
}

/// Records reports of queues, each by [`QueueRecord::merged`]. The write lock is held from reading to writing, so no
/// report is lost.
pub(super) async fn report(
    tx: &mut Transaction<'_>,
    reports: &[QueueRecord],
    now: Timestamp,
) -> Result<(), Failure> {
    let mut recorded: BTreeMap<QueueId, QueueRecord> =
        all(tx).await?.into_iter().map(|record| (record.id, record)).collect();
    for report in reports {
        let (merged, is_news) = match recorded.remove(&report.id) {
            None => (report.clone(), true),
            Some(before) => {
                let state = before.state;
                let merged = before.merged(report.clone(), now);
                let is_news = merged.state > state;
                (merged, is_news)
            }
        };
        if is_news {
            revision::raise(tx).await?;
        }
        write(tx, &merged).await?;
        recorded.insert(merged.id, merged);
    }
    Ok(())
}

async fn write(tx: &mut Transaction<'_>, record: &QueueRecord) -> Result<(), Failure> {
    let id = &record.id.0[..];
    let queue = sqlx::query(
        "INSERT OR REPLACE INTO queues
             (queue, original_id, address, seen_at, queued_complete, backlog, state, reason, server, reporter)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )
    .bind(id)
    .bind(record.original_id.as_ref().map(|of| &of.0[..]))
    .bind(&record.address)
    .bind(record.seen_at.as_micros())
    .bind(record.queued_complete)
    .bind(signed(record.backlog))
    .bind(record.state.as_str())
    .bind(&record.reason)
    .bind(&record.server)
    .bind(record.reporter.as_ref().map(|worker| &worker.0[..]));
    tx.run(queue).await?;
    tx.run(sqlx::query("DELETE FROM queue_polls WHERE queue = ?1").bind(id)).await?;
    for (counters, add) in [
        (
            &record.accepted,
            "INSERT INTO queue_polls (queue, poll, accepted) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET accepted = excluded.accepted",
        ),
        (
            &record.queued,
            "INSERT INTO queue_polls (queue, poll, queued) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET queued = excluded.queued",
        ),
    ] {
        for (poll, votes) in counters {
            tx.run(sqlx::query(add).bind(id).bind(poll).bind(signed(*votes))).await?;
        }
    }
    tx.run(sqlx::query("DELETE FROM queue_ends WHERE queue = ?1").bind(id)).await?;
    let ends = sqlx::query(
        "INSERT INTO queue_ends (queue, partition, position) SELECT ?1, key, unhex(value) FROM json_each(?2)",
    );
    tx.run(ends.bind(id).bind(json(&record.ends, |end: &Position| format!("\"{end}\"")))).await?;
    Ok(())
}

/// Retires a queue; returns whether there is such a queue.
pub(super) async fn retire(tx: &mut Transaction<'_>, queue: QueueId, reason: &str) -> Result<bool, Failure> {
    let known = sqlx::query_as("SELECT 1 FROM queues WHERE queue = ?1").bind(&queue.0[..]);
    let known: Option<(i64,)> = tx.one(known).await?;
    let update = sqlx::query(
        // As in QueueRecord::retirement_reason.
        "UPDATE queues SET state = 'retired',
             reason = CASE reason WHEN '' THEN ?2 ELSE reason || '; retired: ' || ?2 END
         WHERE queue = ?1 AND state <> 'retired'",
    );
    tx.run(update.bind(&queue.0[..]).bind(reason)).await?;
    Ok(known.is_some())
}
