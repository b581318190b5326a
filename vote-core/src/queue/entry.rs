//! What is appended to a queue and read from it.

use bytes::Bytes;

use super::{Counters, Position};
use crate::{Partition, PollDigest, PollSlug};

/// [Encoded](crate::frame) votes of one poll and one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Poll of the votes.
    pub poll: PollSlug,
    /// Partition of the votes.
    pub partition: Partition,
    /// Digest of the poll definition that the votes were made for.
    pub digest: PollDigest,
    /// Number of votes.
    pub votes: u32,
    /// The encoded votes.
    pub bytes: Bytes,
}

/// Outcome of one frame of an [append](crate::Queue::append) that succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// On disk, at this position.
    Stored(Position),
    /// Not stored: its poll is sealed in this queue, which can't be undone.
    Sealed,
    /// Not stored: no worker has [recorded](crate::Queue::record_polls) its poll in this queue yet, or the queue
    /// [dropped it](crate::Queue::drop_poll). Try again later.
    UnknownPoll,
    /// Not stored: its poll is recorded with another [digest](Frame::digest). An operator has to change the
    /// definition of the poll on one side, or to give the poll another slug.
    DifferentDefinition,
}

/// An entry of the log as stored. Nothing in it was validated; see [`frame::decode`](crate::frame::decode).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Position in the log of its partition.
    pub position: Position,
    /// Name of the poll that the queue counted the votes for: without zero characters and at most 64 characters long,
    /// whatever is stored.
    pub poll: String,
    /// Number of votes that the queue counted for the entry.
    pub votes: u64,
    /// The encoded votes.
    pub frame: Bytes,
}

/// Result of a [read](crate::Queue::read).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Read {
    /// Entries in the order of the log.
    pub entries: Vec<Entry>,
    /// Whether `entries` reach the end of the log.
    pub at_end: bool,
    /// Votes ever accepted in the partition, by poll; `None` if `entries` do not reach the end, and for a
    /// [`ReplacedQueue`](crate::queue::ReplacedQueue).
    ///
    /// They are taken in the same atomic step as `entries`, so they are exact: the votes of all entries ever appended
    /// up to the last of `entries`, including those that were trimmed. A reader compares them with what it has read.
    pub accepted: Option<Counters>,
    /// Identity of the server that answered; see [`QueueStatus::server`](crate::queue::QueueStatus::server). A reader
    /// compares it with the server that it has checked: after a restart the log may be an older one.
    pub server: String,
}

/// Result of a [seal](crate::Queue::seal): how far to read, and how many votes of the poll there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seal {
    /// Last position of each partition, whichever poll its entry is of; [`Position::START`] where nothing was ever
    /// stored.
    pub ends: Vec<Position>,
    /// Votes ever accepted for the poll, for each partition.
    pub accepted: Vec<u64>,
}
