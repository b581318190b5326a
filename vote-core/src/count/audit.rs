//! Audit: whether every accepted vote is accounted for, and whether a poll's count is complete.
//!
//! Pure: it compares the [`Accounts`] of one moment, so its verdict is the same under full load as at rest.
//!
//! For every queue and poll, in every snapshot of a store:
//!
//! ```text
//! accepted = new voters + superseded + quarantined
//! Σ new voters, including those of replaced queues = Σ tally = rows of votes
//! ```
//!
//! Votes that were accepted and not read yet are not part of these invariants. Workers count them from the entries in
//! the queue, never as a difference: a lost vote would hide in a difference forever.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    Partition, PollSlug, Position, QueueId,
    count::{Accounts, LedgerRow, QuarantineTotal, QueueRecord, QueueState, SealRecord, was_within},
};

mod finality;
mod finding;
mod found;
mod residual;

pub use finality::{obstacles, obstacles_in};
pub use finding::Finding;
pub use found::{Audit, Figures, PollAudit, PollStage, QueueAudit, Verdict};
pub use residual::{Residual, residuals};

/// Time without a report after which a queue counts as not heard from.
///
/// Workers report every 2 s, so the number of queued votes in an audit may be that old or older.
pub const NOT_HEARD_FROM_AFTER: std::time::Duration = std::time::Duration::from_secs(10);

/// Audits a store, or one poll of it, as of the time of the accounts by the store's clock.
#[must_use]
pub fn audit(accounts: &Accounts, only: Option<PollSlug>) -> Audit {
    let view = View::new(accounts);
    let mut problems = Vec::new();
    let mut outstanding = Vec::new();
    let mut polls = Vec::new();
    for name in view.polls(only) {
        let poll = view.poll(&name);
        view.check_poll(&poll, &mut problems);
        match (poll.state, name.parse()) {
            (PollStage::Closed, Ok(slug)) => outstanding.extend(obstacles(accounts, slug)),
            _ => outstanding.extend(view.quarantine_pending(&name)),
        }
        polls.push(poll);
    }
    view.check_queues(only, &mut problems, &mut outstanding);
    // A problem of a queue is listed once, however many polls it affects.
    let mut listed = BTreeSet::new();
    problems.retain(|finding| listed.insert(finding.clone()));
    // What keeps a closed poll from being final may be listed as a problem already.
    outstanding.retain(|finding| listed.insert(finding.clone()));
    let verdict = match (problems.is_empty(), outstanding.is_empty()) {
        (false, _) => Verdict::Broken,
        (true, false) => Verdict::NotDrained,
        (true, true) => Verdict::Holds,
    };
    Audit { taken_at: accounts.taken_at, verdict, problems, outstanding, polls }
}

/// Returns whether a queue, or a replaced queue, is read to the ends that were last reported.
///
/// False if it was never inspected, since its content is unknown.
#[must_use]
pub fn is_read_to_the_end(accounts: &Accounts, queue: &QueueRecord) -> bool {
    View::new(accounts).is_read_to_the_end(queue)
}

/// Returns the queues, including replaced queues, from which votes may still come and that no worker reported for
/// [`NOT_HEARD_FROM_AFTER`].
#[must_use]
pub fn not_heard_from(accounts: &Accounts) -> Vec<QueueId> {
    let view = View::new(accounts);
    let is_missed = |queue: &&QueueRecord| {
        let is_done = queue.original_id.is_some() && view.is_read_to_the_end(queue);
        !queue.state.is_ended() && view.is_late(queue) && !is_done && view.may_yield_votes(queue, None)
    };
    accounts.queues.iter().filter(is_missed).map(|queue| queue.id).collect()
}

/// The accounts, indexed for the checks of an audit.
struct View<'a> {
    accounts: &'a Accounts,
    seals: BTreeMap<(QueueId, PollSlug), &'a SealRecord>,
}

