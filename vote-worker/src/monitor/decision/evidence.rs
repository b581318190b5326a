//! Evidence that a queue lost data.

use std::fmt;

use vote_core::{Partition, PollSlug, Position, QueueId};

/// How it was detected that a queue diverged. An append-only log can't count fewer votes than before, nor lack an entry
/// that was seen and not read yet; and no two servers have one queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::monitor) enum Evidence {
    /// It counts fewer votes than when it was last asked.
    CountFell,
    /// It is new here, and counts fewer votes for a poll than in the last report of it.
    LessThanReported { poll: String, now: u64, before: u64 },
    /// It is new here, and lacks the entry that was the last of its partition at the last report.
    EntryGone { partition: Partition, end: Position },
    /// It counts fewer votes for a poll than when it was sealed.
    LessThanSealed { partition: Partition, poll: PollSlug, now: u64, before: u64 },
    /// It lacks an entry that it held when it was sealed for a poll.
    EndsBeforeSeal { partition: Partition, poll: PollSlug, before: Position },
    /// The server at another address has it, too.
    Copied { address: String },
    /// Its server has had another queue for some time, and no worker has seen it since.
    Vanished { found: QueueId },
    /// Its server lists it as one that was replaced, although the store does not know of that.
    ReplacedOnServer,
    /// Another worker, or an operator who retired it, has recorded so in the store, with this reason.
    Recorded(String),
    /// A lane has read entries that contradict what was read before or what the queue counts, as described.
    Read(String),
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CountFell => f.write_str("it counts fewer votes than a moment ago"),
            Self::LessThanReported { poll, now, before } => {
                write!(f, "it counts {now} votes for poll {poll}, but last reported {before}")
            }
            Self::EntryGone { partition, end } => {
                write!(f, "the entry at {end} of partition {partition} is gone and was never read")
            }
            Self::LessThanSealed { partition, poll, now, before } => write!(
                f,
                "partition {partition} counts {now} votes for poll {poll}, but counted {before} when it was sealed"
            ),
            Self::EndsBeforeSeal { partition, poll, before } => write!(
                f,
                "partition {partition} ends before entry {before}, which it held when poll {poll} was sealed"
            ),
            Self::Copied { address } => write!(f, "the server at {address} has a copy of this queue"),
            Self::Vanished { found } => write!(f, "its server came back with another queue, {found}"),
            Self::ReplacedOnServer => f.write_str("its server has another queue by now"),
            Self::Recorded(reason) | Self::Read(reason) => f.write_str(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::decision::tests::{position, slug};

    /// The sentences are stored as the reasons of diverged queues, and shown by the audit.
    #[test]
    fn each_kind_of_evidence_is_a_sentence_about_the_queue() {
        let (partition, poll, end) = (Partition(1), slug(), position(9));
        let address = "redis://two".to_owned();
        let sentences = [
            (Evidence::CountFell, "it counts fewer votes than a moment ago"),
            (
                Evidence::LessThanReported { poll: "pets".to_owned(), now: 1, before: 2 },
                "it counts 1 votes for poll pets, but last reported 2",
            ),
            (
                Evidence::EntryGone { partition, end },
                "the entry at 09 of partition 1 is gone and was never read",
            ),
            (
                Evidence::LessThanSealed { partition, poll, now: 1, before: 2 },
                "partition 1 counts 1 votes for poll pets, but counted 2 when it was sealed",
            ),
            (
                Evidence::EndsBeforeSeal { partition, poll, before: end },
                "partition 1 ends before entry 09, which it held when poll pets was sealed",
            ),
            (Evidence::Copied { address }, "the server at redis://two has a copy of this queue"),
            (
                Evidence::Vanished { found: QueueId([2; 16]) },
                "its server came back with another queue, 02020202020202020202020202020202",
            ),
            (Evidence::ReplacedOnServer, "its server has another queue by now"),
            (Evidence::Recorded("its disk is gone".to_owned()), "its disk is gone"),
            (Evidence::Read("partition 1: it lacks entries".to_owned()), "partition 1: it lacks entries"),
        ];
        for (evidence, sentence) in sentences {
            assert_eq!(evidence.to_string(), sentence);
        }
    }
}
