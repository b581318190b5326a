//! What decides whether a partition is complete for a poll: the accounts of that poll in that partition. In a
//! transaction that has raised the version of the partition, nothing in them changes but queues and seals.

use sqlx::{AssertSqlSafe, PgConnection, Postgres, postgres::PgArguments, postgres::PgRow, query::Query};

use super::{accounts, commit::Failure, polls, queues};
use crate::{
    Partition, PollSlug,
    count::Accounts,
    store::{StoreError, withdrawal},
};

/// The queues, without the counts of those that are not diverged, and without the ends of those that are not replaced
/// ones: with a thousand queues, these are megabytes.
const QUEUES: &str =
    "SELECT queue, original_id, address, server, reporter, seen_at, queued_complete, backlog, state, reason,
         CASE state WHEN 'diverged' THEN accepted::text ELSE '{}' END AS accepted, '{}' AS queued,
         CASE WHEN original_id IS NULL THEN '{}' ELSE ends END AS ends
     FROM queues ORDER BY queue";
const POSITIONS: &str = "SELECT queue, partition, position FROM checkpoints WHERE partition = $1";
const LEDGER: &str = "SELECT * FROM ledger WHERE partition = $1 AND poll = $2 ORDER BY queue";
const SEALS: &str = "SELECT * FROM seals WHERE partition = $1 AND poll = $2 ORDER BY queue";
const TALLY: &str = "SELECT p.slug, o.slug AS option_slug, t.partition, t.n
     FROM polls p JOIN tally t USING (poll) JOIN options o USING (poll, option)
     WHERE t.n <> 0 AND t.partition = $1 AND p.slug = $2 ORDER BY t.option";
const QUARANTINE: &str = "SELECT queue, partition, poll, sum(votes)::bigint AS votes,
         count(*) FILTER (WHERE state IN ('quarantined', 'replay')) AS pending
     FROM quarantine WHERE state <> 'counted' AND partition = $1 AND poll = $2
     GROUP BY queue, partition, poll";

/// Reads the accounts of a poll in a partition.
pub(super) async fn read(
    connection: &mut PgConnection,
    partition: Partition,
    poll: PollSlug,
) -> Result<Accounts, Failure> {
    let (taken_at, revision) = accounts::moment(connection).await?;
    let queues = sqlx::query(QUEUES);
    let polls = sqlx::query(AssertSqlSafe(format!("SELECT * FROM ({}) p WHERE slug = $1", polls::ALL)));
    let here = |sql| sqlx::query(sql).bind(partition.0 as i16);
    let of_poll = |sql| here(sql).bind(poll.as_str().to_owned());
    Ok(Accounts {
        taken_at,
        revision,
        queues: rows(connection, queues, queues::record).await?,
        polls: withdrawal::fold(
            rows(connection, polls.bind(poll.as_str().to_owned()), polls::registered).await?,
        ),
        positions: rows(connection, here(POSITIONS), accounts::checkpoint).await?.into_iter().collect(),
        ledger: rows(connection, of_poll(LEDGER), accounts::ledger_row).await?,
        seals: accounts::seals(rows(connection, of_poll(SEALS), accounts::seal_row).await?),
        tally: rows(connection, of_poll(TALLY), accounts::tally_row).await?,
        quarantine: rows(connection, of_poll(QUARANTINE), accounts::total).await?,
        ..Accounts::default()
    })
}

async fn rows<T>(
    connection: &mut PgConnection,
    query: Query<'static, Postgres, PgArguments>,
    read: impl Fn(&PgRow) -> Result<T, StoreError>,
) -> Result<Vec<T>, Failure> {
    let rows = query.fetch_all(connection).await?;
    Ok(rows.iter().map(read).collect::<Result<_, _>>()?)
}
