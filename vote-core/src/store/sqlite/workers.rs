//! Workers in a SQLite store.

use std::collections::{BTreeMap, BTreeSet};

use super::json::json;
use crate::{
    QueueId, Timestamp,
    count::{FUTURE, UNKNOWN_AGE},
    sqlite::{Failure, Transaction},
    store::{WORKER_LIVES_FOR, WorkerId, WorkerRecord},
};

/// Time after its last sign of life after which a worker is deleted, in microseconds: 10 minutes. A worker has a new
/// identity at every start, so old rows would pile up.
const FORGOTTEN_AFTER: i64 = 600_000_000;

pub(super) fn worker_id(tx: &Transaction<'_>, bytes: Vec<u8>) -> Result<WorkerId, Failure> {
    bytes.try_into().map(WorkerId).map_err(|_| tx.damaged("the id of a worker"))
}

/// Records a sign of life of a worker.
pub(super) async fn record(
    tx: &mut Transaction<'_>,
    worker: &WorkerRecord,
    now: Timestamp,
) -> Result<(), Failure> {
    let limit = now.as_micros() + FUTURE.as_micros() as i64;
    let long_ago = now.as_micros() - UNKNOWN_AGE.as_micros() as i64;
    // A worker in the future shows that the clock was set back, so the age of no report is known.
    let unknown = sqlx::query(
        "UPDATE queues SET seen_at = min(seen_at, ?1)
         WHERE seen_at > ?2 OR EXISTS (SELECT 1 FROM workers WHERE workers.seen_at > ?2)",
    );
    tx.run(unknown.bind(long_ago).bind(limit)).await?;
    let gone = sqlx::query("DELETE FROM workers WHERE seen_at < ?1 OR seen_at > ?2");
    tx.run(gone.bind(now.as_micros() - FORGOTTEN_AFTER).bind(limit)).await?;
    let unreached: Vec<QueueId> = worker.unreached.iter().copied().collect();
    let insert = sqlx::query(
        "INSERT OR REPLACE INTO workers (worker, seen_at, lanes, unreached) VALUES (?1, ?2, ?3, ?4)",
    )
    .bind(&worker.id.0[..])
    .bind(now.as_micros())
    .bind(worker.lanes)
    .bind(json(&unreached, |queue| format!("\"{queue}\"")));
    tx.run(insert).await.map(drop)
}

/// Returns the workers that are alive at a time of the store's clock.
pub(super) async fn alive(
    tx: &mut Transaction<'_>,
    now: Timestamp,
) -> Result<BTreeMap<WorkerId, WorkerRecord>, Failure> {
    let query = sqlx::query_as(
        "SELECT worker, lanes, (SELECT group_concat(value) FROM json_each(unreached)) FROM workers
         WHERE seen_at BETWEEN ?1 AND ?2",
    );
    let (now, lives_for) = (now.as_micros(), WORKER_LIVES_FOR.as_micros() as i64);
    let query = query.bind(now - lives_for).bind(now + FUTURE.as_micros() as i64);
    let rows: Vec<(Vec<u8>, u32, Option<String>)> = tx.all(query).await?;
    let mut workers = BTreeMap::new();
    for (id, lanes, unreached) in rows {
        let id = worker_id(tx, id)?;
        let queues = unreached.iter().flat_map(|list| list.split(','));
        let unreached: BTreeSet<QueueId> =
            queues.map(str::parse).collect::<Result<_, _>>().map_err(|e| tx.damaged(e))?;
        workers.insert(id, WorkerRecord { id, lanes, unreached });
    }
    Ok(workers)
}
