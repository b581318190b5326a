//! Errors that end a worker.

use vote_core::store::StoreError;

/// Reason why a worker ended before shutdown was requested.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// The store can't be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A task of the worker ended by itself, which is a bug.
    #[error("{task} ended by itself, which is a bug: report it ({reason})")]
    Ended {
        /// Name of the task.
        task: String,
        /// Why it ended.
        reason: String,
    },
}
