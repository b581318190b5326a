//! How often a monitor looks at its queue. Pure.

use std::time::Duration;

use super::QueueView;

/// Interval at which a queue that is read is asked what is new in the partitions that this worker owns.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Shortest time between two looks of all monitors together, on average: with more than 100 queues, each is asked less
/// often. A look takes about 50 µs of CPU here.
const LOOK_TAKES: Duration = Duration::from_millis(1);
/// Shortest time between two looks of all workers at one queue, on average: with more than 10 workers, each asks less
/// often, so that what a Redis spends on looks does not grow with them.
const LOOK_OF_A_WORKER: Duration = Duration::from_millis(10);
/// Interval while this worker owns no partition, when it only has to notice another queue or another server.
const LOOK_EVERY_WITHOUT_PARTITIONS: Duration = Duration::from_secs(1);
/// Interval at which a queue that is not read is asked.
const RETRY_EVERY: Duration = Duration::from_millis(500);

/// Returns the pause after a look that found the queue like this, in one of so many workers, which watches so many queues.
pub(super) fn pause(view: &QueueView, watched: usize, workers: usize) -> Duration {
    match view {
        QueueView::Unreadable => RETRY_EVERY,
        QueueView::Open { accepted, .. } if accepted.is_empty() => LOOK_EVERY_WITHOUT_PARTITIONS,
        QueueView::Open { .. } => look_every(watched, workers),
    }
}

/// Returns the pause between two looks at a queue, of one of so many workers, which watches so many queues.
pub(crate) fn look_every(watched: usize, workers: usize) -> Duration {
    let times = |time: Duration, n: usize| time * u32::try_from(n).unwrap_or(u32::MAX);
    let shared = times(LOOK_OF_A_WORKER, workers).min(LOOK_EVERY_WITHOUT_PARTITIONS);
    LOOK_EVERY.max(times(LOOK_TAKES, watched)).max(shared)
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
    fn a_queue_is_looked_at_five_times_a_second_unless_there_are_many_queues_or_workers() {
        assert_eq!(pause(&open(2), 1, 1), LOOK_EVERY);
        assert_eq!(pause(&open(2), 200, 20), LOOK_EVERY);
        assert_eq!(pause(&open(2), 1000, 10), Duration::from_secs(1), "1,000 looks a second in all");
        assert_eq!(pause(&open(2), 1, 50), Duration::from_millis(500), "100 looks at the queue a second");
        assert_eq!(pause(&open(2), 1, 1000), Duration::from_secs(1), "its server is checked each second");
    }

    #[test]
    fn without_partitions_a_worker_only_notices_another_queue() {
        assert_eq!(pause(&open(0), 1, 1), LOOK_EVERY_WITHOUT_PARTITIONS);
        assert_eq!(pause(&QueueView::Unreadable, 1000, 1000), RETRY_EVERY);
    }
}
