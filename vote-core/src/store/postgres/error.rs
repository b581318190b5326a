//! What errors of Postgres mean for the caller.

use crate::store::StoreError;

/// Names a store for errors.
pub(super) fn place(address: &str, schema: &str) -> String {
    format!("{address}, schema {schema},")
}

/// Returns whether a statement contradicts the tables that are there, so that it fails whenever it is repeated.
pub(super) fn contradicts(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    // Class 42, syntax error or access rule violation, without insufficient_privilege.
    code.is_some_and(|code| code.starts_with("42") && code != "42501")
}

/// Translates an error of sqlx into what it means for the caller.
pub(super) fn error_at(address: &str, schema: &str, error: sqlx::Error) -> StoreError {
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
pub(super) fn damaged(what: &str) -> StoreError {
    StoreError::Damaged(what.to_owned())
}
