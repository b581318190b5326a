//! Reasons why a queue or a store may lose what it acknowledged.

use std::path::PathBuf;

/// A reason why a [queue](crate::Queue::durability_problems) or a [store](crate::Store::durability_problems) may lose
/// what it acknowledged when power fails. Its text says what to change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DurabilityProblem {
    /// It is in memory, so it ends with its process.
    #[error("a {what} in memory is lost when its process ends: use {instead}")]
    InMemory {
        /// What is in memory: queue or store.
        what: &'static str,
        /// What to use instead.
        instead: &'static str,
    },
    /// A setting allows a loss.
    #[error("{of} has {name} {found}: set it to {wanted}, {otherwise}")]
    Setting {
        /// The server or the file that has the setting.
        of: String,
        /// Name of the setting.
        name: &'static str,
        /// Its value.
        found: String,
        /// The value that allows no loss.
        wanted: &'static str,
        /// What happens with another value, as the end of a sentence.
        otherwise: &'static str,
    },
    /// A SQLite file has no write-ahead log.
    #[error(
        "journal_mode of {} is {found}, not wal: put the file on a local disk, since WAL needs shared memory",
        path.display()
    )]
    NoWriteAheadLog {
        /// The file.
        path: PathBuf,
        /// Its `journal_mode`.
        found: String,
    },
    /// The version of a server is older than those that were tested.
    #[error("{server} {version} is too old: use {oldest} or newer")]
    OldServer {
        /// Name of the server.
        server: &'static str,
        /// Its version.
        version: String,
        /// Oldest version that can be used.
        oldest: &'static str,
    },
    /// Redis failed to write its append-only file.
    #[error("Redis could not write its append-only file: check whether the disk is full")]
    FileNotWritten,
    /// The append-only file of Redis lacks what was stored before it was switched on.
    #[error(
        "Redis has not yet written all its data into its append-only file ({})",
        if *.rewriting { "it is doing so: wait a moment" } else { "the last attempt failed: check whether the disk is full" }
    )]
    FileIncomplete {
        /// Whether Redis is writing it at the moment.
        rewriting: bool,
    },
    /// It is not known whether Redis can replay its append-only file.
    #[error(
        "Redis does not say what its user default may do, as which it replays its append-only file at start: give this \
         user +acl|dryrun"
    )]
    ReplayUnknown,
    /// Redis would skip commands of its append-only file at its start.
    #[error(
        "Redis replays its append-only file at start as its user default, and skips what that user may not do \
         ({refusal}): set `user default off ~* &* +@all` in its ACL file"
    )]
    ReplayRefused {
        /// Which command it would skip, in the words of Redis.
        refusal: String,
    },
    /// The server is a replica.
    #[error(
        "Redis is a replica: what it accepts is lost at its next synchronization with its master. Use the master, or \
         promote this one"
    )]
    Replica,
    /// Another reason, of an implementation outside this crate: a sentence that says what to change.
    #[error("{0}")]
    Other(String),
}

impl DurabilityProblem {
    /// Returns the name of the variant for programs, such as `in-memory`, which is never changed.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::InMemory { .. } => "in-memory",
            Self::Setting { .. } => "setting",
            Self::NoWriteAheadLog { .. } => "no-write-ahead-log",
            Self::OldServer { .. } => "old-server",
            Self::FileNotWritten => "file-not-written",
            Self::FileIncomplete { .. } => "file-incomplete",
            Self::ReplayUnknown => "replay-unknown",
            Self::ReplayRefused { .. } => "replay-refused",
            Self::Replica => "replica",
            Self::Other(_) => "other",
        }
    }

    /// Returns the texts of all problems in one line.
    #[must_use]
    pub fn joined(problems: &[Self]) -> String {
        problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }
}
