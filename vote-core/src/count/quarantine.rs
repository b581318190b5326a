//! Quarantine: votes that could not be counted, kept with their frame, and the decisions about them.

use std::{fmt, str::FromStr};

use bytes::Bytes;

use super::StoredReason;
use crate::{
    Partition, Partitions, Position, QueueId, Timestamp, Vote,
    frame::{self, FrameError},
    slug::SlugError,
};

/// Selection of the votes of a frame that are quarantined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QuarantinedVotes {
    /// All votes: the frame does not decode, or no vote is counted for its poll.
    All,
    /// The votes at these indices: at least one, counted from 0, ascending. The frame decodes, and its other votes are
    /// counted.
    At(Vec<u32>),
}

impl QuarantinedVotes {
    /// Returns the number of selected votes in a frame for which the queue accounted `accounted` votes.
    #[must_use]
    pub const fn count(&self, accounted: u64) -> u64 {
        match self {
            Self::All => accounted,
            Self::At(indices) => indices.len() as u64,
        }
    }

    /// Returns whether the vote at an index is selected.
    #[must_use]
    pub fn contains(&self, index: u32) -> bool {
        match self {
            Self::All => true,
            Self::At(indices) => indices.binary_search(&index).is_ok(),
        }
    }

    /// Returns the indices of the selected votes; `None` if all votes are selected.
    #[must_use]
    pub fn indices(&self) -> Option<&[u32]> {
        match self {
            Self::All => None,
            Self::At(indices) => Some(indices),
        }
    }
}

/// A frame with votes that could not be counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantinedFrame {
    /// The queue it was read from.
    pub queue: QueueId,
    /// Position of its entry.
    pub position: Position,
    /// Name of the poll under which the queue accounted for it.
    pub poll: String,
    /// Number of votes that the queue accounted for, whether they are quarantined or counted.
    pub accounted: u64,
    /// The votes that are quarantined; once they are [counted](QuarantineState::Counted), those that were last.
    pub quarantined: QuarantinedVotes,
    /// Why they are quarantined.
    pub reason: StoredReason,
    /// Bytes of the whole frame.
    pub frame: Bytes,
}

impl QuarantinedFrame {
    /// Returns the number of its votes that are quarantined.
    #[must_use]
    pub const fn votes(&self) -> u64 {
        self.quarantined.count(self.accounted)
    }

    /// Decodes all votes of the frame, including those that are counted, in the order of their indices.
    ///
    /// # Errors
    /// Fails if the frame does not decode.
    pub fn decode(&self, partition: Partition, partitions: Partitions) -> Result<Vec<Vote>, Undecodable> {
        Ok(frame::decode(self.poll.parse()?, partition, partitions, self.accounted, &self.frame)?)
    }

    /// Returns whether a vote that was stored in this frame is quarantined.
    ///
    /// If the frame does not decode, every vote in it is.
    #[must_use]
    pub fn holds(&self, partition: Partition, partitions: Partitions, vote: &Vote) -> bool {
        let Ok(votes) = self.decode(partition, partitions) else { return true };
        (0..).zip(&votes).any(|(index, other)| other == vote && self.quarantined.contains(index))
    }
}

/// Why the votes of a quarantined frame cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Undecodable {
    /// The queue holds it under a name that no poll can have.
    #[error("poll: {0}")]
    Poll(#[from] SlugError),
    /// The bytes are not a valid frame of that poll.
    #[error("frame: {0}")]
    Frame(#[from] FrameError),
}

/// Replay of the quarantined votes of a frame, with its outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayed {
    /// The queue that the frame was read from.
    pub queue: QueueId,
    /// Position of its entry.
    pub position: Position,
    /// The votes that were replayed: those quarantined when the plan was made. If others are quarantined when it is
    /// committed, some of these may be counted already, so nothing is committed.
    pub tried: QuarantinedVotes,
    /// Outcome of the replay.
    pub outcome: ReplayOutcome,
}

/// Outcome of a replay of quarantined votes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplayOutcome {
    /// The plan counts all of them.
    Counted,
    /// Some or all of them stay quarantined.
    Quarantined {
        /// The votes that stay quarantined. The plan counts the others of those [replayed](Replayed::tried).
        votes: QuarantinedVotes,
        /// The new reason.
        reason: StoredReason,
    },
}

/// Identity of a frame that has, or had, quarantined votes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuarantineKey {
    /// The queue it was read from.
    pub queue: QueueId,
    /// The partition.
    pub partition: Partition,
    /// Position of its entry.
    pub position: Position,
}

impl fmt::Display for QuarantineKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.queue, self.partition, self.position)
    }
}

impl FromStr for QuarantineKey {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(':').collect();
        let [queue, partition, position] = parts.as_slice() else {
            return Err(format!("{text:?} names no frame: it is QUEUE:PARTITION:POSITION, as listed"));
        };
        Ok(Self {
            queue: queue.parse().map_err(|e| format!("{queue:?} is no queue: {e}"))?,
            partition: Partition(
                partition.parse().map_err(|e| format!("{partition:?} is no partition: {e}"))?,
            ),
            position: Position::from_hex(position)
                .map_err(|e| format!("{position:?} is no position: {e}"))?,
        })
    }
}

/// State of the quarantined votes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuarantineState {
    /// An operator has yet to decide. Their poll cannot become final.
    Quarantined,
    /// The lane that owns the partition has yet to replay them.
    Replay,
    /// A replay counted them.
    Counted,
    /// An operator decided that they stay uncounted.
    Rejected,
}

impl QuarantineState {
    /// All states.
    pub const ALL: [Self; 4] = [Self::Quarantined, Self::Replay, Self::Counted, Self::Rejected];

    /// Returns the word by which the state is stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Quarantined => "quarantined",
            Self::Replay => "replay",
            Self::Counted => "counted",
            Self::Rejected => "rejected",
        }
    }

    /// Returns whether an operator has yet to decide, or a lane to replay.
    #[must_use]
    pub const fn is_pending(self) -> bool {
        matches!(self, Self::Quarantined | Self::Replay)
    }
}

/// A frame in quarantine, with the state of its votes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantineRow {
    /// Partition of the frame.
    pub partition: Partition,
    /// The frame, the votes of it that are quarantined, and why.
    pub frame: QuarantinedFrame,
    /// State of these votes.
    pub state: QuarantineState,
    /// Why an operator [rejected](Decision::Reject) them; `None` if none did. Versions that did not store it apart left
    /// it in the text of the reason.
    pub rejection: Option<String>,
    /// Time at which the first of its votes were quarantined.
    pub quarantined_at: Timestamp,
}

impl QuarantineRow {
    /// Returns the identity of the frame.
    #[must_use]
    pub const fn key(&self) -> QuarantineKey {
        QuarantineKey { queue: self.frame.queue, partition: self.partition, position: self.frame.position }
    }

    /// Returns whether a vote that was stored in this frame is quarantined; see [`QuarantinedFrame::holds`].
    #[must_use]
    pub fn holds(&self, partitions: Partitions, vote: &Vote) -> bool {
        self.frame.holds(self.partition, partitions, vote)
    }
}

/// Decision of an operator about the votes of frames that are quarantined at that time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Replay them.
    Replay,
    /// Leave them uncounted, for this reason.
    Reject(String),
}