impl<'a> View<'a> {
    fn new(accounts: &'a Accounts) -> Self {
        let seals = accounts.seals.iter().map(|seal| ((seal.queue, seal.poll), seal)).collect();
        Self { accounts, seals }
    }

    /// Returns the names of the polls to audit: those registered, and those that only queues or the ledger know.
    fn polls(&self, only: Option<PollSlug>) -> Vec<String> {
        if let Some(poll) = only {
            return vec![poll.to_string()];
        }
        let registered: Vec<String> = self.accounts.polls.iter().map(|poll| poll.slug.to_string()).collect();
        let mut others = BTreeSet::new();
        for queue in &self.accounts.queues {
            others.extend(queue.accepted.keys().chain(queue.queued.keys()));
        }
        others.extend(self.accounts.ledger.iter().map(|row| &row.entry.poll));
        let unknown = others.into_iter().filter(|name| !registered.contains(name)).cloned();
        registered.iter().cloned().chain(unknown).collect()
    }

    fn state(&self, poll: &str) -> PollStage {
        match self.accounts.polls.iter().find(|known| known.slug.as_str() == poll) {
            None => PollStage::Unregistered,
            Some(known) if known.final_at.is_some() => PollStage::Final,
            Some(known) if known.closed_at.is_some() => PollStage::Closed,
            Some(known) if known.withdrawal.is_some() => PollStage::Withdrawn,
            Some(_) => PollStage::Open,
        }
    }

    fn is_read_to(&self, queue: QueueId, ends: &[Position]) -> bool {
        (0..).zip(ends).all(|(partition, end)| {
            let read = self.accounts.positions.get(&(queue, Partition(partition)));
            read.copied().unwrap_or_default() >= *end
        })
    }

    fn is_read_to_the_end(&self, queue: &QueueRecord) -> bool {
        !queue.ends.is_empty() && self.is_read_to(queue.id, &queue.ends)
    }

    /// Returns whether no more votes for the poll can come from the queue.
    fn is_complete(&self, queue: &QueueRecord, poll: PollSlug) -> bool {
        self.seals.get(&(queue.id, poll)).is_some_and(|seal| self.is_read_to(queue.id, &seal.seal.ends))
    }

