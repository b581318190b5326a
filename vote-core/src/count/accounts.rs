//! Accounts: a snapshot of all counts in a store, which an audit compares with each other.

use std::collections::BTreeMap;

use super::{LedgerRow, QueueRecord, RegisteredPoll};
use crate::{OptionSlug, Partition, PollSlug, Position, QueueId, Timestamp, queue::Seal};

/// Snapshot of all counts in a store. [`audit`](crate::count::audit) defines how they relate to each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accounts {
    /// Time of the snapshot, by the store's clock.
    pub taken_at: Timestamp,
    /// The [revision](crate::store::Catalog::revision) of the store.
    pub revision: u64,
    /// All registered polls.
    pub polls: Vec<RegisteredPoll>,
    /// Version of each partition.
    pub versions: BTreeMap<Partition, u64>,
    /// Revision up to which a partition was recorded as [complete](crate::Session::complete) for a poll, if it was.
    pub completions: BTreeMap<(PollSlug, Partition), u64>,
    /// All queues ever reported, including replaced queues.
    pub queues: Vec<QueueRecord>,
    /// Position up to which each partition of a queue was read, if any of it was.
    pub positions: BTreeMap<(QueueId, Partition), Position>,
    /// The ledger.
    pub ledger: Vec<LedgerRow>,
    /// What queues reported when polls were sealed in them.
    pub seals: Vec<SealRecord>,
    /// The tally, without zeros.
    pub tally: Vec<TallyRow>,
    /// Time of the last commit that changed the tally of a poll, by the store's clock, if one did. It never decreases,
    /// even if that clock is set back.
    pub tally_changed_at: BTreeMap<PollSlug, Timestamp>,
    /// Effective ballots counted row by row, by poll and option, without zeros; `None` if they were not counted.
    pub rows: Option<BTreeMap<(PollSlug, OptionSlug), u64>>,
    /// Totals of quarantined votes.
    pub quarantine: Vec<QuarantineTotal>,
}

impl Default for Accounts {
    /// The accounts of an empty store, at [`Timestamp::MIN`].
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
            tally_changed_at: BTreeMap::new(),
            rows: None,
            quarantine: Vec::new(),
        }
    }
}

impl Accounts {
    /// Returns the number of effective ballots of each option of a poll by the tally, zeros included, in the order of
    /// registration; an empty list if the poll is not registered.
    ///
    /// A negative sum, which only damage can cause, is returned as 0. The audit reports it.
    #[must_use]
    pub fn tally_of(&self, poll: PollSlug) -> Vec<(OptionSlug, u64)> {
        let Some(registered) = self.polls.iter().find(|known| known.slug == poll) else { return Vec::new() };
        let votes = |option: &OptionSlug| {
            let rows = self.tally.iter().filter(|row| row.poll == poll && row.option == *option);
            u64::try_from(rows.map(|row| row.votes).sum::<i64>()).unwrap_or(0)
        };
        registered.options.iter().map(|option| (*option, votes(option))).collect()
    }
}

impl Accounts {
    /// Returns whether a queue, or a replaced queue, is read to the ends that were last reported. False if it was never
    /// inspected, since its content is unknown.
    pub(super) fn is_read_to_the_end(&self, queue: &QueueRecord) -> bool {
        !queue.ends.is_empty() && self.is_read_to_all(queue.id, &queue.ends)
    }

    /// Returns whether a queue is read to these positions, one for each partition.
    pub(super) fn is_read_to_all(&self, queue: QueueId, ends: &[Position]) -> bool {
        let mut read = self.read_of(queue);
        (0..).map(Partition).zip(ends).all(|(partition, end)| read(partition) >= *end)
    }

    /// Returns a look-up of the positions up to which a queue was read, of partitions in ascending order.
    pub(super) fn read_of(&self, queue: QueueId) -> impl FnMut(Partition) -> Position {
        let of_queue = (queue, Partition(0))..=(queue, Partition(u16::MAX));
        ascending(self.positions.range(of_queue).map(|((_, partition), position)| (*partition, *position)))
    }
}

/// Returns a look-up in values by partition, both in ascending order; the default for a partition without a value.
pub(super) fn ascending<T: Copy + Default>(
    values: impl Iterator<Item = (Partition, T)>,
) -> impl FnMut(Partition) -> T {
    let mut values = values.peekable();
    move |partition| {
        while values.next_if(|(of, _)| *of < partition).is_some() {}
        values.peek().filter(|(of, _)| *of == partition).map_or_else(T::default, |(_, value)| *value)
    }
}

/// Row of the tally: the ballots for one option in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TallyRow {
    /// The poll.
    pub poll: PollSlug,
    /// The option.
    pub option: OptionSlug,
    /// The partition.
    pub partition: Partition,
    /// Number of effective ballots. Negative only if something is seriously wrong.
    pub votes: i64,
}

/// What a queue held of a poll when the poll was sealed in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealRecord {
    /// The queue.
    pub queue: QueueId,
    /// The poll.
    pub poll: PollSlug,
    /// End and accepted votes of each partition.
    pub seal: Seal,
}

impl SealRecord {
    /// Merges two reports of a seal: in each partition, the higher end and the higher count.
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

/// Totals of what is quarantined of one queue, partition and poll, without votes that were counted since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantineTotal {
    /// The queue.
    pub queue: QueueId,
    /// The partition.
    pub partition: Partition,
    /// Name of the poll, as the queue holds it.
    pub poll: String,
    /// Number of quarantined votes. The other votes of their frames are counted.
    pub votes: u64,
    /// Number of frames whose quarantined votes are still [pending](crate::count::QuarantineState::is_pending).
    pub pending: u64,
}
