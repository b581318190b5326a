//! Records of workers in a store in memory.

use super::Data;
use crate::{
    Timestamp,
    count::{FUTURE, UNKNOWN_AGE, was_within},
    store::{WORKER_LIVES_FOR, WorkerRecord},
};

impl Data {
    pub(super) fn record_worker(&mut self, worker: &WorkerRecord, now: Timestamp) {
        let limit = now.saturating_add(FUTURE.as_micros() as i64);
        let long_ago = now.saturating_add(-(UNKNOWN_AGE.as_micros() as i64));
        // A worker in the future shows that the clock was set back, so the age of no report is known.
        let was_set_back = self.workers.values().any(|(_, seen_at)| *seen_at > limit);
        self.workers.retain(|_, (_, seen_at)| *seen_at <= limit);
        self.workers.insert(worker.id, (worker.clone(), now));
        for queue in self.queues.values_mut().filter(|queue| was_set_back || queue.seen_at > limit) {
            queue.seen_at = queue.seen_at.min(long_ago);
        }
    }

    pub(super) fn alive(&self, now: Timestamp) -> impl Iterator<Item = &WorkerRecord> {
        let alive = move |at: Timestamp| was_within(at, now, WORKER_LIVES_FOR);
        self.workers.values().filter(move |(_, at)| alive(*at)).map(|(worker, _)| worker)
    }
}
