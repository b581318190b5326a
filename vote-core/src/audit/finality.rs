//! What keeps a poll from being final, partition by partition.

use std::collections::BTreeSet;

use super::{View, cut};
use crate::{
    Partition, PollSlug,
    store::{Books, QueueRecord, QueueState},
};

/// What keeps a closed poll from being final; nothing if it can be. The same for each partition as
/// [`obstacles_in`] says, each said once.
#[must_use]
pub fn obstacles(books: &Books, poll: PollSlug) -> Vec<String> {
    let view = View::new(books);
    let mut told = BTreeSet::new();
    let mut obstacles = view.poll_obstacles(poll);
    if books.rows.is_some() {
        view.check_poll(&view.poll(poll.as_str()), &mut obstacles);
    }
    for partition in books.versions.keys() {
        obstacles.extend(view.partition_obstacles(poll, *partition));
    }
    obstacles.retain(|text| told.insert(text.clone()));
    obstacles
}

/// What keeps a partition from being complete for a closed poll: from holding all of its votes that can come. The books
/// may be of that partition alone.
///
/// Every queue must be sealed for the poll and read to the seal, with the seal's count, or be retired; what is left of
/// replaced queues must be read to its end; no queue may have diverged without somebody having retired it; every
/// accepted vote must be accounted for, and nothing may be in quarantine undecided.
#[must_use]
pub fn obstacles_in(books: &Books, poll: PollSlug, partition: Partition) -> Vec<String> {
    let view = View::new(books);
    let mut obstacles = view.poll_obstacles(poll);
    obstacles.extend(view.partition_obstacles(poll, partition));
    obstacles
}

impl View<'_> {
    /// Those of the poll as a whole.
    fn poll_obstacles(&self, poll: PollSlug) -> Vec<String> {
        let mut obstacles = Vec::new();
        match self.books.polls.iter().find(|known| known.slug == poll) {
            None => obstacles.push(format!("poll {poll} is not registered")),
            Some(known) if known.closed_at.is_none() => obstacles.push(format!("poll {poll} is not closed")),
            Some(_) => {}
        }
        obstacles.extend(self.books.queues.iter().filter(|queue| queue.state == QueueState::Cut).map(cut));
        obstacles
    }

    fn partition_obstacles(&self, poll: PollSlug, partition: Partition) -> Vec<String> {
        let active = self.books.queues.iter().filter(|queue| queue.state == QueueState::Active);
        let mut obstacles: Vec<String> =
            active.filter_map(|queue| self.queue_obstacle(queue, poll, partition)).collect();
        let mut new_voters = 0_i128;
        let here =
            |row: &&crate::store::LedgerRow| row.partition == partition && row.entry.poll == poll.as_str();
        for row in self.books.ledger.iter().filter(here) {
            new_voters += i128::from(row.entry.new_voters);
            match self.books.queues.iter().find(|queue| queue.id == row.entry.queue) {
                None => obstacles.push(super::never_reported(row.entry.queue)),
                // Somebody retired it, knowing that its counts may not add up: that must not hold up the poll for ever.
                Some(queue) if queue.state == QueueState::Retired => {}
                Some(_) => self.check_row(row, &mut obstacles),
            }
        }
        let tally = self.books.tally.iter().filter(|row| row.poll == poll && row.partition == partition);
        let tally: i128 = tally.map(|row| i128::from(row.votes)).sum();
        if tally != new_voters {
            obstacles.push(format!(
                "poll {poll}, partition {partition}: {new_voters} votes added a voter, the tally holds {tally}"
            ));
        }
        let pending =
            self.books.quarantine.iter().any(|total| {
                total.partition == partition && total.poll == poll.as_str() && total.pending > 0
            });
        if pending {
            obstacles.extend(self.undecided(poll.as_str()));
        }
        obstacles
    }

    fn queue_obstacle(&self, queue: &QueueRecord, poll: PollSlug, partition: Partition) -> Option<String> {
        let (id, at, place) = (queue.id, &queue.address, usize::from(partition.0));
        let read = self.books.positions.get(&(id, partition)).copied().unwrap_or_default();
        if let Some(of) = queue.remains_of {
            // One that was never looked at holds nobody knows what.
            let is_read = queue.ends.get(place).is_some_and(|end| read >= *end);
            return (!is_read)
                .then(|| format!("what is left of queue {of} at {at} is not read to its end ({id})"));
        }
        let Some(record) = self.seals.get(&(id, poll)) else {
            return Some(format!("queue {id} at {at} is not sealed for poll {poll} yet"));
        };
        let end = record.seal.ends.get(place).copied().unwrap_or_default();
        if read < end {
            return Some(format!("queue {id} at {at} is not read to the seal of poll {poll}"));
        }
        let sealed = record.seal.accepted.get(place).copied().unwrap_or_default();
        let accepted = self.accepted(id, partition, poll);
        (accepted != sealed).then(|| {
            format!(
                "queue {id}, partition {partition}, poll {poll}: {sealed} votes were accepted when the poll was sealed, \
                 {accepted} were read"
            )
        })
    }

    /// Votes of a poll that were read from a partition of a queue.
    fn accepted(&self, queue: crate::QueueId, partition: Partition, poll: PollSlug) -> u64 {
        let row = self.books.ledger.iter().find(|row| {
            (row.entry.queue, row.partition) == (queue, partition) && row.entry.poll == poll.as_str()
        });
        row.map_or(0, |row| row.entry.accepted)
    }
}
