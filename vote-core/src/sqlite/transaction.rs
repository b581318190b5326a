//! Transactions of a SQLite file, and their errors.

use std::{fmt, path::Path, sync::Arc};

use sqlx::{
    FromRow, Sqlite, SqliteConnection,
    query::{Query, QueryAs},
    sqlite::{SqliteArguments, SqliteQueryResult, SqliteRow},
};
use tokio::sync::SemaphorePermit;

use super::{CORRUPT, Connections, NOT_A_DATABASE, result_code};

/// A transaction, which owns its connection until it is [committed](Self::commit). Dropping it before closes the
/// connection, which rolls back; see the [module](super).
pub(crate) struct Transaction<'a> {
    pub(super) connection: SqliteConnection,
    pub(super) path: Arc<Path>,
    /// Pool to which the connection goes back; `None` if the transaction has a connection of its own.
    pub(super) home: Option<(&'a Connections, SemaphorePermit<'a>)>,
}

impl fmt::Debug for Transaction<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Transaction<'_> {
    /// Commits the transaction. After an error it is unknown whether it was committed.
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

    /// Runs a statement and returns its rows.
    pub(crate) async fn all<T>(
        &mut self,
        query: QueryAs<'_, Sqlite, T, SqliteArguments>,
    ) -> Result<Vec<T>, Failure>
    where
        T: for<'r> FromRow<'r, SqliteRow> + Send + Unpin,
    {
        query.fetch_all(&mut self.connection).await.map_err(|error| self.failed(error))
    }

    /// Runs a statement and returns its first row, if there is one.
    pub(crate) async fn one<T>(
        &mut self,
        query: QueryAs<'_, Sqlite, T, SqliteArguments>,
    ) -> Result<Option<T>, Failure>
    where
        T: for<'r> FromRow<'r, SqliteRow> + Send + Unpin,
    {
        query.fetch_optional(&mut self.connection).await.map_err(|error| self.failed(error))
    }

    /// Returns the failure for content that this crate can't have written.
    pub(crate) fn damaged(&self, what: impl fmt::Display) -> Failure {
        self.failed(sqlx::Error::Decode(what.to_string().into()))
    }

    fn failed(&self, error: sqlx::Error) -> Failure {
        Failure { path: Arc::clone(&self.path), error }
    }
}

/// An error of SQLite, with the path of the file. It has no source, since errors of sqlx are not part of the public
/// API.
#[derive(Debug, thiserror::Error)]
#[error("SQLite file {}: {error}", path.display())]
pub(crate) struct Failure {
    pub(super) path: Arc<Path>,
    pub(super) error: sqlx::Error,
}

impl Failure {
    /// Returns whether a row with the same key already existed.
    pub(crate) fn is_duplicate(&self) -> bool {
        self.error.as_database_error().is_some_and(|e| e.is_unique_violation())
    }

    /// Returns whether the file is damaged, or no SQLite file at all, so that waiting does not help.
    pub(crate) fn is_damage(&self) -> bool {
        matches!(&self.error, sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. })
            || matches!(result_code(&self.error), Some(CORRUPT | NOT_A_DATABASE))
    }
}
