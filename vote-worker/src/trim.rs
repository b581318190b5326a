//! Trims committed entries from queues: within a second, or after a delay if the store may be restored from a backup, and
//! no further than the [witnesses](crate::witness) show.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use vote_core::{Partition, Position, QueueId};

use crate::{places::Places, tasks::Tasks, witness::Witnesses};

/// Minimum time between two recorded positions of a queue's partition, if trimming is delayed.
const RECORD_EVERY: Duration = Duration::from_secs(1);
/// Largest number of recorded positions of a queue's partition that wait for the delay. With a longer interval between
/// two, entries stay that much longer.
const MOST_RECORDED: u32 = 16;
/// Interval at which a lane trims what is due, and what failed before. It sends all trims together, because a Redis
/// writes to disk once for changes that arrive together, and once for each that comes alone.
pub(crate) const TRIM_EVERY: Duration = Duration::from_secs(1);

/// Position up to which a partition of a queue may be trimmed.
type Trim = (QueueId, Partition, Position);

/// Committed positions, each to be trimmed to when it is due. Positions that are lost with a session are trimmed by the
/// next owner of the partition, which starts from the same positions.
#[derive(Debug)]
pub(crate) struct Trimmer {
    delay: Duration,
    witnesses: Witnesses,
    due: VecDeque<(Instant, Trim)>,
    /// When a position was last recorded, and the latest position that was not recorded.
    noted: BTreeMap<(QueueId, Partition), (Instant, Option<Position>)>,
    /// Positions that are due and not yet shown by every witness.
    unshown: BTreeMap<(QueueId, Partition), Unshown>,
    failed: FailedTrims,
    /// When to trim what is due by then.
    trim_at: Instant,
}

/// A partition of a queue that is due to be trimmed further than the witnesses allow.
#[derive(Debug)]
struct Unshown {
    due: Position,
    /// How far it has been trimmed meanwhile.
    trimmed: Position,
    /// Since when it has been trimmed no further.
    since: Instant,
}

/// Trims that failed and may succeed later. Clones share them.
#[derive(Debug, Clone, Default)]
struct FailedTrims(Arc<Mutex<BTreeMap<(QueueId, Partition), Position>>>);

impl FailedTrims {
    fn push(&self, (queue, partition, position): Trim) {
        let mut failed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = failed.entry((queue, partition)).or_default();
        *known = position.max(*known);
    }

    fn take(&self) -> Vec<Trim> {
        let failed = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        failed.into_iter().map(|((queue, partition), position)| (queue, partition, position)).collect()
    }
}

/// Returns the minimum time between two recorded positions of a queue's partition.
fn record_every(delay: Duration) -> Duration {
    RECORD_EVERY.max(delay / MOST_RECORDED)
}

impl Trimmer {
    pub(crate) fn new(delay: Duration, witnesses: Witnesses) -> Self {
        let (due, noted, unshown) = (VecDeque::new(), BTreeMap::new(), BTreeMap::new());
        let (failed, trim_at) = (FailedTrims::default(), Instant::now());
        Self { delay, witnesses, due, noted, unshown, failed, trim_at }
    }

    /// Records that everything up to a position is committed.
    pub(crate) fn committed(&mut self, queue: QueueId, partition: Partition, position: Position) {
        let now = Instant::now();
        if !self.delay.is_zero() {
            let (noted, later) = self.noted.entry((queue, partition)).or_insert((now, None));
            if now.saturating_duration_since(*noted) < record_every(self.delay) {
                *later = Some(position);
                return;
            }
            (*noted, *later) = (now, None);
        }
        self.due.push_back((now + self.delay, (queue, partition, position)));
    }

    /// Records positions that no later commit has followed.
    fn record_last(&mut self, now: Instant) {
        for ((queue, partition), (noted, later)) in &mut self.noted {
            if now.saturating_duration_since(*noted) >= record_every(self.delay)
                && let Some(position) = later.take()
            {
                *noted = now;
                self.due.push_back((now + self.delay, (*queue, *partition, position)));
            }
        }
    }

