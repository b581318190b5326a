//! The store on Postgres 14 or newer.
//!
//! Tables are in a schema of their own, `vote` unless set otherwise, so that the database can be shared. They are made
//! by [`PostgresStore::migrate`]; see `store/postgres/*.sql`.

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use async_trait::async_trait;
use sqlx::{
    Connection, PgConnection, PgPool, Row, SqlSafeStr,
    migrate::{Migration, MigrationType, Migrator},
    postgres::{PgConnectOptions, PgPoolOptions, PgRow},
};

use super::{
    Ballot, Lane, LedgerEntry, LedgerRow, QueueRecord, QueueState, RegisteredPoll, Store, StoreError,
    StoreReader, same_layout,
};
use crate::{
    OptionSlug, Partition, Partitions, PepperFingerprint, Poll, PollSlug, Position, QueueId, VoterKey,
    queue::Layout,
};

mod commit;
mod copy;
mod filter;
mod lane;
mod types;

use types::{Moment, Uuid};

/// How long one statement may take.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long one call may take in all, for the case that the server does not keep to its own limit.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a connection attempt may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// When the server drops a lane that gives no sign of life, and with it its locks. A lane pings every 2 s.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// A store on Postgres.
#[derive(Clone)]
pub struct PostgresStore {
    pool: PgPool,
    options: PgConnectOptions,
    schema: String,
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore")
            .field("address", &self.address())
            .field("schema", &self.schema)
            .finish()
    }
}

impl PostgresStore {
    /// A store at `url`, `postgres://user:password@host:port/database`, in `schema`. Returns at once; whether the
    /// server is there shows in the calls.
    ///
    /// # Errors
    /// [`StoreError::NotPrepared`] when the address or the name can't be read.
    pub fn connect(url: &str, schema: &str) -> Result<Self, StoreError> {
        let plain = schema.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if !plain || schema.is_empty() || schema.len() > 63 || schema.as_bytes()[0].is_ascii_digit() {
            return Err(StoreError::NotPrepared(format!(
                "{schema:?} can't be the name of the schema: use up to 63 of a-z, 0-9 and _, and a letter first"
            )));
        }
        let options = PgConnectOptions::from_str(url)
            .map_err(|e| StoreError::NotPrepared(format!("the address of the store: {e}")))?
            .application_name("vote")
            .options([("search_path", schema), ("TimeZone", "UTC")])
            .options([("statement_timeout", format!("{}ms", STATEMENT_TIMEOUT.as_millis()))]);
        let pool = PgPoolOptions::new()
            .max_connections(4)
            .acquire_timeout(CONNECT_TIMEOUT)
            .idle_timeout(Duration::from_secs(60))
            .connect_lazy_with(options.clone());
        Ok(Self { pool, options, schema: schema.to_owned() })
    }

    /// Where the store is, for logs; no password in it.
    #[must_use]
    pub fn address(&self) -> String {
        let database = self.options.get_database().unwrap_or_default();
        format!("postgres://{}:{}/{database}", self.options.get_host(), self.options.get_port())
    }

    /// Makes the schema and its tables, or brings them up to date. Safe to run again, and by several at once.
    ///
    /// # Errors
    /// When the server is not reachable or the user may not make tables.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        let tables = Migration::new(
            1,
            "tables".into(),
            MigrationType::Simple,
            include_str!("postgres/0001_tables.sql").into_sql_str(),
            false,
        );
        let mut migrator = Migrator::with_migrations(vec![tables]);
        // The default name would collide with the migrations of an application that shares the database.
        migrator.dangerous_set_table_name(format!("{}._vote_migrations", self.schema));
        migrator.create_schema(self.schema.clone());
        let mut connection = self.connection(&self.options).await?;
        migrator.run_direct(None, &mut connection, false).await.map_err(|e| match e {
            sqlx::migrate::MigrateError::Execute(e) => self.error(e),
            other => StoreError::NotPrepared(format!("the tables can't be brought up to date: {other}")),
        })?;
        connection.close().await.map_err(|e| self.error(e))
    }

    async fn connection(&self, options: &PgConnectOptions) -> Result<PgConnection, StoreError> {
        match tokio::time::timeout(CONNECT_TIMEOUT, PgConnection::connect_with(options)).await {
            Ok(connection) => connection.map_err(|e| self.error(e)),
            Err(_) => {
                Err(StoreError::Unavailable(format!("{}: no connection in time", self.address()).into()))
            }
        }
    }

    /// What a server does not answer that is gone without a word, is given up.
    async fn in_time<T>(&self, call: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, StoreError> {
        match tokio::time::timeout(CALL_TIMEOUT, call).await {
            Ok(result) => result.map_err(|e| self.error(e)),
            Err(_) => Err(StoreError::Unavailable(format!("{}: no answer in time", self.address()).into())),
        }
    }

    fn error(&self, error: sqlx::Error) -> StoreError {
        error_at(&self.address(), &self.schema, error)
    }

    /// A statement's rows. Single statements only: a transaction on a pool can be left open by a cancelled caller
    /// and go to the next one (transact-rs/sqlx#4385).
    async fn rows(
        &self,
        query: sqlx::query::Query<'_, sqlx::Postgres, sqlx::postgres::PgArguments>,
    ) -> Result<Vec<PgRow>, StoreError> {
        self.in_time(query.fetch_all(&self.pool)).await
    }

    async fn execute(
        &self,
        query: sqlx::query::Query<'_, sqlx::Postgres, sqlx::postgres::PgArguments>,
    ) -> Result<u64, StoreError> {
        Ok(self.in_time(query.execute(&self.pool)).await?.rows_affected())
    }
}

