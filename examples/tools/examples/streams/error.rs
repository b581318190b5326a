//! Why nothing was measured.

use std::{io, net::SocketAddr};

use vote_core::store::StoreError;

/// Error of a run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamsError {
    #[error("can't start the runtime: {0}")]
    Runtime(io::Error),
    #[error("can't write to stdout: {0}")]
    Output(io::Error),
    #[error("can't start a process that watches streams: {0}")]
    Start(io::Error),
    #[error("can't open a stream of {target}: {error}")]
    Open { target: SocketAddr, error: io::Error },
    #[error("{target} answered with {answer:?} instead of a stream: is its limit of connections too low?")]
    Refused { target: SocketAddr, answer: String },
    #[error("a stream of {0} ended")]
    Ended(SocketAddr),
    #[error("a process that watches streams ended; its errors are above")]
    WatcherEnded,
    #[error("not every stream has received {what} within {seconds} s")]
    TooLate { what: &'static str, seconds: u64 },
    #[error("can't read {path}: {error}")]
    Proc { path: String, error: io::Error },
    #[error(transparent)]
    Store(#[from] StoreError),
}
