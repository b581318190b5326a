//! The accounts of all partitions or of one. The transaction they are read in decides whether they are of one moment.
//! In a [snapshot](super::snapshot) they are; a session that has locked the row of its partition sees nothing change in
//! that partition.

use sqlx::{PgConnection, Row, postgres::PgRow};

use super::{Moment, Uuid, commit::Failure, damaged, polls, position, quarantine, queues, reader};
use crate::{
    OptionSlug, Partition, Position, QueueId,
    count::{Accounts, LedgerEntry, LedgerRow, QuarantineTotal, SealRecord, TallyRow},
    queue::Seal,
    store::{StoreError, withdrawal},
};

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
        versions: rows
            .here("SELECT partition, version FROM partitions WHERE $1::smallint IS NULL OR partition = $1", |row| {
                Ok((reader::partition(row), reader::count(row, "version")?))
            })
            .await?
            .into_iter()
            .collect(),
        completions: rows
            .here(
                "SELECT p.slug, c.partition, c.revision FROM completions c JOIN polls p USING (poll)
                 WHERE $1::smallint IS NULL OR partition = $1",
                |row| {
                    let place = (quarantine::slug(row, "slug")?, reader::partition(row));
                    Ok((place, reader::count(row, "revision")?))
                },
            )
            .await?
            .into_iter()
            .collect(),
        positions: rows
            .here(
                "SELECT queue, partition, position FROM checkpoints WHERE $1::smallint IS NULL OR partition = $1",
                |row| {
                    let queue = QueueId(row.get::<Uuid, _>("queue").0);
                    Ok(((queue, reader::partition(row)), position(row.get("position"))?))
                },
            )
            .await?
            .into_iter()
            .collect(),
        ledger: rows
            .here(
                "SELECT * FROM ledger WHERE $1::smallint IS NULL OR partition = $1
                 ORDER BY queue, partition, poll",
                ledger_row,
            )
            .await?,
        seals: seals(&mut rows).await?,
        tally: rows
            .here(
                "SELECT p.slug, o.slug AS option_slug, t.partition, t.n
                 FROM tally t JOIN polls p USING (poll) JOIN options o USING (poll, option)
                 WHERE t.n <> 0 AND ($1::smallint IS NULL OR partition = $1)
                 ORDER BY t.poll, t.option, t.partition",
                |row| {
                    Ok(TallyRow {
                        poll: quarantine::slug(row, "slug")?,
                        option: option(row)?,
                        partition: reader::partition(row),
                        votes: row.get("n"),
                    })
                },
            )
            .await?,
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
    let sql =
        "SELECT * FROM seals WHERE $1::smallint IS NULL OR partition = $1 ORDER BY queue, poll, partition";
    let rows = rows
        .here(sql, |row| {
            let queue = QueueId(row.get::<Uuid, _>("queue").0);
            let (poll, partition) = (quarantine::slug(row, "poll")?, reader::partition(row));
            Ok((queue, poll, partition, position(row.get("position"))?, reader::count(row, "accepted")?))
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

fn ledger_row(row: &PgRow) -> Result<LedgerRow, StoreError> {
    Ok(LedgerRow {
        partition: reader::partition(row),
        entry: LedgerEntry {
            queue: QueueId(row.get::<Uuid, _>("queue").0),
            poll: row.get("poll"),
            accepted: reader::count(row, "accepted")?,
            new_voters: reader::count(row, "new_voters")?,
            superseded: reader::count(row, "superseded")?,
            quarantined: row.get("quarantined"),
        },
    })
}

/// Reads a row of [`quarantine::TOTALS`].
fn total(row: &PgRow) -> Result<QuarantineTotal, StoreError> {
    Ok(QuarantineTotal {
        queue: QueueId(row.get::<Uuid, _>("queue").0),
        partition: reader::partition(row),
        poll: row.get("poll"),
        votes: reader::count(row, "votes")?,
        pending: reader::count(row, "pending")?,
    })
}

/// Reads an option from the column `option_slug`.
pub(super) fn option(row: &PgRow) -> Result<OptionSlug, StoreError> {
    row.get::<&str, _>("option_slug").parse().map_err(|_| damaged("option"))
}
