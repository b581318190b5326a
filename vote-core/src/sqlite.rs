//! SQLite files: how they are opened, and transactions that can't be left open.
//!
//! A future may be dropped at any await, also between `BEGIN` and `COMMIT`. A connection on which that happens must
//! not be used again: its next user would write into a transaction that is not its own, and would commit half of
//! another one (transact-rs/sqlx#4385 is this trap in a pool). So a [`Transaction`] owns its connection, and returns
//! it only after its `COMMIT` succeeded. An error or a dropped future drops the connection too; closing it rolls back
//! what was not committed. SQLite first finishes a statement or a `COMMIT` that it is executing at that moment, so a
//! transaction is applied as a whole or not at all.
//!
//! The alternative would be a task that owns the connection and receives commands through a channel. It would save
//! the new connection, about 1 ms, that a dropped future costs here. But it has to be stopped and awaited, executes
//! commands whose callers are gone, and has to drop the connection on an error all the same.

mod transaction;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use sqlx::{
    ConnectOptions, Connection, SqlSafeStr, SqliteConnection,
    migrate::{AppliedMigration, Migrate, MigrateError, Migration, MigrationType, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use tokio::sync::Semaphore;

use crate::DurabilityProblem;

pub(crate) use transaction::{Failure, Transaction};

/// Time for which a statement waits for another process, or for a connection that is being closed.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Number of concurrent readers.
const READERS: usize = 4;
/// Number of rows buffered between SQLite's thread and a task: a look-up returns thousands.
const ROW_BUFFER: usize = 1024;
/// Table of the applied migrations. It is not the default one of sqlx, since an embedding application may keep its
/// own tables in the file.
const MIGRATIONS_TABLE: &str = "_vote_migrations";

/// Tables that a file must have.
#[derive(Debug)]
pub(crate) struct Schema {
    /// What the file is, in a word for texts: queue or store.
    pub(crate) of: &'static str,
    /// Number, name and SQL of each migration, in order. A released migration is never changed.
    pub(crate) migrations: &'static [(i64, &'static str, &'static str)],
}

/// An open file.
#[derive(Debug)]
pub(crate) struct Files {
    /// Path with symbolic links resolved, so that it is the same in every process.
    pub(crate) path: Arc<Path>,
    /// Identity of this file on this machine: the path and, on Unix, the numbers of the device and the inode, which a
    /// copy at the same path does not share. It is the same in every process that has the file open.
    pub(crate) identity: String,
    /// One connection: SQLite has one writer at a time, and waiting for the connection is fair and needs no polling.
    pub(crate) writer: Connections,
    /// Connections that never wait for the writer, nor the writer for them.
    pub(crate) readers: Connections,
}

/// Why a file could not be opened. A place names the file and what it should be; each text also says what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// There is nothing to read yet; a worker has to be started first.
    #[error("{place} {lacks}: start the worker, which creates it, with the same path")]
    Missing { place: String, lacks: &'static str },
    /// The tables are of an older version; a worker has to be started first.
    #[error("{place} has the tables of an older version: start a worker of this version first")]
    Older { place: String },
    /// The tables are of a newer version, which applied this migration.
    #[error("{place} is of a newer version (migration {migration}): use the file with that version")]
    Newer { place: String, migration: i64 },
    /// The file holds something else.
    #[error("{place} holds something else ({reason}): give queue and store a file each, or restore the file")]
    Foreign { place: String, reason: String },
    /// The file is damaged.
    #[error("{place} is damaged ({reason}): restore it from a backup")]
    Damaged { place: String, reason: String },
    /// It failed in a way that may pass.
    #[error("{0}")]
    Failed(String),
}

impl Schema {
    /// Opens a file for reading and writing. Creates it and its folder where they are missing, and migrates its
    /// tables.
    pub(crate) async fn open(&self, path: &Path) -> Result<Files, OpenError> {
        let path = absolute(path)?;
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|e| {
                OpenError::Failed(format!(
                    "can't create the folder of the SQLite file {}: {e}; create it, and let this user write in it",
                    path.display()
                ))
            })?;
        }
        let options = options(&path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            // On macOS a plain fsync returns before the data is on the medium. Elsewhere the setting has no effect.
            .pragma("fullfsync", "ON")
            // 64 MiB (a negative value is in KiB), so that a partition of a store with tens of millions of votes
            // stays in memory between two batches.
            .pragma("cache_size", "-65536");
        let mut connection = connect(&options).await.map_err(|e| self.cannot_open(&path, e))?;
        self.migrate(&path, &mut connection).await?;
        // From the path, not by opening the file: closing it would drop all locks that this process holds on it, also
        // SQLite's.
        let path: Arc<Path> = path.canonicalize().unwrap_or(path).into();
        let identity = identity(&path).map_err(|e| {
            OpenError::Failed(format!("can't read the metadata of the SQLite file {}: {e}", path.display()))
        })?;
        let writer = Connections::new(&path, options, "BEGIN IMMEDIATE", 1);
        writer.keep(connection);
        let readers = Connections::new(&path, self::options(&path).read_only(true), "BEGIN", READERS);
        Ok(Files { path, identity, writer, readers })
    }

    /// Opens a file for reading only; another process creates and writes it.
    pub(crate) async fn open_read_only(&self, path: &Path) -> Result<Connections, OpenError> {
        let path = absolute(path)?;
        if !path.exists() {
            return Err(OpenError::Missing { place: self.place(&path), lacks: "does not exist yet" });
        }
        let options = options(&path).read_only(true);
        let mut connection = connect(&options).await.map_err(|e| self.cannot_open(&path, e))?;
        self.check(&path, &mut connection).await?;
        let path: Arc<Path> = path.canonicalize().unwrap_or(path).into();
        let readers = Connections::new(&path, options, "BEGIN", READERS);
        readers.keep(connection);
        Ok(readers)
    }

    fn migrator(&self) -> Migrator {
        let migration = |&(number, name, sql): &(i64, &'static str, &'static str)| {
            Migration::new(number, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
        };
        let mut migrator = Migrator::with_migrations(self.migrations.iter().map(migration).collect());
        migrator.dangerous_set_table_name(MIGRATIONS_TABLE);
        migrator
    }

    /// Applies the missing migrations. It does so in one transaction that holds the write lock from its start, since
    /// two processes may open a new file at once and sqlx has no migration lock for SQLite.
    async fn migrate(&self, path: &Path, connection: &mut SqliteConnection) -> Result<(), OpenError> {
        let failed = |error| self.cannot_migrate(path, error);
        let begun = connection.begin_with("BEGIN IMMEDIATE").await;
        let mut transaction = begun.map_err(|e| self.cannot_open(path, e))?;
        self.applied(path, &mut transaction).await?;
        // The future of `run` is not Send; sqlx provides `run_direct` for that.
        self.migrator().run_direct(None, &mut *transaction, false).await.map_err(failed)?;
        transaction.commit().await.map_err(|e| self.cannot_open(path, e))
    }

    /// Fails unless the file has exactly the tables that this version reads.
    async fn check(&self, path: &Path, connection: &mut SqliteConnection) -> Result<(), OpenError> {
        match self.applied(path, connection).await? {
            0 => Err(OpenError::Missing { place: self.place(path), lacks: "has no tables yet" }),
            applied if applied < self.migrations.len() => Err(OpenError::Older { place: self.place(path) }),
            _ => Ok(()),
        }
    }

    /// Returns how many of the migrations were applied to the file. Fails if others were.
    async fn applied(&self, path: &Path, connection: &mut SqliteConnection) -> Result<usize, OpenError> {
        let table = sqlx::query("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1")
            .bind(MIGRATIONS_TABLE);
        let found = table.fetch_optional(&mut *connection).await.map_err(|e| self.cannot_open(path, e))?;
        if found.is_none() {
            return Ok(0);
        }
        let applied = connection.list_applied_migrations(MIGRATIONS_TABLE).await;
        let applied = applied.map_err(|e| self.cannot_migrate(path, e))?;
        let migrator = self.migrator();
        // Before looking for newer ones, since a queue and a store have different numbers of migrations.
        for migration in migrator.iter() {
            let differs =
                |of: &AppliedMigration| of.version == migration.version && of.checksum != migration.checksum;
            if applied.iter().any(differs) {
                return Err(self.cannot_migrate(path, MigrateError::VersionMismatch(migration.version)));
            }
        }
        match applied.iter().find(|applied| !migrator.version_exists(applied.version)) {
            Some(newer) => Err(OpenError::Newer { place: self.place(path), migration: newer.version }),
            None => Ok(applied.len()),
        }
    }

    /// Names a file and what it should be.
    pub(crate) fn place(&self, path: &Path) -> String {
        format!("the SQLite {} {}", self.of, path.display())
    }

    fn cannot_open(&self, path: &Path, error: sqlx::Error) -> OpenError {
        let place = self.place(path);
        match result_code(&error) {
            Some(NOT_A_DATABASE) => OpenError::Foreign { place, reason: error.to_string() },
            Some(CORRUPT) => OpenError::Damaged { place, reason: error.to_string() },
            _ => OpenError::Failed(format!(
                "can't open {place}: {error}; its folder must exist, on a local disk with free space, and this user \
                 must be able to write in it"
            )),
        }
    }

    fn cannot_migrate(&self, path: &Path, error: MigrateError) -> OpenError {
        match error {
            MigrateError::Execute(error) => self.cannot_open(path, error),
            // A plain SQL error means that tables of another program are in the way; any other, for example, that the
            // disk is full.
            MigrateError::ExecuteMigration(error, _) if result_code(&error) != Some(ERROR) => {
                self.cannot_open(path, error)
            }
            error => OpenError::Foreign { place: self.place(path), reason: error.to_string() },
        }
    }
}

/// Makes a path absolute, since SQLite takes a relative `:memory:` or `file:…` for something other than a path.
fn absolute(path: &Path) -> Result<PathBuf, OpenError> {
    std::path::absolute(path)
        .map_err(|e| OpenError::Failed(format!("{:?} is not a path for a SQLite file: {e}", path.display())))
}

/// Returns the [identity](Files::identity) of a file, without opening it, for the reason given in [`Schema::open`].
fn identity(path: &Path) -> std::io::Result<String> {
    let found = std::fs::metadata(path)?;
    #[cfg(unix)]
    let numbers = {
        use std::os::unix::fs::MetadataExt;
        format!(" {}:{}", found.dev(), found.ino())
    };
    #[cfg(not(unix))]
    let numbers = {
        drop(found);
        String::new()
    };
    Ok(format!("{}{numbers}", path.display()))
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT)
        .row_buffer_size(ROW_BUFFER)
}

/// Connects to a file, and retries while it is busy: switching a new file to WAL takes a lock for which SQLite does
/// not wait, however long its busy timeout, so it fails at once if another connection is doing the same.
async fn connect(options: &SqliteConnectOptions) -> Result<SqliteConnection, sqlx::Error> {
    let started = Instant::now();
    loop {
        match options.connect().await {
            Err(e) if result_code(&e) == Some(BUSY) && started.elapsed() < BUSY_TIMEOUT => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            result => return result,
        }
    }
}

const ERROR: i32 = 1;
const BUSY: i32 = 5;
const CORRUPT: i32 = 11;
const NOT_A_DATABASE: i32 = 26;

/// Returns the primary result code of SQLite, if the error is one of SQLite's.
fn result_code(error: &sqlx::Error) -> Option<i32> {
    let extended: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(extended & 0xff)
}

/// A pool of connections of one kind to one file. Each connection is lent for one transaction.
pub(crate) struct Connections {
    path: Arc<Path>,
    options: SqliteConnectOptions,
    begin: &'static str,
    permits: Semaphore,
    idle: Mutex<Vec<SqliteConnection>>,
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections")
            .field("path", &self.path)
            .field("begin", &self.begin)
            .finish_non_exhaustive()
    }
}

