//! Reasons why a queue that answers is not read.

use std::fmt;

use vote_core::{
    Partitions, PepperFingerprint,
    queue::{LAYOUT_VERSION, Layout, QueueStatus},
};

use super::Evidence;

/// Reason why a queue that answers is not read now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::monitor) enum Obstacle {
    /// Nothing is at the address.
    NotCreated,
    /// Its layout version is not this worker's.
    Version { found: u16 },
    /// It has another number of partitions than the store.
    Partitions { found: Partitions, ours: Partitions },
    /// Its frontend has another pepper than this worker.
    Pepper { found: PepperFingerprint, ours: PepperFingerprint },
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
            Self::Version { found } => write!(
                f,
                "it has layout version {found}, this worker reads version {LAYOUT_VERSION}: run frontends and workers of \
                 one version"
            ),
            Self::Partitions { found, ours } => write!(
                f,
                "it has {found} partitions, the store has {ours}: start its frontend with VOTE_PARTITIONS={ours} and an \
                 empty queue"
            ),
            Self::Pepper { found, ours } => write!(
                f,
                "its frontend has another VOTE_PEPPER than this worker (fingerprints {found} and {ours}): give both the \
                 same"
            ),
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

/// Fails if a queue does not fit this worker or its store.
pub(in crate::monitor) fn compatible(status: &QueueStatus, ours: Layout) -> Result<(), Obstacle> {
    let found = status.layout;
    if status.version != LAYOUT_VERSION {
        Err(Obstacle::Version { found: status.version })
    } else if found.partitions != ours.partitions {
        Err(Obstacle::Partitions { found: found.partitions, ours: ours.partitions })
    } else if found.fingerprint != ours.fingerprint {
        Err(Obstacle::Pepper { found: found.fingerprint, ours: ours.fingerprint })
    } else {
        Ok(())
    }
}
