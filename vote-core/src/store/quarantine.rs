//! Votes that could not be counted, kept with the frame they came in, and what becomes of them.

use std::{fmt, str::FromStr};

use bytes::Bytes;

use crate::{
    Partition, Partitions, Position, QueueId, Timestamp, Vote,
    frame::{self, FrameError},
    slug::SlugError,
};

/// Which votes of a frame are quarantined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QuarantinedVotes {
    /// All of them: the frame does not decode, or nothing is counted for its poll.
    All,
    /// Those at these indices in the frame, which decodes: at least one, counted from 0, ascending. The other votes of
    /// the frame are counted.
    At(Vec<u32>),
}

impl QuarantinedVotes {
    /// How many votes these are, of a frame that was accounted as so many.
    #[must_use]
    pub const fn count(&self, accounted: u64) -> u64 {
        match self {
            Self::All => accounted,
            Self::At(indices) => indices.len() as u64,
        }
    }

    /// Whether the vote at an index is one of them.
    #[must_use]
    pub fn contains(&self, index: u32) -> bool {
        match self {
            Self::All => true,
            Self::At(indices) => indices.binary_search(&index).is_ok(),
        }
    }

    /// The indices, unless these are all votes.
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
    /// Where it was read.
    pub queue: QueueId,
    /// Where it stood.
    pub position: Position,
    /// The poll it was accounted under.
    pub poll: String,
    /// The number of votes that the queue accounted it as, whether they are quarantined or counted.
    pub accounted: u64,
    /// Which of its votes are quarantined; once they are [counted](QuarantineState::Counted), which were last.
    pub quarantined: QuarantinedVotes,
    /// Why these are.
    pub reason: String,
    /// Whether nothing is wrong with it but that its poll is not registered: it is tried again when it is.
    pub awaits_poll: bool,
    /// The bytes of the whole frame.
    pub frame: Bytes,
}

impl QuarantinedFrame {
    /// What stands in [`reason`](Self::reason) between why the votes were quarantined and why somebody decided that
    /// they [stay uncounted](Decision::Reject).
    pub const REJECTED: &str = "; rejected: ";

    /// How many of its votes are quarantined.
    #[must_use]
    pub const fn votes(&self) -> u64 {
        self.quarantined.count(self.accounted)
    }

    /// All votes of the frame, those that are counted among them, in the order of their indices.
    ///
    /// # Errors
    /// When the frame does not decode.
    pub fn decode(&self, partition: Partition, partitions: Partitions) -> Result<Vec<Vote>, Undecodable> {
        let poll = self.poll.parse()?;
        Ok(frame::decode(poll, partition, partitions, self.accounted, &self.frame)?)
    }

    /// Whether a vote that was stored in this frame is one of those quarantined. Of a frame that does not decode, every
    /// vote is.
    #[must_use]
    pub fn holds(&self, partition: Partition, partitions: Partitions, vote: &Vote) -> bool {
        let Ok(votes) = self.decode(partition, partitions) else { return true };
        (0..).zip(&votes).any(|(index, held)| held == vote && self.quarantined.contains(index))
    }
}

/// Why the votes of a quarantined frame can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Undecodable {
    /// The queue has it under a name that no poll can have.
    #[error("poll: {0}")]
    Poll(#[from] SlugError),
    /// The bytes are not a frame of that poll.
    #[error("frame: {0}")]
    Frame(#[from] FrameError),
}

/// What became of quarantined votes of a frame that were tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayed {
    /// Where the frame was read.
    pub queue: QueueId,
    /// Where it stood.
    pub position: Position,
    /// The votes that were tried: those that were quarantined when the plan was made. If they are others when it is
    /// committed, some of them may be counted already, and nothing is committed.
    pub tried: QuarantinedVotes,
    /// What became of them.
    pub outcome: ReplayOutcome,
}

/// What became of quarantined votes when they were tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplayOutcome {
    /// All of them are among the votes of the plan.
    Counted,
    /// Some stay quarantined, or all.
    Held {
        /// Those that stay. The others of those [tried](Replayed::tried) are among the votes of the plan.
        votes: QuarantinedVotes,
        /// Why, now.
        reason: String,
        /// As in [`QuarantinedFrame::awaits_poll`], now.
        awaits_poll: bool,
    },
}

/// Names a frame that has, or had, quarantined votes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuarantineKey {
    /// Where it was read.
    pub queue: QueueId,
    /// The partition.
    pub partition: Partition,
    /// Where it stood.
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

/// What is to become of the quarantined votes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuarantineState {
    /// Nobody has decided yet: its poll can't become final.
    Held,
    /// The lane that owns its partition is to try them again.
    Replay,
    /// They were counted when tried again.
    Counted,
    /// Somebody decided that they stay uncounted.
    Rejected,
}

impl QuarantineState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Held, Self::Replay, Self::Counted, Self::Rejected];

    /// In one word, as stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Replay => "replay",
            Self::Counted => "counted",
            Self::Rejected => "rejected",
        }
    }

    /// Whether somebody has yet to decide, or a lane to try.
    #[must_use]
    pub const fn is_pending(self) -> bool {
        matches!(self, Self::Held | Self::Replay)
    }
}

/// A frame in quarantine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantineRow {
    /// Its partition.
    pub partition: Partition,
    /// The frame, which of its votes are quarantined, and why.
    pub frame: QuarantinedFrame,
    /// What is to become of these votes.
    pub state: QuarantineState,
    /// When the first of its votes were quarantined.
    pub set_aside_at: Timestamp,
}

impl QuarantineRow {
    /// Its name.
    #[must_use]
    pub const fn key(&self) -> QuarantineKey {
        QuarantineKey { queue: self.frame.queue, partition: self.partition, position: self.frame.position }
    }

    /// As [`QuarantinedFrame::holds`].
    #[must_use]
    pub fn holds(&self, partitions: Partitions, vote: &Vote) -> bool {
        self.frame.holds(self.partition, partitions, vote)
    }
}

/// What somebody decides about the votes of frames that are quarantined at that moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// To be tried again.
    Replay,
    /// To stay uncounted, for this reason.
    Reject(String),
}
