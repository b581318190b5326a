//! Records of queues in a store.

use serde::{Deserialize, Serialize};

use crate::{Position, QueueId, Timestamp, WorkerId, queue::Counters};

/// State of a queue in the store. A queue never returns to an earlier state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QueueState {
    /// It is read, and its votes are counted.
    Active,
    /// It lost data, was rolled back, or was copied. No more votes are counted under its identity; its remaining
    /// entries are read as a [replaced queue](crate::queue::ReplacedQueue).
    Diverged,
    /// An operator accepted, with a reason, that votes in it may be lost: no poll waits for it any longer. If its server
    /// comes back, its remaining entries are read as a [replaced queue](crate::queue::ReplacedQueue).
    Retired,
}

impl QueueState {
    /// All states.
    pub const ALL: [Self; 3] = [Self::Active, Self::Diverged, Self::Retired];

    /// Returns the word by which the state is stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Diverged => "diverged",
            Self::Retired => "retired",
        }
    }

    /// Returns whether no more votes are counted under the queue's identity.
    #[must_use]
    pub const fn is_ended(self) -> bool {
        matches!(self, Self::Diverged | Self::Retired)
    }
}

/// What workers last reported of a queue, or of a replaced queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueRecord {
    /// Identity of the queue.
    pub id: QueueId,
    /// For a replaced queue, the identity under which it accepted votes.
    pub original_id: Option<QueueId>,
    /// Address at which it was last seen.
    pub address: String,
    /// Identity of the server that had it then; see [`QueueStatus::server`](crate::queue::QueueStatus::server). Empty
    /// for a replaced queue, and if it is not known.
    pub server: String,
    /// Worker that reported it; `None` if it is not known.
    pub reporter: Option<WorkerId>,
    /// Time of the last report, by the store's clock.
    pub seen_at: Timestamp,
    /// Votes that it reported as accepted, by poll. Empty for a replaced queue.
    pub accepted: Counters,
    /// Votes in entries that were not committed at that time, by poll, counted from the entries.
    pub queued: Counters,
    /// Whether `queued` includes all such entries. A deep backlog is not counted to its end.
    pub queued_complete: bool,
    /// Last position of each partition. Empty if the queue was never inspected.
    pub ends: Vec<Position>,
    /// Entries that it held at that time, except for the one that stays in each partition: those not yet committed, and
    /// those committed but not yet trimmed. It measures remaining work, not votes.
    pub backlog: u64,
    /// State of the queue.
    pub state: QueueState,
    /// Why it diverged or was retired; otherwise empty.
    pub reason: String,
}

impl QueueRecord {
    /// Creates the record of a queue of which only the existence is known.
    #[must_use]
    pub fn new(id: QueueId, address: String, seen_at: Timestamp) -> Self {
        Self {
            id,
            original_id: None,
            address,
            server: String::new(),
            reporter: None,
            seen_at,
            accepted: Counters::new(),
            queued: Counters::new(),
            queued_complete: true,
            ends: Vec::new(),
            backlog: 0,
            state: QueueState::Active,
            reason: String::new(),
        }
    }

    /// Returns the number of votes that it reported as accepted, of all polls.
    #[must_use]
    pub fn votes_accepted(&self) -> u64 {
        self.accepted.values().sum()
    }

    /// Returns the reason to store for a retired queue: why it diverged, if it did, and why an operator retired it.
    #[must_use]
    pub fn retirement_reason(diverged: &str, reason: &str) -> String {
        if diverged.is_empty() { reason.to_owned() } else { format!("{diverged}; retired: {reason}") }
    }

    /// Merges another report into the record, at the time `now` of the store's clock.
    ///
    /// The later of the two provides what was seen, and a state is never taken back. A record from the future was made
    /// before the clock was set back, so any report is later.
    #[must_use]
    pub fn merged(self, reported: Self, now: Timestamp) -> Self {
        let (state, reason) = if reported.state > self.state {
            (reported.state, reported.reason.clone())
        } else {
            (self.state, self.reason.clone())
        };
        let is_later = reported.seen_at >= self.seen_at || self.seen_at > now;
        let seen = if is_later { reported } else { self };
        Self { state, reason, ..seen }
    }
}
