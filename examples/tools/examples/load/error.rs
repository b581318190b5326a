//! Errors that end a run before the tally is checked. Each message says what failed, where, and what to do.

use std::io;

use crate::address::Url;

/// Error that ends a run before the tally is checked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// An argument is valid by its form, but this tool does not support its value.
    #[error("{0}")]
    Usage(String),
    #[error("can't start the runtime: {0}; check the limits on threads and open files")]
    Runtime(io::Error),
    #[error("{url}: can't resolve the host: {source}; check the name, or use an IP address")]
    Resolve { url: Url, source: io::Error },
    #[error("{url}: {why}; check that the {what} is running there and is ready")]
    Unreachable { url: Url, what: &'static str, why: String },
    #[error("{url}{path}: {why}")]
    Results { url: Url, path: String, why: String },
    #[error(
        "{url}: the tally did not stop changing within {seconds} s before the start, so it can't be checked; wait \
         until no other votes are cast in this poll and all are counted, or use a poll of your own"
    )]
    NotStill { url: Url, seconds: u64 },
    #[error(
        "{url}: a vote without a cookie was accepted (202), so voters can't be told apart and no tally can be \
         checked; a frontend must answer such a vote with 401 and a cookie (set voters = \"cookie\" in polls.toml)"
    )]
    NoCookieNeeded { url: Url },
    #[error("the task of a connection failed: {0}; this is a bug of the load generator, please report it")]
    Task(#[from] tokio::task::JoinError),
}
