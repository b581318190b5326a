//! Turns: which queue of a partition is read next. Pure. A turn costs the same however many queues there are.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tokio::time::Instant;
use vote_core::QueueId;

/// The queues of a partition that are to be read, in the order in which they are: each comes to its turn once before
/// another one does twice.
#[derive(Debug, Default)]
pub(super) struct Turns {
    order: VecDeque<QueueId>,
    /// The queues in `order`. One that is only there lost its turn.
    due: BTreeSet<QueueId>,
    /// Queues that become due at a time, each with a number: of two that do at once, the first one that was added comes
    /// first, whatever their identities.
    later: BTreeMap<(Instant, u64), Later>,
    times: BTreeMap<QueueId, (Instant, u64)>,
    added: u64,
}

/// A queue that becomes due later.
#[derive(Debug)]
struct Later {
    queue: QueueId,
    /// Whether it had its turn already, and could not be read.
    is_retry: bool,
}

impl Turns {
    /// Makes a queue due, after those that are due already.
    pub(super) fn add(&mut self, queue: QueueId) {
        if self.due.insert(queue) {
            self.order.push_back(queue);
        }
    }

    /// Makes a queue due at a time, in place of the time that was set before.
    pub(super) fn add_at(&mut self, queue: QueueId, at: Instant) {
        self.set(Later { queue, is_retry: false }, at);
    }

    /// Makes a queue due at a time, in place of the time that was set before, and then before all others: it could not be
    /// read when it had its turn. With a thousand queues, the next turn would be many seconds later.
    pub(super) fn retry_at(&mut self, queue: QueueId, at: Instant) {
        self.set(Later { queue, is_retry: true }, at);
    }

    fn set(&mut self, later: Later, at: Instant) {
        self.added += 1;
        if let Some(before) = self.times.insert(later.queue, (at, self.added)) {
            self.later.remove(&before);
        }
        self.later.insert((at, self.added), later);
    }

    /// Takes the queue whose turn it is, if one is due.
    pub(super) fn next(&mut self, now: Instant) -> Option<QueueId> {
        while let Some(first) = self.later.first_entry().filter(|first| first.key().0 <= now) {
            let Later { queue, is_retry } = first.remove();
            self.times.remove(&queue);
            if !is_retry {
                self.add(queue);
            } else if self.due.insert(queue) {
                self.order.push_front(queue);
            }
        }
        loop {
            let queue = self.order.pop_front()?;
            if self.due.remove(&queue) {
                return Some(queue);
            }
        }
    }

    /// Removes a queue.
    pub(super) fn remove(&mut self, queue: QueueId) {
        self.due.remove(&queue);
        if let Some(at) = self.times.remove(&queue) {
            self.later.remove(&at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const QUEUES: [QueueId; 3] = [QueueId([1; 16]), QueueId([2; 16]), QueueId([3; 16])];

    fn all(turns: &mut Turns, now: Instant) -> Vec<u8> {
        std::iter::from_fn(|| turns.next(now)).map(|queue| queue.0[0]).collect()
    }

    #[test]
    fn a_queue_that_is_added_again_waits_for_the_others() {
        let (mut turns, now) = (Turns::default(), Instant::now());
        QUEUES.iter().chain(&QUEUES).for_each(|queue| turns.add(*queue));
        assert_eq!(turns.next(now), Some(QUEUES[0]));
        turns.add(QUEUES[0]);
        assert_eq!(all(&mut turns, now), [2, 3, 1]);
    }

    #[test]
    fn a_queue_is_due_at_the_last_time_that_was_set() {
        let (mut turns, now) = (Turns::default(), Instant::now());
        let at = |seconds| now + Duration::from_secs(seconds);
        turns.add_at(QUEUES[0], at(1));
        turns.add_at(QUEUES[1], at(2));
        turns.add_at(QUEUES[0], at(3));
        assert_eq!(all(&mut turns, at(1)), [0_u8; 0]);
        assert_eq!(all(&mut turns, at(2)), [2]);
        assert_eq!(all(&mut turns, at(9)), [1]);
    }

    #[test]
    fn a_queue_that_could_not_be_read_is_the_first_one_to_be_read_again() {
        let (mut turns, now) = (Turns::default(), Instant::now());
        QUEUES[..2].iter().for_each(|queue| turns.add(*queue));
        turns.retry_at(QUEUES[2], now + Duration::from_secs(1));
        assert_eq!(turns.next(now), Some(QUEUES[0]));
        turns.add(QUEUES[0]);
        assert_eq!(all(&mut turns, now + Duration::from_secs(1)), [3, 2, 1]);
    }

    #[test]
    fn a_removed_queue_has_no_turn() {
        let (mut turns, now) = (Turns::default(), Instant::now());
        QUEUES.iter().for_each(|queue| turns.add(*queue));
        turns.add_at(QUEUES[1], now);
        turns.remove(QUEUES[1]);
        assert_eq!(all(&mut turns, now), [1, 3]);
        turns.add(QUEUES[1]);
        assert_eq!(all(&mut turns, now), [2]);
    }
}
