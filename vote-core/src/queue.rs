//! The queue: a ballot box, which is a partitioned log with an identity.
//!
//! A frontend appends frames to the box of its own node; workers read every box, commit what they read, and only
//! then trim. Nothing is leased, acknowledged or redelivered by the queue: a reader keeps its own position, in the
//! store, in the same transaction as what it read.
//!
//! The life of a box: [`create`](Queue::create) by its frontend → noted in the store, given the polls of the store by
//! [`record_polls`](Queue::record_polls), and [`register`](Queue::register)ed by a worker →
//! [`append`](Queue::append), [`read`](Queue::read), [`trim`](Queue::trim) → [`seal`](Queue::seal) poll by poll. It takes
//! votes only while registered, so there is no box that nobody knows of; only for polls as the store defines them, so
//! that no vote is stored that can't be counted; and none for a sealed poll, so nothing is added after the count.
//!
//! A box that lost data is [replaced](Queue::create): its server gets a box with a new identity, and what is left of
//! the old one becomes [`Remains`], a log of its own that takes no votes, is read once to its end, and then forgotten.

use std::{collections::BTreeMap, fmt, str::FromStr};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{Partition, Partitions, PepperFingerprint, PollDigest, PollSlug, Timestamp};

mod forward;
pub mod memory;
mod polls;
mod position;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(feature = "sqlite")]
pub mod sqlite;

pub use memory::MemoryQueue;
pub use polls::{PollRecord, PollState, PollStates};
pub use position::Position;
#[cfg(feature = "redis")]
pub use redis::RedisQueue;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteQueue;

/// The version of the layout that the implementations here write.
pub const LAYOUT_VERSION: u16 = 1;

/// The identity of a ballot box: 128 random bits, so that no two boxes ever share one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId(pub [u8; 16]);

impl QueueId {
    /// A new identity.
    ///
    /// # Errors
    /// When the operating system has no random numbers.
    pub fn random() -> Result<Self, QueueError> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)
            .map_err(|e| QueueError::Unavailable(format!("no random numbers: {e}")))?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QueueId({self})")
    }
}

impl FromStr for QueueId {
    type Err = hex::FromHexError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 16];
        hex::decode_to_slice(text, &mut bytes)?;
        Ok(Self(bytes))
    }
}

/// What a frontend and a store must agree on: with another number of partitions or another pepper, votes of one
/// voter would not meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// How many partitions.
    pub partitions: Partitions,
    /// Which pepper.
    pub fingerprint: PepperFingerprint,
}

/// How full a queue is. One that is full refuses votes, and takes them again when some were [trimmed](Queue::trim).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes that count against the limit.
    pub used: u64,
    /// How many there may be; none where nothing limits them but the machine.
    pub limit: Option<u64>,
}

/// What a box says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueStatus {
    /// Its identity.
    pub id: QueueId,
    /// The version of its layout; see [`LAYOUT_VERSION`].
    pub version: u16,
    /// What its votes were encoded for.
    pub layout: Layout,
    /// Whether a worker has noted it in the store.
    pub registered: bool,
    /// Which server, or file, holds the box, for as long as it runs: one that is reached by two addresses says the
    /// same at both, and a copy of it says something else, and so does a server that was started again.
    pub server: String,
    /// Votes ever accepted.
    pub accepted: BTreeMap<Partition, Counters>,
    /// Entries stored now, a partition: those not yet read, those not yet trimmed, and the anchor that
    /// [`trim`](Queue::trim) leaves.
    pub entries: Vec<u64>,
    /// What it knows of polls. It takes no votes for one that is not among them.
    pub polls: PollStates,
    /// What is left of boxes that were replaced here, and was not trimmed to its end yet.
    pub remains: Vec<Remains>,
}

/// What is left of a box that was replaced: a log that takes no votes, under an identity of its own, to be read like a
/// box and [trimmed](Queue::trim) away.
///
/// It has another identity than the box since its entries may have been counted before, under the box's: what is read
/// here is accounted for beside. They never grow, so the ends that [`unread`](Queue::unread) says stay the same until
/// they are trimmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remains {
    /// The identity of the remains.
    pub id: QueueId,
    /// The box that was replaced.
    pub of: QueueId,
}

/// What lies behind a position of a partition, counted from the entries that are there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unread {
    /// The last position of the partition, or the one asked for if nothing is behind it.
    pub end: Position,
    /// Votes by poll.
    pub votes: Counters,
    /// Whether the count reaches the end.
    pub complete: bool,
    /// When the first entry behind the position was appended, by the clock of the queue; none if there is none, or if
    /// queues of this kind do not keep it.
    pub oldest: Option<Timestamp>,
}

