//! What workers go by: polls, queues and each other, as the store has them on record.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use super::{QueueRecord, QueueState, RegisteredPoll};
use crate::{PollSlug, QueueId, Timestamp};

/// A worker that gave no sign of life for this long, by the store's clock, is left out of a [`Catalog`].
pub const WORKER_LIVES_FOR: Duration = Duration::from_secs(6);

/// What was recorded this far ahead of the store's clock was recorded before that was set back.
pub(crate) const FUTURE: Duration = Duration::from_secs(10);
/// When something was seen that was recorded before the store's clock was set back: nobody knows, so long ago.
pub(crate) const UNKNOWN_AGE: Duration = Duration::from_secs(60);

/// A poll is closed by time only if the clocks of worker and store differ by no more than this.
pub const MAX_CLOCK_DIFFERENCE: Duration = Duration::from_secs(30);

/// What a store has on record.
///
/// Its parts are read in an order that makes it safe to act on: whoever sees a queue here sees each poll at least as it
/// was when the queue was recorded, and no queue is missing that was recorded before `revision` was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Catalog {
    /// The store's clock, read before anything else.
    pub taken_at: Timestamp,
    /// Raised whenever a queue is recorded for the first time or diverges, and whenever a seal says more than before:
    /// what was recorded as [complete](crate::Lane::complete) up to an older one has to be looked at again.
    pub revision: u64,
    /// All queues ever reported, by identity.
    pub queues: BTreeMap<QueueId, QueueRecord>,
    /// All registered polls, in the order of registration.
    pub polls: Vec<RegisteredPoll>,
    /// Queues with a recorded seal, for polls that are closed and not final.
    pub sealed: BTreeSet<(QueueId, PollSlug)>,
    /// Workers that are alive, by identity.
    pub workers: BTreeMap<WorkerId, WorkerRecord>,
}

impl Catalog {
    /// Whether a queue was reported within some time before the catalog was taken, by the store's clock.
    #[must_use]
    pub fn was_seen_within(&self, queue: QueueId, time: Duration) -> bool {
        self.queues.get(&queue).is_some_and(|record| {
            self.taken_at.as_micros().abs_diff(record.seen_at.as_micros()) <= time.as_micros() as u64
        })
    }

    /// Whether every queue that a poll waits for is sealed for it, so that its partitions may be complete.
    #[must_use]
    pub fn is_sealed_everywhere(&self, poll: PollSlug) -> bool {
        self.queues.values().all(|queue| match queue.state {
            QueueState::Retired => true,
            QueueState::Cut => false,
            QueueState::Active => queue.remains_of.is_some() || self.sealed.contains(&(queue.id, poll)),
        })
    }
}

/// The identity of a worker process: 128 random bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub [u8; 16]);

impl WorkerId {
    /// A new identity.
    ///
    /// # Errors
    /// When the operating system has no random numbers.
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

/// A worker process, as it tells the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerRecord {
    /// Which.
    pub id: WorkerId,
    /// How many lanes it has; 0 when it is about to end.
    pub lanes: u32,
    /// Queues that others reach and this one does not.
    pub unreached: BTreeSet<QueueId>,
}