    fn poll(&self, name: &str) -> PollAudit {
        let mut queues: BTreeMap<QueueId, QueueAudit> = BTreeMap::new();
        let slug: Option<PollSlug> = name.parse().ok();
        let count = |counters: &crate::queue::Counters| counters.get(name).copied().unwrap_or_default();
        for record in self.accounts.queues.iter().filter(|record| record.original_id.is_none()) {
            queues.insert(
                record.id,
                QueueAudit {
                    queue: record.id.to_string(),
                    address: record.address.clone(),
                    seen_at: record.seen_at,
                    state: record.state,
                    reason: record.reason.clone(),
                    reported: count(&record.accepted),
                    queued_complete: record.queued_complete,
                    complete: slug.is_some_and(|slug| self.is_complete(record, slug)),
                    figures: Figures { queued: count(&record.queued), ..Figures::default() },
                },
            );
        }
        let replaced: BTreeMap<QueueId, QueueId> =
            self.accounts.queues.iter().filter_map(|record| Some((record.id, record.original_id?))).collect();
        for LedgerRow { entry, .. } in self.accounts.ledger.iter().filter(|row| row.entry.poll == name) {
            let of = replaced.get(&entry.queue);
            let Some(queue) = queues.get_mut(of.unwrap_or(&entry.queue)) else { continue };
            queue.figures.add(&if of.is_some() {
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
        let of_poll = self.accounts.tally.iter().filter(|row| row.poll.as_str() == name);
        let registered = self.accounts.polls.iter().find(|known| known.slug.as_str() == name);
        let rows = self.accounts.rows.as_ref().map(|rows| {
            rows.iter().filter(|((poll, _), _)| poll.as_str() == name).map(|(_, votes)| votes).sum()
        });
        PollAudit {
            poll: name.to_owned(),
            state: self.state(name),
            reschedules: registered.map(|poll| poll.reschedules.clone()).unwrap_or_default(),
            tally: of_poll.map(|row| row.votes).sum(),
            rows,
            total,
            queues: queues.into_values().collect(),
        }
    }

    /// Adds every contradiction in the accounts of a poll to `problems`.
    fn check_poll(&self, poll: &PollAudit, problems: &mut Vec<Finding>) {
        let name = &poll.poll;
        let mut new_voters = 0_u64;
        let known: BTreeSet<QueueId> = self.accounts.queues.iter().map(|record| record.id).collect();
        for row in self.accounts.ledger.iter().filter(|row| row.entry.poll == *name) {
            new_voters += row.entry.new_voters;
            self.check_row(row, problems);
            if !known.contains(&row.entry.queue) {
                problems.push(Finding::NeverReported { queue: row.entry.queue });
            }
        }
        for record in self.accounts.seals.iter().filter(|record| record.poll.as_str() == name) {
            self.check_seal(record, problems);
        }
        if i128::from(new_voters) != i128::from(poll.tally) {
            problems.push(Finding::TallyDiffers { poll: name.clone(), new_voters, tally: poll.tally });
        }
        let mut tally: BTreeMap<&str, i64> = BTreeMap::new();
        for row in self.accounts.tally.iter().filter(|row| row.poll.as_str() == name) {
            *tally.entry(row.option.as_str()).or_default() += row.votes;
            if row.votes < 0 {
                problems.push(Finding::TallyNegative {
                    poll: name.clone(),
                    option: row.option,
                    partition: row.partition,
                    tally: row.votes,
                });
            }
        }
        if let Some(rows) = &self.accounts.rows {
            let mut counted: BTreeMap<&str, i64> = tally.keys().map(|option| (*option, 0)).collect();
            for ((poll, option), votes) in rows.iter().filter(|((poll, _), _)| poll.as_str() == name) {
                debug_assert_eq!(poll.as_str(), name);
                counted.insert(option.as_str(), i64::try_from(*votes).unwrap_or(i64::MAX));
            }
            for (option, votes) in counted {
                let tally = tally.get(option).copied().unwrap_or_default();
                if tally != votes {
                    problems.push(Finding::RowsDiffer {
                        poll: name.clone(),
                        option: option.to_owned(),
                        rows: votes,
                        tally,
                    });
                }
            }
        }
    }

    fn check_row(&self, row: &LedgerRow, problems: &mut Vec<Finding>) {
        let LedgerRow { partition, entry } = row;
        let (queue, partition, poll) = (entry.queue, *partition, entry.poll.clone());
        if entry.unaccounted(self.is_retired(entry.queue)) != 0 {
            problems.push(Finding::Unaccounted {
                queue,
                partition,
                poll: poll.clone(),
                accepted: entry.accepted,
                new_voters: entry.new_voters,
                superseded: entry.superseded,
                quarantined: entry.quarantined,
            });
        }
        if self.missing_in_quarantine(row) != 0 {
            let (ledger, found) = (entry.quarantined, self.in_quarantine(row));
            problems.push(Finding::QuarantineDiffers { queue, partition, poll, ledger, found });
        }
    }

    /// Returns the number of votes that are quarantined by the ledger but not in quarantine. Negative: votes that are
    /// in quarantine but not in the ledger.
    fn missing_in_quarantine(&self, row: &LedgerRow) -> i128 {
        i128::from(row.entry.quarantined) - i128::from(self.in_quarantine(row))
    }

    fn in_quarantine(&self, row: &LedgerRow) -> u64 {
        let of_row = |total: &&QuarantineTotal| {
            (total.queue, total.partition, &total.poll) == (row.entry.queue, row.partition, &row.entry.poll)
        };
        self.accounts.quarantine.iter().filter(of_row).map(|total| total.votes).sum()
    }

    /// Compares what was read with what a queue had counted when the poll was sealed in it.
    fn check_seal(&self, record: &SealRecord, problems: &mut Vec<Finding>) {
        let SealRecord { queue, poll, seal } = record;
        for ((end, accepted), partition) in seal.ends.iter().zip(&seal.accepted).zip(0..) {
            let partition = Partition(partition);
            let of_place = |row: &&LedgerRow| {
                (row.entry.queue, row.partition) == (*queue, partition) && row.entry.poll == poll.as_str()
            };
            let counted = self.accounts.ledger.iter().find(of_place).map_or(0, |row| row.entry.accepted);
            let read = self.accounts.positions.get(&(*queue, partition)).copied().unwrap_or_default();
            let contradicts = counted > *accepted || (read >= *end && counted < *accepted);
            // A diverged queue is reported as such, and a retired one is known to have lost votes.
            if contradicts && !self.is_ended(*queue) {
                let (queue, poll) = (*queue, *poll);
                problems.push(Finding::SealDiffers {
                    queue,
                    partition,
                    poll,
                    sealed: *accepted,
                    read: counted,
                });
            }
        }
    }

    fn is_ended(&self, queue: QueueId) -> bool {
        self.accounts.queues.iter().any(|record| record.id == queue && record.state.is_ended())
    }

    fn is_retired(&self, queue: QueueId) -> bool {
        self.accounts.queues.iter().any(|record| record.id == queue && record.state == QueueState::Retired)
    }

    /// Returns the finding that frames of a poll are in quarantine and pending; `None` if there are none.
    fn quarantine_pending(&self, poll: &str) -> Option<Finding> {
        let of_poll = self.accounts.quarantine.iter().filter(|total| total.poll == poll);
        let frames: u64 = of_poll.map(|total| total.pending).sum();
        (frames > 0).then(|| Finding::QuarantinePending { poll: poll.to_owned(), frames })
    }

    fn is_late(&self, queue: &QueueRecord) -> bool {
        !was_within(queue.seen_at, self.accounts.taken_at, NOT_HEARD_FROM_AFTER)
    }

    /// Returns whether votes for the audited polls may still come from a queue.
    fn may_yield_votes(&self, queue: &QueueRecord, only: Option<PollSlug>) -> bool {
        let registered = &self.accounts.polls;
        let mut asked = registered.iter().filter(|poll| only.is_none_or(|only| only == poll.slug));
        let some = asked.any(|poll| poll.final_at.is_none() && !self.is_complete(queue, poll.slug));
        let is_known = |name: &String| registered.iter().any(|poll| poll.slug.as_str() == name);
        let of_no_poll = only.is_none() && !queue.accepted.keys().all(is_known);
        some || of_no_poll || registered.is_empty()
    }

    /// Adds what may still come from queues to `outstanding`, and diverged queues to `problems`.
    fn check_queues(
        &self,
        only: Option<PollSlug>,
        problems: &mut Vec<Finding>,
        outstanding: &mut Vec<Finding>,
    ) {
        for queue in &self.accounts.queues {
            if queue.state == QueueState::Retired || !self.may_yield_votes(queue, only) {
                continue;
            }
            let (id, address) = (queue.id, || queue.address.clone());
            let queued = queue.queued.values().sum();
            let late = self.is_late(queue);
            let drained = self.is_read_to_the_end(queue);
            match queue.original_id {
                None if queue.state == QueueState::Diverged => problems.push(Finding::diverged(queue)),
                Some(_) if drained => {}
                _ if late => outstanding.push(Finding::NotHeardFrom {
                    queue: id,
                    address: address(),
                    seen_at: queue.seen_at,
                    accepted: queue.votes_accepted(),
                    queued,
                }),
                Some(original_id) => {
                    outstanding.push(Finding::BeingReread { queue: id, original_id, address: address() });
                }
                None if !drained => outstanding.push(Finding::Queued {
                    queue: id,
                    address: address(),
                    votes: queued,
                    complete: queue.queued_complete,
                }),
                None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
