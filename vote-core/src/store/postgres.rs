//! The store on Postgres 14 or newer.
//!
//! Its tables are in a schema of their own, so that the database can be shared. [`PostgresStore::migrate`] creates them
//! from `store/postgres/*.sql`.

use std::{fmt, str::FromStr, time::Duration};

use async_trait::async_trait;
use sqlx::{
    Connection, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions, PgRow},
};

use super::{Catalog, Session, Store, StoreError, WorkerRecord, same_layout};
use crate::{
    DurabilityProblem, Poll, PollSlug, Position, QueueId, Timestamp,
    count::{Decision, QuarantineKey, QueueRecord, RegisteredPoll, SealRecord},
    queue::Layout,
};

mod accounts;
mod catalog;
mod commit;
mod completion;
mod copy;
mod durability;
mod error;
mod filter;
mod lock;
mod lookup;
mod migration;
mod polls;
mod progress;
mod quarantine;
mod queues;
mod reader;
mod rows;
mod session;
mod snapshot;
mod summary;
mod types;
mod withdrawal;
mod workers;

use error::{damaged, error_at, place};
use types::{Moment, Uuid};

/// Time limit of one statement, kept by the server. Another lane may end the session of a lane whose statement takes
/// longer than [`IDLE_TIMEOUT`].
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(15);
/// Time limit of a whole call, in case the server does not keep its own.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// Time limit of a connection attempt.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Idle time after which the server ends a session, and frees its locks. A lane calls its session every 2 s or sooner.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Number of connections for everything but sessions and snapshots, which have their own: so that a statement that takes
/// long does not delay the next one. More would only use up the server's.
const POOL: u32 = 2;

/// A store on Postgres 14 or newer. Clones share a pool of up to two connections.
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
            .max_connections(POOL)
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

fn position(bytes: &[u8]) -> Result<Position, StoreError> {
    Position::from_bytes(bytes).ok_or_else(|| damaged("position"))
}

#[async_trait]
impl Store for PostgresStore {
    async fn prepare(&self, layout: Layout) -> Result<(), StoreError> {
        // A worker that was stopped within a commit holds the row of that partition. If it was the only one, no lane ends
        // its session: so this does, and inserts only rows that are missing, since a conflict would wait for that row.
        // On a connection of its own, since those of the pool may be waiting for such a commit.
        let mut connection = self.connection(&self.options).await?;
        let recorded = self.in_time(async {
            sqlx::query("INSERT INTO meta (partitions, fingerprint) VALUES ($1, $2) ON CONFLICT DO NOTHING")
                .bind(layout.partitions.count() as i16)
                .bind(layout.fingerprint.0.as_slice())
                .execute(&mut connection)
                .await?;
            sqlx::query(reader::LAYOUT).fetch_one(&mut connection).await
        });
        same_layout(reader::layout(&recorded.await?)?, layout)?;
        self.in_time(async {
            let lock = lock::number(&mut connection).await?;
            lock::end_stuck_sessions(&mut connection, lock).await?;
            let insert = sqlx::query(
                "INSERT INTO partitions SELECT n FROM generate_series(0, $1 - 1) n
                 WHERE NOT EXISTS (SELECT FROM partitions WHERE partition = n) ON CONFLICT DO NOTHING",
            );
            insert.bind(i32::from(layout.partitions.count())).execute(&mut connection).await?;
            connection.close().await
        })
        .await
    }

    async fn catalog(&self, known: Option<&Catalog>) -> Result<Catalog, StoreError> {
        self.read_catalog(known).await
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

    async fn undo_withdrawal(&self, poll: PollSlug, withdrawn_at: Timestamp) -> Result<(), StoreError> {
        self.undo_withdrawal(poll, withdrawn_at).await
    }

    async fn record_dropped(
        &self,
        queue: QueueId,
        poll: PollSlug,
        withdrawn_at: Timestamp,
    ) -> Result<(), StoreError> {
        self.record_dropped(queue, poll, withdrawn_at).await
    }

    async fn record_seal(&self, seal: &SealRecord) -> Result<SealRecord, StoreError> {
        self.record_seal(seal).await
    }

    async fn finalize_poll(&self, poll: PollSlug) -> Result<bool, StoreError> {
        self.finish(poll).await
    }

    async fn heartbeat(&self, worker: &WorkerRecord) -> Result<(), StoreError> {
        self.record_worker(worker).await
    }

    async fn report(&self, queues: &[QueueRecord]) -> Result<(), StoreError> {
        self.record_queues(queues).await
    }

    async fn retire(&self, queue: QueueId, reason: &str) -> Result<bool, StoreError> {
        self.retire_queue(queue, reason).await
    }

    async fn decide(&self, frames: &[QuarantineKey], decision: &Decision) -> Result<u64, StoreError> {
        self.record_decision(frames, decision).await
    }

    async fn durability_problems(&self) -> Result<Vec<DurabilityProblem>, StoreError> {
        self.check().await
    }

    async fn open_session(&self) -> Result<Box<dyn Session>, StoreError> {
        Ok(Box::new(session::PostgresSession::open(self).await?))
    }
}
