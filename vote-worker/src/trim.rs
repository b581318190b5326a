//! Lets queues forget what is committed, at once or, where the store may be restored from a backup, after a delay.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use tokio::time::Instant;
use vote_core::{Partition, Position, QueueId};

use crate::{
    lane::{Trim, by_id},
    source::Queues,
};

/// Positions of one partition of one queue are noted this far apart when they are kept for later.
const NOTE_EVERY: Duration = Duration::from_secs(1);

/// Positions that were committed, each to be trimmed to when its time comes. What is forgotten with the lane is
/// trimmed by the next one, which starts from the same positions.
#[derive(Debug)]
pub(crate) struct Trimmer {
    delay: Duration,
    due: VecDeque<(Instant, Trim)>,
    /// When a position was noted last, and a later one that was not.
    noted: BTreeMap<(QueueId, Partition), (Instant, Option<Position>)>,
}

impl Trimmer {
    pub(crate) fn new(delay: Duration) -> Self {
        Self { delay, due: VecDeque::new(), noted: BTreeMap::new() }
    }

    /// Everything up to this position is committed.
    pub(crate) fn committed(&mut self, queue: QueueId, partition: Partition, position: Position) {
        let now = Instant::now();
        if !self.delay.is_zero() {
            let (noted, later) = self.noted.entry((queue, partition)).or_insert((now, None));
            if now.saturating_duration_since(*noted) < NOTE_EVERY {
                *later = Some(position);
                return;
            }
            (*noted, *later) = (now, None);
        }
        self.due.push_back((now + self.delay, (queue, partition, position)));
    }

    /// Notes positions after which no other was committed.
    fn note_the_last(&mut self, now: Instant) {
        for ((queue, partition), (noted, later)) in &mut self.noted {
            if now.saturating_duration_since(*noted) >= NOTE_EVERY
                && let Some(position) = later.take()
            {
                *noted = now;
                self.due.push_back((now + self.delay, (*queue, *partition, position)));
            }
        }
    }

    /// Trims what is due. Runs beside the lane, and a failure only means that the queue keeps more for longer.
    pub(crate) fn run_due(&mut self, queues: &Queues) {
        let now = Instant::now();
        self.note_the_last(now);
        while let Some((_, (queue, partition, position))) = self.due.pop_front_if(|(at, _)| *at <= now) {
            let Some(to) = by_id(queues, queue) else { continue };
            tokio::spawn(async move {
                if let Err(e) = to.trim(queue, partition, position).await {
                    tracing::debug!(address = to.address(), %partition, "a queue was not trimmed: {e}");
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(n: u8) -> Position {
        Position::from_bytes(&[n]).unwrap_or_default()
    }

    fn noted(trimmer: &Trimmer) -> Vec<Position> {
        trimmer.due.iter().map(|(_, (_, _, position))| *position).collect()
    }

    #[test]
    fn without_a_delay_every_position_is_due_at_once() {
        let mut trimmer = Trimmer::new(Duration::ZERO);
        (1..4).for_each(|n| trimmer.committed(QueueId([1; 16]), Partition(0), position(n)));
        assert_eq!(noted(&trimmer), [position(1), position(2), position(3)]);
    }

    #[test]
    fn with_a_delay_positions_are_noted_once_a_second_and_the_last_is_not_forgotten() {
        let mut trimmer = Trimmer::new(Duration::from_secs(60));
        (1..4).for_each(|n| trimmer.committed(QueueId([1; 16]), Partition(0), position(n)));
        assert_eq!(noted(&trimmer), []);
        trimmer.note_the_last(Instant::now() + NOTE_EVERY);
        assert_eq!(noted(&trimmer), [position(3)]);
        trimmer.note_the_last(Instant::now() + 3 * NOTE_EVERY);
        assert_eq!(noted(&trimmer), [position(3)]);
    }
}
