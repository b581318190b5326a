//! State of a partition that a lane owns: how far each queue was read and committed, and what waits to be committed.

use std::collections::BTreeMap;

use tokio::time::Instant;
use vote_core::{
    Partition, QueueId,
    count::{Checkpoint, Delivery},
    queue::{Counters, Read},
    store::Acquired,
};

use crate::schedule::{BATCH_VOTES, Waiting};

/// Number of votes at which reading ahead of the commits stops.
const MAX_WAITING: u64 = 2 * BATCH_VOTES;
/// Number of entries in the first read of a queue, when the number of votes per entry is not known.
const FIRST_READ: usize = 256;
/// Time after which a queue is read even if its count shows nothing new: to check that the entry read last is still
/// there, and to find entries that the count does not show.
const VERIFY_EVERY: std::time::Duration = std::time::Duration::from_secs(5);

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
    /// Queues that are being read, each with the approximate number of votes that the read will return.
    reading: BTreeMap<QueueId, u64>,
    cursors: BTreeMap<QueueId, Cursor>,
}

/// Progress of reading one queue.
#[derive(Debug)]
struct Cursor {
    /// Whether the last read stopped before the end.
    more: bool,
    /// Start of the last read.
    read_at: Option<Instant>,
    /// Start of the last read that reached the end: everything that was there then is read.
    ended_at: Option<Instant>,
    /// Time at which the queue held nothing that is not committed now.
    committed_at: Option<Instant>,
    votes_per_entry: f64,
}

