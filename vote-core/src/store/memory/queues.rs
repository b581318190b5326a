//! Records of queues in a store in memory.

use super::Data;
use crate::{
    QueueId, Timestamp,
    count::{QueueRecord, QueueState},
};

impl Data {
    pub(super) fn report(&mut self, queues: &[QueueRecord], now: Timestamp) {
        for record in queues {
            let (merged, is_news) = match self.queues.remove(&record.id) {
                None => (record.clone(), true),
                Some(before) => {
                    let state = before.state;
                    let merged = before.merged(record.clone(), now);
                    let is_news = merged.state > state;
                    (merged, is_news)
                }
            };
            self.revision += u64::from(is_news);
            self.queues.insert(record.id, merged);
        }
    }

    /// Retires a queue; returns whether there is one.
    pub(super) fn retire(&mut self, queue: QueueId, reason: &str) -> bool {
        let Some(record) = self.queues.get_mut(&queue) else { return false };
        if record.state != QueueState::Retired {
            record.state = QueueState::Retired;
            record.reason = QueueRecord::retirement_reason(&record.reason, reason);
        }
        true
    }
}
