//! State of a partition that a lane owns: how far each queue was read and committed, and what waits to be committed.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;
use vote_core::{
    Partition, PollSlug, Position, QueueId,
    count::{Checkpoint, Delivery},
    frame,
    queue::{Counters, Read},
    store::Acquired,
};

use crate::schedule::{BATCH_VOTES, MAX_BATCH_VOTES, Waiting};

mod turns;

use turns::Turns;

/// Votes that a lane reads ahead of its commits in all of its partitions, unless it has more than 64.
const MAX_OF_LANE: u64 = 64 * BATCH_VOTES;
/// Time after which a queue is read even if its count shows nothing new: to check that the entry read last is still
/// there, and to find entries that the count does not show.
const VERIFY_EVERY: Duration = Duration::from_secs(5);
/// Minimum time between two reads of a lane that only verify. With a thousand queues and as many partitions, a lane
/// would do nothing else.
const VERIFICATION_TAKES: Duration = Duration::from_millis(4);
/// Time after which the count of a queue that a monitor watches is known to lanes.
const COUNT_KNOWN_AFTER: Duration = Duration::from_secs(1);

/// Returns the time after which a lane verifies a queue, if it reads this number of partitions of queues.
pub(crate) fn verify_every(pairs: usize) -> Duration {
    VERIFY_EVERY.max(VERIFICATION_TAKES * u32::try_from(pairs).unwrap_or(u32::MAX))
}

/// Returns how many votes of each partition a lane that owns `partitions` reads ahead of its commits: at least
/// [`BATCH_VOTES`] and at most [`MAX_BATCH_VOTES`].
///
/// If there is a backlog, this is the size of the batches. The larger they are, the closer together are their keys, and the
/// less a commit costs for each vote (see `docs/performance.md`).
pub(crate) fn max_waiting(partitions: usize) -> u64 {
    (MAX_OF_LANE / partitions.max(1) as u64).clamp(BATCH_VOTES, MAX_BATCH_VOTES)
}

/// What a partition of a queue is known to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Held {
    /// So many votes were ever accepted.
    Votes(u64),
    /// Entries up to this position: those of a replaced queue, which has no count.
    UpTo(Position),
}

/// A partition that the lane owns.
#[derive(Debug)]
pub(crate) struct OwnedPartition {
    pub(crate) partition: Partition,
    pub(crate) version: u64,
    /// Distinguishes reads that were started in this ownership from older ones.
    pub(crate) epoch: u64,
    committed: BTreeMap<QueueId, Checkpoint>,
    waiting: BTreeMap<QueueId, Delivery>,
    votes: u64,
    since: Option<Instant>,
    /// When votes were committed last.
    committed_votes_at: Option<Instant>,
    /// Approximate number of votes that the running reads will return.
    reading: u64,
    cursors: BTreeMap<QueueId, Cursor>,
    turns: Turns,
    /// Votes per entry, as a moving average over the reads of all queues; `None` before the first one.
    votes_per_entry: Option<f64>,
}

/// Progress of reading one queue.
#[derive(Debug)]
struct Cursor {
    held: Held,
    /// Votes up to where the next read starts.
    counted: u64,
    /// Approximate number of votes that the running read will return.
    reading: Option<u64>,
    /// Whether the last read stopped before the end.
    more: bool,
    /// Start of the last read.
    read_at: Option<Instant>,
    /// Start of the last read that reached the end: everything that was there then is read.
    ended_at: Option<Instant>,
    /// Time at which the queue held nothing that is not committed now.
    committed_at: Option<Instant>,
    /// A moving average over the last few reads; `None` before the first one.
    votes_per_entry: Option<f64>,
}

/// Outcome of a read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ReadOutcome {
    /// The new entries wait to be committed, or there were none.
    Fine,
    /// There was nothing new, and nothing waits: everything is committed.
    Drained,
    /// The entries contradict the count of the queue: entries were lost, or the queue or the store went back to an
    /// earlier state. Holds a description.
    Contradicts(String),
}

impl OwnedPartition {
    pub(crate) fn new(partition: Partition, epoch: u64, acquired: Acquired) -> Self {
        Self {
            partition,
            version: acquired.version,
            epoch,
            committed: acquired.checkpoints,
            waiting: BTreeMap::new(),
            votes: 0,
            since: None,
            committed_votes_at: None,
            reading: 0,
            cursors: BTreeMap::new(),
            turns: Turns::default(),
            votes_per_entry: None,
        }
    }

    /// Returns where the next read of a queue starts.
    fn checkpoint(&self, queue: QueueId) -> Option<&Checkpoint> {
        let waiting = self.waiting.get(&queue).map(|delivery| &delivery.checkpoint);
        waiting.or_else(|| self.committed.get(&queue))
    }