/// Votes by poll. The name is as the queue holds it, which damage may have made into no slug at all.
pub type Counters = BTreeMap<String, u64>;

/// A poll's name as a queue holds it, as a text that every store can hold: without zero characters, and at most 64
/// long. For names that are slugs that changes nothing.
#[cfg(feature = "redis")]
fn poll_name(found: &str) -> String {
    found.chars().take(64).map(|c| if c == '\0' { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Votes of one poll and one partition, [encoded](crate::frame).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Their poll.
    pub poll: PollSlug,
    /// Their partition.
    pub partition: Partition,
    /// The definition of the poll that they were made for.
    pub digest: PollDigest,
    /// How many they are.
    pub votes: u32,
    /// The encoded votes.
    pub bytes: Bytes,
}

/// What became of a frame of a flush that went through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// On disk, at this position.
    Stored(Position),
    /// Not stored: its poll is sealed in this queue.
    Sealed,
    /// Not stored: no worker has [recorded](Queue::record_polls) its poll in this queue yet. Try again later.
    UnknownPoll,
    /// Not stored: its poll is recorded with another [digest](Frame::digest). Somebody has to change the definition of
    /// the poll on one side, or to give it another slug.
    OtherPoll,
}

/// An entry of the log, as found. Nothing in it is known to be valid; see [`frame::decode`](crate::frame::decode).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands.
    pub position: Position,
    /// The poll it was accounted under: without zero characters, and at most 64 long, whatever is stored.
    pub poll: String,
    /// The number of votes it was accounted as.
    pub votes: u64,
    /// The frame.
    pub frame: Bytes,
}

/// What a read found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Read {
    /// In the order of the log.
    pub entries: Vec<Entry>,
    /// Whether `entries` reach the end of the log.
    pub at_end: bool,
    /// The partition's accepted votes, if `entries` reach the end of the log of a box. They are taken in the same
    /// atomic step, so they are exact: the votes of all entries that were ever appended, trimmed ones among them, up to
    /// the last of `entries`. A reader compares them with what it has read. [Remains] have no such count.
    pub accepted: Option<Counters>,
}

/// What a box held of a poll when it was sealed in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seal {
    /// The last position of each partition, [`Position::START`] where nothing was ever stored.
    pub ends: Vec<Position>,
    /// Votes accepted for the poll, each partition.
    pub accepted: Vec<u64>,
}

/// Why frames were not acknowledged; says whether they are stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// Not stored: the box at this address is another one now. Ask for the [status](Queue::status) and encode for
    /// that box.
    #[error("the queue has another identity now")]
    AnotherBox,
    /// Not stored: no worker has registered the box yet. Wait for one.
    #[error("no worker has registered the queue yet")]
    NotRegistered,
    /// Not stored, for this reason. The caller may try again.
    #[error("not stored: {0}")]
    NotStored(String),
    /// It can't be known whether they are stored, or will be: the reply got lost. Tell the voter to try again; a
    /// vote stored twice counts once.
    #[error("it is not known whether it was stored: {0}")]
    Unknown(String),
}

/// Why a queue did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// The box at this address is another one, or none. Ask for the [status](Queue::status).
    #[error("the queue has another identity now")]
    AnotherBox,
    /// The log no longer holds the entry at the position that was committed last: it lost or rolled back data.
    /// Nothing more may be booked under this identity.
    #[error(
        "the queue no longer holds the entry at position {0}, which was read before: it lost or rolled back data"
    )]
    Cut(Position),
    /// There is no such partition.
    #[error("the queue has no partition {0}")]
    NoPartition(Partition),
    /// Of a kind that can't refuse votes for a poll.
    #[error("queues of this kind can't be sealed")]
    CannotSeal,
    /// What is stored there is not what this version writes.
    #[error("the queue holds what this version can't read: {0}")]
    Incompatible(String),
    /// Not reachable, not answering in time, or failing. Try again later.
    #[error("the queue is not available: {0}")]
    Unavailable(String),
}

impl QueueError {
    /// Whether the same call may succeed later, with nothing changed by the caller.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

/// A partitioned log with an identity. See the [module](self) for what it is used for.
///
/// The contract holds for every implementation and is tested by the conformance suite, `conformance::queue`. Dropping
/// a future leaves the queue as it was before the call or as it would be after: nothing in between, and for
/// [`append`](Self::append) the same as [`AppendError::Unknown`].
#[async_trait]
pub trait Queue: Send + Sync + fmt::Debug {
    /// Where the queue is, for logs and reports; no password in it.
    fn address(&self) -> String;

