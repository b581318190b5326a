//! Checks of a Postgres' settings: whether it keeps what it commits.

use sqlx::Row;

use super::PostgresStore;
use crate::{DurabilityProblem, store::StoreError};

/// Settings that must not be off.
const DURABLE: [&str; 3] = ["fsync", "full_page_writes", "synchronous_commit"];

impl PostgresStore {
    /// Returns what keeps a commit from surviving a power failure.
    pub(super) async fn check(&self) -> Result<Vec<DurabilityProblem>, StoreError> {
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
}
