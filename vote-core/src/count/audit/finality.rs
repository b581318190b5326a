//! Obstacles to the finality of a poll, partition by partition.

use std::collections::BTreeSet;

use super::{Finding, View};
use crate::{
    Partition, PollSlug,
    count::{Accounts, QueueRecord, QueueState},
};

/// Returns everything that keeps a closed poll from being final; empty if it can be final.
///
/// These are the obstacles [in each partition](obstacles_in), without duplicates. If effective ballots were counted row
/// by row, contradictions between these counts and the tally are obstacles, too.
#[must_use]
pub fn obstacles(accounts: &Accounts, poll: PollSlug) -> Vec<Finding> {
    let view = View::new(accounts);
    let mut listed = BTreeSet::new();
    let mut obstacles = view.poll_obstacles(poll);
    if accounts.rows.is_some() {
        view.check_poll(&view.poll(poll.as_str()), &mut obstacles);
    }
    for partition in accounts.versions.keys() {
        obstacles.extend(view.partition_obstacles(poll, *partition));
    }
    obstacles.retain(|finding| listed.insert(finding.clone()));
    obstacles
}

/// Returns everything that keeps a partition from being complete for a closed poll, that is, from holding all votes
/// that can still come; empty if nothing does. The accounts may be limited to that partition.
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
    let view = View::new(accounts);
    let mut obstacles = view.poll_obstacles(poll);
    obstacles.extend(view.partition_obstacles(poll, partition));
    obstacles
}

impl View<'_> {
    /// Returns the obstacles that concern the poll as a whole.
    fn poll_obstacles(&self, poll: PollSlug) -> Vec<Finding> {
        let mut obstacles = Vec::new();
        match self.accounts.polls.iter().find(|known| known.slug == poll) {
            None => obstacles.push(Finding::PollNotRegistered { poll }),
            Some(known) if known.closed_at.is_none() => obstacles.push(Finding::PollNotClosed { poll }),
            Some(_) => {}
        }
        obstacles.extend(
            self.accounts
                .queues
                .iter()
                .filter(|queue| queue.state == QueueState::Diverged)
                .map(Finding::diverged),
        );
        obstacles
    }

    fn partition_obstacles(&self, poll: PollSlug, partition: Partition) -> Vec<Finding> {
        let active = self.accounts.queues.iter().filter(|queue| queue.state == QueueState::Active);
        let mut obstacles: Vec<Finding> =
            active.filter_map(|queue| self.queue_obstacle(queue, poll, partition)).collect();
        let mut new_voters = 0_i128;
        let here =
            |row: &&crate::count::LedgerRow| row.partition == partition && row.entry.poll == poll.as_str();
        for row in self.accounts.ledger.iter().filter(here) {
            new_voters += i128::from(row.entry.new_voters);
            match self.accounts.queues.iter().find(|queue| queue.id == row.entry.queue) {
                None => obstacles.push(Finding::NeverReported { queue: row.entry.queue }),
                // An operator retired it although its counts may not add up: that must not block the poll forever.
                Some(queue) if queue.state == QueueState::Retired => {}
                Some(_) => self.check_row(row, &mut obstacles),
            }
        }
        let tally = self.accounts.tally.iter().filter(|row| row.poll == poll && row.partition == partition);
        let tally: i128 = tally.map(|row| i128::from(row.votes)).sum();
        if tally != new_voters {
            obstacles.push(Finding::PartitionTallyDiffers {
                poll,
                partition,
                new_voters: u64::try_from(new_voters).unwrap_or(u64::MAX),
                tally: i64::try_from(tally).unwrap_or(if tally < 0 { i64::MIN } else { i64::MAX }),
            });
        }
        let pending =
            self.accounts.quarantine.iter().any(|total| {
                total.partition == partition && total.poll == poll.as_str() && total.pending > 0
            });
        if pending {
            obstacles.extend(self.quarantine_pending(poll.as_str()));
        }
        obstacles
    }

    fn queue_obstacle(&self, queue: &QueueRecord, poll: PollSlug, partition: Partition) -> Option<Finding> {
        let (id, address, place) = (queue.id, || queue.address.clone(), usize::from(partition.0));
        let read = self.accounts.positions.get(&(id, partition)).copied().unwrap_or_default();
        if let Some(original_id) = queue.original_id {
            // The content of a queue that was never inspected is unknown.
            let is_read = queue.ends.get(place).is_some_and(|end| read >= *end);
            return (!is_read).then(|| Finding::NotReread { queue: id, original_id, address: address() });
        }
        let Some(record) = self.seals.get(&(id, poll)) else {
            return Some(Finding::NotSealed { queue: id, address: address(), poll });
        };
        let end = record.seal.ends.get(place).copied().unwrap_or_default();
        if read < end {
            return Some(Finding::NotReadToSeal { queue: id, address: address(), poll });
        }
        let sealed = record.seal.accepted.get(place).copied().unwrap_or_default();
        let read = self.accepted(id, partition, poll);
        (read != sealed).then_some(Finding::SealDiffers { queue: id, partition, poll, sealed, read })
    }

    /// Returns the number of votes of a poll that were read from a partition of a queue.
    fn accepted(&self, queue: crate::QueueId, partition: Partition, poll: PollSlug) -> u64 {
        let row = self.accounts.ledger.iter().find(|row| {
            (row.entry.queue, row.partition) == (queue, partition) && row.entry.poll == poll.as_str()
        });
        row.map_or(0, |row| row.entry.accepted)
    }
}