    /// Takes the positions that are due and shown by every witness.
    fn take_due(&mut self, now: Instant) -> Vec<Trim> {
        self.record_last(now);
        while let Some((_, (queue, partition, due))) = self.due.pop_front_if(|(at, _)| *at <= now) {
            let nothing = || Unshown { due, trimmed: Position::START, since: now };
            let unshown = self.unshown.entry((queue, partition)).or_insert_with(nothing);
            unshown.due = unshown.due.max(due);
        }
        let mut trims = Vec::new();
        self.unshown.retain(|(queue, partition), unshown| {
            let Some(upto) = self.witnesses.allow(*queue, *partition, unshown.due, now) else { return true };
            // While votes keep coming, the due position stays ahead of the witnesses: so trim to what they show.
            if upto > unshown.trimmed || upto == unshown.due {
                trims.push((*queue, *partition, upto));
                (unshown.trimmed, unshown.since) = (upto, now);
            }
            upto < unshown.due
        });
        trims
    }

    /// Trims what is due, once a second, in tasks alongside the lane. A trim that fails is tried again: without new votes
    /// no later one would follow, and the queue would keep the entries.
    pub(crate) fn run_due(&mut self, places: &Places, tasks: &Tasks) {
        let now = Instant::now();
        if now < self.trim_at {
            return;
        }
        self.trim_at = now + TRIM_EVERY;
        self.retry_failed(now);
        for trim in self.take_due(now) {
            let (queue, partition, position) = trim;
            let Some((_, to)) = places.find(queue) else {
                self.failed.push(trim);
                continue;
            };
            let (to, failed) = (Arc::clone(to), self.failed.clone());
            tasks.spawn("a trim", async move {
                if let Err(e) = to.trim(queue, partition, position).await {
                    tracing::debug!(address = to.address(), %partition, "can't trim the queue now: {e}");
                    if e.is_retryable() {
                        failed.push(trim);
                    }
                }
            });
        }
    }

    /// Makes trims that failed due again.
    fn retry_failed(&mut self, now: Instant) {
        for (queue, partition, position) in self.failed.take() {
            // Not before the positions that are due already: these are in the order of their times.
            self.due.push_front((now, (queue, partition, position)));
        }
    }

