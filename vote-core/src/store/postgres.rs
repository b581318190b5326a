//! The store on Postgres 14 or newer.
//!
//! Its tables are in a schema of their own, so that the database can be shared. [`PostgresStore::migrate`] creates them
//! from `store/postgres/*.sql`.

use std::{collections::BTreeSet, fmt, str::FromStr, time::Duration};

use async_trait::async_trait;
use sqlx::{
    Connection, PgConnection, PgPool, Row, SqlSafeStr,
    migrate::{MigrateError, Migration, MigrationType, Migrator},
    postgres::{PgConnectOptions, PgPoolOptions, PgRow},
};

use super::{Catalog, Session, Store, StoreError, StoreReader, WorkerRecord, same_layout};
use crate::{
    DurabilityProblem, Poll, PollSlug, Position, QueueId, Timestamp,
    count::{Decision, QuarantineKey, QuarantineState, QueueRecord, RegisteredPoll, SealRecord},
    queue::Layout,
};

mod accounts;
mod commit;
mod copy;
mod filter;
mod polls;
mod quarantine;
mod queues;
mod reader;
mod session;
mod snapshot;
mod types;
mod workers;

use types::{Moment, Uuid};

/// Time limit of one statement, kept by the server.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(15);
/// Time limit of a whole call, in case the server does not keep its own.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// Time limit of a connection attempt.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Settings that must not be off.
const DURABLE: [&str; 3] = ["fsync", "full_page_writes", "synchronous_commit"];
/// Idle time after which the server ends a session, and frees its locks. A lane calls its session every 2 s or sooner.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// A store on Postgres 14 or newer. Clones share a pool of up to four connections.
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
    /// Returns a store at `url`, `postgres://user:password@host:port/database`, in `schema`. Does not connect yet: the
    /// first call shows whether the server can be reached.
    ///
    /// # Errors
    /// - [`StoreError::InvalidAddress`] if the address can't be read.
    /// - [`StoreError::InvalidSchema`] if the name of the schema has other characters than a-z, 0-9 and _, begins with a
    ///   digit, or is longer than 63.
    pub fn connect(url: &str, schema: &str) -> Result<Self, StoreError> {
        let plain = schema.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if !plain || schema.is_empty() || schema.len() > 63 || schema.as_bytes()[0].is_ascii_digit() {
            return Err(StoreError::InvalidSchema(schema.to_owned()));
        }
        let options = PgConnectOptions::from_str(url)
            .map_err(|e| StoreError::InvalidAddress(format!("the address of the store can't be read: {e}")))?
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

    /// Returns the address of the store for logs, without the password.
    fn address(&self) -> String {
        let database = self.options.get_database().unwrap_or_default();
        format!("postgres://{}:{}/{database}", self.options.get_host(), self.options.get_port())
    }

    /// Creates the schema and its tables, or brings them up to date. Safe to repeat, and to run several times at once.
    ///
    /// # Errors
    /// - [`StoreError::NewerVersion`] if a newer version made the tables.
    /// - [`StoreError::NotAStore`] if other tables are in the way.
    /// - [`StoreError::Unavailable`] if the server can't be reached, or the user may not create tables.
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
            migration(6, "withdrawal", include_str!("postgres/0006_withdrawal.sql")),
            migration(7, "reason codes", include_str!("postgres/0007_reason_codes.sql")),
            migration(8, "diverged", include_str!("postgres/0008_diverged.sql")),
        ]);
        // The default name would collide with the migrations of an application that shares the database.
        migrator.dangerous_set_table_name(format!("{}._vote_migrations", self.schema));
        migrator.create_schema(self.schema.clone());
        let mut connection = self.connection(&self.options).await?;
        migrator.run_direct(None, &mut connection, false).await.map_err(|e| match e {
            MigrateError::Execute(e) => self.error(e),
            MigrateError::VersionMissing(migration) => {
                StoreError::NewerVersion { place: self.place(), migration }
            }
            MigrateError::ExecuteMigration(e, _) if !contradicts(&e) => {
                StoreError::Unavailable(format!("{}: {e}", self.address()).into())
            }
            other => StoreError::NotAStore { place: self.place(), reason: other.to_string() },
        })?;
        connection.close().await.map_err(|e| self.error(e))
    }

    async fn connection(&self, options: &PgConnectOptions) -> Result<PgConnection, StoreError> {
        match tokio::time::timeout(CONNECT_TIMEOUT, PgConnection::connect_with(options)).await {
            Ok(connection) => connection.map_err(|e| self.error(e)),
            Err(_) => Err(StoreError::Unavailable(
                format!("{}: no connection within {CONNECT_TIMEOUT:?}", self.address()).into(),
            )),
        }
    }

    /// Fails with `Unavailable` after [`CALL_TIMEOUT`], in case the server vanished without closing the connection.
    async fn in_time<T>(&self, call: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, StoreError> {
        match tokio::time::timeout(CALL_TIMEOUT, call).await {
            Ok(result) => result.map_err(|e| self.error(e)),
            Err(_) => Err(StoreError::Unavailable(
                format!("{}: no answer within {CALL_TIMEOUT:?}", self.address()).into(),
            )),
        }
    }

    /// Returns where the store is, for errors.
    fn place(&self) -> String {
        place(&self.address(), &self.schema)
    }

    fn error(&self, error: sqlx::Error) -> StoreError {
        error_at(&self.address(), &self.schema, error)
    }

    /// Returns the rows of a statement. Single statements only: a caller that is cancelled can leave a transaction on a
    /// pool open, and the next user of the connection gets it (transact-rs/sqlx#4385).
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

fn place(address: &str, schema: &str) -> String {
    format!("{address}, schema {schema},")
}

/// Returns whether a statement contradicts the tables that are there, so that it fails whenever it is repeated.
fn contradicts(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    // Class 42, syntax error or access rule violation, without insufficient_privilege.
    code.is_some_and(|code| code.starts_with("42") && code != "42501")
}

/// Translates an error of sqlx into what it means for the caller.
fn error_at(address: &str, schema: &str, error: sqlx::Error) -> StoreError {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    match code.as_deref() {
        // undefined_table, invalid_schema_name
        Some("42P01" | "3F000") => StoreError::NotPrepared {
            place: place(address, schema),
            lacks: "has no tables of this program",
            remedy: "run `vote-worker migrate`",
        },
        // undefined_column
        Some("42703") => {
            StoreError::OlderVersion { place: place(address, schema), remedy: "run `vote-worker migrate`" }
        }
        Some("23505") => StoreError::Conflict(error.to_string()),
        _ => StoreError::Unavailable(format!("{address}: {error}").into()),
    }
}

/// Error of a value in the database that this program did not write.
fn damaged(what: &str) -> StoreError {
    StoreError::Damaged(what.to_owned())
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
        let recorded = self.layout().await?.ok_or_else(|| damaged("layout"))?;
        same_layout(recorded, layout)?;
        // A worker that was stopped within a commit holds the row of that partition. If it was the only one, no lane ends
        // its session: so this does, and inserts only rows that are missing, since a conflict would wait for that row.
        self.in_time(async {
            let mut connection = self.pool.acquire().await?;
            let lock = session::lock_number(&mut connection).await?;
            session::end_stuck_sessions(&mut connection, lock).await
        })
        .await?;
        let insert = sqlx::query(
            "INSERT INTO partitions SELECT n FROM generate_series(0, $1 - 1) n
             WHERE NOT EXISTS (SELECT FROM partitions WHERE partition = n) ON CONFLICT DO NOTHING",
        );
        self.execute(insert.bind(i32::from(layout.partitions.count()))).await.map(drop)
    }

    async fn catalog(&self) -> Result<Catalog, StoreError> {
        // Single statements, in the order that makes their results safe to act on together: see `Catalog`.
        let query = sqlx::query("SELECT clock_timestamp() AS now, (SELECT revision FROM meta) AS revision");
        let rows = self.rows(query).await?;
        let row = rows.first().ok_or_else(|| damaged("revision"))?;
        let revision: Option<i64> = row.get("revision");
        let queues = self.queues().await?;
        let polls = self.polls().await?;
        let any_withdrawn = polls.iter().any(|poll| poll.withdrawal.is_some());
        Ok(Catalog {
            taken_at: row.try_get::<Moment, _>("now").map_err(|_| damaged("time"))?.0,
            revision: revision.unwrap_or_default() as u64,
            queues: queues.into_iter().map(|record| (record.id, record)).collect(),
            polls,
            given_up: if any_withdrawn { self.given_up().await? } else { BTreeSet::new() },
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

    async fn withdraw_poll(
        &self,
        poll: PollSlug,
        reason: &str,
    ) -> Result<Option<RegisteredPoll>, StoreError> {
        self.withdraw(poll, reason).await
    }

    async fn keep_poll(&self, poll: PollSlug, withdrawn_at: Timestamp) -> Result<(), StoreError> {
        self.keep(poll, withdrawn_at).await
    }

    async fn note_given_up(
        &self,
        queue: QueueId,
        poll: PollSlug,
        withdrawn_at: Timestamp,
    ) -> Result<(), StoreError> {
        self.record_given_up(queue, poll, withdrawn_at).await
    }

    async fn note_seal(&self, seal: &SealRecord) -> Result<SealRecord, StoreError> {
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
        // One row per statement, so that no two reports wait for each other's locks in turn.
        for queue in queues {
            let query = sqlx::query(queues::REPORT)
                .bind(Uuid(queue.id.0))
                .bind(queue.original_id.map(|id| Uuid(id.0)))
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
                 reason = CASE reason WHEN '' THEN $2 ELSE reason || '; retired: ' || $2 END
             WHERE queue = $1 AND state <> 'retired'";
        if self.execute(sqlx::query(update).bind(Uuid(queue.0)).bind(reason)).await? > 0 {
            return Ok(true);
        }
        let known = sqlx::query("SELECT FROM queues WHERE queue = $1").bind(Uuid(queue.0));
        Ok(!self.rows(known).await?.is_empty())
    }

    async fn decide(&self, frames: &[QuarantineKey], decision: &Decision) -> Result<u64, StoreError> {
        let (state, rejection) = match decision {
            Decision::Replay => (QuarantineState::Replay, None),
            Decision::Reject(reason) => (QuarantineState::Rejected, Some(reason)),
        };
        self.execute(
            sqlx::query(
                "UPDATE quarantine q SET state = $4, rejection = $5
                 FROM unnest($1::uuid[], $2::smallint[], $3::bytea[]) AS k (queue, partition, position)
                 WHERE q.queue = k.queue AND q.partition = k.partition AND q.position = k.position
                   AND q.state IN ('held', 'replay')",
            )
            .bind(frames.iter().map(|key| Uuid(key.queue.0)).collect::<Vec<_>>())
            .bind(frames.iter().map(|key| key.partition.0 as i16).collect::<Vec<_>>())
            .bind(frames.iter().map(|key| key.position.as_bytes().to_vec()).collect::<Vec<_>>())
            .bind(state.as_str())
            .bind(rejection),
        )
        .await
    }

    async fn durability_problems(&self) -> Result<Vec<DurabilityProblem>, StoreError> {
        let query = sqlx::query(
            "SELECT name, setting FROM pg_settings
             WHERE (name = ANY ($1) AND setting = 'off')
                OR (name = 'server_version_num' AND setting::int < 140000) ORDER BY name",
        )
        .bind(DURABLE);
        Ok(self
            .rows(query)
            .await?
            .iter()
            .map(|row| match row.get::<&str, _>("name") {
                "server_version_num" => DurabilityProblem::OldServer {
                    server: "Postgres",
                    version: row.get("setting"),
                    oldest: "14",
                },
                name => DurabilityProblem::Setting {
                    of: "Postgres".to_owned(),
                    name: DURABLE.into_iter().find(|known| *known == name).unwrap_or_default(),
                    found: row.get("setting"),
                    wanted: "on",
                    otherwise: "or committed votes are lost when power fails",
                },
            })
            .collect())
    }

    async fn open_session(&self) -> Result<Box<dyn Session>, StoreError> {
        Ok(Box::new(session::PostgresSession::open(self).await?))
    }
}
