//! Frames that could not be counted, and what becomes of them.

use std::{fmt, str::FromStr};

use bytes::Bytes;

use crate::{Partition, Position, QueueId, Timestamp};

/// A frame that could not be counted, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantinedFrame {
    /// Where it was read.
    pub queue: QueueId,
    /// Where it stood.
    pub position: Position,
    /// The poll it was accounted under.
    pub poll: String,
    /// The number of votes it was accounted as.
    pub votes: u64,
    /// Why.
    pub reason: String,
    /// Whether nothing is wrong with it but that its poll is not registered: it is tried again when it is.
    pub awaits_poll: bool,
    /// The bytes.
    pub frame: Bytes,
}

impl QuarantinedFrame {
    /// What stands in [`reason`](Self::reason) between why the frame was set aside and why somebody decided that it
    /// [stays uncounted](Decision::Reject).
    pub const REJECTED: &str = "; rejected: ";
}

/// What became of a frame that was set aside and tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayed {
    /// Where it was read.
    pub queue: QueueId,
    /// Where it stood.
    pub position: Position,
    /// What became of it.
    pub outcome: ReplayOutcome,
}

/// What became of a frame when it was tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplayOutcome {
    /// Its votes are among those of the plan.
    Counted,
    /// It stays set aside.
    Held {
        /// Why, now.
        reason: String,
        /// As in [`QuarantinedFrame::awaits_poll`], now.
        awaits_poll: bool,
    },
}

/// Names a frame that was set aside.
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

/// What is to become of a frame that was set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuarantineState {
    /// Nobody has decided yet: its poll can't become final.
    Held,
    /// The lane that owns its partition is to try it again.
    Replay,
    /// It was counted when tried again.
    Counted,
    /// Somebody decided that it stays uncounted.
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
    /// The frame, and why it was set aside.
    pub frame: QuarantinedFrame,
    /// What is to become of it.
    pub state: QuarantineState,
    /// When it was set aside.
    pub set_aside_at: Timestamp,
}

impl QuarantineRow {
    /// Its name.
    #[must_use]
    pub const fn key(&self) -> QuarantineKey {
        QuarantineKey { queue: self.frame.queue, partition: self.partition, position: self.frame.position }
    }
}

/// What somebody decides about frames that were set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// To be tried again.
    Replay,
    /// To stay uncounted, for this reason.
    Reject(String),
}