    /// Makes a box if there is none, or if there is just the box `replacing`; returns the box that is there then.
    ///
    /// A new box is empty and not registered. What the replaced one held becomes [`Remains`]. Of several callers at
    /// once, one makes the box and all get it. The box returned may have another layout than asked for: compare its
    /// [status](Self::status).
    async fn create(&self, layout: Layout, replacing: Option<QueueId>) -> Result<QueueId, QueueError>;

    /// What the box says of itself; none if there is no box yet. It reads no entries, so that a frontend can do
    /// without the right to.
    async fn status(&self) -> Result<Option<QueueStatus>, QueueError>;

    /// Notes in the box that the store knows it, from when on it takes votes. Call it only after the store has it on
    /// disk. Registering twice changes nothing.
    async fn register(&self, id: QueueId) -> Result<(), QueueError>;

    /// Records what the store knows of polls, from when on the box takes votes for them; all in one atomic step.
    ///
    /// The first digest of a poll stays: a later call with another one changes nothing of that poll, and its answer
    /// names it. The closing time is the one recorded last. A sealed poll stays sealed. Works before the box is
    /// [registered](Self::register), and when the queue is full. Record no poll that the store has closed.
    ///
    /// Returns the polls that the box holds with another digest, in the order given.
    async fn record_polls(&self, id: QueueId, polls: &[PollRecord]) -> Result<Vec<PollSlug>, QueueError>;

    /// Stores frames: `Ok` means that each is either on disk at its position or refused for its
    /// [poll](Appended), answers in the order of the frames. A refused frame keeps no other from being stored.
    ///
    /// In one atomic step it checks identity, registration, and of each frame whether its poll is recorded with its
    /// digest and not sealed; adds each frame at the end of its partition; and adds its votes to the accepted ones of
    /// (partition, poll). An error other than [`Unknown`](AppendError::Unknown) means that no frame is stored.
    async fn append(&self, id: QueueId, frames: &[Frame]) -> Result<Vec<Appended>, AppendError>;

    /// Up to `limit` entries of a partition after a position, of the box or of [`Remains`]; removes nothing.
    ///
    /// The entry at the position must still be there (except for [`Position::START`]) and [be the
    /// same](Position::is_of), or the box is [cut](QueueError::Cut). Of remains it need not.
    ///
    /// From the start there is no such entry, so a box that lost its first entries does not show it here. But a read
    /// that reaches the end comes with the [count](Read::accepted) of all votes up to there, taken in the same atomic
    /// step: a reader that adds up what it read since its last such count finds that entries are missing if the sum
    /// is less.
    async fn read(
        &self,
        id: QueueId,
        partition: Partition,
        after: Position,
        limit: usize,
    ) -> Result<Read, QueueError>;

    /// Allows the queue to forget entries of a partition before a position; it keeps the entry at the position, the
    /// anchor of the next read. Only a hint: what was trimmed is not read again, but it may also stay. Works when
    /// the queue is full. Of remains no anchor is kept: they are gone when each partition was trimmed to its end.
    ///
    /// Where the entry at the position is not there, nothing is trimmed: the queue is not in the state that was read, so
    /// what is before the position may never have been.
    async fn trim(&self, id: QueueId, partition: Partition, upto: Position) -> Result<(), QueueError>;

    /// Refuses votes for a poll from now on, whether it was recorded or not, and says what there is of it. Sealing twice
    /// changes nothing and says the same, so far as ends of partitions that only other polls moved are concerned.
    async fn seal(&self, id: QueueId, poll: PollSlug) -> Result<Seal, QueueError>;

    /// What lies behind these positions of the box, or of remains, one for each partition: the ends, and the votes of
    /// up to `limit` entries a partition. A position need not be that of an entry that is still there.
    async fn unread(&self, id: QueueId, after: &[Position], limit: usize) -> Result<Vec<Unread>, QueueError>;

    /// What keeps the queue from being durable, each in words that say what to change; empty when an acknowledged
    /// frame survives the loss of power.
    async fn check(&self) -> Result<Vec<String>, QueueError>;

    /// How full the queue is; nothing where it does not tell.
    async fn room(&self) -> Result<Option<Room>, QueueError>;
}
