//! The advisory locks of partitions, by which sessions own them.

use sqlx::{PgConnection, Row};

use super::{IDLE_TIMEOUT, Uuid, rows};
use crate::Partition;

/// Returns the first of the two numbers of the advisory locks of a store's partitions.
pub(super) async fn number(connection: &mut PgConnection) -> Result<i32, sqlx::Error> {
    let lock_id: Uuid = sqlx::query_scalar("SELECT lock_id FROM meta").fetch_one(connection).await?;
    let [a, b, c, d, ..] = lock_id.0;
    Ok(i32::from_be_bytes([a, b, c, d]))
}

/// Ends sessions that make no progress. A client that is stopped within a statement keeps its locks for as long as
/// the kernel of its machine answers for it, whatever the timeouts.
pub(super) async fn end_stuck_sessions(connection: &mut PgConnection, lock: i32) -> Result<(), sqlx::Error> {
    // The function is called in the list of results: in a WHERE clause it could be called for rows that other
    // conditions exclude. A commit that waits for a synchronous standby is left alone: if its session were ended,
    // the commit would become visible without being replicated.
    let terminated = sqlx::query(
        "SELECT a.pid, pg_terminate_backend(a.pid) FROM pg_stat_activity a
         WHERE a.state <> 'idle' AND a.state_change < clock_timestamp() - $2 * interval '1 ms'
           AND a.wait_event IS DISTINCT FROM 'SyncRep'
           AND EXISTS (
               SELECT FROM pg_locks l
               WHERE l.pid = a.pid AND l.locktype = 'advisory' AND l.granted AND l.objsubid = 2
                 AND l.classid = $1::bigint::oid
                 AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()))",
    )
    .bind(i64::from(lock as u32))
    .bind(IDLE_TIMEOUT.as_millis() as f64)
    .fetch_all(connection)
    .await?;
    for row in terminated {
        let pid: i32 = row.get("pid");
        tracing::warn!(pid, "ended a session that made no progress for 10 s");
    }
    Ok(())
}

/// Takes the lock of a partition if it is free; returns whether it was.
pub(super) async fn take(
    connection: &mut PgConnection,
    lock: i32,
    partition: Partition,
) -> Result<bool, sqlx::Error> {
    let query = sqlx::query_scalar("SELECT pg_try_advisory_lock($1, $2)");
    query.bind(lock).bind(i32::from(partition.0)).fetch_one(connection).await
}

/// Frees the lock of a partition.
pub(super) async fn free(
    connection: &mut PgConnection,
    lock: i32,
    partition: Partition,
) -> Result<(), sqlx::Error> {
    let query = sqlx::query("SELECT pg_advisory_unlock($1, $2)");
    query.bind(lock).bind(i32::from(partition.0)).execute(connection).await.map(drop)
}

/// Returns the partitions whose locks are free, in ascending order.
pub(super) async fn unowned(connection: &mut PgConnection, lock: i32) -> Result<Vec<Partition>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT partition FROM partitions p
         WHERE NOT EXISTS (
             SELECT FROM pg_locks l
             WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2
               AND l.classid = $1::bigint::oid AND l.objid = p.partition::int::oid
               AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()))
         ORDER BY partition",
    )
    .bind(i64::from(lock as u32))
    .fetch_all(connection)
    .await?;
    Ok(rows.iter().map(rows::partition).collect())
}
