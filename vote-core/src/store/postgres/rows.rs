//! Columns that rows of several tables have.

use sqlx::{Row, postgres::PgRow};

use super::damaged;
use crate::{Partition, PollSlug, store::StoreError};

/// Reads the column `partition`.
pub(super) fn partition(row: &PgRow) -> Partition {
    Partition(row.get::<i16, _>("partition") as u16)
}

/// Reads a count, which is never negative, from a column.
pub(super) fn count(row: &PgRow, column: &str) -> Result<u64, StoreError> {
    u64::try_from(row.get::<i64, _>(column)).map_err(|_| damaged(column))
}

/// Reads the name of a poll from a column.
pub(super) fn slug(row: &PgRow, column: &str) -> Result<PollSlug, StoreError> {
    row.get::<&str, _>(column).parse().map_err(|_| damaged("poll"))
}
