//! The books and ballots of one moment: a transaction that sees nothing of what is committed after it began.

use std::{collections::BTreeMap, fmt, time::Duration};

use async_trait::async_trait;
use sqlx::{
    PgConnection, Row,
    postgres::{PgArguments, PgRow},
    query::Query,
};

use super::{Moment, PostgresStore, Uuid, damaged, error_at, position, quarantine, queues, reader};
use crate::{
    OptionSlug, PollSlug, Position, QueueId, VoterKey,
    queue::Seal,
    store::{
        Ballot, Books, LedgerEntry, LedgerRow, QuarantineTotal, SealRecord, Snapshot, StoreError, TallyRow,
    },
};

/// How long counting rows may take: about a second for every ten million. Other statements take as long as any.
const TIMEOUT: Duration = Duration::from_secs(600);

/// A transaction on a connection of its own, which ends with it.
pub(super) struct PostgresSnapshot {
    connection: PgConnection,
    address: String,
    schema: String,
    /// Of the poll whose ballots were asked for: its number, and its options by number.
    poll: Option<(PollSlug, i16, BTreeMap<i16, OptionSlug>)>,
}

impl fmt::Debug for PostgresSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresSnapshot").field("address", &self.address).finish()
    }
}

impl PostgresSnapshot {
    pub(super) async fn open(store: &PostgresStore) -> Result<Self, StoreError> {
        let options = store.options.clone().application_name("vote audit");
        let mut connection = store.connection(&options).await?;
        let begin = sqlx::raw_sql("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
        store.in_time(begin.execute(&mut connection)).await?;
        Ok(Self { connection, address: store.address(), schema: store.schema.clone(), poll: None })
    }

    async fn rows(
        &mut self,
        query: Query<'_, sqlx::Postgres, PgArguments>,
    ) -> Result<Vec<PgRow>, StoreError> {
        match tokio::time::timeout(TIMEOUT, query.fetch_all(&mut self.connection)).await {
            Ok(rows) => rows.map_err(|e| error_at(&self.address, &self.schema, e)),
            Err(_) => Err(StoreError::Unavailable(format!("{}: no answer in time", self.address).into())),
        }
    }

    async fn all<T>(
        &mut self,
        sql: &'static str,
        read: impl Fn(&PgRow) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        self.rows(sqlx::query(sql)).await?.iter().map(read).collect()
    }

    async fn seals(&mut self) -> Result<Vec<SealRecord>, StoreError> {
        let rows = self.rows(sqlx::query("SELECT * FROM seals ORDER BY queue, poll, partition")).await?;
        let mut seals: Vec<SealRecord> = Vec::new();
        for row in &rows {
            let queue = QueueId(row.get::<Uuid, _>("queue").0);
            let poll = quarantine::slug(row, "poll")?;
            if seals.last().is_none_or(|last| (last.queue, last.poll) != (queue, poll)) {
                let seal = Seal { ends: Vec::new(), accepted: Vec::new() };
                seals.push(SealRecord { queue, poll, seal });
            }
            let Some(SealRecord { seal, .. }) = seals.last_mut() else { continue };
            let place = usize::from(reader::partition(row).0);
            seal.ends.resize(place, Position::START);
            seal.accepted.resize(place, 0);
            seal.ends.push(position(row.get("position"))?);
            seal.accepted.push(reader::count(row, "accepted")?);
        }
        Ok(seals)
    }
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

fn option(row: &PgRow) -> Result<OptionSlug, StoreError> {
    row.get::<&str, _>("option_slug").parse().map_err(|_| damaged("option"))
}

#[async_trait]
impl Snapshot for PostgresSnapshot {
    async fn books(&mut self, recount: bool) -> Result<Books, StoreError> {
        let versions = self.all("SELECT partition, version FROM partitions", |row| {
            Ok((reader::partition(row), reader::count(row, "version")?))
        });
        let versions = versions.await?.into_iter().collect();
        let positions = self.all("SELECT queue, partition, position FROM checkpoints", |row| {
            let queue = QueueId(row.get::<Uuid, _>("queue").0);
            Ok(((queue, reader::partition(row)), position(row.get("position"))?))
        });
        let positions = positions.await?.into_iter().collect();
        let tally = self.all(
            "SELECT p.slug, o.slug AS option_slug, t.partition, t.n
             FROM tally t JOIN polls p USING (poll) JOIN options o USING (poll, option)
             WHERE t.n <> 0 ORDER BY t.poll, t.option, t.partition",
            |row| {
                Ok(TallyRow {
                    poll: quarantine::slug(row, "slug")?,
                    option: option(row)?,
                    partition: reader::partition(row),
                    votes: row.get("n"),
                })
            },
        );
        let tally = tally.await?;
        let rows = if recount {
            let longer = format!("SET LOCAL statement_timeout = {}", TIMEOUT.as_millis());
            self.rows(sqlx::query(sqlx::AssertSqlSafe(longer))).await?;
            // Left joins: a row whose poll or option is in no table must not go uncounted.
            let rows = self.all(
                "SELECT coalesce(p.slug, '') AS slug, coalesce(o.slug, '') AS option_slug, v.n
                 FROM (SELECT poll, option, count(*) AS n FROM votes GROUP BY poll, option) v
                 LEFT JOIN polls p USING (poll) LEFT JOIN options o USING (poll, option)",
                |row| Ok(((quarantine::slug(row, "slug")?, option(row)?), reader::count(row, "n")?)),
            );
            Some(rows.await?.into_iter().collect())
        } else {
            None
        };
        Ok(Books {
            polls: self.all(reader::POLLS, reader::registered_poll).await?,
            versions,
            queues: self.all(queues::ALL, queues::record).await?,
            positions,
            ledger: self.all("SELECT * FROM ledger ORDER BY queue, partition, poll", ledger_row).await?,
            seals: self.seals().await?,
            tally,
            rows,
            quarantine: self
                .all(quarantine::TOTALS, |row| {
                    Ok(QuarantineTotal {
                        queue: QueueId(row.get::<Uuid, _>("queue").0),
                        partition: reader::partition(row),
                        poll: row.get("poll"),
                        votes: reader::count(row, "votes")?,
                        pending: reader::count(row, "pending")?,
                    })
                })
                .await?,
        })
    }

    async fn ballots(
        &mut self,
        poll: PollSlug,
        after: Option<VoterKey>,
        limit: usize,
    ) -> Result<Vec<Ballot>, StoreError> {
        if self.poll.as_ref().is_none_or(|(slug, ..)| *slug != poll) {
            let query = sqlx::query(
                "SELECT p.poll, o.option, o.slug AS option_slug FROM polls p JOIN options o USING (poll)
                 WHERE p.slug = $1",
            );
            let rows = self.rows(query.bind(poll.as_str())).await?;
            let Some(first) = rows.first() else { return Ok(Vec::new()) };
            let options = rows.iter().map(|row| Ok((row.get("option"), option(row)?)));
            self.poll = Some((poll, first.get("poll"), options.collect::<Result<_, StoreError>>()?));
        }
        let Some((_, number, options)) = self.poll.take() else { return Ok(Vec::new()) };
        let query = sqlx::query(
            "SELECT voter, option, cast_at FROM votes
             WHERE poll = $1 AND ($2::uuid IS NULL OR voter > $2) ORDER BY voter LIMIT $3",
        );
        let query = query
            .bind(number)
            .bind(after.map(|voter| Uuid(voter.0)))
            .bind(i64::try_from(limit).unwrap_or(i64::MAX));
        let rows = self.rows(query).await?;
        let ballot = |row: &PgRow| {
            Ok(Ballot {
                voter: VoterKey(row.get::<Uuid, _>(0).0),
                option: *options.get(&row.get::<i16, _>(1)).ok_or_else(|| damaged("option"))?,
                cast_at: row.try_get::<Moment, _>(2).map_err(|_| damaged("time"))?.0,
            })
        };
        let ballots = rows.iter().map(ballot).collect();
        self.poll = Some((poll, number, options));
        ballots
    }
}
