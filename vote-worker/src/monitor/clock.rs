//! Records in a queue how far its server's clock is ahead of the store's. The queue's frontend runs on the same
//! machine, stamps votes by that clock, and can't ask the store.

use std::time::Duration;

use vote_core::{Timestamp, queue::QueueStatus};

use super::{Monitor, Unreadable};
use crate::registry::PROMPT;

/// Smallest change, in microseconds, that is worth a write: network delays vary by as much.
const CHANGE: u64 = 200_000;

impl Monitor {
    /// Compares the clocks, and records the difference in the queue if it has changed. `status` was requested at
    /// `asked_at` by this worker's clock, and arrived after `took`.
    pub(super) async fn compare_clocks(
        &self,
        status: &QueueStatus,
        asked_at: Timestamp,
        took: Duration,
    ) -> Result<(), Unreadable> {
        let Some(ours) = self.parts.registry.clock_is_ahead_by().filter(|_| took <= PROMPT) else {
            return Ok(());
        };
        let ahead = ours + ahead_of(status.clock.now, asked_at, took);
        crate::metrics::queue_clock(&self.address, ahead);
        if status.clock.ahead.is_none_or(|known| known.abs_diff(ahead) > CHANGE) {
            self.queue.record_clock(status.id, ahead).await?;
        }
        Ok(())
    }
}

/// Returns by how many microseconds a clock that answered `shown` is ahead of one that showed `asked_at` when the
/// request was sent. The answer arrived after `took`.
fn ahead_of(shown: Timestamp, asked_at: Timestamp, took: Duration) -> i64 {
    shown.as_micros() - asked_at.as_micros() - took.as_micros() as i64 / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_read_halfway_between_request_and_answer() {
        let at = |micros: i64| Timestamp::MIN.saturating_add(micros);
        let took = Duration::from_millis(40);
        assert_eq!(ahead_of(at(1_020_000), at(1_000_000), took), 0);
        assert_eq!(ahead_of(at(3_020_000), at(1_000_000), took), 2_000_000);
        assert_eq!(ahead_of(at(20_000), at(1_000_000), took), -1_000_000);
    }
}
