//! SQLite files: opening them, and transactions that can't be left open.
//!
//! A future may be dropped at any await, also between `BEGIN` and `COMMIT`. A connection on which that happens must
//! not be used again: its next user would write into a transaction that is not its own, and commit the half of
//! another (transact-rs/sqlx#4385 is this trap in a pool). So a [`Transaction`] owns its connection, and gives it
//! back only after its `COMMIT` succeeded. Whatever else happens, an error or a dropped future, drops the connection
//! too; closing it rolls back what was not committed. A statement or a `COMMIT` that SQLite is executing at that
//! moment is finished first, so all of a transaction is there or nothing of it.
//!
//! The other way would be a task that owns the connection and takes commands by a channel. It saves the new connection,
//! about 1 ms, that a dropped future costs here; but it has to be ended and awaited, works off commands that nobody
//! waits for any more, and has to throw the connection away on an error all the same.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use sqlx::{
    ConnectOptions, Connection, FromRow, SqlSafeStr, Sqlite, SqliteConnection,
    migrate::{Migrate, MigrateError, Migration, MigrationType, Migrator},
    query::{Query, QueryAs},
    sqlite::{
        SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqliteQueryResult, SqliteRow,
        SqliteSynchronous,
    },
};
use tokio::sync::{Semaphore, SemaphorePermit};

/// How long a statement waits for another process, or for a connection that is being closed.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How many read at once.
const READERS: usize = 4;
/// Rows on their way from SQLite's thread to a task: a look-up has thousands.
const ROW_BUFFER: usize = 1024;
/// Which migrations were applied. Ours has a name of its own, since an embedder may use the file for more.
const MIGRATIONS_TABLE: &str = "_vote_migrations";

/// What a file holds.
#[derive(Debug)]
pub(crate) struct Schema {
    /// In a word: queue or store.
    pub(crate) of: &'static str,
    /// Number, name and SQL, in order. What was released is never changed.
    pub(crate) migrations: &'static [(i64, &'static str, &'static str)],
}

/// An open file.
#[derive(Debug)]
pub(crate) struct Files {
    /// With symbolic links resolved, so that it is the same for everybody.
    pub(crate) path: Arc<Path>,
    /// What tells this file from every other one on this machine: the path, and where there are such, the numbers of
    /// the device and of the file, which a copy at the same path does not have. All who have it open find the same.
    pub(crate) identity: String,
    /// One connection: SQLite has one writer at a time, and waiting here is fair and costs no polling.
    pub(crate) writer: Connections,
    /// These never wait for the writer, nor it for them.
    pub(crate) readers: Connections,
}

/// Why a file could not be opened. Each text names the file and says what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// There is nothing to read yet.
    #[error("{0}")]
    Missing(String),
    /// It holds something else.
    #[error("{0}")]
    Foreign(String),
    /// It may work later.
    #[error("{0}")]
    Failed(String),
}

