//! The accounts of all partitions, and their rows. The transaction they are read in decides whether they are of one
//! moment: in a [snapshot](super::snapshot) they are.

use sqlx::{PgConnection, Row, postgres::PgRow};

use super::{
    Moment, PostgresStore, Uuid, commit::Failure, damaged, polls, position, quarantine, queues, rows,
};
use crate::{
    OptionSlug, Partition, PollSlug, Position, QueueId, Timestamp,
    count::{Accounts, LedgerEntry, LedgerRow, QuarantineTotal, SealRecord, TallyRow},
    queue::Seal,
    store::{StoreError, withdrawal},
};

const VERSIONS: &str = "SELECT partition, version FROM partitions";
const COMPLETIONS: &str =
    "SELECT p.slug, c.partition, c.revision FROM completions c JOIN polls p USING (poll)";
const POSITIONS: &str = "SELECT queue, partition, position FROM checkpoints";
const LEDGER: &str = "SELECT * FROM ledger ORDER BY queue, partition, poll";
const SEALS: &str = "SELECT * FROM seals ORDER BY queue, poll, partition";
const TALLY: &str = "SELECT p.slug, o.slug AS option_slug, t.partition, t.n
     FROM tally t JOIN polls p USING (poll) JOIN options o USING (poll, option)
     WHERE t.n <> 0 ORDER BY t.poll, t.option, t.partition";

const TALLY_CHANGED_AT: &str =
    "SELECT p.slug, max(t.changed_at) AS at FROM tally t JOIN polls p USING (poll) GROUP BY p.slug";

/// Reads the accounts, without counting ballots row by row.
pub(super) async fn read(connection: &mut PgConnection) -> Result<Accounts, Failure> {
    let (taken_at, revision) = moment(connection).await?;
    Ok(Accounts {
        taken_at,
        revision,
        queues: rows(connection, queues::ALL, queues::record).await?,
        polls: withdrawal::fold(rows(connection, polls::ALL, polls::registered).await?),
        versions: rows(connection, VERSIONS, version).await?.into_iter().collect(),
        completions: rows(connection, COMPLETIONS, completion).await?.into_iter().collect(),
        positions: rows(connection, POSITIONS, checkpoint).await?.into_iter().collect(),
        ledger: rows(connection, LEDGER, ledger_row).await?,
        seals: seals(rows(connection, SEALS, seal_row).await?),
        tally: rows(connection, TALLY, tally_row).await?,
        tally_changed_at: rows(connection, TALLY_CHANGED_AT, tally_change).await?.into_iter().collect(),
        rows: None,
        quarantine: rows(connection, quarantine::TOTALS, total).await?,
    })
}

/// Reads the store's clock and its revision. The first read of accounts: the revision does not cover what is recorded
/// after it, whether later statements see that or not.
pub(super) async fn moment(connection: &mut PgConnection) -> Result<(Timestamp, u64), Failure> {
    let row = sqlx::query("SELECT now() AS now, (SELECT revision FROM meta) AS revision")
        .fetch_one(connection)
        .await?;
    let taken_at = row.try_get::<Moment, _>("now").map_err(|_| damaged("time"))?.0;
    let revision: Option<i64> = row.get("revision");
    Ok((taken_at, revision.unwrap_or_default() as u64))
}

async fn rows<T>(
    connection: &mut PgConnection,
    sql: &'static str,
    read: impl Fn(&PgRow) -> Result<T, StoreError>,
) -> Result<Vec<T>, Failure> {
    let rows = sqlx::query(sql).fetch_all(connection).await?;
    Ok(rows.iter().map(read).collect::<Result<_, _>>()?)
}

/// A row of `seals`: what a partition of a queue held of a poll.
pub(super) type SealRow = (QueueId, PollSlug, Partition, Position, u64);

pub(super) fn seal_row(row: &PgRow) -> Result<SealRow, StoreError> {
    let queue = QueueId(row.get::<Uuid, _>("queue").0);
    let (poll, partition) = (rows::slug(row, "poll")?, rows::partition(row));
    Ok((queue, poll, partition, position(row.get("position"))?, rows::count(row, "accepted")?))
}

/// Makes seals of rows that are sorted by queue, poll and partition.
pub(super) fn seals(rows: Vec<SealRow>) -> Vec<SealRecord> {
    let mut seals: Vec<SealRecord> = Vec::new();
    for (queue, poll, partition, end, accepted) in rows {
        if seals.last().is_none_or(|last| (last.queue, last.poll) != (queue, poll)) {
            let seal = Seal { ends: Vec::new(), accepted: Vec::new() };
            seals.push(SealRecord { queue, poll, seal });
        }
        let Some(SealRecord { seal, .. }) = seals.last_mut() else { continue };
        let place = usize::from(partition.0);
        seal.ends.resize(place, Position::START);
        seal.accepted.resize(place, 0);
        seal.ends.push(end);
        seal.accepted.push(accepted);
    }
    seals
}

