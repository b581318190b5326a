//! The queue: a partitioned log with an identity, which accepts votes and keeps them until workers have counted them.
//!
//! A frontend appends frames to the queue of its own node. Workers read every queue, commit what they read, and only
//! then trim it. The queue leases, acknowledges and redelivers nothing: a reader keeps its own position, in the
//! store, in the same transaction as what it read.
//!
//! The life cycle of a queue:
//!
//! 1. A frontend [creates](Queue::create) it.
//! 2. A worker records it in the store, [records](Queue::record_polls) the store's polls in it, and then
//!    [activates](Queue::activate) it.
//! 3. The frontend [appends](Queue::append) frames; workers [read](Queue::read) them, and [trim](Queue::trim) what
//!    they have committed.
//! 4. Workers [seal](Queue::seal) it for each poll that closes.
//!
//! A queue accepts votes
//!
//! - only once it is active, so that the store knows every queue that holds votes;
//! - only for polls as the store defines them, so that no vote is stored that can't be counted;
//! - never for a sealed poll, so that nothing is added after the count.
//!
//! A queue that diverged is [replaced](Queue::create): its address gets a queue with a new identity. The remaining
//! entries of the old one become a [`ReplacedQueue`], a log with an identity of its own that accepts no votes, is
//! read once to its end, and is then forgotten.

use std::{collections::BTreeMap, fmt};

use async_trait::async_trait;

use crate::{DurabilityProblem, Partition, PollDigest, PollSlug, Timestamp};

mod accepted;
mod entry;
mod error;
mod id;
mod layer;
mod layout;
pub mod memory;
mod polls;
mod position;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(feature = "sqlite")]
pub mod sqlite;
mod status;

pub use accepted::Accepted;
pub use entry::{Appended, Entry, Frame, Read, Seal};
pub use error::{AppendError, QueueError};
pub use id::QueueId;
pub use layer::QueueLayer;
pub use layout::{LAYOUT_VERSION, Layout, LayoutMismatch};
pub use memory::MemoryQueue;
pub use polls::{PollRecord, PollState, PollStates};
pub use position::Position;
#[cfg(feature = "redis")]
pub use redis::RedisQueue;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteQueue;
pub use status::{Backlog, Look, QueueClock, QueueStatus, ReplacedQueue, Usage};

/// Votes by poll. The name of the poll is as stored in the queue; if the data is damaged, it may not be a valid slug.
pub type Counters = BTreeMap<String, u64>;

/// A partitioned log with an identity: the contract of every queue. The [module](self) describes its life cycle.
///
/// Every implementation must pass the conformance suite, `conformance::queue`. What holds for all methods:
///
/// - **Roles.** A frontend calls `create`, `status`, `append`, `durability_problems` and `usage`. A worker calls
///   `create` (to replace a queue), `look`, `status`, `activate`, `record_polls`, `drop_poll`, `record_clock`, `read`,
///   `trim`, `seal` and `backlog`.
/// - **Identity.** A method with a parameter `id` acts on that queue and no other: it fails with
///   [`Replaced`](QueueError::Replaced) if the address holds another queue, or none. [`read`](Self::read),
///   [`trim`](Self::trim) and [`backlog`](Self::backlog) also accept the id of a [`ReplacedQueue`].
/// - **Errors.** Any method that returns a [`QueueError`] may fail with [`Unavailable`](QueueError::Unavailable): try
///   again later, with a pause; and with [`Incompatible`](QueueError::Incompatible): do not try again, tell an
///   operator.
/// - **Cancellation.** Any future may be dropped at any time. It leaves the queue as it was before the call or as it
///   would be after, with nothing in between; a request that was already sent may take effect later.
/// - **Idempotence.** All methods but [`append`](Self::append) are idempotent: after an error or a dropped future,
///   repeat the call with the same arguments.
/// - **Durability.** What a method changed before it returned `Ok` survives a restart of the server, unless
///   [`durability_problems`](Self::durability_problems) names a reason why not.
/// - **Full queues.** Only `append` fails if the queue has reached its limit. All other methods work, since workers
///   need them to drain it. (A SQLite file on a full disk can't be written, not even trimmed.)
/// - **Cost.** A call is one network round trip unless its text says otherwise; on Redis one or two more where a
///   script has to be loaded, at the first call and after a restart of the server. On SQLite a call is one
///   transaction, and one that writes waits for the disk. No call waits for votes to arrive.
#[async_trait]
pub trait Queue: Send + Sync + fmt::Debug {
    /// Returns where the queue is, for logs and reports, without a password.
    ///
    /// Never fails, and sends nothing.
    fn address(&self) -> String;

