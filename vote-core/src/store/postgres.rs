//! The store on Postgres 14 or newer.
//!
//! Tables are in a schema of their own, `vote` unless set otherwise, so that the database can be shared. They are made
//! by [`PostgresStore::migrate`]; see `store/postgres/*.sql`.

use std::{fmt, str::FromStr, time::Duration};

use async_trait::async_trait;
use sqlx::{
    Connection, PgConnection, PgPool, Row, SqlSafeStr,
    migrate::{Migration, MigrationType, Migrator},
    postgres::{PgConnectOptions, PgPoolOptions, PgRow},
};

use super::{
    Catalog, Decision, Lane, QuarantineKey, QuarantineState, QuarantinedFrame, QueueRecord, RegisteredPoll,
    SealRecord, Store, StoreError, StoreReader, WorkerRecord, same_layout,
};
use crate::{Poll, PollSlug, Position, QueueId, Timestamp, queue::Layout};

mod books;
mod commit;
mod copy;
mod filter;
mod lane;
mod polls;
mod quarantine;
mod queues;
mod reader;
mod snapshot;
mod types;
mod workers;

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
        let migration = |number, name: &'static str, sql: &'static str| {
            Migration::new(number, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
        };
        let mut migrator = Migrator::with_migrations(vec![
            migration(1, "tables", include_str!("postgres/0001_tables.sql")),
            migration(2, "audit", include_str!("postgres/0002_audit.sql")),
            migration(3, "results", include_str!("postgres/0003_results.sql")),
            migration(4, "finality", include_str!("postgres/0004_finality.sql")),
            migration(5, "quarantine by vote", include_str!("postgres/0005_quarantine_by_vote.sql")),
        ]);
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
        // undefined_column
        Some("42703") => StoreError::NotPrepared(format!(
            "the tables at {address}, schema {schema}, are of an older version: run `vote-worker migrate`"
        )),
        Some("23505") => StoreError::Conflict(error.to_string()),
        _ => StoreError::Unavailable(format!("{address}: {error}").into()),
    }
}

/// A value in the database that the program did not write.
fn damaged(what: &str) -> StoreError {
    StoreError::NotPrepared(format!("the store holds a {what} that this version can't read"))
}

fn position(bytes: &[u8]) -> Result<Position, StoreError> {
    Position::from_bytes(bytes).ok_or_else(|| damaged("position"))
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

    async fn catalog(&self) -> Result<Catalog, StoreError> {
        // Single statements, in the order that makes the whole safe to act on: see `Catalog`.
        let query = sqlx::query("SELECT clock_timestamp() AS now, (SELECT revision FROM meta) AS revision");
        let rows = self.rows(query).await?;
        let row = rows.first().ok_or_else(|| damaged("revision"))?;
        let revision: Option<i64> = row.get("revision");
        let queues = self.queues().await?;
        Ok(Catalog {
            taken_at: row.try_get::<Moment, _>("now").map_err(|_| damaged("time"))?.0,
            revision: revision.unwrap_or_default() as u64,
            queues: queues.into_iter().map(|record| (record.id, record)).collect(),
            polls: self.polls().await?,
            sealed: self.sealed().await?,
            workers: self.workers().await?,
        })
    }

    async fn register_poll(&self, poll: &Poll) -> Result<RegisteredPoll, StoreError> {
        self.register(poll).await
    }

    async fn close_poll(&self, poll: PollSlug) -> Result<Option<RegisteredPoll>, StoreError> {
        self.close(poll).await
    }

    async fn close_due_polls(&self, grace: Duration, now: Timestamp) -> Result<Vec<PollSlug>, StoreError> {
        self.close_due(grace, now).await
    }

    async fn reschedule_poll(
        &self,
        poll: PollSlug,
        closes_at: Option<Timestamp>,
        reason: &str,
    ) -> Result<Option<RegisteredPoll>, StoreError> {
        self.reschedule(poll, closes_at, reason).await
    }

    async fn note_seal(&self, seal: &SealRecord) -> Result<SealRecord, StoreError> {
        // One statement, so that two that are recorded at once can't take each other's place.
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
            let place = usize::from(reader::partition(row).0);
            if let (Some(end), Some(accepted)) =
                (recorded.seal.ends.get_mut(place), recorded.seal.accepted.get_mut(place))
            {
                (*end, *accepted) = (position(row.get("position"))?, reader::count(row, "accepted")?);
            }
        }
        Ok(recorded)
    }

    async fn finish_poll(&self, poll: PollSlug) -> Result<bool, StoreError> {
        self.finish(poll).await
    }

    async fn beat(&self, worker: &WorkerRecord) -> Result<(), StoreError> {
        self.record_worker(worker).await
    }

    async fn report(&self, queues: &[QueueRecord]) -> Result<(), StoreError> {
        // One row a statement: no two reports ever wait on each other.
        for queue in queues {
            let query = sqlx::query(queues::REPORT)
                .bind(Uuid(queue.id.0))
                .bind(queue.remains_of.map(|id| Uuid(id.0)))
                .bind(&queue.address)
                .bind(Moment(queue.seen_at))
                .bind(queues::counters(&queue.accepted))
                .bind(queues::counters(&queue.queued))
                .bind(queue.queued_complete)
                .bind(queue.ends.iter().map(Position::as_bytes).collect::<Vec<_>>())
                .bind(i64::try_from(queue.backlog).unwrap_or(i64::MAX))
                .bind(queue.state.as_str())
                .bind(&queue.reason);
            self.execute(query).await?;
        }
        Ok(())
    }

    async fn retire(&self, queue: QueueId, reason: &str) -> Result<bool, StoreError> {
        // As in QueueRecord::written_off.
        let update = "UPDATE queues SET state = 'retired',
                 reason = CASE reason WHEN '' THEN $2 ELSE reason || '; written off: ' || $2 END
             WHERE queue = $1 AND state <> 'retired'";
        if self.execute(sqlx::query(update).bind(Uuid(queue.0)).bind(reason)).await? > 0 {
            return Ok(true);
        }
        let known = sqlx::query("SELECT FROM queues WHERE queue = $1").bind(Uuid(queue.0));
        Ok(!self.rows(known).await?.is_empty())
    }

    async fn decide(&self, frames: &[QuarantineKey], decision: &Decision) -> Result<u64, StoreError> {
        let (state, reason) = match decision {
            Decision::Replay => (QuarantineState::Replay, String::new()),
            Decision::Reject(reason) => {
                (QuarantineState::Rejected, format!("{}{reason}", QuarantinedFrame::REJECTED))
            }
        };
        self.execute(
            sqlx::query(
                "UPDATE quarantine q SET state = $4, reason = q.reason || $5
                 FROM unnest($1::uuid[], $2::smallint[], $3::bytea[]) AS k (queue, partition, position)
                 WHERE q.queue = k.queue AND q.partition = k.partition AND q.position = k.position
                   AND q.state IN ('held', 'replay')",
            )
            .bind(frames.iter().map(|key| Uuid(key.queue.0)).collect::<Vec<_>>())
            .bind(frames.iter().map(|key| key.partition.0 as i16).collect::<Vec<_>>())
            .bind(frames.iter().map(|key| key.position.as_bytes().to_vec()).collect::<Vec<_>>())
            .bind(state.as_str())
            .bind(reason),
        )
        .await
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
