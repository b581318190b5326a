//! The statements of a commit that record how far each queue was read: its positions and the entries of the ledger.
//!
//! A commit may change a row for each of a thousand queues, and one for each of their polls, nearly all of which exist.
//! So rows are updated, and only those that are missing are inserted: `INSERT … ON CONFLICT DO UPDATE` takes twice the
//! time, since it locks each row before it updates it. Arrays are expanded in the list of results: `FROM unnest(…)` with
//! several arrays copies each of them first (see `docs/performance.md`).
//!
//! A plan that the server keeps is made for ten rows, and looks up each row by itself. So for many rows the statement is
//! planned anew, by their number: then the server reads the partition's rows once and joins them.
//!
//! The version of the partition is raised before, so no other transaction changes these rows.

use sqlx::{PgConnection, Postgres, postgres::PgArguments, query::Query};

use super::{Uuid, commit::Failure};
use crate::{
    count::{CommitPlan, LedgerEntry},
    store::StoreError,
};

const UPDATE_LEDGER: &str =
    "UPDATE ledger l SET accepted = r.accepted, new_voters = l.new_voters + r.new_voters,
         superseded = l.superseded + r.superseded, quarantined = l.quarantined + r.quarantined
     FROM (SELECT unnest($2::uuid[]) AS queue, unnest($3::text[]) AS poll, unnest($4::bigint[]) AS accepted,
                  unnest($5::bigint[]) AS new_voters, unnest($6::bigint[]) AS superseded,
                  unnest($7::bigint[]) AS quarantined) r
     WHERE l.partition = $1 AND l.queue = r.queue AND l.poll = r.poll";
const INSERT_LEDGER: &str =
    "INSERT INTO ledger (partition, queue, poll, accepted, new_voters, superseded, quarantined)
     SELECT $1, unnest($2::uuid[]), unnest($3::text[]), unnest($4::bigint[]), unnest($5::bigint[]),
            unnest($6::bigint[]), unnest($7::bigint[])
     ON CONFLICT DO NOTHING";
const UPDATE_CHECKPOINTS: &str = "UPDATE checkpoints c SET position = r.position
     FROM (SELECT unnest($2::uuid[]) AS queue, unnest($3::bytea[]) AS position) r
     WHERE c.partition = $1 AND c.queue = r.queue";
const INSERT_CHECKPOINTS: &str = "INSERT INTO checkpoints (partition, queue, position)
     SELECT $1, unnest($2::uuid[]), unnest($3::bytea[]) ON CONFLICT DO NOTHING";

/// Replaces the accepted counts of the ledger, and adds to its other counts.
pub(super) async fn add_to_ledger(connection: &mut PgConnection, plan: &CommitPlan) -> Result<(), Failure> {
    let count = |f: fn(&LedgerEntry) -> i64| plan.ledger.iter().map(f).collect::<Vec<_>>();
    let bound = |sql: &'static str| {
        sqlx::query(sql)
            .bind(plan.partition.0 as i16)
            .bind(plan.ledger.iter().map(|entry| Uuid(entry.queue.0)).collect::<Vec<_>>())
            .bind(plan.ledger.iter().map(|entry| entry.poll.as_str()).collect::<Vec<_>>())
            .bind(count(|entry| entry.accepted as i64))
            .bind(count(|entry| entry.new_voters as i64))
            .bind(count(|entry| entry.superseded as i64))
            .bind(count(|entry| entry.quarantined))
    };
    upsert(connection, plan.ledger.len(), [UPDATE_LEDGER, INSERT_LEDGER], bound).await
}

/// Records the positions up to which queues were read.
pub(super) async fn move_checkpoints(
    connection: &mut PgConnection,
    plan: &CommitPlan,
) -> Result<(), Failure> {
    let bound = |sql: &'static str| {
        sqlx::query(sql)
            .bind(plan.partition.0 as i16)
            .bind(plan.positions.iter().map(|(queue, _)| Uuid(queue.0)).collect::<Vec<_>>())
            .bind(plan.positions.iter().map(|(_, position)| position.as_bytes()).collect::<Vec<_>>())
    };
    upsert(connection, plan.positions.len(), [UPDATE_CHECKPOINTS, INSERT_CHECKPOINTS], bound).await
}

/// Number of rows from which on a statement is planned for its number of rows.
const MANY: usize = 200;

/// Updates these many rows, and inserts those that are missing.
async fn upsert<'q>(
    connection: &mut PgConnection,
    rows: usize,
    [update, insert]: [&'static str; 2],
    bound: impl Fn(&'static str) -> Query<'q, Postgres, PgArguments>,
) -> Result<(), Failure> {
    if rows == 0 {
        return Ok(());
    }
    let updated = bound(update).persistent(rows < MANY).execute(&mut *connection).await?.rows_affected();
    if updated == rows as u64 {
        return Ok(());
    }
    let inserted = bound(insert).execute(connection).await?.rows_affected();
    if updated + inserted != rows as u64 {
        let text =
            format!("of {rows} rows, {updated} were updated and {inserted} inserted: some are named twice");
        return Err(StoreError::Conflict(text).into());
    }
    Ok(())
}
