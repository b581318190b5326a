//! State of a queue: identity, counts, memory, backlog.

use super::{Accepted, Counters, Layout, PollStates, Position, QueueId};
use crate::Timestamp;

/// Memory that a queue uses, and its limit. A queue at its limit refuses votes until entries are
/// [trimmed](crate::Queue::trim).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Bytes that count against the limit.
    pub used: u64,
    /// Limit in bytes; `None` if only the machine limits them.
    pub limit: Option<u64>,
}

/// Which queue is at an address, and whether it has something new, as [`Queue::look`](crate::Queue::look) returns it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// Identity of the queue.
    pub id: QueueId,
    /// Identity of the server; see [`QueueStatus::server`].
    pub server: String,
    /// Whether the server is a replica; see [`QueueStatus::is_replica`].
    pub is_replica: bool,
    /// Votes ever accepted over all polls, in each partition that was asked for, in that order; 0 for a partition that
    /// the queue does not have.
    pub accepted: Vec<u64>,
}

/// State of a queue, as [`Queue::status`](crate::Queue::status) returns it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueStatus {
    /// Identity of the queue.
    pub id: QueueId,
    /// Version of its layout; see [`LAYOUT_VERSION`](crate::queue::LAYOUT_VERSION).
    pub version: u16,
    /// Layout that its votes are encoded for.
    pub layout: Layout,
    /// Whether a worker has [activated](crate::Queue::activate) it.
    pub active: bool,
    /// Identity of the server process, or of the file, that holds the queue. It is the same at every address that
    /// leads there, another one for a copy, and another one once a server was restarted.
    pub server: String,
    /// Whether the server is a replica: it holds a copy of what its master accepts, which lags behind, under the same
    /// identity. Frontends append nothing to it and workers do not read it, until an operator promotes it.
    pub is_replica: bool,
    /// Votes ever accepted, by partition and poll, including those that were trimmed.
    pub accepted: Accepted,
    /// Number of entries stored now, for each partition: those not yet read, those not yet trimmed, and the anchor
    /// that [`trim`](crate::Queue::trim) keeps.
    pub entries: Vec<u64>,
    /// State of each poll that the queue knows. It accepts no votes for any other.
    pub polls: PollStates,
    /// Replaced queues at this address that are not yet trimmed to their ends.
    pub replaced: Vec<ReplacedQueue>,
    /// Clock of the queue's server.
    pub clock: QueueClock,
}

/// Clock of a queue's server, compared with the store's clock, which decides everything. It is there for the queue's
/// frontend, which runs on the same machine and can't ask the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueClock {
    /// Time when the queue answered, by this clock.
    pub now: Timestamp,
    /// Microseconds by which this clock was ahead of the store's when a worker last [compared](crate::Queue::record_clock) the
    /// two; `None` if no worker has yet.
    pub ahead: Option<i64>,
}

/// An earlier queue at the same address that was replaced and still has entries to be read: a log that accepts no
/// votes, to be [read](crate::Queue::read) like a queue and [trimmed](crate::Queue::trim) away.
///
/// It has an identity of its own because its entries may have been counted before, under that of the original queue:
/// what is read here is accounted for separately. It never grows, so the ends that [`Queue::backlog`](crate::Queue::backlog) returns stay
/// the same until they are trimmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplacedQueue {
    /// Identity under which the remaining entries are read and accounted for.
    pub id: QueueId,
    /// Identity of the original queue.
    pub of: QueueId,
}

/// Backlog behind a position of a partition, counted from the stored entries.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Backlog {
    /// Position of the partition's last entry; the position asked for if no entry is behind it.
    pub end: Position,
    /// Votes behind the position by poll, of the entries that were counted.
    pub votes: Counters,
    /// Whether all entries up to `end` were counted.
    pub complete: bool,
    /// Time when the first entry behind the position was appended, by the queue's clock; `None` if there is no such
    /// entry, or if queues of this kind do not record it.
    pub oldest: Option<Timestamp>,
}
