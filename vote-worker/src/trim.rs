//! Lets queues forget what is committed, at once or, where the store may be restored from a backup, after a delay.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use vote_core::{Partition, Position, QueueId};

use crate::{
    lane::{Trim, by_id},
    source::Queues,
};

/// Positions of one partition of one queue are noted this far apart when they are kept for later.
const NOTE_EVERY: Duration = Duration::from_secs(1);

/// Positions that were committed, each to be trimmed to when its time comes. What is forgotten with the lane is
/// trimmed by the next one, whose positions are later.
#[derive(Debug)]
pub(crate) struct Trimmer {
    delay: Duration,
    due: VecDeque<(Instant, Trim)>,
    noted: HashMap<(QueueId, Partition), Instant>,
}

impl Trimmer {
    pub(crate) fn new(delay: Duration) -> Self {
        Self { delay, due: VecDeque::new(), noted: HashMap::new() }
    }

    /// Everything up to this position is committed.
    pub(crate) fn committed(&mut self, queue: QueueId, partition: Partition, position: Position) {
        let now = Instant::now();
        if !self.delay.is_zero() {
            let noted = self.noted.get(&(queue, partition));
            if noted.is_some_and(|at| now.saturating_duration_since(*at) < NOTE_EVERY) {
                return;
            }
            self.noted.insert((queue, partition), now);
        }
        self.due.push_back((now + self.delay, (queue, partition, position)));
    }

    /// Trims what is due. Runs beside the lane, and a failure only means that the queue keeps more for longer.
    pub(crate) fn run_due(&mut self, queues: &Queues) {
        let now = Instant::now();
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
