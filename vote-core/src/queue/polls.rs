//! What a queue knows of polls: which definition of each it takes votes for.

use std::collections::BTreeMap;

use super::{Appended, QueueStatus};
use crate::{PollDigest, PollSlug, Timestamp, store::RegisteredPoll};

/// What a worker records of a poll in a queue: see [`Queue::record_polls`](super::Queue::record_polls).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PollRecord {
    /// The poll.
    pub poll: PollSlug,
    /// The digest of its definition in the store.
    pub digest: PollDigest,
    /// When it stops taking votes, if that is said.
    pub closes_at: Option<Timestamp>,
}

impl From<&RegisteredPoll> for PollRecord {
    fn from(poll: &RegisteredPoll) -> Self {
        Self { poll: poll.slug, digest: poll.digest(), closes_at: poll.closes_at }
    }
}

/// What a queue knows of a poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PollState {
    /// Votes are taken for this definition.
    Recorded {
        /// The digest of the definition. It never changes.
        digest: PollDigest,
        /// When the poll stops taking votes, if that is said.
        closes_at: Option<Timestamp>,
    },
    /// No more votes are taken. This never changes.
    Sealed,
}

impl PollState {
    /// What a queue knows of a poll after it was recorded; none if it has another digest, which stays.
    pub(super) fn record(found: Option<Self>, record: &PollRecord) -> Option<Self> {
        match found {
            Some(Self::Sealed) => Some(Self::Sealed),
            Some(Self::Recorded { digest, .. }) if digest != record.digest => None,
            _ => Some(Self::Recorded { digest: record.digest, closes_at: record.closes_at }),
        }
    }

    /// Why a queue that knows this of a poll refuses a frame with that digest; none if it does not.
    pub(super) fn refuses(found: Option<&Self>, offered: PollDigest) -> Option<Appended> {
        match found {
            None => Some(Appended::UnknownPoll),
            Some(Self::Sealed) => Some(Appended::Sealed),
            Some(Self::Recorded { digest, .. }) => (*digest != offered).then_some(Appended::OtherPoll),
        }
    }
}

impl QueueStatus {
    /// Whether a poll takes no more votes here.
    #[must_use]
    pub fn is_sealed(&self, poll: PollSlug) -> bool {
        self.polls.get(&poll) == Some(&PollState::Sealed)
    }
}

/// What a queue knows of polls, by their names.
pub type PollStates = BTreeMap<PollSlug, PollState>;