/// Says what an error of sqlx means for the caller.
fn error_at(address: &str, schema: &str, error: sqlx::Error) -> StoreError {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    match code.as_deref() {
        // undefined_table, invalid_schema_name
        Some("42P01" | "3F000") => StoreError::NotPrepared(format!(
            "{address} has no tables of this program in schema {schema}: run `vote-worker migrate`"
        )),
        Some("23505") => StoreError::Conflict(error.to_string()),
        _ => StoreError::Unavailable(format!("{address}: {error}").into()),
    }
}

/// A value in the database that the program did not write.
fn damaged(what: &str) -> StoreError {
    StoreError::NotPrepared(format!("the store holds a {what} that this version can't read"))
}

fn registered_poll(row: &PgRow) -> Result<RegisteredPoll, StoreError> {
    let text = |column| row.try_get::<String, _>(column).map_err(|_| damaged("poll"));
    let options: Vec<String> = row.try_get("options").map_err(|_| damaged("poll"))?;
    let closes_at: Option<Moment> = row.try_get("closes_at").map_err(|_| damaged("poll"))?;
    Ok(RegisteredPoll {
        slug: text("slug")?.parse().map_err(|_| damaged("poll"))?,
        options: options
            .iter()
            .map(|slug| slug.parse())
            .collect::<Result<_, _>>()
            .map_err(|_| damaged("poll"))?,
        keep: text("keep")?.parse().map_err(|_| damaged("poll"))?,
        voters: text("voters")?.parse().map_err(|_| damaged("poll"))?,
        closes_at: closes_at.map(|at| at.0),
    })
}

fn position(bytes: &[u8]) -> Result<Position, StoreError> {
    Position::from_bytes(bytes).ok_or_else(|| damaged("position"))
}

const fn state_name(state: QueueState) -> &'static str {
    match state {
        QueueState::Active => "active",
        QueueState::Cut => "cut",
    }
}

#[async_trait]
impl StoreReader for PostgresStore {
    async fn layout(&self) -> Result<Option<Layout>, StoreError> {
        let rows = self.rows(sqlx::query("SELECT partitions, pepper FROM meta")).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let partitions: i16 = row.get("partitions");
        let pepper: Vec<u8> = row.get("pepper");
        Ok(Some(Layout {
            partitions: u16::try_from(partitions)
                .ok()
                .and_then(|n| Partitions::new(n).ok())
                .ok_or_else(|| damaged("layout"))?,
            fingerprint: PepperFingerprint(pepper.as_slice().try_into().map_err(|_| damaged("layout"))?),
        }))
    }

    async fn polls(&self) -> Result<Vec<RegisteredPoll>, StoreError> {
        let rows = self
            .rows(sqlx::query(
                "SELECT p.slug, p.keep, p.voters, p.closes_at, array_agg(o.slug ORDER BY o.option) AS options
                 FROM polls p JOIN options o USING (poll) GROUP BY p.poll ORDER BY p.poll",
            ))
            .await?;
        rows.iter().map(registered_poll).collect()
    }