fn version(row: &PgRow) -> Result<(Partition, u64), StoreError> {
    Ok((rows::partition(row), rows::count(row, "version")?))
}

fn completion(row: &PgRow) -> Result<((PollSlug, Partition), u64), StoreError> {
    let place = (rows::slug(row, "slug")?, rows::partition(row));
    Ok((place, rows::count(row, "revision")?))
}

pub(super) fn checkpoint(row: &PgRow) -> Result<((QueueId, Partition), Position), StoreError> {
    let queue = QueueId(row.get::<Uuid, _>("queue").0);
    Ok(((queue, rows::partition(row)), position(row.get("position"))?))
}

pub(super) fn tally_row(row: &PgRow) -> Result<TallyRow, StoreError> {
    Ok(TallyRow {
        poll: rows::slug(row, "slug")?,
        option: option(row)?,
        partition: rows::partition(row),
        votes: row.get("n"),
    })
}

fn tally_change(row: &PgRow) -> Result<(PollSlug, Timestamp), StoreError> {
    Ok((rows::slug(row, "slug")?, row.try_get::<Moment, _>("at").map_err(|_| damaged("time"))?.0))
}

pub(super) fn ledger_row(row: &PgRow) -> Result<LedgerRow, StoreError> {
    Ok(LedgerRow {
        partition: rows::partition(row),
        entry: LedgerEntry {
            queue: QueueId(row.get::<Uuid, _>("queue").0),
            poll: row.get("poll"),
            accepted: rows::count(row, "accepted")?,
            new_voters: rows::count(row, "new_voters")?,
            superseded: rows::count(row, "superseded")?,
            quarantined: row.get("quarantined"),
        },
    })
}

/// Reads a row of [`quarantine::TOTALS`].
pub(super) fn total(row: &PgRow) -> Result<QuarantineTotal, StoreError> {
    Ok(QuarantineTotal {
        queue: QueueId(row.get::<Uuid, _>("queue").0),
        partition: rows::partition(row),
        poll: row.get("poll"),
        votes: rows::count(row, "votes")?,
        pending: rows::count(row, "pending")?,
    })
}

/// Reads an option from the column `option_slug`.
pub(super) fn option(row: &PgRow) -> Result<OptionSlug, StoreError> {
    row.get::<&str, _>("option_slug").parse().map_err(|_| damaged("option"))
}

impl PostgresStore {
    pub(super) async fn record_seal(&self, seal: &SealRecord) -> Result<SealRecord, StoreError> {
        // One statement, so that of two calls at once neither overwrites what the other recorded.
        let rows = self
            .rows(
                sqlx::query(
                    "WITH said AS (
                         SELECT s.n - 1 AS partition, s.position, s.accepted
                         FROM unnest($3::bytea[], $4::bigint[]) WITH ORDINALITY AS s (position, accepted, n)
                     ), raised AS (
                         UPDATE meta SET revision = revision + 1 WHERE EXISTS (
                             SELECT FROM seals s JOIN said USING (partition)
                             WHERE s.queue = $1 AND s.poll = $2 AND said.accepted > s.accepted)
                     )
                     INSERT INTO seals (queue, poll, partition, position, accepted)
                     SELECT $1, $2, partition, position, accepted FROM said
                     ON CONFLICT (queue, poll, partition) DO UPDATE SET
                         position = greatest(seals.position, excluded.position),
                         accepted = greatest(seals.accepted, excluded.accepted)
                     RETURNING partition, position, accepted",
                )
                .bind(Uuid(seal.queue.0))
                .bind(seal.poll.as_str())
                .bind(seal.seal.ends.iter().map(Position::as_bytes).collect::<Vec<_>>())
                .bind(seal.seal.accepted.iter().map(|n| *n as i64).collect::<Vec<_>>()),
            )
            .await?;
        let mut recorded = seal.clone();
        for row in &rows {
            let place = usize::from(rows::partition(row).0);
            if let (Some(end), Some(accepted)) =
                (recorded.seal.ends.get_mut(place), recorded.seal.accepted.get_mut(place))
            {
                (*end, *accepted) = (position(row.get("position"))?, rows::count(row, "accepted")?);
            }
        }
        Ok(recorded)
    }
}
