//! Errors of queues.

use super::Position;
use crate::Partition;

/// Error of an [append](crate::Queue::append), which tells whether frames are stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// Not stored: the address holds another queue now, or none. Get its [status](crate::Queue::status), and encode the
    /// votes for that queue.
    #[error("the queue was replaced: its address holds another one now, or none")]
    Replaced,
    /// Not stored: no worker has [activated](crate::Queue::activate) the queue yet. Wait for one.
    #[error("no worker has activated the queue yet")]
    NotActivated,
    /// Not stored, for this reason. The caller may try again.
    #[error("not stored: {0}")]
    NotStored(String),
    /// Stored or not, or still to be stored: the reply was lost. Tell the voter to try again; a vote stored twice
    /// counts once.
    #[error("unknown whether stored: {0}")]
    Unknown(String),
}

/// Error of a queue, for all calls but [`append`](crate::Queue::append).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// The address holds another queue, or none. Get its [status](crate::Queue::status).
    #[error("the queue was replaced: its address holds another one now, or none")]
    Replaced,
    /// The log no longer holds the entry at the position that was committed last: it lost or rolled back data. Count
    /// nothing more under this identity, and [replace](crate::Queue::create) the queue.
    #[error(
        "the queue no longer holds the entry at position {0}, which was read before: it lost or rolled back data"
    )]
    Diverged(Position),
    /// The server is a replica, on which no queue is created. Leave it alone until an operator promotes it.
    #[error("the server is a replica: no queue is created on it")]
    Replica,
    /// The queue has no such partition.
    #[error("the queue has no partition {0}")]
    NoPartition(Partition),
    /// The address, or what is stored there, is nothing that this version can use. Trying again does not help: an
    /// operator has to change something.
    #[error("the queue can't be used: {0}")]
    Incompatible(String),
    /// Unreachable, too slow, or failing. The call may have taken effect all the same, if only the reply was lost.
    /// Try again later.
    #[error("the queue is not available: {0}")]
    Unavailable(String),
}

impl QueueError {
    /// Returns whether the same call may succeed later, without a change by the caller.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Replica)
    }
}