    /// Returns the longest time for which a partition that is due has been trimmed no further, because of a witness.
    pub(crate) fn waits(&self, now: Instant) -> Duration {
        let since = self.unshown.values().map(|unshown| unshown.since).min();
        since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUEUE: QueueId = QueueId([1; 16]);
    const PARTITION: Partition = Partition(0);

    fn position(n: u8) -> Position {
        Position::from_bytes(&[n]).unwrap_or_default()
    }

    fn trimmer(delay: Duration) -> Trimmer {
        Trimmer::new(delay, Witnesses::default())
    }

    fn noted(trimmer: &Trimmer) -> Vec<Position> {
        trimmer.due.iter().map(|(_, (_, _, position))| *position).collect()
    }

    fn trimmed(trimmer: &mut Trimmer) -> Vec<Position> {
        trimmer.take_due(Instant::now()).into_iter().map(|(_, _, position)| position).collect()
    }

    /// Sets a witness that shows this position of the queue.
    fn show(trimmer: &mut Trimmer, shown: Option<Position>) {
        trimmer.witnesses = Witnesses::showing(QUEUE, PARTITION, &[shown]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_trim_of_a_queue_that_cannot_be_reached_is_tried_again() {
        let (mut trimmer, (tasks, _ended)) = (trimmer(Duration::ZERO), Tasks::new());
        trimmer.committed(QUEUE, PARTITION, position(2));
        trimmer.run_due(&Places::default(), &tasks);
        assert_eq!(trimmed(&mut trimmer), [], "it is not due at once");
        trimmer.retry_failed(Instant::now());
        assert_eq!(trimmed(&mut trimmer), [position(2)]);
        trimmer.retry_failed(Instant::now());
        assert_eq!(trimmed(&mut trimmer), [], "unless it fails again");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_committed_within_a_second_is_trimmed_at_once() {
        let (mut trimmer, (tasks, _ended)) = (trimmer(Duration::ZERO), Tasks::new());
        let run = |trimmer: &mut Trimmer| {
            trimmer.run_due(&Places::default(), &tasks);
            // No queue is there, so each trim fails.
            trimmer.failed.take().len()
        };
        trimmer.committed(QUEUE, PARTITION, position(1));
        assert_eq!(run(&mut trimmer), 1);
        trimmer.committed(QUEUE, PARTITION, position(2));
        trimmer.committed(QUEUE, Partition(1), position(2));
        tokio::time::advance(TRIM_EVERY - Duration::from_millis(1)).await;
        assert_eq!(run(&mut trimmer), 0);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(run(&mut trimmer), 2);
    }

    #[test]
    fn without_a_delay_every_position_is_due_at_once() {
        let mut trimmer = trimmer(Duration::ZERO);
        (1..4).for_each(|n| trimmer.committed(QUEUE, PARTITION, position(n)));
        assert_eq!(noted(&trimmer), [position(1), position(2), position(3)]);
        assert_eq!(trimmed(&mut trimmer), [position(3)]);
        assert_eq!(trimmed(&mut trimmer), []);
    }

    #[test]
    fn with_a_delay_positions_are_recorded_now_and_then_and_the_last_one_is_kept() {
        for (delay, every) in
            [(10, 1), (320, 20)].map(|(d, e)| (Duration::from_secs(d), Duration::from_secs(e)))
        {
            let (mut trimmer, start) = (trimmer(delay), Instant::now());
            (1..4).for_each(|n| trimmer.committed(QUEUE, PARTITION, position(n)));
            trimmer.record_last(start + every - Duration::from_millis(1));
            assert_eq!(noted(&trimmer), []);
            trimmer.record_last(Instant::now() + every);
            assert_eq!(noted(&trimmer), [position(3)]);
            trimmer.record_last(Instant::now() + 3 * every);
            assert_eq!(noted(&trimmer), [position(3)]);
        }
    }

    #[test]
    fn a_trimmed_position_may_be_due_again() {
        let mut trimmer = trimmer(Duration::ZERO);
        for _ in 0..2 {
            trimmer.committed(QUEUE, PARTITION, position(1));
            assert_eq!(trimmed(&mut trimmer), [position(1)]);
        }
    }

    #[test]
    fn an_empty_partition_of_a_replaced_queue_does_not_wait_for_a_witness() {
        let mut trimmer = trimmer(Duration::ZERO);
        show(&mut trimmer, None);
        trimmer.committed(QUEUE, PARTITION, Position::START);
        assert_eq!(trimmed(&mut trimmer), [Position::START]);
    }

    #[test]
    fn entries_that_a_witness_shows_are_trimmed_once_and_the_rest_waits() {
        let mut trimmer = trimmer(Duration::ZERO);
        show(&mut trimmer, None);
        trimmer.committed(QUEUE, PARTITION, position(5));
        assert_eq!(trimmed(&mut trimmer), []);
        show(&mut trimmer, Some(position(3)));
        assert_eq!(trimmed(&mut trimmer), [position(3)]);
        assert_eq!(trimmed(&mut trimmer), []);
        show(&mut trimmer, Some(position(8)));
        assert_eq!(trimmed(&mut trimmer), [position(5)]);
        assert_eq!(trimmed(&mut trimmer), []);
    }

    #[test]
    fn the_delay_applies_to_entries_that_a_witness_shows_too() {
        let mut trimmer = trimmer(Duration::from_secs(60));
        show(&mut trimmer, Some(position(9)));
        trimmer.committed(QUEUE, PARTITION, position(1));
        trimmer.record_last(Instant::now() + Duration::from_secs(10));
        assert_eq!(trimmed(&mut trimmer), []);
    }

    #[test]
    fn the_wait_of_a_partition_is_measured_since_its_last_trim() {
        let (mut trimmer, start) = (trimmer(Duration::ZERO), Instant::now());
        show(&mut trimmer, None);
        trimmer.committed(QUEUE, PARTITION, position(5));
        let later = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(trimmer.take_due(later(1)), []);
        assert_eq!(trimmer.waits(later(5)), Duration::from_secs(4));
        show(&mut trimmer, Some(position(3)));
        assert_eq!(trimmer.take_due(later(5)), [(QUEUE, PARTITION, position(3))]);
        assert_eq!(trimmer.waits(later(6)), Duration::from_secs(1));
        show(&mut trimmer, Some(position(5)));
        assert_eq!(trimmer.take_due(later(5)), [(QUEUE, PARTITION, position(5))]);
        assert_eq!(trimmer.waits(later(7)), Duration::ZERO);
    }
}
