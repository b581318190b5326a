//! Errors of the store.

use std::path::PathBuf;

use crate::{
    DurabilityProblem, OptionSlug, Partition, PollSlug,
    queue::{Layout, LayoutMismatch},
};

/// Error of a call to the store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Nothing was committed: another session has committed to the partition since, or the plan counts votes of a poll
    /// that is final by now. Acquire the partition again, read the polls again, and make a new plan.
    #[error(
        "the plan for partition {0} is stale: another session has committed, or a poll is final or was replaced"
    )]
    StaleVersion(Partition),
    /// Nothing was changed: the content of the store does not allow it.
    ///
    /// In a commit: a row exists that the plan did not expect, a row is missing or differs that it did expect, a poll is
    /// not registered or lacks an option, or the quarantined votes of a frame are not those that were
    /// [replayed](crate::count::Replayed::tried). Read the polls again, look up with
    /// [`Lookup::Exhaustive`](crate::store::Lookup::Exhaustive) and plan again; a second conflict in a row is a bug.
    #[error("conflict with what the store holds: {0}")]
    Conflict(String),
    /// The store was made for another number of partitions, or with another deployment's pepper. An operator has to
    /// correct the settings.
    #[error("the store {mismatch}: {remedy}", mismatch = .0, remedy = layout_remedy(.0))]
    Layout(LayoutMismatch),
    /// There is no store yet: a worker, or `vote-worker migrate`, has to create it. Wait, or have an operator do that.
    #[error("{place} {lacks}: {remedy}")]
    NotPrepared {
        /// Where the store should be, without a password.
        place: String,
        /// What it lacks, as the end of a sentence.
        lacks: &'static str,
        /// What an operator has to do.
        remedy: &'static str,
    },
    /// The store has the tables of an older version. Wait until a worker of this version, or `vote-worker migrate`, has
    /// brought them up to date.
    #[error("{place} has the tables of an older version: {remedy}")]
    OlderVersion {
        /// Where the store is, without a password.
        place: String,
        /// What an operator has to do.
        remedy: &'static str,
    },
    /// The store has the tables of a newer version: use a program of that version.
    #[error(
        "{place} has tables of a newer version than this program (migration {migration}): use the version of the \
         program that made them"
    )]
    NewerVersion {
        /// Where the store is, without a password.
        place: String,
        /// Number of a migration that was applied to the tables and that this version does not have.
        migration: i64,
    },
    /// The address leads to something that is not a store: a queue, tables of another program, or a file of another
    /// kind. An operator has to correct the address, or the schema.
    #[error(
        "{place} is not a store that this version can use ({reason}): give the store a file or a schema of its own, or \
         restore it from a backup"
    )]
    NotAStore {
        /// What the address leads to, without a password.
        place: String,
        /// What was found there.
        reason: String,
    },
    /// The store holds a value that this version can't read, named by this text: it is damaged, or a newer version wrote
    /// it. An operator has to restore a backup, or to run that version.
    #[error(
        "the store holds a value that this version can't read ({0}): run the version that wrote it, or restore a backup"
    )]
    Damaged(String),
    /// The address can't be used, for the reason that this text gives without a password. An operator has to correct it.
    #[error("{0}")]
    InvalidAddress(String),
    /// This text can't be the name of a schema. An operator has to correct it.
    #[error("{0:?} can't be the name of the schema: use up to 63 of a-z, 0-9 and _, and no digit first")]
    InvalidSchema(String),
    /// This build has no stores of the kind that the address asks for. Use another address, or another build.
    #[error("this build does not support {kind}: enable the cargo feature `{feature}`")]
    Unsupported {
        /// The kind of stores, in the plural.
        kind: &'static str,
        /// Cargo feature of `vote-core` that adds them.
        feature: &'static str,
    },
    /// Another process has sessions with a store that allows them in one process only. Try again once that has ended.
    #[error(
        "another worker uses this store and holds {}: a SQLite store allows one worker process; stop the other one, or \
         use Postgres",
        lock.display()
    )]
    InUse {
        /// File whose lock the other process holds.
        lock: PathBuf,
    },
    /// The store has no such poll.
    #[error("the store has no poll {0}")]
    UnknownPoll(PollSlug),
    /// The store has no such partition: it was made for fewer ones.
    #[error("the store has no partition {0}")]
    UnknownPartition(Partition),
    /// The store may lose commits, for these [reasons](crate::Store::durability_problems), and the caller does not
    /// accept that. An operator has to remove them.
    #[error("{}", DurabilityProblem::joined(.0))]
    NotDurable(Vec<DurabilityProblem>),
    /// The store is not reachable, does not answer in time, or fails. Try again later. A commit may or may not have
    /// been applied: the version that the next [acquire](crate::Session::acquire) returns tells which.
    #[error("the store is not available: {0}")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl StoreError {
    /// Returns whether the same work may succeed later, in a new session, without an operator changing anything.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::StaleVersion(_) | Self::Conflict(_) | Self::Unavailable(_))
    }

    /// Returns whether a setting of the program is wrong: its address or schema of the store, its number of partitions
    /// or its pepper. No retry helps, so a service should end with the exit code for invalid settings.
    #[must_use]
    pub const fn is_wrong_setting(&self) -> bool {
        matches!(
            self,
            Self::Layout(_)
                | Self::NotAStore { .. }
                | Self::InvalidAddress(_)
                | Self::InvalidSchema(_)
                | Self::Unsupported { .. }
        )
    }
}

/// Error of a session with a store that no worker has [prepared](crate::Store::prepare) yet.
pub(super) fn not_prepared(place: impl Into<String>) -> StoreError {
    StoreError::NotPrepared {
        place: place.into(),
        lacks: "was not prepared yet",
        remedy: "start a worker first",
    }
}

/// Error of a plan that counts votes of a poll that the store does not have.
pub(super) fn not_registered(poll: PollSlug) -> StoreError {
    StoreError::Conflict(format!("poll {poll} is not registered"))
}

/// Error of a plan that counts votes for an option that its poll does not have.
pub(super) fn no_option(option: OptionSlug) -> StoreError {
    StoreError::Conflict(format!("the poll has no option {option}"))
}

/// Error of moving the closing time of a closed poll.
pub(super) fn is_closed(poll: PollSlug) -> StoreError {
    StoreError::Conflict(format!("poll {poll} is closed: its closing time can't be changed any more"))
}

/// Returns what an operator has to do about a layout that is not the one on record in the store.
fn layout_remedy(mismatch: &LayoutMismatch) -> String {
    match mismatch {
        LayoutMismatch::Partitions { found, .. } => {
            format!("the number can't be changed, set VOTE_PARTITIONS to {found}")
        }
        _ => "with a new VOTE_PEPPER every voter could vote again, use the old one, or a new database for new polls"
            .to_owned(),
    }
}

/// Fails with [`StoreError::Layout`] unless the layout that a caller asks for is the one on record.
pub(super) fn same_layout(recorded: Layout, asked: Layout) -> Result<(), StoreError> {
    recorded.mismatch(asked).map_or(Ok(()), |mismatch| Err(StoreError::Layout(mismatch)))
}
