//! The books of a store as of one moment: all that an audit compares, and the ballots that a certificate lists.

use std::{collections::BTreeMap, fmt};

use async_trait::async_trait;

use super::{Ballot, LedgerRow, QueueRecord, RegisteredPoll, StoreError};
use crate::{OptionSlug, Partition, PollSlug, Position, QueueId, Timestamp, VoterKey, queue::Seal};

/// A view of a store that does not move, however much is committed meanwhile. It holds a transaction open on most
/// stores: drop it soon.
#[async_trait]
pub trait Snapshot: Send + fmt::Debug {
    /// The books; with `recount`, also the standing votes counted row by row, which takes a second or so for every ten
    /// million.
    async fn books(&mut self, recount: bool) -> Result<Books, StoreError>;
    /// Up to `limit` standing ballots of a poll, by voter, those after one.
    async fn ballots(
        &mut self,
        poll: PollSlug,
        after: Option<VoterKey>,
        limit: usize,
    ) -> Result<Vec<Ballot>, StoreError>;
}

/// What a store accounts for, as of one moment. What it means together says [`audit`](crate::audit).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Books {
    /// The store's clock at that moment.
    pub taken_at: Timestamp,
    /// The [revision](super::Catalog::revision) at that moment.
    pub revision: u64,
    /// All registered polls.
    pub polls: Vec<RegisteredPoll>,
    /// The version of each partition.
    pub versions: BTreeMap<Partition, u64>,
    /// The revision up to which a partition was recorded as [complete](crate::Lane::complete) for a poll, where it was.
    pub completions: BTreeMap<(PollSlug, Partition), u64>,
    /// All queues ever reported, and remains.
    pub queues: Vec<QueueRecord>,
    /// How far each queue was read, where it was.
    pub positions: BTreeMap<(QueueId, Partition), Position>,
    /// What was read.
    pub ledger: Vec<LedgerRow>,
    /// What queues said when polls were sealed in them.
    pub seals: Vec<SealRecord>,
    /// The tally, where it is not zero.
    pub tally: Vec<TallyRow>,
    /// Standing votes counted row by row, if that was asked for: by poll and option, where there are any.
    pub rows: Option<BTreeMap<(PollSlug, OptionSlug), u64>>,
    /// Votes that are quarantined.
    pub quarantine: Vec<QuarantineTotal>,
}

impl Default for Books {
    /// The books of a store that holds nothing, at the beginning of time.
    fn default() -> Self {
        Self {
            taken_at: Timestamp::MIN,
            revision: 0,
            polls: Vec::new(),
            versions: BTreeMap::new(),
            completions: BTreeMap::new(),
            queues: Vec::new(),
            positions: BTreeMap::new(),
            ledger: Vec::new(),
            seals: Vec::new(),
            tally: Vec::new(),
            rows: None,
            quarantine: Vec::new(),
        }
    }
}

/// A row of the tally.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TallyRow {
    /// The poll.
    pub poll: PollSlug,
    /// The option.
    pub option: OptionSlug,
    /// The partition.
    pub partition: Partition,
    /// Standing votes. Below zero only if something is very wrong.
    pub votes: i64,
}

/// What a queue held of a poll when it was sealed in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealRecord {
    /// The queue.
    pub queue: QueueId,
    /// The poll.
    pub poll: PollSlug,
    /// What there was.
    pub seal: Seal,
}

impl SealRecord {
    /// The higher of two seals, partition by partition.
    #[must_use]
    pub fn merged(mut self, other: &Self) -> Self {
        let Seal { ends, accepted } = &mut self.seal;
        ends.resize(ends.len().max(other.seal.ends.len()), Position::START);
        accepted.resize(ends.len(), 0);
        for (end, other) in ends.iter_mut().zip(&other.seal.ends) {
            *end = (*end).max(*other);
        }
        for (accepted, other) in accepted.iter_mut().zip(&other.seal.accepted) {
            *accepted = (*accepted).max(*other);
        }
        self
    }
}

/// What is quarantined of one queue, partition and poll; votes that were counted since are not among it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantineTotal {
    /// The queue.
    pub queue: QueueId,
    /// The partition.
    pub partition: Partition,
    /// The poll, as the queue holds the name.
    pub poll: String,
    /// Quarantined votes. The other votes of their frames are counted.
    pub votes: u64,
    /// Frames with quarantined votes about which nobody has decided yet.
    pub pending: u64,
}
