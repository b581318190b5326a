//! Reasons why a frontend accepts no votes.

use std::fmt;

use crate::{
    DurabilityProblem, Partition, QueueId,
    queue::{LayoutMismatch, QueueError},
};

/// Why a frontend accepts no votes. [`Display`](fmt::Display) is a sentence for operators, which says what to do unless
/// the cause ends by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClosedReason {
    /// The queue has not been inspected yet. Ends by itself.
    NotInspected,
    /// The queue may lose votes that it has acknowledged: see
    /// [`durability_problems`](crate::Queue::durability_problems).
    Volatile {
        /// The problems.
        problems: Vec<DurabilityProblem>,
    },
    /// The queue is not the one that this frontend, or this build, can append to.
    Mismatch(LayoutMismatch),
    /// No worker has [activated](crate::Queue::activate) the queue yet.
    NotActivated {
        /// The queue.
        queue: QueueId,
    },
    /// The queue lost acknowledged votes. This frontend is replacing it with a new one.
    LostVotes {
        /// The queue.
        queue: QueueId,
        /// The first partition that lost votes.
        partition: Partition,
    },
    /// The address holds another queue than at the last inspection, or none. Ends by itself.
    Replaced,
    /// The server is a replica.
    Replica,
    /// The queue can't be reached, or can't be used.
    Queue(QueueError),
    /// The task that watches the queue ended by itself, which is a bug.
    WatcherEnded,
}

impl ClosedReason {
    /// All [codes](Self::code), sorted.
    pub const CODES: [&str; 12] = [
        "incompatible",
        "layout-version",
        "lost-votes",
        "not-activated",
        "not-inspected",
        "partitions",
        "pepper",
        "replaced",
        "replica",
        "unavailable",
        "volatile",
        "watcher-ended",
    ];

    /// Returns a stable word for the kind of reason, for metrics and programs: one of [`CODES`](Self::CODES).
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotInspected => "not-inspected",
            Self::Volatile { .. } => "volatile",
            Self::Mismatch(mismatch) => mismatch.code(),
            Self::NotActivated { .. } => "not-activated",
            Self::LostVotes { .. } => "lost-votes",
            Self::Replaced | Self::Queue(QueueError::Replaced) => "replaced",
            Self::Replica | Self::Queue(QueueError::Replica) => "replica",
            Self::Queue(QueueError::Unavailable(_)) => "unavailable",
            Self::Queue(_) => "incompatible",
            Self::WatcherEnded => "watcher-ended",
        }
    }
}

impl fmt::Display for ClosedReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotInspected => f.write_str("the queue has not been inspected yet"),
            Self::Volatile { problems } => {
                write!(f, "the queue may lose votes: {}", DurabilityProblem::joined(problems))
            }
            Self::Mismatch(mismatch) => {
                let advice = match mismatch {
                    LayoutMismatch::Version { .. } => {
                        "let frontend and workers of the version that created the queue count all of its votes, and \
                         then give this frontend an empty database"
                    }
                    LayoutMismatch::Partitions { .. } => {
                        "set VOTE_PARTITIONS to the number of the store; if the queue has another number than the \
                         store, give it an empty database"
                    }
                    LayoutMismatch::Pepper { .. } => "give all frontends and workers the same pepper",
                };
                write!(f, "the queue {mismatch}: {advice}")
            }
            Self::NotActivated { queue } => write!(
                f,
                "no worker has activated the queue {queue} yet: is one running, and does it reach the queue and the \
                 store?"
            ),
            Self::LostVotes { partition, .. } => {
                write!(f, "the queue lost acknowledged votes of partition {partition}, and is being replaced")
            }
            Self::Replaced => QueueError::Replaced.fmt(f),
            Self::Replica => f.write_str(
                "the server of the queue is a replica, which accepts no votes: set VOTE_QUEUE to its master, or promote it",
            ),
            Self::Queue(error) => error.fmt(f),
            Self::WatcherEnded => {
                f.write_str("the task that watches the queue ended by itself, which is a bug: report it")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Partitions, PepperFingerprint, Position};

    const QUEUE: QueueId = QueueId([1; 16]);

    #[test]
    fn each_reason_is_a_sentence_with_a_code() {
        let expected = Partitions::new(32).unwrap();
        let (found, fingerprint) = (Partitions::new(16).unwrap(), PepperFingerprint([7; 8]));
        let reasons = [
            (ClosedReason::NotInspected, "the queue has not been inspected yet"),
            (
                ClosedReason::Volatile {
                    problems: ["a", "b"].map(|problem| DurabilityProblem::Other(problem.to_owned())).into(),
                },
                "may lose votes: a; b",
            ),
            (
                ClosedReason::Mismatch(LayoutMismatch::Version { found: 1 }),
                "the queue has layout version 1, and this build uses version 2: let frontend and workers",
            ),
            (
                ClosedReason::Mismatch(LayoutMismatch::Partitions { found, expected }),
                "the queue has 16 partitions instead of 32: set VOTE_PARTITIONS",
            ),
            (
                ClosedReason::Mismatch(LayoutMismatch::Pepper { found: fingerprint, expected: fingerprint }),
                "another pepper (fingerprint 0707070707070707 instead of",
            ),
            (ClosedReason::NotActivated { queue: QUEUE }, "no worker has activated the queue 0101"),
            (
                ClosedReason::LostVotes { queue: QUEUE, partition: Partition(3) },
                "lost acknowledged votes of partition 3",
            ),
            (ClosedReason::Replica, "is a replica, which accepts no votes: set VOTE_QUEUE"),
            (ClosedReason::Replaced, "the queue was replaced"),
            (ClosedReason::Queue(QueueError::Replaced), "the queue was replaced"),
            (ClosedReason::Queue(QueueError::Unavailable("x".to_owned())), "not available: x"),
            (ClosedReason::Queue(QueueError::Diverged(Position::START)), "the queue no longer holds"),
            (ClosedReason::WatcherEnded, "ended by itself, which is a bug"),
        ];
        let mut codes: Vec<_> = reasons.iter().map(|(reason, _)| reason.code()).collect();
        for (reason, part) in reasons {
            assert!(reason.to_string().contains(part), "{reason}");
        }
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes, ClosedReason::CODES);
    }
}
