//! What a queue must hold at least: what tells a frontend that its queue lost votes.

use std::collections::BTreeMap;

use crate::{
    Partition, QueueId, dedup,
    queue::{Counters, Frame, QueueStatus},
};

/// Votes by partition and poll.
type Counts = BTreeMap<Partition, Counters>;

/// Two lower bounds of what a queue has accepted. They are never added up: a status may count a flush before its reply
/// arrives here, and a sum would then count that flush twice and call a healthy queue a loser.
#[derive(Debug, Clone, Default)]
pub(super) struct Evidence(Option<Bounds>);

#[derive(Debug, Clone)]
struct Bounds {
    queue: QueueId,
    /// The highest counts that a status gave.
    reported: Counts,
    /// The counts at first sight, before anything was appended from here, and all that was acknowledged here since.
    acknowledged: Counts,
}

impl Evidence {
    /// Takes over what the status of a queue that lost nothing counts.
    pub(super) fn reported(&mut self, status: &QueueStatus) {
        match self.0.as_mut().filter(|bounds| bounds.queue == status.id) {
            None => {
                let (reported, acknowledged) = (status.accepted.clone(), status.accepted.clone());
                self.0 = Some(Bounds { queue: status.id, reported, acknowledged });
            }
            Some(bounds) => {
                for (partition, polls) in &status.accepted {
                    let known = bounds.reported.entry(*partition).or_default();
                    for (poll, votes) in polls {
                        let known = known.entry(poll.clone()).or_default();
                        *known = (*votes).max(*known);
                    }
                }
            }
        }
    }

    /// Adds a frame that the queue acknowledged. Frames go only to a queue that was [seen](Self::reported) before.
    pub(super) fn acknowledged(&mut self, queue: QueueId, frame: &Frame) {
        let Some(bounds) = self.0.as_mut().filter(|bounds| bounds.queue == queue) else { return };
        let polls = bounds.acknowledged.entry(frame.partition).or_default();
        let votes = u64::from(frame.votes);
        match polls.get_mut(frame.poll.as_str()) {
            Some(accepted) => *accepted += votes,
            None => drop(polls.insert(frame.poll.to_string(), votes)),
        }
    }

    /// A partition of which the queue counts fewer votes than it has accepted. The evidence must be from before the
    /// status was asked for, since the status need not count what was acknowledged meanwhile.
    pub(super) fn lost(&self, status: &QueueStatus) -> Option<Partition> {
        let bounds = self.0.as_ref().filter(|bounds| bounds.queue == status.id)?;
        let none = Counters::new();
        let is_short = |(partition, before): (&Partition, &Counters)| {
            let now = status.accepted.get(partition).unwrap_or(&none);
            dedup::went_back(before, now).then_some(*partition)
        };
        bounds.reported.iter().chain(&bounds.acknowledged).find_map(is_short)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        Partitions, PepperFingerprint, PollDigest,
        queue::{Layout, PollStates},
    };

    const QUEUE: QueueId = QueueId([1; 16]);
    const PARTITION: Partition = Partition(3);

    fn status(votes: u64) -> QueueStatus {
        let layout = Layout { partitions: Partitions::default(), fingerprint: PepperFingerprint([7; 8]) };
        QueueStatus {
            id: QUEUE,
            version: 1,
            layout,
            registered: true,
            server: String::new(),
            accepted: [(PARTITION, [("pets".to_owned(), votes)].into())].into(),
            entries: Vec::new(),
            polls: PollStates::new(),
            remains: Vec::new(),
        }
    }

    fn frame(votes: u32) -> Frame {
        let digest = PollDigest([0; 16]);
        Frame { poll: "pets".parse().unwrap(), partition: PARTITION, digest, votes, bytes: Bytes::new() }
    }

    #[test]
    fn a_status_that_counts_a_flush_before_its_reply_arrives_shows_no_loss() {
        let mut evidence = Evidence::default();
        evidence.reported(&status(10));
        // The flush of five was executed; the status overtakes its reply.
        evidence.reported(&status(15));
        evidence.acknowledged(QUEUE, &frame(5));
        assert_eq!(evidence.lost(&status(15)), None);
    }

    #[test]
    fn fewer_votes_than_a_status_gave_are_a_loss() {
        let mut evidence = Evidence::default();
        evidence.reported(&status(10));
        evidence.reported(&status(15));
        assert_eq!(evidence.lost(&status(14)), Some(PARTITION));
    }

    #[test]
    fn fewer_votes_than_were_acknowledged_are_a_loss() {
        let mut evidence = Evidence::default();
        evidence.reported(&status(10));
        evidence.acknowledged(QUEUE, &frame(5));
        assert_eq!(evidence.lost(&status(14)), Some(PARTITION));
        assert_eq!(evidence.lost(&status(15)), None);
    }

    #[test]
    fn what_was_known_of_another_queue_says_nothing() {
        let mut evidence = Evidence::default();
        evidence.reported(&status(10));
        let other = QueueStatus { id: QueueId([2; 16]), ..status(1) };
        assert_eq!(evidence.lost(&other), None);
        evidence.reported(&other);
        evidence.acknowledged(QUEUE, &frame(5));
        assert_eq!(evidence.lost(&other), None);
    }
}
