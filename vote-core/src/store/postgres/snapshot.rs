//! Accounts and ballots as of one moment, read in a transaction that sees nothing of what is committed after it began.

use std::{collections::BTreeMap, fmt, time::Duration};

use async_trait::async_trait;
use sqlx::{
    PgConnection, Row,
    postgres::{PgArguments, PgRow},
    query::Query,
};

use super::{Moment, PostgresStore, Uuid, accounts, commit::Failure, damaged, error_at, rows, summary};
use crate::{
    OptionSlug, PollSlug, VoterKey,
    count::{Accounts, Balances, Ballot, Summary},
    store::{Snapshot, StoreError},
};

/// Time limit of counting rows, which takes about 1 s for every ten million. Other statements have the usual limit.
const TIMEOUT: Duration = Duration::from_secs(600);

/// A transaction on a connection of its own, which is closed with it.
pub(super) struct PostgresSnapshot {
    connection: PgConnection,
    address: String,
    schema: String,
    /// The poll whose ballots were asked for last, its number, and its options by their numbers.
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
            Err(_) => {
                Err(StoreError::Unavailable(format!("{}: no answer within {TIMEOUT:?}", self.address).into()))
            }
        }
    }

    /// Makes a call on the connection, within the time limit.
    async fn in_time<T>(
        &mut self,
        call: impl AsyncFnOnce(&mut PgConnection) -> Result<T, Failure>,
    ) -> Result<T, StoreError> {
        match tokio::time::timeout(TIMEOUT, call(&mut self.connection)).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(Failure::Store(e))) => Err(e),
            Ok(Err(Failure::Sqlx(e))) => Err(error_at(&self.address, &self.schema, e)),
            Err(_) => {
                Err(StoreError::Unavailable(format!("{}: no answer within {TIMEOUT:?}", self.address).into()))
            }
        }
    }

    async fn count_rows(&mut self) -> Result<BTreeMap<(PollSlug, OptionSlug), u64>, StoreError> {
        let longer = format!("SET LOCAL statement_timeout = {}", TIMEOUT.as_millis());
        self.rows(sqlx::query(sqlx::AssertSqlSafe(longer))).await?;
        // Left joins, so that a row whose poll or option is missing from its table is not left out.
        let query = sqlx::query(
            "SELECT coalesce(p.slug, '') AS slug, coalesce(o.slug, '') AS option_slug, v.n
             FROM (SELECT poll, option, count(*) AS n FROM votes GROUP BY poll, option) v
             LEFT JOIN polls p USING (poll) LEFT JOIN options o USING (poll, option)",
        );
        let rows = self.rows(query).await?;
        let count =
            |row: &PgRow| Ok(((rows::slug(row, "slug")?, accounts::option(row)?), rows::count(row, "n")?));
        rows.iter().map(count).collect()
    }
}

#[async_trait]
impl Snapshot for PostgresSnapshot {
    async fn accounts(&mut self, recount: bool) -> Result<Accounts, StoreError> {
        let mut accounts = self.in_time(async |connection| accounts::read(connection).await).await?;
        if recount {
            accounts.rows = Some(self.count_rows().await?);
        }
        Ok(accounts)
    }

    async fn summary(&mut self) -> Result<Summary, StoreError> {
        self.in_time(summary::summary).await
    }

    async fn balances(&mut self) -> Result<Balances, StoreError> {
        self.in_time(summary::balances).await
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
            let options = rows.iter().map(|row| Ok((row.get("option"), accounts::option(row)?)));
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
