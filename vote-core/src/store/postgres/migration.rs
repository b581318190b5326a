//! Creation and migration of the tables.

use sqlx::{
    Connection, SqlSafeStr,
    migrate::{MigrateError, Migration, MigrationType, Migrator},
};

use super::{PostgresStore, error::contradicts};
use crate::store::StoreError;

/// Number, name and SQL of each migration, in order. A released migration is never changed.
const MIGRATIONS: [(i64, &str, &str); 13] = [
    (1, "tables", include_str!("0001_tables.sql")),
    (2, "audit", include_str!("0002_audit.sql")),
    (3, "results", include_str!("0003_results.sql")),
    (4, "finality", include_str!("0004_finality.sql")),
    (5, "quarantine by vote", include_str!("0005_quarantine_by_vote.sql")),
    (6, "withdrawal", include_str!("0006_withdrawal.sql")),
    (7, "reason codes", include_str!("0007_reason_codes.sql")),
    (8, "diverged", include_str!("0008_diverged.sql")),
    (9, "names", include_str!("0009_names.sql")),
    (10, "undone withdrawal", include_str!("0010_undone_withdrawal.sql")),
    (11, "results at scale", include_str!("0011_results_at_scale.sql")),
    (12, "reporter", include_str!("0012_reporter.sql")),
    (13, "partition first", include_str!("0013_partition_first.sql")),
];

impl PostgresStore {
    /// Creates the schema and its tables, or brings them up to date. Safe to repeat, and to run several times at once.
    ///
    /// # Errors
    /// - [`StoreError::NewerVersion`] if a newer version made the tables.
    /// - [`StoreError::NotAStore`] if other tables are in the way.
    /// - [`StoreError::Unavailable`] if the server can't be reached, or the user may not create tables.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        let migration = |(number, name, sql): (i64, &'static str, &'static str)| {
            Migration::new(number, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
        };
        let mut migrator = Migrator::with_migrations(MIGRATIONS.map(migration).into());
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
}
