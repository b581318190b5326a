//! When an operator may retire a queue.

use std::{fmt, time::Duration};

use super::{Accounts, QueueRecord, QueueState, was_within};
use crate::{QueueId, Timestamp};

/// A queue that was reported within this time may be alive.
const MAY_BE_ALIVE: Duration = Duration::from_secs(30);

/// Why a queue can't be retired now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetirementObstacle {
    /// It is alive: votes would be acknowledged and never counted.
    Alive {
        /// When a worker last reported it.
        seen_at: Timestamp,
    },
    /// It diverged within the last 30 s, and workers may not have found its remaining entries yet.
    DivergedRecently,
    /// Its remaining entries are still being read.
    Unread {
        /// The identity under which they are read.
        replaced: QueueId,
    },
}

impl RetirementObstacle {
    /// Returns a stable word for the kind of obstacle.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Alive { .. } => "alive",
            Self::DivergedRecently => "diverged-recently",
            Self::Unread { .. } => "unread",
        }
    }
}

impl fmt::Display for RetirementObstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alive { seen_at } => write!(
                f,
                "it is alive (seen at {seen_at}). Stop its frontend and its server first: otherwise votes would be \
                 acknowledged and never counted"
            ),
            Self::DivergedRecently => f.write_str(
                "it diverged only just now. Wait until its remaining entries are read, or half a minute if it has none",
            ),
            Self::Unread { replaced } => write!(
                f,
                "its remaining entries are still being read, as queue {replaced}. Wait until they are counted. If they \
                 are gone, so that no worker can read them, retire that queue first"
            ),
        }
    }
}

/// Returns why a queue of these accounts can't be retired now; `None` if it can, or is retired already.
///
/// [`Store::retire`](crate::Store::retire) does not check this: whoever calls it on behalf of an operator calls this
/// first. The accounts need no recount.
#[must_use]
pub fn retirement_obstacle(accounts: &Accounts, queue: &QueueRecord) -> Option<RetirementObstacle> {
    let seen_recently = was_within(queue.seen_at, accounts.taken_at, MAY_BE_ALIVE);
    match queue.state {
        QueueState::Retired => None,
        QueueState::Active => seen_recently.then_some(RetirementObstacle::Alive { seen_at: queue.seen_at }),
        QueueState::Diverged => {
            let mut replaced =
                accounts.queues.iter().filter(|record| record.original_id == Some(queue.id)).peekable();
            if replaced.peek().is_none() {
                return seen_recently.then_some(RetirementObstacle::DivergedRecently);
            }
            let is_unread =
                |record: &&QueueRecord| !record.state.is_ended() && !accounts.is_read_to_the_end(record);
            replaced.find(is_unread).map(|record| RetirementObstacle::Unread { replaced: record.id })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Partition, Position};

    fn id(n: u8) -> QueueId {
        QueueId([n; 16])
    }

    fn queue(n: u8, state: QueueState, seconds_ago: i64) -> QueueRecord {
        let seen_at = now().saturating_add(-seconds_ago * 1_000_000);
        QueueRecord { state, ..QueueRecord::new(id(n), "a".to_owned(), seen_at) }
    }

    /// Returns a queue with the remaining entries of queue 1.
    fn replaced(n: u8, state: QueueState, seconds_ago: i64) -> QueueRecord {
        let ends = vec![Position::from_bytes(&[9]).unwrap()];
        QueueRecord { original_id: Some(id(1)), ends, ..queue(n, state, seconds_ago) }
    }

    fn now() -> Timestamp {
        Timestamp::MIN.saturating_add(1_000_000_000)
    }

    /// Returns what keeps the first of these queues from being retired.
    fn obstacle(queues: &[QueueRecord], read: &[u8]) -> Option<RetirementObstacle> {
        let read_to = |n: &u8| ((id(*n), Partition(0)), Position::from_bytes(&[9]).unwrap());
        let accounts = Accounts {
            taken_at: now(),
            queues: queues.to_vec(),
            positions: read.iter().map(read_to).collect(),
            ..Accounts::default()
        };
        retirement_obstacle(&accounts, &queues[0])
    }

    #[test]
    fn a_queue_that_was_seen_lately_is_alive() {
        let seen = |seconds_ago| obstacle(&[queue(1, QueueState::Active, seconds_ago)], &[]);
        assert!(matches!(seen(0), Some(RetirementObstacle::Alive { .. })));
        assert!(matches!(seen(30), Some(RetirementObstacle::Alive { .. })));
        assert_eq!(seen(31), None);
    }

    #[test]
    fn a_diverged_queue_waits_for_its_remaining_entries() {
        let diverged = |seconds_ago| queue(1, QueueState::Diverged, seconds_ago);
        assert_eq!(obstacle(&[diverged(1)], &[]), Some(RetirementObstacle::DivergedRecently));
        assert_eq!(obstacle(&[diverged(31)], &[]), None, "it has none");
        let unread = [diverged(31), replaced(2, QueueState::Active, 0), replaced(3, QueueState::Active, 0)];
        assert_eq!(obstacle(&unread, &[2]), Some(RetirementObstacle::Unread { replaced: id(3) }));
        assert_eq!(obstacle(&unread, &[2, 3]), None);
    }

    #[test]
    fn a_diverged_queue_does_not_wait_for_entries_that_are_retired_or_diverged_too() {
        for ended in [QueueState::Retired, QueueState::Diverged] {
            let queues = [queue(1, QueueState::Diverged, 31), replaced(2, ended, 31)];
            assert_eq!(obstacle(&queues, &[]), None, "{ended:?}");
        }
    }

    #[test]
    fn a_retired_queue_may_be_retired_again() {
        assert_eq!(obstacle(&[queue(1, QueueState::Retired, 0)], &[]), None);
    }
}
