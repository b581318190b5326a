//! Findings of an audit: what is wrong, and what keeps a poll from being final.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    OptionSlug, Partition, PollSlug, QueueId, Timestamp,
    count::{QuarantineState, QueueRecord},
};

/// One finding. [`Display`](std::fmt::Display) is the sentence for people.
///
/// Serialized as an object with its [code](Self::code), its fields, and the sentence as `text`. Reading ignores the
/// sentence, which another version may have worded differently.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error, Serialize, Deserialize)]
#[serde(remote = "Self", tag = "code", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Finding {
    /// The ledger has votes of a queue that the store does not know.
    #[error("votes were read from queue {queue}, which was never reported")]
    NeverReported {
        /// The queue.
        queue: QueueId,
    },
    /// A queue has diverged, and no operator has retired it.
    #[error(
        "queue {queue} at {address} has diverged: {reason}. It last reported {accepted} accepted votes. If \
         what it lost can't be brought back, retire it: `vote-worker queues retire {queue} --reason TEXT`"
    )]
    Diverged {
        /// The queue.
        queue: QueueId,
        /// Address at which it was last seen.
        address: String,
        /// What showed it.
        reason: String,
        /// Votes that it last reported as accepted, of all polls.
        accepted: u64,
    },
    /// The tally of a poll is not the number of voters that the ledger has counted.
    #[error("poll {poll}: {new_voters} votes added a voter, the tally holds {tally}")]
    TallyDiffers {
        /// Name of the poll, as queues hold it.
        poll: String,
        /// Votes that added a voter.
        new_voters: u64,
        /// Effective ballots, by the tally.
        tally: i64,
    },
    /// The same in one partition.
    #[error("poll {poll}, partition {partition}: {new_voters} votes added a voter, the tally holds {tally}")]
    PartitionTallyDiffers {
        /// The poll.
        poll: PollSlug,
        /// The partition.
        partition: Partition,
        /// Votes that added a voter.
        new_voters: u64,
        /// Effective ballots, by the tally.
        tally: i64,
    },
    /// An option has fewer than 0 votes.
    #[error("poll {poll}: the tally of option {option} in partition {partition} is {tally}")]
    TallyNegative {
        /// Name of the poll, as queues hold it.
        poll: String,
        /// The option.
        option: OptionSlug,
        /// The partition.
        partition: Partition,
        /// Its effective ballots, by the tally.
        tally: i64,
    },
    /// The tally of an option is not the number of its ballots.
    #[error("poll {poll}: option {option} has {rows} rows, the tally says {tally}")]
    RowsDiffer {
        /// Name of the poll, as queues hold it.
        poll: String,
        /// The option.
        option: String,
        /// Its effective ballots, counted row by row.
        rows: i64,
        /// Its effective ballots, by the tally.
        tally: i64,
    },
    /// The conservation invariant does not hold.
    #[error(
        "queue {queue}, partition {partition}, poll {poll}: {accepted} votes were accepted, but {new_voters} \
         new voters, {superseded} superseded and {quarantined} quarantined were read"
    )]
    Unaccounted {
        /// The queue.
        queue: QueueId,
        /// The partition.
        partition: Partition,
        /// Name of the poll, as queues hold it.
        poll: String,
        /// Accepted votes.
        accepted: u64,
        /// Those that added a voter.
        new_voters: u64,
        /// Those of voters who had a ballot already.
        superseded: u64,
        /// Those that could not be counted.
        quarantined: i64,
    },
    /// The votes in quarantine are not as many as the ledger says.
    #[error(
        "queue {queue}, partition {partition}, poll {poll}: {ledger} votes are quarantined by the ledger, \
         {found} are in quarantine"
    )]
    QuarantineDiffers {
        /// The queue.
        queue: QueueId,
        /// The partition.
        partition: Partition,
        /// Name of the poll, as queues hold it.
        poll: String,
        /// Quarantined votes by the ledger.
        ledger: i64,
        /// Votes in quarantine.
        found: u64,
    },
    /// What was read up to a seal is not what the queue had counted when the poll was sealed.
    #[error(
        "queue {queue}, partition {partition}, poll {poll}: {sealed} votes were accepted when the poll was \
         sealed, {read} were read"
    )]
    SealDiffers {
        /// The queue.
        queue: QueueId,
        /// The partition.
        partition: Partition,
        /// The poll.
        poll: PollSlug,
        /// Votes that were accepted when the poll was sealed.
        sealed: u64,
        /// Votes that were read.
        read: u64,
    },
    /// Frames in quarantine await a decision of an operator, or a replay by a lane.
    #[error(
        "{frames} frames of poll {} in quarantine await a decision or a replay: see `vote-worker quarantine \
         list`, and replay or reject those in state `{}`",
        .poll.escape_debug(),
        QuarantineState::Quarantined.as_str()
    )]
    QuarantinePending {
        /// Name of the poll, as queues hold it.
        poll: String,
        /// Number of frames.
        frames: u64,
    },
    /// No worker has reported a queue lately.
    #[error(
        "queue {queue} at {address} has not been heard from since {seen_at}; it last reported {accepted} accepted \
         votes and {queued} queued"
    )]
    NotHeardFrom {
        /// The queue.
        queue: QueueId,
        /// Address at which it was last seen.
        address: String,
        /// Time of the last report, by the store's clock.
        seen_at: Timestamp,
        /// Votes that it last reported as accepted, of all polls.
        accepted: u64,
        /// Votes that were not read yet then.
        queued: u64,
    },
    /// The entries of a replaced queue are being read.
    #[error("the remaining entries of replaced queue {original_id} at {address} are being read as {queue}")]
    BeingReread {
        /// The queue.
        queue: QueueId,
        /// The queue whose remaining entries these are.
        original_id: QueueId,
        /// Address at which it was last seen.
        address: String,
    },
    /// A queue has votes that were not read yet.
    #[error(
        "queue {queue} at {address} has {}{votes} votes queued",
        if *.complete { "" } else { "at least " }
    )]
    Queued {
        /// The queue.
        queue: QueueId,
        /// Address at which it was last seen.
        address: String,
        /// Number of votes.
        votes: u64,
        /// Whether all of them were counted. Otherwise there are at least so many.
        complete: bool,
    },
    /// The poll is not registered.
    #[error("poll {poll} is not registered")]
    PollNotRegistered {
        /// The poll.
        poll: PollSlug,
    },
    /// The poll is not closed.
    #[error("poll {poll} is not closed")]
    PollNotClosed {
        /// The poll.
        poll: PollSlug,
    },
    /// The entries of a replaced queue are not read to their end.
    #[error(
        "the remaining entries of replaced queue {original_id} at {address} have not been read to their end; they are read as {queue}"
    )]
    NotReread {
        /// The queue.
        queue: QueueId,
        /// The queue whose remaining entries these are.
        original_id: QueueId,
        /// Address at which it was last seen.
        address: String,
    },
    /// The poll is not sealed in a queue yet.
    #[error("queue {queue} at {address} is not sealed for poll {poll} yet")]
    NotSealed {
        /// The queue.
        queue: QueueId,
        /// Address at which it was last seen.
        address: String,
        /// The poll.
        poll: PollSlug,
    },
    /// Votes before the seal of the poll in a queue are not read yet.
    #[error("queue {queue} at {address} is not read to the seal of poll {poll}")]
    NotReadToSeal {
        /// The queue.
        queue: QueueId,
        /// Address at which it was last seen.
        address: String,
        /// The poll.
        poll: PollSlug,
    },
    /// Everything is counted, but the poll is not recorded as final.
    #[error("poll {poll} is counted, but no worker has recorded it as final yet")]
    NotRecordedAsFinal {
        /// The poll.
        poll: PollSlug,
    },
}