    /// Records what a queue is known to hold. It is read if that is more than was read, or if it is a new one.
    pub(crate) fn note(&mut self, queue: QueueId, held: Held) {
        match self.cursors.get_mut(&queue) {
            Some(cursor) => {
                cursor.held = held;
                self.read_if_behind(queue);
            }
            None => {
                let counted = self.checkpoint(queue).map_or(0, |from| from.accepted.values().sum());
                let cursor = Cursor {
                    held,
                    counted,
                    reading: None,
                    more: false,
                    read_at: None,
                    ended_at: None,
                    committed_at: None,
                    votes_per_entry: None,
                };
                self.cursors.insert(queue, cursor);
                self.turns.add(queue);
            }
        }
    }

    /// Returns whether a queue holds more than was read, as far as is known. Its count may be older than the last read,
    /// so a lower one proves nothing.
    fn is_behind(&self, queue: QueueId) -> bool {
        self.cursors.get(&queue).is_some_and(|cursor| match cursor.held {
            _ if cursor.more => true,
            Held::Votes(accepted) => accepted > cursor.counted,
            Held::UpTo(end) => self.checkpoint(queue).map_or(Position::START, |from| from.position) < end,
        })
    }

    fn read_if_behind(&mut self, queue: QueueId) {
        if self.is_behind(queue) {
            self.turns.add(queue);
        }
    }

    /// Starts the next read that is due, if there is one; returns the queue, where the read starts, and the maximum
    /// number of entries. The queue counts as being read until [`end_read`](Self::end_read).
    ///
    /// Queues are read in turn. The votes that wait and those that all reads return are together about `most`, however many
    /// queues there are, and each of these `queues` gets its share. One for which `not_before` returns a time is not read
    /// before that.
    pub(crate) fn start_read(
        &mut self,
        queues: usize,
        most: u64,
        verify_every: Duration,
        now: Instant,
        not_before: impl Fn(QueueId) -> Option<Instant>,
    ) -> Option<(QueueId, Checkpoint, usize)> {
        loop {
            let expected = self.votes + self.reading;
            if expected >= most {
                return None;
            }
            let queue = self.turns.next(now)?;
            if let Some(at) = not_before(queue) {
                self.turns.retry_at(queue, at);
                continue;
            }
            let Some(cursor) = self.cursors.get_mut(&queue) else { continue };
            if cursor.reading.is_some() {
                // When that read ends, it tells whether another one is due.
                self.turns.add_at(queue, now + verify_every);
                continue;
            }
            // Before the first read, as many as a frame can hold: a batch could otherwise be far larger than intended.
            let votes_per_entry =
                cursor.votes_per_entry.or(self.votes_per_entry).unwrap_or(frame::MAX_VOTES as f64);
            let wanted = (most - expected).min(most / queues.max(1) as u64);
            let limit = (wanted as f64 / votes_per_entry).ceil().clamp(16.0, 1024.0);
            let reading = (limit * votes_per_entry) as u64;
            (cursor.read_at, cursor.reading) = (Some(now), Some(reading));
            self.reading += reading;
            self.turns.add_at(queue, now + verify_every);
            return Some((queue, self.checkpoint(queue).cloned().unwrap_or_default(), limit as usize));
        }
    }

    /// Records that a read of a queue has ended.
    pub(crate) fn end_read(&mut self, queue: QueueId) {
        let cursor = self.cursors.get_mut(&queue);
        self.reading -= cursor.and_then(|cursor| cursor.reading.take()).unwrap_or(0);
    }

    /// Reads a queue again at a time, because it could not be read now.
    pub(crate) fn retry_at(&mut self, queue: QueueId, at: Instant) {
        self.turns.retry_at(queue, at);
    }

    /// Processes the result of a read that started at `from`.
    pub(crate) fn add_read(
        &mut self,
        queue: QueueId,
        from: &Checkpoint,
        read: Read,
        now: Instant,
    ) -> ReadOutcome {
        let is_next = self.checkpoint(queue).map_or(*from == Checkpoint::default(), |next| next == from);
        if !is_next || !self.cursors.contains_key(&queue) {
            // The entries before these were discarded meanwhile; committing these would leave a gap.
            self.read_if_behind(queue);
            return ReadOutcome::Fine;
        }
        if let Some(contradiction) = contradiction(self.partition, from, &read) {
            return ReadOutcome::Contradicts(contradiction);
        }
        let outcome = self.add_delivery(queue, from, read, now);
        self.read_if_behind(queue);
        outcome
    }

