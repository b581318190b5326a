//! The catalog: what workers act on. The polls, the queues and the other workers, as the store has them on record.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use crate::{
    PollSlug, QueueId, Timestamp,
    count::{QueueRecord, QueueState, RegisteredPoll, was_within},
};

/// Time after its last [sign of life](crate::Store::heartbeat), by the store's clock, after which a worker is left out of a
/// [`Catalog`].
pub const WORKER_LIVES_FOR: Duration = Duration::from_secs(6);

/// Largest difference between the clocks of worker and store at which a poll is closed by time.
pub const MAX_CLOCK_DIFFERENCE: Duration = Duration::from_secs(30);

/// What a store has on record of polls, queues and workers.
///
/// Its parts are read in an order that makes it safe to act on: it contains every queue that was recorded before
/// `revision` was read, and each poll is at least as recent as any queue in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Catalog {
    /// The store's clock, read before anything else.
    pub taken_at: Timestamp,
    /// A number that is raised when a queue is recorded for the first time or diverges, and when the count of a
    /// recorded seal grows. A partition that is recorded as [complete](crate::Session::complete) up to an older
    /// revision has to be checked again.
    pub revision: u64,
    /// All queues ever reported, by their identities.
    pub queues: BTreeMap<QueueId, QueueRecord>,
    /// All registered polls, in the order of registration.
    pub polls: Vec<RegisteredPoll>,
    /// Each queue with a recorded seal of a poll that is closed and not final, and that poll.
    pub sealed: BTreeSet<(QueueId, PollSlug)>,
    /// Each queue that has [dropped](crate::Store::record_dropped) a withdrawn poll, and that poll.
    pub dropped: BTreeSet<(QueueId, PollSlug)>,
    /// The workers that are alive, by their identities.
    pub workers: BTreeMap<WorkerId, WorkerRecord>,
}

impl Catalog {
    /// Returns whether a queue was reported within `time` before the catalog was taken, by the store's clock.
    #[must_use]
    pub fn was_seen_within(&self, queue: QueueId, time: Duration) -> bool {
        self.queues.get(&queue).is_some_and(|record| was_within(record.seen_at, self.taken_at, time))
    }

    /// Returns whether every queue that has to be sealed for a poll is, so that the poll's partitions may be complete.
    /// Retired and replaced queues need no seal; a diverged queue counts as not sealed.
    #[must_use]
    pub fn is_sealed_everywhere(&self, poll: PollSlug) -> bool {
        self.queues.values().all(|queue| match queue.state {
            QueueState::Retired => true,
            QueueState::Diverged => false,
            QueueState::Active => queue.original_id.is_some() || self.sealed.contains(&(queue.id, poll)),
        })
    }
}

/// Identity of a worker process: 128 random bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub [u8; 16]);

impl WorkerId {
    /// Returns a new identity.
    ///
    /// # Errors
    /// Fails if the operating system has no random numbers.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WorkerId({self})")
    }
}

/// A worker process, as it describes itself to the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerRecord {
    /// The identity of the process.
    pub id: WorkerId,
    /// Number of its lanes; 0 when it is about to end.
    pub lanes: u32,
    /// Queues that other workers reach and this one does not.
    pub unreached: BTreeSet<QueueId>,
}
