//! What a Postgres executed, counted by the server itself.

use vote_testkit::Postgres;

/// Settings of the Postgres.
pub(crate) const SETTINGS: [(&str, &str); 6] = [
    ("shared_preload_libraries", "pg_stat_statements"),
    ("pg_stat_statements.track", "top"),
    ("max_connections", "1000"),
    ("shared_buffers", "512MB"),
    ("max_wal_size", "4GB"),
    ("checkpoint_timeout", "15min"),
];

/// A kind of statement, without its values.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Statement {
    pub(crate) calls: u64,
    /// Rows that it returned or changed.
    pub(crate) rows: u64,
    /// First characters of its text.
    pub(crate) text: String,
}

/// Counts of a database since the last [`reset`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Statements {
    pub(crate) all: Vec<Statement>,
    /// Bytes of WAL.
    pub(crate) wal: f64,
}

impl Statements {
    pub(crate) fn calls(&self) -> u64 {
        self.all.iter().map(|statement| statement.calls).sum()
    }

    pub(crate) fn rows(&self) -> u64 {
        self.all.iter().map(|statement| statement.rows).sum()
    }
}

/// Starts to count at zero; returns the position in the WAL, to be passed to [`count`].
pub(crate) fn reset(postgres: &Postgres, database: &str) -> String {
    postgres.psql(database, "CREATE EXTENSION IF NOT EXISTS pg_stat_statements SCHEMA public");
    let wal = postgres.psql(database, "SELECT pg_current_wal_lsn()");
    postgres.psql(database, "DO $$ BEGIN PERFORM public.pg_stat_statements_reset(); END $$");
    wal
}

/// Counts what was executed since a [`reset`].
pub(crate) fn count(postgres: &Postgres, database: &str, since: &str) -> Statements {
    let rows = postgres.psql(
        database,
        "SELECT calls, rows, left(regexp_replace(query, '\\s+', ' ', 'g'), 100)
         FROM public.pg_stat_statements
         WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
             AND query NOT LIKE '%pg_stat_statements%' AND query NOT LIKE '%pg_current_wal_lsn%'
         ORDER BY calls DESC, 3",
    );
    let statement = |line: &str| {
        let mut fields = line.splitn(3, '|');
        Some(Statement {
            calls: fields.next()?.parse().ok()?,
            rows: fields.next()?.parse().ok()?,
            text: fields.next()?.to_owned(),
        })
    };
    let wal = postgres.psql(database, &format!("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '{since}')"));
    Statements { all: rows.lines().filter_map(statement).collect(), wal: wal.parse().unwrap_or(0.0) }
}
