//! Rows of the table `queues`.

use std::collections::BTreeMap;

use sqlx::{Row, postgres::PgRow};

use super::{Moment, PostgresStore, Uuid, damaged, position};
use crate::{
    Position, QueueId, WorkerId,
    count::{QueueRecord, QueueState},
    queue::Counters,
    store::{CatalogQueue, StoreError},
};

/// Query of all queues, in the order of their identities.
pub(super) const ALL: &str = "SELECT queue, original_id, address, server, reporter, seen_at, accepted::text, \
     queued::text, queued_complete, ends, backlog, state, reason FROM queues ORDER BY queue";

/// Query of one queue.
pub(super) const ONE: &str = "SELECT queue, original_id, address, server, reporter, seen_at, accepted::text, \
     queued::text, queued_complete, ends, backlog, state, reason FROM queues WHERE queue = $1";

/// Statement that records reports of queues, each row by [`QueueRecord::merged`] in SQL, so that reports of several
/// workers can't overwrite each other. The later report tells what was seen, where a report from the future does not
/// count as later; a state is never taken back. A queue that is new or diverges raises the revision in the same
/// statement.
///
/// The rows are locked in the order of their identities, and the row of `meta` after them, so that no two statements wait
/// for each other's locks in turn.
const REPORT: &str = "WITH reported AS MATERIALIZED (
         SELECT unnest($1::uuid[]) AS queue, unnest($2::uuid[]) AS original_id, unnest($3::text[]) AS address,
             unnest($4::timestamptz[]) AS seen_at, unnest($5::text[])::jsonb AS accepted,
             unnest($6::text[])::jsonb AS queued, unnest($7::boolean[]) AS queued_complete,
             unnest($8::text[])::bytea[] AS ends, unnest($9::bigint[]) AS backlog, unnest($10::text[]) AS state,
             unnest($11::text[]) AS reason, unnest($12::text[]) AS server, unnest($13::uuid[]) AS reporter),
     raised AS (
         UPDATE meta SET revision = revision + 1
         WHERE EXISTS (SELECT FROM reported r WHERE NOT EXISTS (
             SELECT FROM queues q WHERE q.queue = r.queue AND (q.state <> 'active' OR r.state = 'active'))))
     INSERT INTO queues (queue, original_id, address, seen_at, accepted, queued,
         queued_complete, ends, backlog, state, reason, server, reporter)
     SELECT queue, original_id, address, seen_at, accepted, queued,
         queued_complete, ends, backlog, state, reason, server, reporter FROM reported ORDER BY queue
     ON CONFLICT (queue) DO UPDATE SET
         (original_id, address, seen_at, accepted, queued, queued_complete, ends, backlog, server, reporter) = (
             SELECT original_id, address, seen_at, accepted, queued, queued_complete, ends, backlog, server, reporter
             FROM (SELECT excluded.*, 1 AS reported UNION ALL SELECT queues.*, 0) AS both_reports
             ORDER BY seen_at > clock_timestamp() AND reported = 0, seen_at DESC, reported DESC LIMIT 1),
         (state, reason) = (
             SELECT state, reason FROM (
                 SELECT excluded.state, excluded.reason, 1 AS reported
                 UNION ALL SELECT queues.state, queues.reason, 0) AS both_states
             ORDER BY array_position(ARRAY['active', 'diverged', 'retired'], state) DESC, reported LIMIT 1)";

impl PostgresStore {
    pub(super) async fn record_queues(&self, queues: &[QueueRecord]) -> Result<(), StoreError> {
        // A statement can't change a row twice.
        let mut rest: Vec<&QueueRecord> = queues.iter().collect();
        while !rest.is_empty() {
            let mut distinct = BTreeMap::new();
            rest.retain(|record| !std::ptr::eq(*distinct.entry(record.id).or_insert(*record), *record));
            self.record_distinct(&distinct.into_values().collect::<Vec<_>>()).await?;
        }
        Ok(())
    }

