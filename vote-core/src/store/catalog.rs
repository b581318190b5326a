//! The catalog: what workers act on. The polls, the queues and the other workers, as the store has them on record.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use crate::{
    PollSlug, QueueId, Timestamp, WorkerId,
    count::{QueueRecord, QueueState, RegisteredPoll, was_within},
};

/// Time after its last [sign of life](crate::Store::heartbeat), by the store's clock, after which a worker is left out of a
/// [`Catalog`].
pub const WORKER_LIVES_FOR: Duration = Duration::from_secs(6);

/// Largest difference between the clocks of worker and store at which a poll is closed by time.
pub const MAX_CLOCK_DIFFERENCE: Duration = Duration::from_secs(30);

/// Time without a report after which an active queue is [late](Catalog::late). Its reporter reports it every 2 s.
pub const LATE_AFTER: Duration = Duration::from_secs(5);

/// What a store has on record of a queue, without what changes with each report. [`StoreReader::queue`] returns all of
/// it.
///
/// [`StoreReader::queue`]: crate::StoreReader::queue
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogQueue {
    /// For a replaced queue, the identity under which it accepted votes.
    pub original_id: Option<QueueId>,
    /// Address at which it was last seen.
    pub address: String,
    /// Server that had it then; see [`QueueRecord::server`].
    pub server: String,
    /// Worker that reported it last.
    pub reporter: Option<WorkerId>,
    /// State of the queue.
    pub state: QueueState,
    /// Why it diverged or was retired; otherwise empty.
    pub reason: String,
}

impl From<&QueueRecord> for CatalogQueue {
    fn from(record: &QueueRecord) -> Self {
        Self {
            original_id: record.original_id,
            address: record.address.clone(),
            server: record.server.clone(),
            reporter: record.reporter,
            state: record.state,
            reason: record.reason.clone(),
        }
    }
}

impl QueueRecord {
    /// Returns whether the queue is [late](Catalog::late) at a time of the store's clock.
    pub(crate) fn is_late(&self, now: Timestamp) -> bool {
        self.state == QueueState::Active
            && self.original_id.is_none()
            && !was_within(self.seen_at, now, LATE_AFTER)
    }
}

/// What a store has on record of polls, queues and workers.
///
/// Its parts are read in an order that makes it safe to act on: it contains every queue that was recorded before
/// `revision` was read, and each poll is at least as recent as any queue in it.
///
/// Clones share the parts that rarely change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Catalog {
    /// The store's clock, read before anything else.
    pub taken_at: Timestamp,
    /// Version of `queues`, `polls` and `dropped`: in two catalogs of one store with equal versions, these parts are
    /// equal, even if the store was restored to an earlier state meanwhile. It has no order.
    pub version: u64,
    /// A number that is raised when a queue is recorded for the first time or diverges, and when the count of a
    /// recorded seal grows. A partition that is recorded as [complete](crate::Session::complete) up to an older
    /// revision has to be checked again.
    pub revision: u64,
    /// All queues ever reported, by their identities.
    pub queues: Arc<BTreeMap<QueueId, CatalogQueue>>,
    /// All registered polls, in the order of registration.
    pub polls: Arc<Vec<RegisteredPoll>>,
    /// Each queue that has [dropped](crate::Store::record_dropped) a withdrawn poll, and that poll.
    pub dropped: Arc<BTreeSet<(QueueId, PollSlug)>>,
    /// Each queue with a recorded seal of a poll that is closed and not final, and that poll.
    pub sealed: BTreeSet<(QueueId, PollSlug)>,
    /// Active queues that no worker has reported for [`LATE_AFTER`], each with the time of the last report. Replaced
    /// queues are not among them.
    pub late: BTreeMap<QueueId, Timestamp>,
    /// The workers that are alive, by their identities.
    pub workers: BTreeMap<WorkerId, WorkerRecord>,
}

impl Catalog {
    /// Returns the catalog with the parts of `known` if they are equal, and a version that tells whether they are: that
    /// of `known` or the next one. For stores that record no version.
    pub(crate) fn versioned(mut self, known: Option<&Self>) -> Self {
        let Some(known) = known else { return Self { version: 1, ..self } };
        let is_same =
            (&self.queues, &self.polls, &self.dropped) == (&known.queues, &known.polls, &known.dropped);
        self.version = if is_same { known.version } else { known.version + 1 };
        if is_same {
            self.queues = Arc::clone(&known.queues);
            self.polls = Arc::clone(&known.polls);
            self.dropped = Arc::clone(&known.dropped);
        }
        self
    }

    /// Returns whether an active queue was reported within `time` before the catalog was taken, by the store's clock.
    /// `time` must not be less than [`LATE_AFTER`]. False for a queue that is not in the catalog.
    #[must_use]
    pub fn was_seen_within(&self, queue: QueueId, time: Duration) -> bool {
        let seen_lately = |at: &Timestamp| was_within(*at, self.taken_at, time);
        self.queues.contains_key(&queue) && self.late.get(&queue).is_none_or(seen_lately)
    }

    /// Returns whether every queue that has to be sealed for a poll is, so that the poll's partitions may be complete.
    /// Retired and replaced queues need no seal; a diverged queue counts as not sealed.
    #[must_use]
    pub fn is_sealed_everywhere(&self, poll: PollSlug) -> bool {
        self.queues.iter().all(|(id, queue)| match queue.state {
            QueueState::Retired => true,
            QueueState::Diverged => false,
            QueueState::Active => queue.original_id.is_some() || self.sealed.contains(&(*id, poll)),
        })
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