    /// Creates a queue if the address holds none, or only the one named by `replacing`; returns the id of the queue
    /// that is there afterwards.
    ///
    /// - A new queue is empty, is not active and knows no polls.
    /// - The entries of the one that it replaces, if there are any, become a [`ReplacedQueue`].
    /// - Of several concurrent callers, one creates the queue, and all get its id.
    /// - The queue returned may be an existing one, with another layout than asked for: compare its
    ///   [status](Self::status).
    ///
    /// # Errors
    /// - [`Unavailable`](QueueError::Unavailable): try again with the same `replacing`, which creates no second
    ///   queue. Also if the operating system has no random numbers.
    /// - [`Replica`](QueueError::Replica): the server is a replica, and nothing was created. Use its master.
    /// - [`Incompatible`](QueueError::Incompatible): see [`Queue`].
    ///
    /// # Cost
    /// Scales with the number of partitions if a queue is replaced; entries are not copied.
    async fn create(&self, layout: Layout, replacing: Option<QueueId>) -> Result<QueueId, QueueError>;

    /// Returns which queue is here and on which server, and how many votes it has ever accepted in some partitions;
    /// `None` if the address holds no queue yet.
    ///
    /// Each worker asks each queue up to ten times a second, for the partitions that the worker owns. So what all
    /// workers ask for does not grow with their number.
    ///
    /// # Errors
    /// - [`Unavailable`](QueueError::Unavailable), [`Incompatible`](QueueError::Incompatible): see [`Queue`].
    ///
    /// # Cost
    /// Scales with `partitions` times the polls that have votes there; constant without any.
    async fn look(&self, partitions: &[Partition]) -> Result<Option<Look>, QueueError>;

    /// Returns the state of the queue, or `None` if the address holds no queue yet.
    ///
    /// It reads no entries, so that a frontend can do without the right to.
    ///
    /// # Errors
    /// - [`Unavailable`](QueueError::Unavailable), [`Incompatible`](QueueError::Incompatible): see [`Queue`].
    ///
    /// # Cost
    /// Scales with the number of partitions times the polls that have votes there, and with the polls that the queue
    /// knows; on SQLite also with the stored entries, which it counts.
    async fn status(&self) -> Result<Option<QueueStatus>, QueueError>;

    /// Activates the queue: from then on it accepts votes.
    ///
    /// Call it only after the store has the queue on disk, and after the store's open polls were
    /// [recorded](Self::record_polls) and its closed polls [sealed](Self::seal) in the queue. Activating an active
    /// queue changes nothing.
    ///
    /// # Errors
    /// - [`Replaced`](QueueError::Replaced): get the [status](Self::status), and start over with the queue that is
    ///   there.
    /// - [`Unavailable`](QueueError::Unavailable), [`Incompatible`](QueueError::Incompatible): see [`Queue`].
    ///
    /// # Cost
    /// Constant.
    async fn activate(&self, id: QueueId) -> Result<(), QueueError>;

    /// Records the store's definitions of polls, all in one atomic step: from then on the queue accepts votes for
    /// them.
    ///
    /// Returns the polls that it did not record, in the order given: those that the queue holds with another digest,
    /// and those whose digest it dropped last, unless the record shows that this was undone. Nothing of these polls was
    /// changed.
    ///
    /// - The first digest of a poll stays until it is [dropped](Self::drop_poll).
    /// - The digest that was dropped last is recorded again if the record's
    ///   [undone withdrawal](PollRecord::undone_withdrawal) is that for which it was dropped, or a later one. Then the
    ///   caller has read the store since that withdrawal was undone. A caller that has read it earlier is refused.
    /// - The closing time is the one recorded last.
    /// - A sealed poll stays sealed, and is not among the polls returned.
    /// - It works before the queue is [activated](Self::activate).
    /// - Record no poll that the store has closed: the queue would accept votes for it.
    ///
    /// # Errors
    /// No poll was recorded, or all were, if the reply was lost.
    ///
    /// - [`Replaced`](QueueError::Replaced): get the [status](Self::status), and start over with the queue that is
    ///   there.
    /// - [`Unavailable`](QueueError::Unavailable), [`Incompatible`](QueueError::Incompatible): see [`Queue`].
    ///
    /// # Cost
    /// Scales with `polls`; on SQLite also with the polls that the queue knows.
    async fn record_polls(&self, id: QueueId, polls: &[PollRecord]) -> Result<Vec<PollSlug>, QueueError>;

