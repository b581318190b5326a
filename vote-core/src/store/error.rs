//! Errors of the store.

use crate::{OptionSlug, Partition, PollSlug, queue::Layout};

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
    #[error("{0}")]
    Layout(String),
    /// The store can't be used as it is: it lacks tables, for example, or holds a value that this version can't read.
    /// The text says what an operator has to do.
    #[error("{0}")]
    NotPrepared(String),
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
}

/// Error of a session with a store that no worker has [prepared](crate::Store::prepare) yet.
pub(super) fn not_prepared() -> StoreError {
    StoreError::NotPrepared("the store was not prepared yet: start a worker first".to_owned())
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

/// Fails with [`StoreError::Layout`] unless the layout that a caller asks for is the one on record.
pub(super) fn same_layout(recorded: Layout, asked: Layout) -> Result<(), StoreError> {
    if recorded.partitions != asked.partitions {
        return Err(StoreError::Layout(format!(
            "the store has {} partitions, but VOTE_PARTITIONS is {}: the number can't be changed, set it to {}",
            recorded.partitions, asked.partitions, recorded.partitions
        )));
    }
    if recorded.fingerprint != asked.fingerprint {
        return Err(StoreError::Layout(format!(
            "the store was filled with another pepper (fingerprint {}, VOTE_PEPPER has {}): with a new one every voter \
             could vote again; use the old one, or a new database for new polls",
            recorded.fingerprint, asked.fingerprint
        )));
    }
    Ok(())
}
