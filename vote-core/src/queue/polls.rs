//! What a queue knows of polls: for which definition of each it accepts votes.

use std::collections::BTreeMap;

use super::{Appended, QueueStatus};
use crate::{PollDigest, PollSlug, Timestamp, count::RegisteredPoll};

/// Definition of a poll as a worker records it in a queue; see [`Queue::record_polls`](super::Queue::record_polls).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PollRecord {
    /// Slug of the poll.
    pub poll: PollSlug,
    /// Digest of its definition in the store.
    pub digest: PollDigest,
    /// Time when the poll closes, if it has one.
    pub closes_at: Option<Timestamp>,
    /// Time of the latest withdrawal of this definition that was undone, as the
    /// [store](RegisteredPoll::undone_withdrawal) has it.
    pub undone_withdrawal: Option<Timestamp>,
}

impl From<&RegisteredPoll> for PollRecord {
    fn from(poll: &RegisteredPoll) -> Self {
        Self {
            poll: poll.slug,
            digest: poll.digest(),
            closes_at: poll.closes_at,
            undone_withdrawal: poll.undone_withdrawal,
        }
    }
}

/// Definition of a poll that a queue dropped last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DroppedPoll {
    pub digest: PollDigest,
    /// Time of the withdrawal for which it was dropped; `None` if a version that did not store it dropped it.
    pub withdrawn_at: Option<Timestamp>,
}

impl DroppedPoll {
    /// Returns whether a record is of this definition, and its worker did not know that the withdrawal was undone.
    pub(super) fn refuses(&self, record: &PollRecord) -> bool {
        let is_undone = self
            .withdrawn_at
            .zip(record.undone_withdrawal)
            .is_some_and(|(dropped, undone)| undone >= dropped);
        self.digest == record.digest && !is_undone
    }

    /// Returns what was dropped last after this drop. A late call for an earlier withdrawal of the same definition
    /// does not replace a later one.
    pub(super) fn after(self, before: Option<Self>) -> Self {
        before
            .filter(|before| before.digest == self.digest && before.withdrawn_at > self.withdrawn_at)
            .unwrap_or(self)
    }
}

/// State of a poll in a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PollState {
    /// The queue accepts votes for this definition.
    Recorded {
        /// Digest of the definition. It never changes once the queue has accepted a vote for the poll.
        digest: PollDigest,
        /// Time when the poll closes, if it has one.
        closes_at: Option<Timestamp>,
    },
    /// The queue accepts no more votes for the poll. This never changes.
    Sealed,
}

impl PollState {
    /// Returns the state of a poll after a record of it; `None` if another digest is recorded, which then stays.
    pub(super) fn record(found: Option<Self>, record: &PollRecord) -> Option<Self> {
        match found {
            Some(Self::Sealed) => Some(Self::Sealed),
            Some(Self::Recorded { digest, .. }) if digest != record.digest => None,
            _ => Some(Self::Recorded { digest: record.digest, closes_at: record.closes_at }),
        }
    }

    /// Returns why a queue with this state of a poll refuses a frame made for that digest; `None` if it accepts the
    /// frame.
    pub(super) fn refuses(found: Option<&Self>, offered: PollDigest) -> Option<Appended> {
        match found {
            None => Some(Appended::UnknownPoll),
            Some(Self::Sealed) => Some(Appended::Sealed),
            Some(Self::Recorded { digest, .. }) => {
                (*digest != offered).then_some(Appended::DifferentDefinition)
            }
        }
    }
}

impl QueueStatus {
    /// Returns whether the poll is sealed in the queue.
    #[must_use]
    pub fn is_sealed(&self, poll: PollSlug) -> bool {
        self.polls.get(&poll) == Some(&PollState::Sealed)
    }
}

/// States of polls in a queue, by slug.
pub type PollStates = BTreeMap<PollSlug, PollState>;