    async fn tally(&self, poll: PollSlug) -> Result<Vec<(OptionSlug, u64)>, StoreError> {
        let rows = self
            .rows(
                sqlx::query(
                    "SELECT o.slug, coalesce(sum(t.n), 0)::bigint AS n
                     FROM polls p JOIN options o USING (poll) LEFT JOIN tally t USING (poll, option)
                     WHERE p.slug = $1 GROUP BY o.option, o.slug ORDER BY o.option",
                )
                .bind(poll.as_str()),
            )
            .await?;
        rows.iter()
            .map(|row| {
                let option = row.get::<String, _>("slug").parse().map_err(|_| damaged("option"))?;
                Ok((option, u64::try_from(row.get::<i64, _>("n")).map_err(|_| damaged("tally"))?))
            })
            .collect()
    }

    async fn ballot(&self, poll: PollSlug, voter: VoterKey) -> Result<Option<Ballot>, StoreError> {
        let rows = self
            .rows(
                sqlx::query(
                    "SELECT o.slug, v.cast_at FROM polls p JOIN votes v USING (poll) JOIN options o USING (poll, option)
                     WHERE p.slug = $1 AND v.voter = $2",
                )
                .bind(poll.as_str())
                .bind(Uuid(voter.0)),
            )
            .await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let option = row.get::<String, _>("slug").parse().map_err(|_| damaged("option"))?;
        let cast_at = row.try_get::<Moment, _>("cast_at").map_err(|_| damaged("time"))?.0;
        Ok(Some(Ballot { voter, option, cast_at }))
    }

    async fn position(&self, queue: QueueId, partition: Partition) -> Result<Position, StoreError> {
        let query = sqlx::query("SELECT position FROM checkpoints WHERE queue = $1 AND partition = $2");
        let rows = self.rows(query.bind(Uuid(queue.0)).bind(partition.0 as i16)).await?;
        rows.first().map_or(Ok(Position::START), |row| position(row.get("position")))
    }

    async fn quarantined(
        &self,
        queue: QueueId,
        partition: Partition,
        position: Position,
    ) -> Result<Option<String>, StoreError> {
        let query = sqlx::query(
            "SELECT reason FROM quarantine WHERE queue = $1 AND partition = $2 AND position = $3",
        )
        .bind(Uuid(queue.0))
        .bind(partition.0 as i16)
        .bind(position.as_bytes());
        Ok(self.rows(query).await?.first().map(|row| row.get("reason")))
    }

    async fn ledger(&self) -> Result<Vec<LedgerRow>, StoreError> {
        let rows = self.rows(sqlx::query("SELECT * FROM ledger ORDER BY queue, partition, poll")).await?;
        rows.iter()
            .map(|row| {
                let count = |column| u64::try_from(row.get::<i64, _>(column)).map_err(|_| damaged("ledger"));
                Ok(LedgerRow {
                    partition: Partition(row.get::<i16, _>("partition") as u16),
                    entry: LedgerEntry {
                        queue: QueueId(row.get::<Uuid, _>("queue").0),
                        poll: row.get("poll"),
                        accepted: count("accepted")?,
                        new_voters: count("new_voters")?,
                        superseded: count("superseded")?,
                        quarantined: count("quarantined")?,
                    },
                })
            })
            .collect()
    }