    /// Drops the definition of a poll with this digest, in one atomic step: from then on the queue accepts no
    /// votes for it, and does not record it again until it has recorded another definition of the poll, or gets a
    /// record which shows that the withdrawal was undone.
    ///
    /// `withdrawn_at` is the [time](crate::count::Withdrawal::at) of the definition's withdrawal. Of several calls for
    /// the same digest, the latest time counts.
    ///
    /// - `Ok(true)`: the queue accepts no votes for this definition. If another definition is recorded, it stays.
    /// - `Ok(false)`: nothing was changed, because the poll is sealed, or because the queue has accepted votes for
    ///   this definition.
    ///
    /// # Errors
    /// - [`Replaced`](QueueError::Replaced): get the [status](Self::status), and start over with the queue that is
    ///   there.
    /// - [`Unavailable`](QueueError::Unavailable), [`Incompatible`](QueueError::Incompatible): see [`Queue`].
    ///
    /// # Cost
    /// Scales with the number of partitions; on SQLite also with the polls that the queue knows.
    async fn drop_poll(
        &self,
        id: QueueId,
        poll: PollSlug,
        digest: PollDigest,
        withdrawn_at: Timestamp,
    ) -> Result<bool, QueueError>;

    /// Records by how many microseconds the queue's [clock](QueueClock) is ahead of the store's, for the queue's
    /// frontend.
    ///
    /// The value of the latest call is in the [status](Self::status).
    ///
    /// # Errors
    /// - [`Replaced`](QueueError::Replaced): get the [status](Self::status), and start over with the queue that is
    ///   there.
    /// - [`Unavailable`](QueueError::Unavailable), [`Incompatible`](QueueError::Incompatible): see [`Queue`].
    ///
    /// # Cost
    /// Constant.
    async fn record_clock(&self, id: QueueId, ahead: i64) -> Result<(), QueueError>;

    /// Appends frames, each at the end of its partition, and returns the outcome of each in the order of the frames.
    ///
    /// `Ok` means that each frame is either on disk at its position or refused for its [poll](Appended). A refused
    /// frame keeps no other from being stored.
    ///
    /// In one atomic step the queue
    ///
    /// - checks its identity, whether it is active, and for each frame whether its poll is recorded with its digest
    ///   and not sealed;
    /// - adds each frame that it accepts at the end of its partition;
    /// - adds the frame's votes to the accepted ones of (partition, poll).
    ///
    /// # Errors
    /// An error other than `Unknown` means that no frame is stored, and that none will be.
    ///
    /// - [`Replaced`](AppendError::Replaced): get the [status](Self::status), and encode the votes for the queue that
    ///   is there.
    /// - [`NotActivated`](AppendError::NotActivated): wait for a worker, and try again.
    /// - [`NotStored`](AppendError::NotStored): the queue is full or fails, or has no such partition. Try again
    ///   later.
    /// - [`Unknown`](AppendError::Unknown): the frames are stored, or not, or will be later. Do not acknowledge them;
    ///   tell the voters to try again.
    ///
    /// # Cancellation and idempotence
    /// A dropped future leaves the outcome unknown, like [`Unknown`](AppendError::Unknown). A repeated call stores
    /// the frames a second time; a vote stored twice counts once.
    ///
    /// # Cost
    /// One wait for the disk, whatever the number of frames: group votes, as [`Writer`](crate::writer::Writer) does.
    /// Scales with the frames and their bytes; on SQLite also with the polls that the queue knows.
    async fn append(&self, id: QueueId, frames: &[Frame]) -> Result<Vec<Appended>, AppendError>;

    /// Reads up to `limit` entries of a partition after a position, from the queue or from a [`ReplacedQueue`].
    /// Removes nothing.
    ///
    /// - It may return fewer entries than `limit`; [`Read::at_end`] tells whether there are more.
    /// - The entry at the position, the anchor, must still be there and [be the same](Position::is_of), or the queue
    ///   has diverged. [`Position::START`] has no anchor, and for a replaced queue none is needed.
    /// - A read from the start does not show by itself that the first entries were lost. But a read that reaches the
    ///   end returns the [count](Read::accepted) of all votes up to there, taken in the same atomic step: a reader
    ///   that adds up what it read since its last such count finds that entries are missing if the sum is less.
    ///
    /// # Errors
    /// - [`Diverged`](QueueError::Diverged): count nothing more under this id, and [replace](Self::create) the queue.
    /// - [`Replaced`](QueueError::Replaced): get the [status](Self::status). A replaced queue that was trimmed to its
    ///   end is gone.
    /// - [`NoPartition`](QueueError::NoPartition): use the [layout](QueueStatus::layout) of the queue.
    /// - [`Unavailable`](QueueError::Unavailable), [`Incompatible`](QueueError::Incompatible): see [`Queue`].
    ///
    /// # Cost
    /// Scales with the entries returned and their bytes, and with the polls that have votes in the partition.
    async fn read(
        &self,
        id: QueueId,
        partition: Partition,
        after: Position,
        limit: usize,
    ) -> Result<Read, QueueError>;