impl Connections {
    fn new(path: &Arc<Path>, options: SqliteConnectOptions, begin: &'static str, count: usize) -> Self {
        Self {
            path: Arc::clone(path),
            options,
            begin,
            permits: Semaphore::new(count),
            idle: Mutex::new(Vec::with_capacity(count)),
        }
    }

    /// Begins a transaction; waits for a connection if all are lent.
    pub(crate) async fn begin(&self) -> Result<Transaction<'_>, Failure> {
        let failed = |error| Failure { path: Arc::clone(&self.path), error };
        let permit = self.permits.acquire().await.map_err(|_| failed(sqlx::Error::PoolClosed))?;
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => connect(&self.options).await.map_err(failed)?,
        };
        sqlx::query(self.begin).execute(&mut connection).await.map_err(failed)?;
        Ok(Transaction { connection, path: Arc::clone(&self.path), home: Some((self, permit)) })
    }

    /// Begins a transaction on a connection of its own, which is closed with it: such a transaction may stay open for
    /// long without taking a connection from the pool, and can't be left open on one that goes back to it.
    ///
    /// It sees the file as of its first statement, not as of this call.
    pub(crate) async fn begin_apart(&self) -> Result<Transaction<'static>, Failure> {
        let failed = |error| Failure { path: Arc::clone(&self.path), error };
        let mut connection = connect(&self.options).await.map_err(failed)?;
        sqlx::query(self.begin).execute(&mut connection).await.map_err(failed)?;
        Ok(Transaction { connection, path: Arc::clone(&self.path), home: None })
    }

    /// Returns what keeps a commit from surviving a power failure.
    pub(crate) async fn check(&self) -> Result<Vec<DurabilityProblem>, Failure> {
        let mut tx = self.begin().await?;
        let pragmas = sqlx::query_as(
            "SELECT m.journal_mode, s.synchronous FROM pragma_journal_mode AS m, pragma_synchronous AS s",
        );
        let (journal_mode, synchronous): (String, i64) =
            tx.one(pragmas).await?.ok_or_else(|| tx.damaged("it has no journal mode"))?;
        tx.commit().await?;
        let mut problems = Vec::new();
        if !journal_mode.eq_ignore_ascii_case("wal") {
            let path = self.path.to_path_buf();
            problems.push(DurabilityProblem::NoWriteAheadLog { path, found: journal_mode });
        }
        if synchronous < 2 {
            problems.push(DurabilityProblem::Setting {
                of: self.path.display().to_string(),
                name: "synchronous",
                found: synchronous.to_string(),
                wanted: "2 (FULL)",
                otherwise: "or commits are acknowledged before they are on disk",
            });
        }
        Ok(problems)
    }

    fn keep(&self, connection: SqliteConnection) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
    }
}

/// Returns a count as a signed integer of SQLite. No real count gets near the limit; one that a damaged entry claims
/// is capped there, so that the audit fails but reading goes on.
pub(crate) fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
