//! Rows of the table `workers`.

use std::collections::BTreeMap;

use sqlx::{Row, postgres::PgRow};

use super::{PostgresStore, Uuid, damaged};
use crate::{
    QueueId,
    count::{FUTURE, UNKNOWN_AGE},
    store::{StoreError, WORKER_LIVES_FOR, WorkerId, WorkerRecord},
};

impl PostgresStore {
    pub(super) async fn record_worker(&self, worker: &WorkerRecord) -> Result<(), StoreError> {
        // A worker has a new identity at every start, so old rows would pile up: those of 10 minutes ago are deleted. A
        // worker in the future shows that the clock was set back, so the age of no report is known.
        let query = sqlx::query(
            "WITH gone AS (
                 DELETE FROM workers WHERE worker <> $1
                   AND (seen_at < clock_timestamp() - interval '10 minutes'
                        OR seen_at > clock_timestamp() + $4 * interval '1 second')
             ), unknown AS (
                 UPDATE queues SET seen_at = least(seen_at, clock_timestamp() - $5 * interval '1 second')
                 WHERE seen_at > clock_timestamp() + $4 * interval '1 second'
                    OR EXISTS (SELECT FROM workers WHERE seen_at > clock_timestamp() + $4 * interval '1 second')
             )
             INSERT INTO workers (worker, seen_at, lanes, unreached) VALUES ($1, clock_timestamp(), $2, $3)
             ON CONFLICT (worker) DO UPDATE SET
                 seen_at = excluded.seen_at, lanes = excluded.lanes, unreached = excluded.unreached",
        )
        .bind(Uuid(worker.id.0))
        .bind(i32::try_from(worker.lanes).unwrap_or(i32::MAX))
        .bind(worker.unreached.iter().map(|queue| Uuid(queue.0)).collect::<Vec<_>>())
        .bind(FUTURE.as_secs_f64())
        .bind(UNKNOWN_AGE.as_secs_f64());
        self.execute(query).await.map(drop)
    }

    pub(super) async fn workers(&self) -> Result<BTreeMap<WorkerId, WorkerRecord>, StoreError> {
        let query = sqlx::query(
            "SELECT worker, lanes, unreached FROM workers
             WHERE extract(epoch FROM clock_timestamp() - seen_at) BETWEEN -$2 AND $1",
        )
        .bind(WORKER_LIVES_FOR.as_secs_f64())
        .bind(FUTURE.as_secs_f64());
        let rows = self.rows(query).await?;
        rows.iter().map(record).map(|record| record.map(|record| (record.id, record))).collect()
    }
}

fn record(row: &PgRow) -> Result<WorkerRecord, StoreError> {
    let unreached: Vec<Uuid> = row.get("unreached");
    Ok(WorkerRecord {
        id: WorkerId(row.get::<Uuid, _>("worker").0),
        lanes: u32::try_from(row.get::<i32, _>("lanes")).map_err(|_| damaged("worker"))?,
        unreached: unreached.into_iter().map(|id| QueueId(id.0)).collect(),
    })
}
