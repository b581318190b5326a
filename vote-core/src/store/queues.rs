//! What a store remembers of queues.

use crate::{Position, QueueId, Timestamp, queue::Counters};

/// Whether a queue is what it was. Goes one way only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum QueueState {
    /// Read and booked.
    Active,
    /// Lost or rolled back data, or was copied: nothing more is booked under its identity. What is left of it is read
    /// as [remains](crate::queue::Remains).
    Cut,
    /// Written off by somebody, with a reason: what was not read of it is known not to come.
    Retired,
}

impl QueueState {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Active, Self::Cut, Self::Retired];

    /// In one word, as stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Cut => "cut",
            Self::Retired => "retired",
        }
    }

    /// Whether nothing more is booked under its identity.
    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Cut | Self::Retired)
    }
}

/// What workers last saw of a queue, or of the remains of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueRecord {
    /// Which.
    pub id: QueueId,
    /// Of remains, the box they are left of.
    pub remains_of: Option<QueueId>,
    /// Where it was last seen.
    pub address: String,
    /// When.
    pub seen_at: Timestamp,
    /// Votes it said to have accepted, by poll. None for remains.
    pub accepted: Counters,
    /// Votes in entries that were not committed then, by poll; counted from the entries.
    pub queued: Counters,
    /// Whether `queued` counts all such entries. A deep backlog is not counted to its end.
    pub queued_complete: bool,
    /// The last position of each partition. Empty if it was never looked at.
    pub ends: Vec<Position>,
    /// Entries it held beyond the one that stays in each partition, as of that moment: those not yet committed, and
    /// those committed but not yet trimmed. A measure of the work left, not of votes.
    pub backlog: u64,
    /// What it is.
    pub state: QueueState,
    /// Why it is cut or retired; otherwise empty.
    pub reason: String,
}

impl QueueRecord {
    /// A queue of which nothing is known yet but that it exists.
    #[must_use]
    pub fn new(id: QueueId, address: String, seen_at: Timestamp) -> Self {
        Self {
            id,
            remains_of: None,
            address,
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

    /// Votes it said to have accepted, of all polls.
    #[must_use]
    pub fn votes_accepted(&self) -> u64 {
        self.accepted.values().sum()
    }

    /// The reason of a queue that is written off: why it was cut, if it was, and why it is given up.
    #[must_use]
    pub fn written_off(cut: &str, reason: &str) -> String {
        if cut.is_empty() { reason.to_owned() } else { format!("{cut}; written off: {reason}") }
    }

    /// What stands after another report, at a moment of the store's clock: the later of the two says what was seen, and a
    /// state is never taken back. One from the future was made before the clock was set back, so anything is later.
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
