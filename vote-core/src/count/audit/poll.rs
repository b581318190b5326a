//! One poll of an audit: its figures, and the contradictions in its rows.

use std::collections::{BTreeMap, HashMap};

use super::{
    Figures, Finding, PollAudit, PollStage, QueueAudit,
    view::{Rows, View},
};
use crate::{
    OptionSlug, Partition, PollSlug, QueueId,
    count::{LedgerRow, QueueRecord, QueueState, SealRecord, accounts::ascending},
    queue::Counters,
};

/// A poll, its rows, and their counts by queue and partition.
pub(super) struct Poll<'a> {
    pub(super) view: &'a View<'a>,
    pub(super) rows: &'a Rows<'a>,
    name: &'a str,
    /// Votes that were read, sorted by queue and partition.
    accepted: Vec<((QueueId, Partition), u64)>,
    quarantined: HashMap<(QueueId, Partition), u64>,
}

impl<'a> Poll<'a> {
    pub(super) fn new(view: &'a View<'a>, name: &'a str, rows: &'a Rows<'a>) -> Self {
        Self { view, rows, name, accepted: rows.accepted(), quarantined: rows.quarantined() }
    }

    /// Returns a look-up of the numbers of votes that were read from a queue, of partitions in ascending order.
    pub(super) fn accepted_of(&self, queue: QueueId) -> impl FnMut(Partition) -> u64 {
        let start = self.accepted.partition_point(|((of, _), _)| *of < queue);
        let of_queue = self.accepted[start..].iter().take_while(move |((of, _), _)| *of == queue);
        ascending(of_queue.map(|((_, partition), votes)| (*partition, *votes)))
    }

    /// Returns the figures of the poll and of each queue.
    pub(super) fn figures(&self) -> PollAudit {
        let slug: Option<PollSlug> = self.name.parse().ok();
        let originals = self.view.accounts.queues.iter().filter(|record| record.original_id.is_none());
        let mut queues: BTreeMap<QueueId, QueueAudit> =
            originals.map(|record| (record.id, self.queue(record, slug))).collect();
        for LedgerRow { entry, .. } in &self.rows.ledger {
            let original = self.view.queue(entry.queue).and_then(|record| record.original_id);
            let Some(queue) = queues.get_mut(&original.unwrap_or(entry.queue)) else { continue };
            queue.figures.add(&if original.is_some() {
                Figures {
                    reread: entry.accepted,
                    reread_new: entry.new_voters,
                    reread_quarantined: entry.quarantined,
                    ..Figures::default()
                }
            } else {
                Figures {
                    accepted: entry.accepted,
                    new_voters: entry.new_voters,
                    superseded: entry.superseded,
                    quarantined: entry.quarantined,
                    ..Figures::default()
                }
            });
        }
        let mut total = Figures::default();
        queues.values().for_each(|queue| total.add(&queue.figures));
        let registered = self.view.registered(self.name);
        let is_counted = self.view.accounts.rows.is_some();
        PollAudit {
            poll: self.name.to_owned(),
            state: PollStage::of(registered),
            reschedules: registered.map(|poll| poll.reschedules.clone()).unwrap_or_default(),
            tally: self.rows.tally.iter().map(|row| row.votes).sum(),
            rows: is_counted.then(|| self.rows.ballots.iter().map(|(_, votes)| votes).sum()),
            total,
            queues: queues.into_values().collect(),
        }
    }

    fn queue(&self, record: &QueueRecord, slug: Option<PollSlug>) -> QueueAudit {
        let count = |counters: &Counters| counters.get(self.name).copied().unwrap_or_default();
        QueueAudit {
            queue: record.id.to_string(),
            address: record.address.clone(),
            seen_at: record.seen_at,
            state: record.state,
            reason: record.reason.clone(),
            reported: count(&record.accepted),
            queued_complete: record.queued_complete,
            complete: slug.is_some_and(|slug| self.view.is_complete(record, slug)),
            figures: Figures { queued: count(&record.queued), ..Figures::default() },
        }
    }

    /// Adds every contradiction in the rows to `problems`.
    pub(super) fn check(&self, problems: &mut Vec<Finding>) {
        let mut new_voters = 0_u64;
        for row in &self.rows.ledger {
            new_voters += row.entry.new_voters;
            self.check_row(row, problems);
            if self.view.queue(row.entry.queue).is_none() {
                problems.push(Finding::NeverReported { queue: row.entry.queue });
            }
        }
        for record in &self.rows.seals {
            self.check_seal(record, problems);
        }
        let tally: i64 = self.rows.tally.iter().map(|row| row.votes).sum();
        if i128::from(new_voters) != i128::from(tally) {
            problems.push(Finding::TallyDiffers { poll: self.name.to_owned(), new_voters, tally });
        }
        self.check_tally(problems);
    }

