//! Rows of the table `queues`.

use std::collections::BTreeMap;

use sqlx::{Row, postgres::PgRow};

use super::{Moment, Uuid, damaged, position};
use crate::{
    QueueId,
    count::{QueueRecord, QueueState},
    queue::Counters,
    store::StoreError,
};

/// Query of all queues, in the order of their identities.
pub(super) const ALL: &str = "SELECT queue, remains_of, address, seen_at, accepted::text, queued::text, \
     queued_complete, ends, backlog, state, reason FROM queues ORDER BY queue";

/// Statement that records a report of a queue: [`QueueRecord::merged`] in SQL, so that reports of several workers can't
/// overwrite each other. The later report tells what was seen, where a report from the future does not count as later;
/// a state is never taken back. A queue that is new or diverges raises the revision in the same statement.
pub(super) const REPORT: &str = "WITH raised AS (
         UPDATE meta SET revision = revision + 1
         WHERE NOT EXISTS (SELECT FROM queues WHERE queue = $1 AND (state <> 'active' OR $10 = 'active')))
     INSERT INTO queues (queue, remains_of, address, seen_at, accepted, queued,
         queued_complete, ends, backlog, state, reason)
     VALUES ($1, $2, $3, $4, $5::text::jsonb, $6::text::jsonb, $7, $8, $9, $10, $11)
     ON CONFLICT (queue) DO UPDATE SET
         (remains_of, address, seen_at, accepted, queued, queued_complete, ends, backlog) = (
             SELECT remains_of, address, seen_at, accepted, queued, queued_complete, ends, backlog FROM (
                 SELECT excluded.*, 1 AS reported UNION ALL SELECT queues.*, 0) AS both_reports
             ORDER BY seen_at > clock_timestamp() AND reported = 0, seen_at DESC, reported DESC LIMIT 1),
         (state, reason) = (
             SELECT state, reason FROM (
                 SELECT excluded.state, excluded.reason, 1 AS reported
                 UNION ALL SELECT queues.state, queues.reason, 0) AS both_states
             ORDER BY array_position(ARRAY['active', 'diverged', 'retired'], state) DESC, reported LIMIT 1)";

pub(super) fn counters(counters: &Counters) -> String {
    serde_json::to_string(counters).unwrap_or_else(|e| unreachable!("texts and numbers are JSON: {e}"))
}

pub(super) fn record(row: &PgRow) -> Result<QueueRecord, StoreError> {
    let counters = |column| -> Result<Counters, StoreError> {
        serde_json::from_str::<BTreeMap<String, u64>>(row.get(column)).map_err(|_| damaged("queue"))
    };
    let state: &str = row.get("state");
    Ok(QueueRecord {
        id: QueueId(row.get::<Uuid, _>("queue").0),
        original_id: row.get::<Option<Uuid>, _>("remains_of").map(|id| QueueId(id.0)),
        address: row.get("address"),
        seen_at: row.try_get::<Moment, _>("seen_at").map_err(|_| damaged("time"))?.0,
        accepted: counters("accepted")?,
        queued: counters("queued")?,
        queued_complete: row.get("queued_complete"),
        ends: row.get::<Vec<Vec<u8>>, _>("ends").iter().map(|end| position(end)).collect::<Result<_, _>>()?,
        backlog: u64::try_from(row.get::<i64, _>("backlog")).map_err(|_| damaged("queue"))?,
        state: QueueState::ALL
            .into_iter()
            .find(|known| known.as_str() == state)
            .ok_or_else(|| damaged("queue"))?,
        reason: row.get("reason"),
    })
}