    async fn record_distinct(&self, queues: &[&QueueRecord]) -> Result<(), StoreError> {
        fn all<'q, T>(queues: &[&'q QueueRecord], of: impl Fn(&'q QueueRecord) -> T) -> Vec<T> {
            queues.iter().map(|queue| of(queue)).collect()
        }
        let query = sqlx::query(REPORT)
            .bind(all(queues, |queue| Uuid(queue.id.0)))
            .bind(all(queues, |queue| queue.original_id.map(|id| Uuid(id.0))))
            .bind(all(queues, |queue| queue.address.as_str()))
            .bind(all(queues, |queue| Moment(queue.seen_at)))
            .bind(all(queues, |queue| counters(&queue.accepted)))
            .bind(all(queues, |queue| counters(&queue.queued)))
            .bind(all(queues, |queue| queue.queued_complete))
            .bind(all(queues, |queue| ends(&queue.ends)))
            .bind(all(queues, |queue| i64::try_from(queue.backlog).unwrap_or(i64::MAX)))
            .bind(all(queues, |queue| queue.state.as_str()))
            .bind(all(queues, |queue| queue.reason.as_str()))
            .bind(all(queues, |queue| queue.server.as_str()))
            .bind(all(queues, |queue| queue.reporter.map(|worker| Uuid(worker.0))));
        self.execute(query).await?;
        Ok(())
    }

    /// Retires a queue; returns whether there is one.
    pub(super) async fn retire_queue(&self, queue: QueueId, reason: &str) -> Result<bool, StoreError> {
        // As in QueueRecord::retirement_reason.
        let update = "UPDATE queues SET state = 'retired',
                 reason = CASE reason WHEN '' THEN $2 ELSE reason || '; retired: ' || $2 END
             WHERE queue = $1 AND state <> 'retired'";
        if self.execute(sqlx::query(update).bind(Uuid(queue.0)).bind(reason)).await? > 0 {
            return Ok(true);
        }
        let known = sqlx::query("SELECT FROM queues WHERE queue = $1").bind(Uuid(queue.0));
        Ok(!self.rows(known).await?.is_empty())
    }
}

fn counters(counters: &Counters) -> String {
    serde_json::to_string(counters).unwrap_or_else(|e| unreachable!("texts and numbers are JSON: {e}"))
}

/// Returns the text of an array of positions: arrays of different lengths don't fit into one parameter.
fn ends(ends: &[Position]) -> String {
    let texts: Vec<String> =
        ends.iter().map(|end| format!(r#""\\x{}""#, hex::encode(end.as_bytes()))).collect();
    format!("{{{}}}", texts.join(","))
}

fn reporter(row: &PgRow) -> Option<WorkerId> {
    row.get::<Option<Uuid>, _>("reporter").map(|worker| WorkerId(worker.0))
}

fn state(row: &PgRow) -> Result<QueueState, StoreError> {
    let state: &str = row.get("state");
    QueueState::ALL.into_iter().find(|known| known.as_str() == state).ok_or_else(|| damaged("queue"))
}

/// Reads the columns of a queue that the catalog has.
pub(super) fn catalog_queue(row: &PgRow) -> Result<(QueueId, CatalogQueue), StoreError> {
    let queue = CatalogQueue {
        original_id: row.get::<Option<Uuid>, _>("original_id").map(|id| QueueId(id.0)),
        address: row.get("address"),
        server: row.get("server"),
        reporter: reporter(row),
        state: state(row)?,
        reason: row.get("reason"),
    };
    Ok((QueueId(row.get::<Uuid, _>("queue").0), queue))
}

pub(super) fn record(row: &PgRow) -> Result<QueueRecord, StoreError> {
    let counters = |column| -> Result<Counters, StoreError> {
        serde_json::from_str::<BTreeMap<String, u64>>(row.get(column)).map_err(|_| damaged("queue"))
    };
    Ok(QueueRecord {
        id: QueueId(row.get::<Uuid, _>("queue").0),
        original_id: row.get::<Option<Uuid>, _>("original_id").map(|id| QueueId(id.0)),
        address: row.get("address"),
        server: row.get("server"),
        reporter: reporter(row),
        seen_at: row.try_get::<Moment, _>("seen_at").map_err(|_| damaged("time"))?.0,
        accepted: counters("accepted")?,
        queued: counters("queued")?,
        queued_complete: row.get("queued_complete"),
        ends: row.get::<Vec<Vec<u8>>, _>("ends").iter().map(|end| position(end)).collect::<Result<_, _>>()?,
        backlog: u64::try_from(row.get::<i64, _>("backlog")).map_err(|_| damaged("queue"))?,
        state: state(row)?,
        reason: row.get("reason"),
    })
}