    fn add_delivery(&mut self, queue: QueueId, from: &Checkpoint, read: Read, now: Instant) -> ReadOutcome {
        let Some(cursor) = self.cursors.get_mut(&queue) else { return ReadOutcome::Fine };
        cursor.more = !read.at_end;
        if read.at_end {
            cursor.ended_at = cursor.read_at;
        }
        let entries = read.entries.len();
        let delivery = Delivery::new(queue, from, read);
        if delivery.checkpoint == *from {
            let drained = !cursor.more && !self.waiting.contains_key(&queue);
            if drained {
                cursor.committed_at = cursor.ended_at;
            }
            return if drained { ReadOutcome::Drained } else { ReadOutcome::Fine };
        }
        let votes = delivery.votes();
        cursor.counted = delivery.checkpoint.accepted.values().sum();
        if entries > 0 {
            let here = (votes as f64 / entries as f64).max(1.0);
            for average in [&mut cursor.votes_per_entry, &mut self.votes_per_entry] {
                *average = Some(average.map_or(here, |before| (before + here) / 2.0));
            }
        }
        self.votes += votes;
        self.since.get_or_insert(now);
        match self.waiting.entry(queue) {
            std::collections::btree_map::Entry::Occupied(mut waiting) => waiting.get_mut().extend(delivery),
            std::collections::btree_map::Entry::Vacant(none) => drop(none.insert(delivery)),
        }
        ReadOutcome::Fine
    }

    /// Discards what was read of a queue and not committed, because nothing more is counted under its identity.
    pub(crate) fn forget(&mut self, queue: QueueId) {
        if let Some(delivery) = self.waiting.remove(&queue) {
            self.votes -= delivery.votes();
        }
        self.end_read(queue);
        self.cursors.remove(&queue);
        self.turns.remove(queue);
        if self.waiting.is_empty() {
            self.since = None;
        }
    }

    /// Returns whether everything of a poll seems to be committed that the queues held at a time: each was read to the end
    /// since, and what waits to be committed is of other polls; or its count shows nothing more. A monitor may not have
    /// seen a count yet, so only the store knows.
    pub(crate) fn seems_to_have_committed_all_held_at(
        &self,
        at: Instant,
        poll: PollSlug,
        now: Instant,
    ) -> bool {
        let is_count_known = now.saturating_duration_since(at) >= COUNT_KNOWN_AFTER;
        let is_since = |time: Option<Instant>| time.is_some_and(|time| time >= at);
        self.cursors.iter().all(|(queue, cursor)| {
            let waiting = self.waiting.get(queue);
            let waits =
                |delivery: &Delivery| delivery.entries.iter().any(|entry| entry.poll == poll.as_str());
            is_since(cursor.committed_at)
                || (is_since(cursor.ended_at) && !waiting.is_some_and(waits))
                || (is_count_known && waiting.is_none() && !self.is_behind(*queue))
        })
    }

    /// Returns the number of queues that are read.
    pub(crate) fn queues(&self) -> usize {
        self.cursors.len()
    }

    /// Returns what waits to be committed; `None` if nothing does.
    pub(crate) fn waiting(&self) -> Option<Waiting> {
        let (since, committed) = (self.since?, self.committed_votes_at);
        Some(Waiting { partition: self.partition, votes: self.votes, since, committed })
    }

    /// Returns how far a queue is committed.
    pub(crate) fn committed_to(&self, queue: QueueId) -> Checkpoint {
        self.committed.get(&queue).cloned().unwrap_or_default()
    }

    /// Takes what waits, to be committed now.
    pub(crate) fn take_deliveries(&mut self) -> Vec<Delivery> {
        self.votes = 0;
        self.since = None;
        std::mem::take(&mut self.waiting).into_values().collect()
    }

    /// Records that a commit up to these checkpoints has succeeded.
    pub(crate) fn record_commit(
        &mut self,
        checkpoints: impl IntoIterator<Item = (QueueId, Checkpoint)>,
        now: Instant,
    ) {
        self.version += 1;
        self.committed_votes_at = Some(now);
        for (queue, checkpoint) in checkpoints {
            // Results of reads are added between commits only, so what was read of the queue is in this commit.
            if let Some(cursor) = self.cursors.get_mut(&queue) {
                cursor.committed_at = cursor.ended_at;
            }
            self.committed.insert(queue, checkpoint);
        }
    }
}

/// Returns how a read that reached the end of a queue contradicts the queue's count, if it does. The queue counts in
/// the same step in which it appends, and entries after a checkpoint are never trimmed. So its count must be the count
/// at the checkpoint plus the entries after it.
fn contradiction(partition: Partition, from: &Checkpoint, read: &Read) -> Option<String> {
    let counted = read.accepted.as_ref()?;
    let mut expected = from.accepted.clone();
    for entry in &read.entries {
        *expected.entry(entry.poll.clone()).or_default() += entry.votes;
    }
    let names = expected.keys().chain(counted.keys());
    names.into_iter().find_map(|poll| {
        let of = |counters: &Counters| counters.get(poll).copied().unwrap_or_default();
        let (found, counts) = (of(&expected), of(counted));
        (found != counts).then(|| {
            format!(
                "partition {partition} counts {counts} votes for poll {}, but {found} were read or can be read",
                poll.escape_debug()
            )
        })
    })
}

#[cfg(test)]
mod tests;
