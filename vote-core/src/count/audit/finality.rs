//! Obstacles to the finality of a poll, partition by partition.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Finding,
    poll::Poll,
    view::{Rows, View},
};
use crate::{
    Partition, PollSlug,
    count::{Accounts, LedgerRow, QueueRecord, QueueState, SealRecord},
};

/// Returns everything that keeps a closed poll from being final; empty if it can be final.
///
/// These are the obstacles [in each partition](obstacles_in), without duplicates. If effective ballots were counted row
/// by row, contradictions between these counts and the tally are obstacles, too.
#[must_use]
pub fn obstacles(accounts: &Accounts, poll: PollSlug) -> Vec<Finding> {
    let (view, rows) = (View::new(accounts), Rows::of(accounts, poll.as_str()));
    all_obstacles(&Poll::new(&view, poll.as_str(), &rows), poll)
}

/// Returns what [`obstacles`] returns.
pub(super) fn all_obstacles(of: &Poll<'_>, poll: PollSlug) -> Vec<Finding> {
    let mut obstacles = poll_obstacles(of.view, poll);
    if of.view.accounts.rows.is_some() {
        of.check(&mut obstacles);
    }
    let partitions: Vec<Partition> = of.view.accounts.versions.keys().copied().collect();
    let mut finality = Finality::new(of, poll, &partitions);
    for partition in partitions {
        obstacles.extend(finality.obstacles(partition));
    }
    without_duplicates(obstacles)
}

/// Returns everything that keeps a partition from being complete for a closed poll, that is, from holding all votes
/// that can still come; empty if nothing does. The accounts may be limited to that partition and to that poll.
///
/// A partition can be complete if
///
/// - every queue is sealed for the poll and read to the seal, with the seal's count, or is retired;
/// - every replaced queue is read to its end, or is retired;
/// - no queue has diverged without an operator having retired it;
/// - every accepted vote is accounted for;
/// - no quarantined votes are pending.
#[must_use]
pub fn obstacles_in(accounts: &Accounts, poll: PollSlug, partition: Partition) -> Vec<Finding> {
    let (view, rows) = (View::new(accounts), Rows::of(accounts, poll.as_str()));
    let of = Poll::new(&view, poll.as_str(), &rows);
    let mut obstacles = poll_obstacles(&view, poll);
    obstacles.extend(Finality::new(&of, poll, &[partition]).obstacles(partition));
    obstacles
}

/// Returns the obstacles that concern the poll as a whole.
fn poll_obstacles(view: &View<'_>, poll: PollSlug) -> Vec<Finding> {
    let mut obstacles = Vec::new();
    match view.registered(poll.as_str()) {
        None => obstacles.push(Finding::PollNotRegistered { poll }),
        Some(known) if known.closed_at.is_none() => obstacles.push(Finding::PollNotClosed { poll }),
        Some(_) => {}
    }
    let diverged = view.accounts.queues.iter().filter(|queue| queue.state == QueueState::Diverged);
    obstacles.extend(diverged.map(Finding::diverged));
    obstacles
}

fn without_duplicates(findings: Vec<Finding>) -> Vec<Finding> {
    let mut listed = BTreeSet::new();
    let is_first: Vec<bool> = findings.iter().map(|finding| listed.insert(finding)).collect();
    findings.into_iter().zip(is_first).filter_map(|(finding, is_first)| is_first.then_some(finding)).collect()
}

/// A poll, with the rows of each partition.
struct Finality<'a> {
    of: &'a Poll<'a>,
    poll: PollSlug,
    partitions: BTreeMap<Partition, InPartition<'a>>,
}

/// The rows of a poll in one partition.
#[derive(Default)]
struct InPartition<'a> {
    /// Obstacles in queues.
    in_queues: Vec<Finding>,
    ledger: Vec<&'a LedgerRow>,
    tally: i128,
    is_pending: bool,
}

impl<'a> Finality<'a> {
    /// Returns a poll whose partitions, given in ascending order, can be checked.
    fn new(of: &'a Poll<'a>, poll: PollSlug, partitions: &[Partition]) -> Self {
        let mut rows: BTreeMap<Partition, InPartition<'_>> =
            partitions.iter().map(|partition| (*partition, InPartition::default())).collect();
        for row in &of.rows.ledger {
            rows.entry(row.partition).or_default().ledger.push(row);
        }
        for row in &of.rows.tally {
            rows.entry(row.partition).or_default().tally += i128::from(row.votes);
        }
        for total in of.rows.quarantine.iter().filter(|total| total.pending > 0) {
            rows.entry(total.partition).or_default().is_pending = true;
        }
        let mut finality = Self { of, poll, partitions: rows };
        // Queue by queue, since positions and counts are sorted by queue: that is much faster than look-ups.
        for queue in of.view.accounts.queues.iter().filter(|queue| queue.state == QueueState::Active) {
            finality.check_queue(queue, partitions);
        }
        finality
    }

    /// Returns the obstacles in a partition.
    fn obstacles(&mut self, partition: Partition) -> Vec<Finding> {
        let here = self.partitions.remove(&partition).unwrap_or_default();
        let mut obstacles = here.in_queues;
        let mut new_voters = 0_i128;
        for row in &here.ledger {
            new_voters += i128::from(row.entry.new_voters);
            match self.of.view.queue(row.entry.queue) {
                None => obstacles.push(Finding::NeverReported { queue: row.entry.queue }),
                // An operator retired it although its counts may not add up: that must not block the poll forever.
                Some(queue) if queue.state == QueueState::Retired => {}
                Some(_) => self.of.check_row(row, &mut obstacles),
            }
        }
        if here.tally != new_voters {
            let (poll, tally) = (self.poll, here.tally);
            obstacles.push(Finding::PartitionTallyDiffers {
                poll,
                partition,
                new_voters: u64::try_from(new_voters).unwrap_or(u64::MAX),
                tally: i64::try_from(tally).unwrap_or(if tally < 0 { i64::MIN } else { i64::MAX }),
            });
        }
        if here.is_pending {
            obstacles.extend(self.of.quarantine_pending());
        }
        obstacles
    }

    /// Adds the obstacles in an active queue to those in each partition.
    fn check_queue(&mut self, queue: &QueueRecord, partitions: &[Partition]) {
        let (id, address, poll) = (queue.id, || queue.address.clone(), self.poll);
        let seal = self.of.view.seal(id, poll);
        let (mut read, mut counted) = (self.of.view.accounts.read_of(id), self.of.accepted_of(id));
        for partition in partitions.iter().copied() {
            let (place, read) = (usize::from(partition.0), read(partition));
            let obstacle = if let Some(original_id) = queue.original_id {
                // The content of a queue that was never inspected is unknown.
                let is_read = queue.ends.get(place).is_some_and(|end| read >= *end);
                (!is_read).then(|| Finding::NotReread { queue: id, original_id, address: address() })
            } else if let Some(SealRecord { seal, .. }) = seal {
                let end = seal.ends.get(place).copied().unwrap_or_default();
                let sealed = seal.accepted.get(place).copied().unwrap_or_default();
                let counted = counted(partition);
                if read < end {
                    Some(Finding::NotReadToSeal { queue: id, address: address(), poll })
                } else {
                    let differs = Finding::SealDiffers { queue: id, partition, poll, sealed, read: counted };
                    (counted != sealed).then_some(differs)
                }
            } else {
                Some(Finding::NotSealed { queue: id, address: address(), poll })
            };
            if let Some(obstacle) = obstacle {
                self.partitions.entry(partition).or_default().in_queues.push(obstacle);
            }
        }
    }
}
