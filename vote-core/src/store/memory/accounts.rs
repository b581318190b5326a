//! Accounts of a store in memory, seals and snapshots.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::{Data, Rows};
use crate::{
    OptionSlug, Partition, PollSlug, Position, QueueId, Timestamp, VoterKey,
    count::{
        Accounts, Ballot, LedgerEntry, LedgerRow, QuarantineState, QuarantineTotal, SealRecord, TallyRow,
    },
    store::{Snapshot, StoreError},
};

impl Data {
    pub(super) fn accounts(&self, now: Timestamp, recount: bool) -> Accounts {
        Accounts {
            taken_at: now,
            revision: self.revision,
            completions: self.completions.clone(),
            polls: self.polls.clone(),
            versions: self.rows().map(|(partition, rows)| (partition, rows.version)).collect(),
            queues: self.queues.values().cloned().collect(),
            positions: self.positions(),
            ledger: self.ledger(),
            seals: self.seals.values().cloned().collect(),
            tally: self.tally(),
            tally_changed_at: self.tally_changed_at(),
            rows: recount.then(|| self.recount()),
            quarantine: self.quarantine_totals(),
        }
    }

    fn tally(&self) -> Vec<TallyRow> {
        let of = |(partition, rows): (Partition, &Rows)| {
            let row = move |((poll, option), votes): (&(PollSlug, OptionSlug), &i64)| TallyRow {
                poll: *poll,
                option: *option,
                partition,
                votes: *votes,
            };
            rows.tally.iter().filter(|(_, votes)| **votes != 0).map(row).collect::<Vec<_>>()
        };
        self.rows().flat_map(of).collect()
    }

    fn tally_changed_at(&self) -> BTreeMap<PollSlug, Timestamp> {
        let mut changes: BTreeMap<PollSlug, Timestamp> = BTreeMap::new();
        for (poll, at) in self.rows().flat_map(|(_, rows)| &rows.tally_changed_at) {
            let latest = changes.entry(*poll).or_insert(*at);
            *latest = (*latest).max(*at);
        }
        changes
    }

    fn ledger(&self) -> Vec<LedgerRow> {
        let of = |(partition, rows): (Partition, &Rows)| {
            let row = move |entry: &LedgerEntry| LedgerRow { partition, entry: entry.clone() };
            rows.ledger.values().map(row).collect::<Vec<_>>()
        };
        self.rows().flat_map(of).collect()
    }

    /// Counts the effective ballots row by row.
    fn recount(&self) -> BTreeMap<(PollSlug, OptionSlug), u64> {
        let mut counts = BTreeMap::new();
        for ((poll, _), ballot) in self.rows().flat_map(|(_, rows)| &rows.votes) {
            *counts.entry((*poll, ballot.option)).or_default() += 1;
        }
        counts
    }

    fn quarantine_totals(&self) -> Vec<QuarantineTotal> {
        let mut totals: BTreeMap<_, QuarantineTotal> = BTreeMap::new();
        for row in self.quarantine().filter(|row| row.state != QuarantineState::Counted) {
            let (queue, partition, poll) = (row.frame.queue, row.partition, row.frame.poll.clone());
            let total = totals.entry((queue, partition, poll.clone())).or_insert_with(|| QuarantineTotal {
                queue,
                partition,
                poll,
                votes: 0,
                pending: 0,
            });
            total.votes += row.frame.votes();
            total.pending += u64::from(row.state.is_pending());
        }
        totals.into_values().collect()
    }

    pub(super) fn positions(&self) -> BTreeMap<(QueueId, Partition), Position> {
        self.rows()
            .flat_map(|(partition, rows)| {
                rows.positions.iter().map(move |(queue, position)| ((*queue, partition), *position))
            })
            .collect()
    }

    pub(super) fn record_seal(&mut self, seal: &SealRecord) -> SealRecord {
        let key = (seal.queue, seal.poll);
        let merged = match self.seals.get(&key) {
            None => seal.clone(),
            Some(before) => {
                let merged = before.clone().merged(seal);
                self.revision += u64::from(merged.seal.accepted != before.seal.accepted);
                merged
            }
        };
        self.seals.insert(key, merged.clone());
        merged
    }

    /// Returns which queues have a recorded seal of a poll that is closed and not final.
    pub(super) fn sealed(&self) -> impl Iterator<Item = (QueueId, PollSlug)> {
        let not_final = |poll: &PollSlug| {
            self.polls.iter().any(|p| p.slug == *poll && p.closed_at.is_some() && p.final_at.is_none())
        };
        self.seals.keys().filter(move |(_, poll)| not_final(poll)).copied()
    }
}

/// A copy of the store's content.
#[derive(Debug)]
pub(super) struct MemorySnapshot {
    pub(super) taken_at: Timestamp,
    pub(super) data: Data,
}

#[async_trait]
impl Snapshot for MemorySnapshot {
    async fn accounts(&mut self, recount: bool) -> Result<Accounts, StoreError> {
        Ok(self.data.accounts(self.taken_at, recount))
    }

    async fn ballots(
        &mut self,
        poll: PollSlug,
        after: Option<VoterKey>,
        limit: usize,
    ) -> Result<Vec<Ballot>, StoreError> {
        // A partition is a range of keys, so partition after partition is in the order of the keys.
        let of_poll = self.data.rows().flat_map(|(_, rows)| &rows.votes).filter(|((p, _), _)| *p == poll);
        let rest = of_poll.filter(|((_, voter), _)| Some(*voter) > after);
        Ok(rest.map(|(_, ballot)| *ballot).take(limit).collect())
    }
}
