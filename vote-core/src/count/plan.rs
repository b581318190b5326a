//! Plan of a commit: everything that one transaction changes.

use std::collections::BTreeMap;

use super::{Ballot, LedgerEntry, QuarantinedFrame, RegisteredPoll, Replayed, merge};
use crate::{Keep, OptionSlug, Partition, PollSlug, Position, QueueId, Timestamp, VoterKey, queue::Counters};

/// How far a partition of a queue was read and committed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Checkpoint {
    /// Position of the last entry committed.
    pub position: Position,
    /// Votes accepted up to that position, by poll, as the queue counted them.
    pub accepted: Counters,
}

/// All changes of one commit, for one partition. A store applies it completely or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitPlan {
    /// The partition.
    pub partition: Partition,
    /// Version that the partition must have. The commit increments it by one.
    pub version: u64,
    /// Changes in each poll.
    pub polls: Vec<PollPlan>,
    /// Changes of the ledger: an entry for each queue and poll with a count that changed.
    pub ledger: Vec<LedgerEntry>,
    /// Position up to which each queue was read.
    pub positions: Vec<(QueueId, Position)>,
    /// Frames with votes that could not be counted.
    pub quarantine: Vec<QuarantinedFrame>,
    /// Outcome of each [replay](crate::Session::replays) of quarantined votes.
    pub replayed: Vec<Replayed>,
}

/// Changes of one commit in one poll.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PollPlan {
    /// The poll, which is registered.
    pub poll: PollSlug,
    /// Ballots of new voters, sorted by voter. If a voter has a ballot already, the commit fails with a
    /// [conflict](crate::store::StoreError::Conflict).
    pub inserts: Vec<Ballot>,
    /// Effective ballots and those that replace them, sorted by voter. If another ballot is effective, the commit fails
    /// with a [conflict](crate::store::StoreError::Conflict).
    pub replacements: Vec<(Ballot, Ballot)>,
    /// Number to add to the tally of each option.
    pub tally: BTreeMap<OptionSlug, i64>,
}

/// Decoded ballots of one poll.
#[derive(Debug)]
pub(super) struct PollBatch {
    keep: Keep,
    /// Options of the poll, by their numbers.
    options: Vec<OptionSlug>,
    /// Those of one voter in the order in which they were read.
    casts: Vec<Cast>,
}

/// A decoded ballot, in half of the memory of a [`Ballot`]: a batch has many, and sorts them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cast {
    pub(super) voter: VoterKey,
    pub(super) cast_at: Timestamp,
    /// Number in the batch of the queue that it was read from.
    pub(super) queue: u32,
    /// Number of the option.
    pub(super) option: u8,
}

impl PollBatch {
    pub(super) fn new(poll: &RegisteredPoll) -> Self {
        Self { keep: poll.keep, options: poll.options.clone(), casts: Vec::new() }
    }

    /// Adds ballots, which the other methods do not expect before [`sort`](Self::sort).
    pub(super) fn extend(&mut self, casts: &[Cast]) {
        self.casts.extend_from_slice(casts);
    }

    /// Sorts the ballots by voter. Sorting takes less time than a hash table, the more the larger the batch is, and the
    /// store needs this order anyway.
    pub(super) fn sort(&mut self) {
        self.casts.sort_by_key(|cast| u128::from_be_bytes(cast.voter.0));
    }

    /// Returns the ballots of each voter.
    fn by_voter(&self) -> impl Iterator<Item = &[Cast]> {
        self.casts.chunk_by(|a, b| a.voter == b.voter)
    }

    /// Returns the voters, sorted.
    pub(super) fn voters(&self) -> Vec<VoterKey> {
        self.by_voter().map(|casts| casts[0].voter).collect()
    }

    fn ballot(&self, cast: &Cast) -> Ballot {
        let option = self.options[usize::from(cast.option)];
        Ballot { voter: cast.voter, option, cast_at: cast.cast_at }
    }
}

/// What became of the ballots of one queue.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) new_voters: u64,
    pub(super) superseded: u64,
}

/// Plans the changes in one poll, and counts them by the number of the queue, of which there are `queues`.
pub(super) fn plan_poll(
    poll: PollSlug,
    batch: &PollBatch,
    queues: usize,
    effective: &[Ballot],
) -> (PollPlan, Vec<Counts>) {
    let mut effective = effective.to_vec();
    effective.sort_unstable_by_key(|ballot| ballot.voter);
    let mut effective = effective.into_iter().peekable();
    let mut counts = vec![Counts::default(); queues];
    let mut plan = PollPlan { poll, inserts: Vec::new(), replacements: Vec::new(), tally: BTreeMap::new() };
    plan.inserts.reserve(batch.casts.len());
    for casts in batch.by_voter() {
        let voter = casts[0].voter;
        while effective.next_if(|ballot| ballot.voter < voter).is_some() {}
        let before = effective.next_if(|ballot| ballot.voter == voter);
        let mut after = before;
        for cast in casts {
            let (counts, ballot) = (&mut counts[cast.queue as usize], batch.ballot(cast));
            match &mut after {
                Some(after) => {
                    *after = merge(batch.keep, *after, ballot);
                    counts.superseded += 1;
                }
                None => {
                    after = Some(ballot);
                    counts.new_voters += 1;
                }
            }
        }
        match (before, after) {
            (None, Some(after)) => plan.inserts.push(after),
            (Some(before), Some(after)) if before != after => plan.replacements.push((before, after)),
            _ => continue,
        }
        for (ballot, n) in [(before, -1), (after, 1)] {
            if let Some(ballot) = ballot {
                *plan.tally.entry(ballot.option).or_default() += n;
            }
        }
    }
    plan.tally.retain(|_, n| *n != 0);
    (plan, counts)
}