impl Default for Cursor {
    fn default() -> Self {
        Self {
            more: false,
            read_at: None,
            ended_at: None,
            committed_at: None,
            votes_per_entry: BATCH_VOTES as f64 / FIRST_READ as f64,
        }
    }
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
            reading: BTreeMap::new(),
            cursors: BTreeMap::new(),
        }
    }

    /// Returns where the next read of a queue starts.
    fn checkpoint(&self, queue: QueueId) -> Checkpoint {
        let waiting = self.waiting.get(&queue).map(|delivery| &delivery.checkpoint);
        waiting.or_else(|| self.committed.get(&queue)).cloned().unwrap_or_default()
    }

    /// Starts a read of a queue, one of `queues`, if one is due; returns where it starts and the maximum number of
    /// entries. The queue counts as being read until [`end_read`](Self::end_read). The votes that all reads return
    /// together are bounded, however many queues there are, and each queue gets its share.
    pub(crate) fn start_read(
        &mut self,
        queue: QueueId,
        queues: usize,
        accepted: u64,
        now: Instant,
    ) -> Option<(Checkpoint, usize)> {
        let expected = self.votes + self.reading.values().sum::<u64>();
        if expected >= MAX_WAITING || self.reading.contains_key(&queue) {
            return None;
        }
        let waiting = self.waiting.get(&queue).map(|delivery| &delivery.checkpoint);
        let counted =
            waiting.or_else(|| self.committed.get(&queue)).map_or(0, |from| from.accepted.values().sum());
        let cursor = self.cursors.entry(queue).or_default();
        let verify = cursor.read_at.is_none_or(|at| now.saturating_duration_since(at) >= VERIFY_EVERY);
        // The count may be older than the last read, so a lower one proves nothing.
        if !cursor.more && accepted <= counted && !verify {
            return None;
        }
        let wanted = (MAX_WAITING - expected).min(MAX_WAITING / queues.max(1) as u64);
        let limit = (wanted as f64 / cursor.votes_per_entry).ceil().clamp(16.0, 1024.0);
        cursor.read_at = Some(now);
        self.reading.insert(queue, (limit * cursor.votes_per_entry) as u64);
        Some((self.checkpoint(queue), limit as usize))
    }

    /// Records that a read of a queue has ended.
    pub(crate) fn end_read(&mut self, queue: QueueId) {
        self.reading.remove(&queue);
    }

    /// Processes the result of a read that started at `from`.
    pub(crate) fn add_read(
        &mut self,
        queue: QueueId,
        from: &Checkpoint,
        read: Read,
        now: Instant,
    ) -> ReadOutcome {
        if *from != self.checkpoint(queue) {
            // The entries before these were discarded meanwhile; committing these would leave a gap.
            return ReadOutcome::Fine;
        }
        if let Some(contradiction) = contradiction(self.partition, from, &read) {
            return ReadOutcome::Contradicts(contradiction);
        }
        let cursor = self.cursors.entry(queue).or_default();
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
        if entries > 0 {
            // A moving average over the last few reads.
            cursor.votes_per_entry =
                (cursor.votes_per_entry + (votes as f64 / entries as f64).max(1.0)) / 2.0;
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
        self.cursors.remove(&queue);
        if self.waiting.is_empty() {
            self.since = None;
        }
    }

    /// Returns whether everything is committed that the queues held at a time, judging by those that were read.
    pub(crate) fn has_committed_all_held_at(&self, at: Instant) -> bool {
        self.cursors.values().all(|cursor| cursor.committed_at.is_some_and(|committed| committed >= at))
    }

    /// Returns what waits to be committed; `None` if nothing does.
    pub(crate) fn waiting(&self) -> Option<Waiting> {
        Some(Waiting { partition: self.partition, votes: self.votes, since: self.since? })
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
    pub(crate) fn record_commit(&mut self, checkpoints: impl IntoIterator<Item = (QueueId, Checkpoint)>) {
        self.version += 1;
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
mod tests {
    use vote_core::{Position, queue::Entry};

    use super::*;

    const QUEUE: QueueId = QueueId([1; 16]);

    fn owned() -> OwnedPartition {
        OwnedPartition::new(Partition(0), 0, Acquired { version: 0, checkpoints: BTreeMap::new() })
    }

    fn read(positions: &[u8], accepted: Option<u64>) -> Read {
        let entry = |position: &u8| Entry {
            position: Position::from_bytes(&[*position]).unwrap(),
            poll: "pets".to_owned(),
            votes: 10,
            frame: Vec::new().into(),
        };
        Read {
            entries: positions.iter().map(entry).collect(),
            at_end: accepted.is_some(),
            accepted: accepted.map(|n| [("pets".to_owned(), n)].into()),
            server: String::new(),
        }
    }

    fn next_position(owned: &mut OwnedPartition, accepted: u64) -> Option<Position> {
        owned.start_read(QUEUE, 1, accepted, Instant::now()).map(|(from, _)| from.position)
    }

    #[test]
    fn reads_continue_after_what_waits() {
        let mut owned = owned();
        let (from, _) = owned.start_read(QUEUE, 1, 40, Instant::now()).unwrap();
        assert_eq!(next_position(&mut owned, 40), None, "one read of a queue at a time");
        owned.end_read(QUEUE);
        owned.add_read(QUEUE, &from, read(&[1, 2], None), Instant::now());
        assert_eq!(next_position(&mut owned, 40), Position::from_bytes(&[2]));
        assert_eq!(owned.waiting().unwrap().votes, 20);
    }

    #[test]
    fn reads_of_many_queues_together_return_a_bounded_number_of_votes() {
        let mut owned = owned();
        let queue = |n: u8| QueueId([n; 16]);
        let limits = (0..200_u8).filter_map(|n| owned.start_read(queue(n), 200, 1_000_000, Instant::now()));
        let entries: Vec<usize> = limits.map(|(_, limit)| limit).collect();
        let expected = entries.iter().sum::<usize>() as f64 * Cursor::default().votes_per_entry;
        assert!(expected <= MAX_WAITING as f64 * 1.1, "{expected} votes from {} queues", entries.len());
        assert!(entries.iter().all(|limit| *limit == 16), "{entries:?}");
    }

    #[test]
    fn a_queue_with_nothing_new_is_not_read() {
        let mut owned = owned();
        let (from, _) = owned.start_read(QUEUE, 1, 20, Instant::now()).unwrap();
        owned.end_read(QUEUE);
        owned.add_read(QUEUE, &from, read(&[1, 2], Some(20)), Instant::now());
        assert_eq!(next_position(&mut owned, 20), None);
        assert!(next_position(&mut owned, 21).is_some());
    }

    #[test]
    fn a_falling_count_is_detected() {
        let from = Checkpoint { accepted: [("pets".to_owned(), 30)].into(), ..Checkpoint::default() };
        let acquired = Acquired { version: 0, checkpoints: [(QUEUE, from.clone())].into() };
        let mut owned = OwnedPartition::new(Partition(0), 0, acquired);
        let taken = owned.add_read(QUEUE, &from, read(&[], Some(29)), Instant::now());
        assert!(matches!(taken, ReadOutcome::Contradicts(_)), "{taken:?}");
        assert_eq!(owned.add_read(QUEUE, &from, read(&[], Some(30)), Instant::now()), ReadOutcome::Drained);
    }

    #[test]
    fn missing_entries_are_detected_by_a_read_from_the_start() {
        let mut owned = owned();
        let taken = owned.add_read(QUEUE, &Checkpoint::default(), read(&[7, 8], Some(80)), Instant::now());
        let ReadOutcome::Contradicts(reason) = taken else { panic!("{taken:?}") };
        assert!(reason.contains("counts 80 votes for poll pets, but 20"), "{reason}");
        assert_eq!(owned.waiting(), None, "none of it waits to be committed");
    }

    #[test]
    fn uncounted_entries_are_detected() {
        let mut owned = owned();
        let taken = owned.add_read(QUEUE, &Checkpoint::default(), read(&[1, 2], Some(10)), Instant::now());
        assert!(matches!(taken, ReadOutcome::Contradicts(_)), "{taken:?}");
    }

    #[test]
    fn a_read_that_stops_before_the_end_does_not_check_the_count() {
        let mut owned = owned();
        assert_eq!(
            owned.add_read(QUEUE, &Checkpoint::default(), read(&[1, 2], None), Instant::now()),
            ReadOutcome::Fine
        );
        let from = owned.checkpoint(QUEUE);
        assert_eq!(owned.add_read(QUEUE, &from, read(&[3], Some(30)), Instant::now()), ReadOutcome::Fine);
    }

    #[test]
    fn everything_up_to_a_time_is_committed_once_a_later_read_to_the_end_is() {
        let mut owned = owned();
        let before = Instant::now();
        let (from, _) = owned.start_read(QUEUE, 1, 20, Instant::now()).unwrap();
        owned.end_read(QUEUE);
        assert!(!owned.has_committed_all_held_at(before), "it is not read yet");
        owned.add_read(QUEUE, &from, read(&[1, 2], Some(20)), Instant::now());
        assert!(!owned.has_committed_all_held_at(before), "it is not committed yet");
        let checkpoints: Vec<_> = owned
            .take_deliveries()
            .into_iter()
            .map(|delivery| (delivery.queue, delivery.checkpoint))
            .collect();
        owned.record_commit(checkpoints);
        assert!(owned.has_committed_all_held_at(before));
        assert!(
            !owned.has_committed_all_held_at(Instant::now() + VERIFY_EVERY),
            "more may have been appended since"
        );
    }

    #[test]
    fn uncommitted_entries_of_a_diverged_queue_are_discarded() {
        let mut owned = owned();
        owned.add_read(QUEUE, &Checkpoint::default(), read(&[1], None), Instant::now());
        let after = owned.checkpoint(QUEUE);
        owned.forget(QUEUE);
        assert_eq!(owned.waiting(), None);
        owned.add_read(QUEUE, &after, read(&[2], None), Instant::now());
        assert_eq!(owned.waiting(), None, "entries of a read that started after them are discarded, too");
    }
}