impl Finding {
    /// Returns a stable word for the kind of finding, as in its serialized form.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NeverReported { .. } => "never-reported",
            Self::Diverged { .. } => "diverged",
            Self::TallyDiffers { .. } => "tally-differs",
            Self::PartitionTallyDiffers { .. } => "partition-tally-differs",
            Self::TallyNegative { .. } => "tally-negative",
            Self::RowsDiffer { .. } => "rows-differ",
            Self::Unaccounted { .. } => "unaccounted",
            Self::QuarantineDiffers { .. } => "quarantine-differs",
            Self::SealDiffers { .. } => "seal-differs",
            Self::QuarantinePending { .. } => "quarantine-pending",
            Self::NotHeardFrom { .. } => "not-heard-from",
            Self::BeingReread { .. } => "being-reread",
            Self::Queued { .. } => "queued",
            Self::PollNotRegistered { .. } => "poll-not-registered",
            Self::PollNotClosed { .. } => "poll-not-closed",
            Self::NotReread { .. } => "not-reread",
            Self::NotSealed { .. } => "not-sealed",
            Self::NotReadToSeal { .. } => "not-read-to-seal",
            Self::NotRecordedAsFinal { .. } => "not-recorded-as-final",
        }
    }

    /// Returns the queue that the finding is about, if it is about one.
    #[must_use]
    pub const fn queue(&self) -> Option<QueueId> {
        match self {
            Self::NeverReported { queue }
            | Self::Diverged { queue, .. }
            | Self::Unaccounted { queue, .. }
            | Self::QuarantineDiffers { queue, .. }
            | Self::SealDiffers { queue, .. }
            | Self::NotHeardFrom { queue, .. }
            | Self::BeingReread { queue, .. }
            | Self::Queued { queue, .. }
            | Self::NotReread { queue, .. }
            | Self::NotSealed { queue, .. }
            | Self::NotReadToSeal { queue, .. } => Some(*queue),
            Self::TallyDiffers { .. }
            | Self::PartitionTallyDiffers { .. }
            | Self::TallyNegative { .. }
            | Self::RowsDiffer { .. }
            | Self::QuarantinePending { .. }
            | Self::PollNotRegistered { .. }
            | Self::PollNotClosed { .. }
            | Self::NotRecordedAsFinal { .. } => None,
        }
    }

    pub(super) fn diverged(queue: &QueueRecord) -> Self {
        Self::Diverged {
            queue: queue.id,
            address: queue.address.clone(),
            reason: queue.reason.clone(),
            accepted: queue.votes_accepted(),
        }
    }
}

