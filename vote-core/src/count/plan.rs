//! Plan of a commit: everything that one transaction changes.

use std::collections::{BTreeMap, HashMap};

use super::{Ballot, LedgerEntry, QuarantinedFrame, Replayed, merge};
use crate::{Keep, OptionSlug, Partition, PollSlug, Position, QueueId, VoterKey, queue::Counters};

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

/// Decoded ballots of one poll, each with the queue that it was read from.
#[derive(Debug)]
pub(super) struct PollBatch {
    pub(super) keep: Keep,
    pub(super) ballots: Vec<(QueueId, Ballot)>,
}

/// Numbers of new voters and of superseded votes, by queue.
pub(super) type Counts = BTreeMap<QueueId, (u64, u64)>;

pub(super) fn plan_poll(poll: PollSlug, batch: &PollBatch, effective: &[Ballot]) -> (PollPlan, Counts) {
    struct Voter {
        before: Option<Ballot>,
        after: Ballot,
    }
    let mut voters: HashMap<VoterKey, Voter> = HashMap::with_capacity(batch.ballots.len());
    for ballot in effective {
        voters.insert(ballot.voter, Voter { before: Some(*ballot), after: *ballot });
    }
    let mut counts = Counts::new();
    // Ballots of one queue follow each other, so there is one look-up of its counts for all of them.
    for ballots in batch.ballots.chunk_by(|(a, _), (b, _)| a == b) {
        let (new_voters, superseded) = counts.entry(ballots[0].0).or_default();
        for (_, ballot) in ballots {
            voters
                .entry(ballot.voter)
                .and_modify(|voter| {
                    voter.after = merge(batch.keep, voter.after, *ballot);
                    *superseded += 1;
                })
                .or_insert_with(|| {
                    *new_voters += 1;
                    Voter { before: None, after: *ballot }
                });
        }
    }
    let mut plan = PollPlan { poll, inserts: Vec::new(), replacements: Vec::new(), tally: BTreeMap::new() };
    for voter in voters.into_values() {
        match voter.before {
            None => plan.inserts.push(voter.after),
            Some(before) if before != voter.after => plan.replacements.push((before, voter.after)),
            Some(_) => continue,
        }
        *plan.tally.entry(voter.after.option).or_default() += 1;
        if let Some(before) = voter.before {
            *plan.tally.entry(before.option).or_default() -= 1;
        }
    }
    plan.inserts.sort_unstable_by_key(|ballot| ballot.voter);
    plan.replacements.sort_unstable_by_key(|(before, _)| before.voter);
    plan.tally.retain(|_, n| *n != 0);
    (plan, counts)
}
