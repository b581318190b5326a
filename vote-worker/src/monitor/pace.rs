//! How often a monitor looks at its queue. Pure.

use std::time::Duration;

use super::QueueView;

/// Interval at which a queue that is read is asked what is new in the partitions that this worker owns.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Shortest time between two looks of all monitors together, on average: with more than 200 queues, each is asked less
/// often. A look takes about 50 µs of CPU here.
const LOOK_TAKES: Duration = Duration::from_micros(500);
/// Interval while this worker owns no partition, when it only has to notice another queue or another server.
const LOOK_EVERY_WITHOUT_PARTITIONS: Duration = Duration::from_secs(1);
/// Interval at which a queue that is not read is asked.
const RETRY_EVERY: Duration = Duration::from_millis(500);

/// Returns the pause after a look, by one of so many monitors, that found the queue like this.
pub(super) fn pause(view: &QueueView, watched: usize) -> Duration {
    match view {
        QueueView::Unreadable => RETRY_EVERY,
        QueueView::Open { accepted, .. } if accepted.is_empty() => LOOK_EVERY_WITHOUT_PARTITIONS,
        QueueView::Open { .. } => LOOK_EVERY.max(LOOK_TAKES * u32::try_from(watched).unwrap_or(u32::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use vote_core::{Partition, QueueId};

    use super::*;

    fn open(partitions: u16) -> QueueView {
        let accepted: BTreeMap<Partition, u64> = (0..partitions).map(|n| (Partition(n), 1)).collect();
        let (server, replaced) = ("a".into(), Arc::default());
        QueueView::Open { id: QueueId([1; 16]), server, accepted: Arc::new(accepted), replaced }
    }

    #[test]
    fn a_queue_is_looked_at_ten_times_a_second_unless_there_are_many() {
        assert_eq!(pause(&open(2), 1), LOOK_EVERY);
        assert_eq!(pause(&open(2), 200), LOOK_EVERY);
        assert_eq!(pause(&open(2), 1000), Duration::from_millis(500), "2,000 looks a second in all");
    }

    #[test]
    fn without_partitions_a_worker_only_notices_another_queue() {
        assert_eq!(pause(&open(0), 1), LOOK_EVERY_WITHOUT_PARTITIONS);
        assert_eq!(pause(&QueueView::Unreadable, 1000), RETRY_EVERY);
    }
}
