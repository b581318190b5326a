//! What was sent, and what came back.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use vote_core::{OptionSlug, PollSlug, VoterKey};

/// What is known of one request that carried a vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Stored, as was said.
    Acknowledged,
    /// Not stored, as was said.
    Refused,
    /// Stored or not.
    Unknown,
}

/// One request that carried a vote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cast {
    pub(crate) option: OptionSlug,
    /// When it was sent, in microseconds since 1970: it was not cast earlier.
    pub(crate) from: i64,
    /// When it was answered: it was not cast later. Without an answer, a frontend that was frozen may cast it at any
    /// time.
    pub(crate) until: Option<i64>,
    pub(crate) outcome: Outcome,
    /// Which frontend.
    pub(crate) frontend: usize,
    /// What the answer said, or what happened instead.
    pub(crate) answer: String,
}

impl Cast {
    /// Whether it can have been cast at that time.
    pub(crate) fn covers(&self, at: i64) -> bool {
        self.from <= at && self.until.is_none_or(|until| at <= until)
    }
}

impl fmt::Display for Cast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { option, from, until, outcome, frontend, answer } = self;
        write!(f, "{option} at frontend {frontend}, sent {from}, ")?;
        match until {
            Some(until) => write!(f, "answered {until}: ")?,
            None => write!(f, "not answered: ")?,
        }
        write!(f, "{outcome:?} ({answer})")
    }
}

/// A voter in one poll.
pub(crate) type VoterId = (PollSlug, VoterKey);

/// All requests by voter, each voter's in the order in which they ended.
#[derive(Debug, Default)]
pub(crate) struct Journal(Mutex<HashMap<VoterId, Vec<Cast>>>);

impl Journal {
    pub(crate) fn note(&self, voter: VoterId, cast: Cast) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(voter).or_default().push(cast);
    }

    /// All of it; the journal is empty afterwards.
    pub(crate) fn take(&self) -> HashMap<VoterId, Vec<Cast>> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Microseconds since 1970, by the same clock that frontends on this machine have.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