    fn check_tally(&self, problems: &mut Vec<Finding>) {
        let poll = || self.name.to_owned();
        let mut tally: BTreeMap<OptionSlug, i64> = BTreeMap::new();
        for row in &self.rows.tally {
            *tally.entry(row.option).or_default() += row.votes;
            if row.votes < 0 {
                let (option, partition, tally) = (row.option, row.partition, row.votes);
                problems.push(Finding::TallyNegative { poll: poll(), option, partition, tally });
            }
        }
        if self.view.accounts.rows.is_none() {
            return;
        }
        let mut counted: BTreeMap<OptionSlug, i64> = tally.keys().map(|option| (*option, 0)).collect();
        for (option, votes) in &self.rows.ballots {
            counted.insert(*option, i64::try_from(*votes).unwrap_or(i64::MAX));
        }
        for (option, rows) in counted {
            let tally = tally.get(&option).copied().unwrap_or_default();
            if tally != rows {
                problems.push(Finding::RowsDiffer { poll: poll(), option: option.to_string(), rows, tally });
            }
        }
    }

    /// Adds what is wrong with a row of the ledger to `problems`.
    pub(super) fn check_row(&self, row: &LedgerRow, problems: &mut Vec<Finding>) {
        let LedgerRow { partition, entry } = row;
        let (queue, partition, poll) = (entry.queue, *partition, || self.name.to_owned());
        if self.unaccounted(row) != 0 {
            problems.push(Finding::Unaccounted {
                queue,
                partition,
                poll: poll(),
                accepted: entry.accepted,
                new_voters: entry.new_voters,
                superseded: entry.superseded,
                quarantined: entry.quarantined,
            });
        }
        if self.missing_in_quarantine(row) != 0 {
            let (ledger, found) = (entry.quarantined, self.in_quarantine(row));
            problems.push(Finding::QuarantineDiffers { queue, partition, poll: poll(), ledger, found });
        }
    }

    /// Returns the votes of a row that violate the conservation invariant, as [`LedgerEntry::unaccounted`] does.
    ///
    /// [`LedgerEntry::unaccounted`]: crate::count::LedgerEntry::unaccounted
    pub(super) fn unaccounted(&self, row: &LedgerRow) -> i128 {
        let queue = self.view.queue(row.entry.queue);
        row.entry.unaccounted(queue.is_some_and(|record| record.state == QueueState::Retired))
    }

    /// Returns the number of votes that are quarantined by the ledger but not in quarantine. Negative: votes that are
    /// in quarantine but not in the ledger.
    pub(super) fn missing_in_quarantine(&self, row: &LedgerRow) -> i128 {
        i128::from(row.entry.quarantined) - i128::from(self.in_quarantine(row))
    }

    fn in_quarantine(&self, row: &LedgerRow) -> u64 {
        self.quarantined.get(&(row.entry.queue, row.partition)).copied().unwrap_or_default()
    }

    /// Compares what was read with what a queue had counted when the poll was sealed in it.
    fn check_seal(&self, record: &SealRecord, problems: &mut Vec<Finding>) {
        let SealRecord { queue, poll, seal } = record;
        // A diverged queue is reported as such, and a retired one is known to have lost votes.
        if self.view.queue(*queue).is_some_and(|record| record.state.is_ended()) {
            return;
        }
        let (mut read, mut counted) = (self.view.accounts.read_of(*queue), self.accepted_of(*queue));
        for ((end, sealed), partition) in seal.ends.iter().zip(&seal.accepted).zip(0..) {
            let (partition, queue, poll, sealed) = (Partition(partition), *queue, *poll, *sealed);
            let (is_read, counted) = (read(partition) >= *end, counted(partition));
            if counted > sealed || (is_read && counted < sealed) {
                problems.push(Finding::SealDiffers { queue, partition, poll, sealed, read: counted });
            }
        }
    }

    /// Returns the finding that frames of the poll are in quarantine and pending; `None` if there are none.
    pub(super) fn quarantine_pending(&self) -> Option<Finding> {
        let frames = self.rows.frames_pending();
        (frames > 0).then(|| Finding::QuarantinePending { poll: self.name.to_owned(), frames })
    }
}
