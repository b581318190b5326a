//! Why a worker ends though nobody asked it to.

use vote_core::store::StoreError;

/// Why a worker ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// The store can't be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// One of the worker's tasks ended by itself, which is a bug.
    #[error("{task} ended by itself, which is a bug: {reason}")]
    Ended {
        /// What it did.
        task: String,
        /// Why it ended.
        reason: String,
    },
}
