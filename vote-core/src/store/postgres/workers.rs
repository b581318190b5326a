//! Rows of the table `workers`.

use std::collections::BTreeMap;

use sqlx::{Row, postgres::PgRow};

use super::{PostgresStore, Uuid, damaged};
use crate::{
    QueueId,
    store::{FUTURE, StoreError, UNKNOWN_AGE, WORKER_LIVES_FOR, WorkerId, WorkerRecord},
};

impl PostgresStore {
    pub(super) async fn record_worker(&self, worker: &WorkerRecord) -> Result<(), StoreError> {
        // Workers get a new identity at every start: those that are long gone are forgotten.
        let query = sqlx::query(
            "WITH gone AS (
                 DELETE FROM workers WHERE worker <> $1
                   AND (seen_at < clock_timestamp() - interval '10 minutes'
                        OR seen_at > clock_timestamp() + $4 * interval '1 second')
             ), unknown AS (
                 UPDATE queues SET seen_at = clock_timestamp() - $5 * interval '1 second'
                 WHERE seen_at > clock_timestamp() + $4 * interval '1 second'
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
        // One seen in the future was seen before the clock was set back: nobody knows when.
        let query = sqlx::query(
            "SELECT worker, lanes, unreached FROM workers
             WHERE abs(extract(epoch FROM clock_timestamp() - seen_at)) <= $1",
        );
        let rows = self.rows(query.bind(WORKER_LIVES_FOR.as_secs_f64())).await?;
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
