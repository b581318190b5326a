//! The accounts of all partitions or of one. The transaction they are read in decides whether they are of one moment.
//! In a [snapshot](super::snapshot) they are; a session that has locked the row of its partition sees nothing change in
//! that partition.

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

// Their argument is the partition; with null they return the rows of all.
const VERSIONS: &str =
    "SELECT partition, version FROM partitions WHERE $1::smallint IS NULL OR partition = $1";
const COMPLETIONS: &str =
    "SELECT p.slug, c.partition, c.revision FROM completions c JOIN polls p USING (poll)
     WHERE $1::smallint IS NULL OR partition = $1";
const POSITIONS: &str =
    "SELECT queue, partition, position FROM checkpoints WHERE $1::smallint IS NULL OR partition = $1";
const LEDGER: &str =
    "SELECT * FROM ledger WHERE $1::smallint IS NULL OR partition = $1 ORDER BY queue, partition, poll";
const SEALS: &str =
    "SELECT * FROM seals WHERE $1::smallint IS NULL OR partition = $1 ORDER BY queue, poll, partition";
const TALLY: &str = "SELECT p.slug, o.slug AS option_slug, t.partition, t.n
     FROM tally t JOIN polls p USING (poll) JOIN options o USING (poll, option)
     WHERE t.n <> 0 AND ($1::smallint IS NULL OR partition = $1)
     ORDER BY t.poll, t.option, t.partition";

const TALLY_CHANGED_AT: &str = "SELECT p.slug, max(t.changed_at) AS at FROM tally t JOIN polls p USING (poll)
     WHERE $1::smallint IS NULL OR t.partition = $1 GROUP BY p.slug";

/// Reads the accounts of all partitions or of one, without counting ballots row by row.
pub(super) async fn read(connection: &mut PgConnection, of: Option<Partition>) -> Result<Accounts, Failure> {
    let of = of.map(|partition| partition.0 as i16);
    // The revision first: it does not cover what is recorded after it, whether the statements below see that or not.
    let row = sqlx::query("SELECT now() AS now, (SELECT revision FROM meta) AS revision")
        .fetch_one(&mut *connection)
        .await?;
    let taken_at = row.try_get::<Moment, _>("now").map_err(|_| damaged("time"))?.0;
    let revision: Option<i64> = row.get("revision");
    let mut rows = Rows { connection, of };
    Ok(Accounts {
        taken_at,
        revision: revision.unwrap_or_default() as u64,
        queues: rows.all(queues::ALL, queues::record).await?,
        polls: withdrawal::fold(rows.all(polls::ALL, polls::registered).await?),
        versions: rows.here(VERSIONS, version).await?.into_iter().collect(),
        completions: rows.here(COMPLETIONS, completion).await?.into_iter().collect(),
        positions: rows.here(POSITIONS, checkpoint).await?.into_iter().collect(),
        ledger: rows.here(LEDGER, ledger_row).await?,
        seals: seals(&mut rows).await?,
        tally: rows.here(TALLY, tally_row).await?,
        tally_changed_at: rows.here(TALLY_CHANGED_AT, tally_change).await?.into_iter().collect(),
        rows: None,
        quarantine: rows.here(quarantine::TOTALS, total).await?,
    })
}

/// Source of rows: a connection, and the partition whose rows are wanted unless all are.
struct Rows<'a> {
    connection: &'a mut PgConnection,
    of: Option<i16>,
}

impl Rows<'_> {
    /// Reads the rows of a statement without arguments.
    async fn all<T>(
        &mut self,
        sql: &'static str,
        read: impl Fn(&PgRow) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, Failure> {
        let rows = sqlx::query(sql).fetch_all(&mut *self.connection).await?;
        Ok(rows.iter().map(read).collect::<Result<_, _>>()?)
    }

    /// Reads the rows of a statement whose first argument is the partition.
    async fn here<T>(
        &mut self,
        sql: &'static str,
        read: impl Fn(&PgRow) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, Failure> {
        let rows = sqlx::query(sql).bind(self.of).fetch_all(&mut *self.connection).await?;
        Ok(rows.iter().map(read).collect::<Result<_, _>>()?)
    }
}

async fn seals(rows: &mut Rows<'_>) -> Result<Vec<SealRecord>, Failure> {
    let rows = rows
        .here(SEALS, |row| {
            let queue = QueueId(row.get::<Uuid, _>("queue").0);
            let (poll, partition) = (rows::slug(row, "poll")?, rows::partition(row));
            Ok((queue, poll, partition, position(row.get("position"))?, rows::count(row, "accepted")?))
        })
        .await?;
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
    Ok(seals)
}

fn version(row: &PgRow) -> Result<(Partition, u64), StoreError> {
    Ok((rows::partition(row), rows::count(row, "version")?))
}

fn completion(row: &PgRow) -> Result<((PollSlug, Partition), u64), StoreError> {
    let place = (rows::slug(row, "slug")?, rows::partition(row));
    Ok((place, rows::count(row, "revision")?))
}

fn checkpoint(row: &PgRow) -> Result<((QueueId, Partition), Position), StoreError> {
    let queue = QueueId(row.get::<Uuid, _>("queue").0);
    Ok(((queue, rows::partition(row)), position(row.get("position"))?))
}

fn tally_row(row: &PgRow) -> Result<TallyRow, StoreError> {
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

fn ledger_row(row: &PgRow) -> Result<LedgerRow, StoreError> {
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
fn total(row: &PgRow) -> Result<QuarantineTotal, StoreError> {
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