impl Serialize for Finding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct WithText<'a> {
            #[serde(flatten, serialize_with = "fields")]
            finding: &'a Finding,
            text: String,
        }
        WithText { finding: self, text: self.to_string() }.serialize(serializer)
    }
}

/// Serializes a finding without its sentence.
fn fields<S: Serializer>(finding: &&Finding, serializer: S) -> Result<S::Ok, S::Error> {
    Finding::serialize(finding, serializer)
}

impl<'de> Deserialize<'de> for Finding {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::deserialize(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Finding> {
        let (queue, original_id, address) = (QueueId([1; 16]), QueueId([2; 16]), "redis://one".to_owned());
        let (poll, slug): (String, PollSlug) = ("pets".to_owned(), "pets".parse().unwrap());
        let (partition, option): (Partition, OptionSlug) = (Partition(3), "cats".parse().unwrap());
        vec![
            Finding::NeverReported { queue },
            Finding::Diverged { queue, address: address.clone(), reason: "a test".to_owned(), accepted: 7 },
            Finding::TallyDiffers { poll: poll.clone(), new_voters: 7, tally: -7 },
            Finding::PartitionTallyDiffers { poll: slug, partition, new_voters: 7, tally: -7 },
            Finding::TallyNegative { poll: poll.clone(), option, partition, tally: -7 },
            Finding::RowsDiffer { poll: poll.clone(), option: "a test".to_owned(), rows: -7, tally: -7 },
            Finding::Unaccounted {
                queue,
                partition,
                poll: poll.clone(),
                accepted: 7,
                new_voters: 7,
                superseded: 7,
                quarantined: -7,
            },
            Finding::QuarantineDiffers { queue, partition, poll: poll.clone(), ledger: -7, found: 7 },
            Finding::SealDiffers { queue, partition, poll: slug, sealed: 7, read: 7 },
            Finding::QuarantinePending { poll: poll.clone(), frames: 7 },
            Finding::NotHeardFrom {
                queue,
                address: address.clone(),
                seen_at: Timestamp::MIN,
                accepted: 7,
                queued: 7,
            },
            Finding::BeingReread { queue, original_id, address: address.clone() },
            Finding::Queued { queue, address: address.clone(), votes: 7, complete: false },
            Finding::PollNotRegistered { poll: slug },
            Finding::PollNotClosed { poll: slug },
            Finding::NotReread { queue, original_id, address: address.clone() },
            Finding::NotSealed { queue, address: address.clone(), poll: slug },
            Finding::NotReadToSeal { queue, address: address.clone(), poll: slug },
            Finding::NotRecordedAsFinal { poll: slug },
        ]
    }

    #[test]
    fn every_finding_is_serialized_with_its_code_and_sentence_and_read_again() {
        for finding in all() {
            let mut table = toml::Table::try_from(&finding).unwrap();
            assert_eq!(table["code"].as_str(), Some(finding.code()));
            assert_eq!(table["text"].as_str(), Some(&*finding.to_string()));
            assert_eq!(
                table.get("queue").map(ToString::to_string),
                finding.queue().map(|id| format!("\"{id}\""))
            );
            table.insert("text".to_owned(), "worded differently".into());
            assert_eq!(table.try_into::<Finding>().unwrap(), finding);
        }
    }

    #[test]
    fn each_finding_has_a_code_of_its_own() {
        let codes: std::collections::BTreeSet<_> = all().iter().map(Finding::code).collect();
        assert_eq!(codes.len(), all().len());
    }
}
