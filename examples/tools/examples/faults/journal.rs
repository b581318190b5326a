//! Journal of all requests and their answers.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use vote_core::{OptionSlug, PollSlug, VoterKey};
use vote_tools::Outcome;

/// Request that carried a vote, with its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cast {
    pub(crate) option: OptionSlug,
    /// Time at which the request was sent, in microseconds since 1970, by the right clock. The vote was not cast
    /// earlier.
    pub(crate) from: i64,
    /// Time at which the answer came. The vote was not cast later. `None` without an answer: a frontend that was frozen
    /// may cast the vote at any later time.
    pub(crate) until: Option<i64>,
    /// Time of the voter's previous vote in the cookie of the request, by the clock of some frontend. The vote was cast
    /// later.
    pub(crate) after: Option<i64>,
    pub(crate) outcome: Outcome,
    /// Index of the frontend.
    pub(crate) frontend: usize,
    /// Status and error code of the answer, or why there is none.
    pub(crate) answer: String,
}

impl fmt::Display for Cast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { option, from, until, after, outcome, frontend, answer } = self;
        write!(f, "{option} at frontend {frontend}, sent {from}, ")?;
        if let Some(after) = after {
            write!(f, "after a vote cast at {after}, ")?;
        }
        match until {
            Some(until) => write!(f, "answered {until}: ")?,
            None => write!(f, "not answered: ")?,
        }
        write!(f, "{outcome:?} ({answer})")
    }
}

/// Voter in one poll.
pub(crate) type VoterId = (PollSlug, VoterKey);

/// All requests by voter; those of a voter in the order in which they ended.
#[derive(Debug, Default)]
pub(crate) struct Journal(Mutex<HashMap<VoterId, Vec<Cast>>>);

impl Journal {
    /// Records a request.
    pub(crate) fn note(&self, voter: VoterId, cast: Cast) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(voter).or_default().push(cast);
    }

    /// Returns all requests, and leaves the journal empty.
    pub(crate) fn take(&self) -> HashMap<VoterId, Vec<Cast>> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Returns the right time in microseconds since 1970: that of the frontends on this machine unless theirs is stepped.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