    /// Allows the queue to forget the entries of a partition before a position.
    ///
    /// Call it only after the entries are committed in the store. It is only a hint: what was trimmed is not read
    /// again, but it may also stay.
    ///
    /// - Of a queue, the entry at the position stays: it is the anchor of the next read.
    /// - Of a [`ReplacedQueue`] no anchor is kept. It is forgotten once each partition was trimmed to its end.
    /// - If a queue no longer has the entry at the position, nothing is trimmed: the queue is not in the state that
    ///   was read, so what is before the position may never have been read.
    ///
    /// # Errors
    /// - [`Replaced`](QueueError::Replaced): nothing is left to trim under this id.
    /// - [`NoPartition`](QueueError::NoPartition): use the [layout](QueueStatus::layout) of the queue.
    ///   Implementations may return `Ok` instead, since there is nothing to trim.
    /// - [`Unavailable`](QueueError::Unavailable), [`Incompatible`](QueueError::Incompatible): see [`Queue`].
    ///
    /// # Cost
    /// Scales with the entries removed; for a replaced queue on Redis also with the number of partitions.
    async fn trim(&self, id: QueueId, partition: Partition, upto: Position) -> Result<(), QueueError>;

    /// Seals a poll, whether it was recorded or not: from then on the queue refuses votes for it. Returns what the
    /// queue holds of it.
    ///
    /// It can't be undone. A repeated call returns the same `accepted`; `ends` may have advanced where frames of
    /// other polls were appended.
    ///
    /// # Errors
    /// - [`Replaced`](QueueError::Replaced): get the [status](Self::status), and seal the queue that is there. A
    ///   [`ReplacedQueue`] accepts no votes, so it is not sealed.
    /// - [`Unavailable`](QueueError::Unavailable), [`Incompatible`](QueueError::Incompatible): see [`Queue`].
    ///
    /// # Cost
    /// Scales with the number of partitions; on SQLite with that number times the polls that have votes there.
    async fn seal(&self, id: QueueId, poll: PollSlug) -> Result<Seal, QueueError>;

    /// Counts the backlog behind positions of the queue, or of a [`ReplacedQueue`], one position for each partition;
    /// returns one answer for each.
    ///
    /// - A position need not be that of an entry that is still there.
    /// - The votes of up to `limit` entries of each partition are counted. The end is known however small the limit.
    ///
    /// # Errors
    /// - [`Replaced`](QueueError::Replaced): get the [status](Self::status). A replaced queue that was trimmed to its
    ///   end is gone.
    /// - [`Unavailable`](QueueError::Unavailable), [`Incompatible`](QueueError::Incompatible): see [`Queue`].
    ///
    /// # Cost
    /// The server reads up to `limit` entries of each partition, and answers with the last entry of each.
    async fn backlog(
        &self,
        id: QueueId,
        after: &[Position],
        limit: usize,
    ) -> Result<Vec<Backlog>, QueueError>;

    /// Returns what keeps the queue from being durable; an empty list if an acknowledged frame survives a power failure.
    ///
    /// # Errors
    /// - [`Unavailable`](QueueError::Unavailable), [`Incompatible`](QueueError::Incompatible): see [`Queue`].
    ///
    /// # Cost
    /// On Redis ten round trips; ask now and then, not for each vote.
    async fn durability_problems(&self) -> Result<Vec<DurabilityProblem>, QueueError>;

    /// Returns the memory that the queue uses and its limit, or `None` if queues of this kind do not report it.
    ///
    /// # Errors
    /// - [`Unavailable`](QueueError::Unavailable), [`Incompatible`](QueueError::Incompatible): see [`Queue`].
    ///
    /// # Cost
    /// Constant.
    async fn usage(&self) -> Result<Option<Usage>, QueueError>;
}