impl Schema {
    /// Opens a file, making it and its folder where they are missing, and brings its tables up to date.
    pub(crate) async fn open(&self, path: &Path) -> Result<Files, OpenError> {
        let path = absolute(path)?;
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|e| {
                OpenError::Failed(format!(
                    "can't make the folder of the SQLite file {}: {e}; make it, and let this user write in it",
                    path.display()
                ))
            })?;
        }
        let options = options(&path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            // macOS answers a plain fsync before the data is on the medium. Elsewhere it means nothing.
            .pragma("fullfsync", "ON")
            // A partition of a store with tens of millions of votes stays in memory between two batches; in KiB.
            .pragma("cache_size", "-65536");
        let mut connection = connect(&options).await.map_err(|e| self.cannot_open(&path, e))?;
        self.migrate(&mut connection).await.map_err(|e| self.cannot_migrate(&path, e))?;
        // Not by opening it: closing a file drops all locks that this process holds on it, SQLite's too.
        let path: Arc<Path> = path.canonicalize().unwrap_or(path).into();
        let identity = identity(&path).map_err(|e| {
            OpenError::Failed(format!("can't tell the SQLite file {} from others: {e}", path.display()))
        })?;
        let writer = Connections::new(&path, options, "BEGIN IMMEDIATE", 1);
        writer.keep(connection);
        let readers = Connections::new(&path, self::options(&path).read_only(true), "BEGIN", READERS);
        Ok(Files { path, identity, writer, readers })
    }

    /// Opens a file that another process makes and writes.
    pub(crate) async fn open_read_only(&self, path: &Path) -> Result<(Arc<Path>, Connections), OpenError> {
        let path = absolute(path)?;
        if !path.exists() {
            return Err(OpenError::Missing(format!(
                "there is no SQLite {} at {} yet: start the worker first, which makes it, and give both the same path",
                self.of,
                path.display()
            )));
        }
        let options = options(&path).read_only(true);
        let mut connection = connect(&options).await.map_err(|e| self.cannot_open(&path, e))?;
        self.check(&path, &mut connection).await?;
        let path: Arc<Path> = path.canonicalize().unwrap_or(path).into();
        let readers = Connections::new(&path, options, "BEGIN", READERS);
        readers.keep(connection);
        Ok((path, readers))
    }

    fn migrator(&self) -> Migrator {
        let migration = |&(number, name, sql): &(i64, &'static str, &'static str)| {
            Migration::new(number, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
        };
        let mut migrator = Migrator::with_migrations(self.migrations.iter().map(migration).collect());
        migrator.dangerous_set_table_name(MIGRATIONS_TABLE);
        migrator
    }

    /// All in one transaction that holds the write lock from its start, since two processes may open a new file at
    /// once and sqlx has no migration lock for SQLite.
    async fn migrate(&self, connection: &mut SqliteConnection) -> Result<(), MigrateError> {
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        // Not `run`, whose future is not Send: sqlx has this one for that.
        self.migrator().run_direct(None, &mut *transaction, false).await?;
        Ok(transaction.commit().await?)
    }

    /// Whether the file has the tables that this version reads.
    async fn check(&self, path: &Path, connection: &mut SqliteConnection) -> Result<(), OpenError> {
        let table = sqlx::query("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1")
            .bind(MIGRATIONS_TABLE);
        let found = table.fetch_optional(&mut *connection).await.map_err(|e| self.cannot_open(path, e))?;
        let applied = match found {
            None => Vec::new(),
            Some(_) => connection
                .list_applied_migrations(MIGRATIONS_TABLE)
                .await
                .map_err(|e| self.cannot_migrate(path, e))?,
        };
        let migrator = self.migrator();
        if let Some(newer) = applied.iter().find(|applied| !migrator.version_exists(applied.version)) {
            return Err(self.cannot_migrate(path, MigrateError::VersionMissing(newer.version)));
        }
        for migration in migrator.iter() {
            match applied.iter().find(|applied| applied.version == migration.version) {
                None => {
                    return Err(OpenError::Missing(format!(
                        "the SQLite {} at {} has no tables of version {} yet: start a worker of this version first",
                        self.of,
                        path.display(),
                        migration.version
                    )));
                }
                Some(applied) if applied.checksum != migration.checksum => {
                    return Err(self.cannot_migrate(path, MigrateError::VersionMismatch(migration.version)));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    fn cannot_open(&self, path: &Path, error: sqlx::Error) -> OpenError {
        let path = path.display();
        match result_code(&error) {
            Some(NOT_A_DATABASE | CORRUPT) => OpenError::Foreign(format!(
                "{path} is no SQLite file, or a damaged one ({error}): give the {} another path",
                self.of
            )),
            _ => OpenError::Failed(format!(
                "can't open the SQLite {} at {path}: {error}; its folder has to be there, on a local disk, and this \
                 user has to be able to write in it",
                self.of
            )),
        }
    }

    fn cannot_migrate(&self, path: &Path, error: MigrateError) -> OpenError {
        match error {
            MigrateError::Execute(error) => self.cannot_open(path, error),
            // Tables of another program are in the way, or else, for example, the disk is full.
            MigrateError::ExecuteMigration(error, _) if result_code(&error) != Some(ERROR) => {
                self.cannot_open(path, error)
            }
            error => OpenError::Foreign(format!(
                "{} is not a {} that this version can use ({error}): queue and store need a file each, and a file of a \
                 newer version needs that version",
                path.display(),
                self.of
            )),
        }
    }
}

/// SQLite takes `:memory:` and `file:…` for something else than a path, but not when they are absolute.
fn absolute(path: &Path) -> Result<PathBuf, OpenError> {
    std::path::absolute(path)
        .map_err(|e| OpenError::Failed(format!("{:?} is no path for a SQLite file: {e}", path.display())))
}

/// Without opening the file, for the reason given in [`Schema::open`].
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

/// Turning a new file to WAL takes a lock that SQLite does not wait for, however long its busy timeout: it says at once
/// that another connection is doing the same.
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

/// The primary result code of SQLite, if the error is one of SQLite's.
fn result_code(error: &sqlx::Error) -> Option<i32> {
    let extended: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(extended & 0xff)
}

/// Connections of one kind to one file, lent for a transaction each.
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

    /// Begins a transaction, waiting for a connection if all are lent.
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

    /// Begins a transaction on a connection of its own, which is closed with it: it may stay open for long, and none of
    /// those that are lent is missing meanwhile, or can come back with it open.
    ///
    /// What it sees is of the moment of its first statement, not of this one.
    pub(crate) async fn begin_apart(&self) -> Result<Transaction<'static>, Failure> {
        let failed = |error| Failure { path: Arc::clone(&self.path), error };
        let mut connection = connect(&self.options).await.map_err(failed)?;
        sqlx::query(self.begin).execute(&mut connection).await.map_err(failed)?;
        Ok(Transaction { connection, path: Arc::clone(&self.path), home: None })
    }

    /// What keeps a commit from surviving the loss of power, in words that say what to change.
    pub(crate) async fn check(&self) -> Result<Vec<String>, Failure> {
        let mut tx = self.begin().await?;
        let pragmas = sqlx::query_as(
            "SELECT m.journal_mode, s.synchronous FROM pragma_journal_mode AS m, pragma_synchronous AS s",
        );
        let (journal_mode, synchronous): (String, i64) =
            tx.one(pragmas).await?.ok_or_else(|| tx.damaged("it has no journal mode"))?;
        tx.commit().await?;
        let path = self.path.display();
        let mut problems = Vec::new();
        if !journal_mode.eq_ignore_ascii_case("wal") {
            problems.push(format!(
                "journal_mode of {path} is {journal_mode}, not wal: put the file on a local disk, since WAL needs \
                 shared memory"
            ));
        }
        if synchronous < 2 {
            problems.push(format!("synchronous of {path} is {synchronous}, less than 2 (FULL): set it back"));
        }
        Ok(problems)
    }

    fn keep(&self, connection: SqliteConnection) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
    }
}

/// A transaction that owns its connection until it [committed](Self::commit). Dropping it otherwise closes the
/// connection, which rolls back; see the [module](self).
pub(crate) struct Transaction<'a> {
    connection: SqliteConnection,
    path: Arc<Path>,
    /// Where the connection was lent, and goes back to. None if it is its own.
    home: Option<(&'a Connections, SemaphorePermit<'a>)>,
}

