//! Reasons why a queue that answers is not read.

use std::fmt;

use vote_core::queue::{Layout, LayoutMismatch, QueueStatus};

use super::Evidence;

/// Reason why a queue that answers is not read now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::monitor) enum Obstacle {
    /// Nothing is at the address.
    NotCreated,
    /// The server is a replica.
    Replica,
    /// It does not fit this worker or its store.
    Mismatch(LayoutMismatch),
    /// Another queue was here when its status was requested again.
    ReplacedMeanwhile,
    /// It diverged, and this worker has just replaced it.
    Replaced,
    /// It diverged, and is replaced next.
    Diverged(Evidence),
    /// This worker reads it at another address of the same server.
    ReadElsewhere { address: String },
    /// The server at another address had it, and may have been restarted here.
    Unclear { address: String },
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotCreated => f.write_str("its frontend has not created it yet: is that frontend running?"),
            Self::Replica => f.write_str(
                "its server is a replica, which workers leave alone: its master is read. If the master is gone, promote \
                 the replica",
            ),
            Self::Mismatch(mismatch) => {
                write!(f, "it {mismatch}: ")?;
                match mismatch {
                    LayoutMismatch::Partitions { expected, .. } => write!(
                        f,
                        "the store has {expected}, so start its frontend with VOTE_PARTITIONS={expected} and an empty \
                         queue"
                    ),
                    LayoutMismatch::Pepper { .. } => {
                        f.write_str("give its frontend and the workers the same VOTE_PEPPER")
                    }
                    _ => f.write_str(
                        "let frontend and workers of the version that created it count all of its votes, and then give \
                         its frontend an empty database",
                    ),
                }
            }
            Self::ReplacedMeanwhile => f.write_str("it was replaced a moment ago"),
            Self::Replaced => f.write_str(
                "it lost data or was retired: a queue with a new identity has replaced it, and is read next",
            ),
            Self::Diverged(evidence) => evidence.fmt(f),
            Self::ReadElsewhere { address } => {
                write!(f, "it is the same queue as at {address}, where this worker already reads it")
            }
            Self::Unclear { address } => write!(
                f,
                "another server, at {address}, had the same queue a moment ago: waiting to see whether it still does"
            ),
        }
    }
}

/// Fails if a queue does not fit this worker or its store, or is on a replica.
pub(in crate::monitor) fn compatible(status: &QueueStatus, ours: Layout) -> Result<(), Obstacle> {
    if status.is_replica {
        return Err(Obstacle::Replica);
    }
    status.mismatch(ours).map_or(Ok(()), |mismatch| Err(Obstacle::Mismatch(mismatch)))
}
