//! Why a run ends without a verdict. Each message says what failed, where, and what to do.

use std::io;

use crate::address::Url;

#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// The command line asks for something that this tool doesn't do.
    #[error("{0}")]
    Usage(String),
    #[error("can't start the runtime: {0}; are there too many threads or open files?")]
    Runtime(io::Error),
    #[error("{url}: the host can't be resolved: {source}; check the name, or give an address")]
    Resolve { url: Url, source: io::Error },
    #[error("{url}: {why}; is the {what} running there, and ready?")]
    Unreachable { url: Url, what: &'static str, why: String },
    #[error("{url}{path}: {why}")]
    Results { url: Url, path: String, why: String },
    #[error(
        "{url}: the tally did not stand still within {seconds} s before the start, so nothing could be told from it; \
         wait until nobody else votes in this poll and all votes are counted, or take a poll of your own"
    )]
    NotStill { url: Url, seconds: u64 },
    #[error(
        "{url}: a vote without a cookie was accepted (202), so voters can't be told apart and no tally can be \
         checked; a frontend has to answer such a vote with 401 and a cookie (voters = \"cookie\" in polls.toml)"
    )]
    NoCookieNeeded { url: Url },
    #[error(
        "a connection's task ended by itself: {0}; this is a bug of the load generator, please report it"
    )]
    Task(#[from] tokio::task::JoinError),
}