impl fmt::Debug for Transaction<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Transaction<'_> {
    /// Ends the transaction. An error leaves open what became of it.
    pub(crate) async fn commit(mut self) -> Result<(), Failure> {
        self.run(sqlx::query("COMMIT")).await?;
        if let Some((home, _permit)) = self.home {
            home.keep(self.connection);
        }
        Ok(())
    }

    /// Runs a statement that returns nothing.
    pub(crate) async fn run(
        &mut self,
        query: Query<'_, Sqlite, SqliteArguments>,
    ) -> Result<SqliteQueryResult, Failure> {
        query.execute(&mut self.connection).await.map_err(|error| self.failed(error))
    }

    /// The rows of a statement.
    pub(crate) async fn all<T>(
        &mut self,
        query: QueryAs<'_, Sqlite, T, SqliteArguments>,
    ) -> Result<Vec<T>, Failure>
    where
        T: for<'r> FromRow<'r, SqliteRow> + Send + Unpin,
    {
        query.fetch_all(&mut self.connection).await.map_err(|error| self.failed(error))
    }

    /// The first row of a statement, if there is one.
    pub(crate) async fn one<T>(
        &mut self,
        query: QueryAs<'_, Sqlite, T, SqliteArguments>,
    ) -> Result<Option<T>, Failure>
    where
        T: for<'r> FromRow<'r, SqliteRow> + Send + Unpin,
    {
        query.fetch_optional(&mut self.connection).await.map_err(|error| self.failed(error))
    }

    /// The file holds what can't have been written.
    pub(crate) fn damaged(&self, what: impl fmt::Display) -> Failure {
        self.failed(sqlx::Error::Decode(what.to_string().into()))
    }

    fn failed(&self, error: sqlx::Error) -> Failure {
        Failure { path: Arc::clone(&self.path), error }
    }
}

/// What SQLite failed with, and on which file. It has no source: the error of sqlx is no part of our interface.
#[derive(Debug, thiserror::Error)]
#[error("SQLite file {}: {error}", path.display())]
pub(crate) struct Failure {
    path: Arc<Path>,
    error: sqlx::Error,
}

impl Failure {
    /// A row with the same key was there.
    pub(crate) fn is_duplicate(&self) -> bool {
        self.error.as_database_error().is_some_and(|e| e.is_unique_violation())
    }

    /// What is stored is not what could have been written, or no SQLite file at all: waiting does not help.
    pub(crate) fn is_damage(&self) -> bool {
        matches!(&self.error, sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. })
            || matches!(result_code(&self.error), Some(CORRUPT | NOT_A_DATABASE))
    }
}

/// SQLite's integers are signed. No count gets near the limit; one that a damaged entry claims is held there, where
/// it breaks the audit but not the reading.
pub(crate) fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
