//! Revision of a SQLite store.

use crate::sqlite::{Failure, Transaction};

/// Returns the store's revision; 0 before it was prepared.
pub(super) async fn read(tx: &mut Transaction<'_>) -> Result<u64, Failure> {
    let row: Option<(u64,)> = tx.one(sqlx::query_as("SELECT revision FROM meta")).await?;
    Ok(row.map_or(0, |(revision,)| revision))
}

/// Raises the revision by one.
pub(super) async fn raise(tx: &mut Transaction<'_>) -> Result<(), Failure> {
    tx.run(sqlx::query("UPDATE meta SET revision = revision + 1")).await.map(drop)
}