    async fn queues(&self) -> Result<Vec<QueueRecord>, StoreError> {
        let rows = self.rows(sqlx::query("SELECT * FROM queues ORDER BY queue")).await?;
        rows.iter()
            .map(|row| {
                let count = |column| u64::try_from(row.get::<i64, _>(column)).map_err(|_| damaged("queue"));
                Ok(QueueRecord {
                    id: QueueId(row.get::<Uuid, _>("queue").0),
                    address: row.get("address"),
                    seen_at: row.try_get::<Moment, _>("seen_at").map_err(|_| damaged("time"))?.0,
                    accepted: count("accepted")?,
                    backlog: count("backlog")?,
                    state: match row.get::<&str, _>("state") {
                        "active" => QueueState::Active,
                        "cut" => QueueState::Cut,
                        _ => return Err(damaged("queue")),
                    },
                })
            })
            .collect()
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn prepare(&self, layout: Layout) -> Result<(), StoreError> {
        self.execute(
            sqlx::query("INSERT INTO meta (partitions, pepper) VALUES ($1, $2) ON CONFLICT DO NOTHING")
                .bind(layout.partitions.count() as i16)
                .bind(layout.fingerprint.0.as_slice()),
        )
        .await?;
        let stands = self.layout().await?.ok_or_else(|| damaged("layout"))?;
        same_layout(stands, layout)?;
        self.execute(
            sqlx::query("INSERT INTO partitions SELECT generate_series(0, $1 - 1) ON CONFLICT DO NOTHING")
                .bind(i32::from(layout.partitions.count())),
        )
        .await?;
        Ok(())
    }

    async fn register_poll(&self, poll: &Poll) -> Result<RegisteredPoll, StoreError> {
        let options: Vec<&str> = poll.options.iter().map(|option| option.slug.as_str()).collect();
        let closes_at = poll.closes_at.map(Moment);
        // Looked for first, since every attempt to insert takes a number, and they end at 32,767.
        self.execute(
            sqlx::query(
                "WITH poll AS (
                     INSERT INTO polls (slug, keep, voters, closes_at)
                     SELECT $1, $2, $3, $4 WHERE NOT EXISTS (SELECT FROM polls WHERE slug = $1)
                     ON CONFLICT DO NOTHING RETURNING poll
                 )
                 INSERT INTO options SELECT poll.poll, o.n - 1, o.slug
                 FROM poll, unnest($5::text[]) WITH ORDINALITY AS o (slug, n)",
            )
            .bind(poll.slug.as_str())
            .bind(poll.keep.as_str())
            .bind(poll.voters.as_str())
            .bind(closes_at)
            .bind(options),
        )
        .await?;
        self.execute(
            sqlx::query("UPDATE polls SET closes_at = $2 WHERE slug = $1 AND closes_at IS DISTINCT FROM $2")
                .bind(poll.slug.as_str())
                .bind(closes_at),
        )
        .await?;
        let polls = self.polls().await?;
        polls.into_iter().find(|p| p.slug == poll.slug).ok_or_else(|| damaged("poll"))
    }

    async fn report(&self, queues: &[QueueRecord]) -> Result<(), StoreError> {
        // Sorted, so that workers that report the same queues at once wait for, and not on, each other.
        let sorted: BTreeMap<QueueId, &QueueRecord> = queues.iter().map(|queue| (queue.id, queue)).collect();
        let column = |f: fn(&QueueRecord) -> i64| sorted.values().map(|queue| f(queue)).collect::<Vec<_>>();
        self.execute(
            sqlx::query(
                "INSERT INTO queues (queue, address, seen_at, accepted, backlog, state)
                 SELECT * FROM unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::bigint[], $5::bigint[], $6::text[])
                 ON CONFLICT (queue) DO UPDATE SET
                     address = CASE WHEN excluded.seen_at >= queues.seen_at THEN excluded.address ELSE queues.address END,
                     accepted = CASE WHEN excluded.seen_at >= queues.seen_at THEN excluded.accepted ELSE queues.accepted END,
                     backlog = CASE WHEN excluded.seen_at >= queues.seen_at THEN excluded.backlog ELSE queues.backlog END,
                     seen_at = greatest(excluded.seen_at, queues.seen_at),
                     state = CASE WHEN queues.state = 'cut' THEN 'cut' ELSE excluded.state END",
            )
            .bind(sorted.keys().map(|id| Uuid(id.0)).collect::<Vec<_>>())
            .bind(sorted.values().map(|queue| queue.address.as_str()).collect::<Vec<_>>())
            .bind(sorted.values().map(|queue| Moment(queue.seen_at)).collect::<Vec<_>>())
            .bind(column(|queue| queue.accepted as i64))
            .bind(column(|queue| queue.backlog as i64))
            .bind(sorted.values().map(|queue| state_name(queue.state)).collect::<Vec<_>>()),
        )
        .await?;
        Ok(())
    }

    async fn check(&self) -> Result<Vec<String>, StoreError> {
        let query = sqlx::query(
            "SELECT name, setting FROM pg_settings
             WHERE (name IN ('fsync', 'synchronous_commit', 'full_page_writes') AND setting = 'off')
                OR (name = 'server_version_num' AND setting::int < 140000) ORDER BY name",
        );
        Ok(self
            .rows(query)
            .await?
            .iter()
            .map(|row| match row.get::<&str, _>("name") {
                "server_version_num" => {
                    format!("Postgres {} is too old, use 14 or newer", row.get::<&str, _>("setting"))
                }
                name => format!(
                    "Postgres has {name} off, set it to on, or committed votes are lost when power fails"
                ),
            })
            .collect())
    }

    async fn open_lane(&self) -> Result<Box<dyn Lane>, StoreError> {
        Ok(Box::new(lane::PostgresLane::open(self).await?))
    }
}
