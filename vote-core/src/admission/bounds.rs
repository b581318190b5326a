//! Lower bounds of what a queue has accepted, by which a frontend detects that its queue lost votes.

use std::collections::BTreeMap;

use crate::{
    Partition, QueueId,
    queue::{Counters, Frame, QueueStatus},
};

/// Numbers of votes by partition and poll.
type Counts = BTreeMap<Partition, Counters>;

/// Two lower bounds of what each queue has accepted.
///
/// They are never added up: a status may count a flush before the reply to that flush arrives here. A sum would count
/// the flush twice, and report a loss in a healthy queue.
///
/// Kept for every queue that was ever seen here: a server that is rolled back for a second time may come back with the
/// queue that was replaced for its loss. There are few.
#[derive(Debug, Clone, Default)]
pub(super) struct LowerBounds(BTreeMap<QueueId, Bounds>);

#[derive(Debug, Clone)]
struct Bounds {
    /// Highest counts that a status reported.
    reported: Counts,
    /// Counts when the queue was first seen, before anything was appended from here, plus all votes acknowledged since.
    acknowledged: Counts,
}

impl LowerBounds {
    /// Records the counts in the status of a queue that [lost](Self::lost) nothing.
    pub(super) fn reported(&mut self, status: &QueueStatus) {
        match self.0.get_mut(&status.id) {
            None => {
                let mut reported = Counts::new();
                for (partition, poll, votes) in status.accepted.iter() {
                    reported.entry(partition).or_default().insert(poll.to_owned(), votes);
                }
                self.0.insert(status.id, Bounds { acknowledged: reported.clone(), reported });
            }
            Some(bounds) => {
                for (partition, poll, votes) in status.accepted.iter() {
                    let known = bounds.reported.entry(partition).or_default();
                    let known = known.entry(poll.to_owned()).or_default();
                    *known = votes.max(*known);
                }
            }
        }
    }

    /// Adds a frame that the queue acknowledged. Frames go only to a queue that was [seen](Self::reported) before.
    pub(super) fn acknowledged(&mut self, queue: QueueId, frame: &Frame) {
        let Some(bounds) = self.0.get_mut(&queue) else { return };
        let polls = bounds.acknowledged.entry(frame.partition).or_default();
        let votes = u64::from(frame.votes);
        match polls.get_mut(frame.poll.as_str()) {
            Some(accepted) => *accepted += votes,
            None => drop(polls.insert(frame.poll.to_string(), votes)),
        }
    }

    /// Returns a partition in which the queue counts fewer votes than it has accepted, if there is one.
    ///
    /// The bounds must have been copied before the status was requested, since the status need not count what was
    /// acknowledged meanwhile.
    pub(super) fn lost(&self, status: &QueueStatus) -> Option<Partition> {
        let bounds = self.0.get(&status.id)?;
        let fell = |(partition, polls): &(&Partition, &Counters)| {
            polls.iter().any(|(poll, before)| status.accepted.get(**partition, poll) < *before)
        };
        let fall = bounds.reported.iter().chain(&bounds.acknowledged).find(fell);
        fall.map(|(partition, _)| *partition)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        Partitions, PepperFingerprint, PollDigest, Timestamp,
        queue::{Layout, PollStates, QueueClock},
    };

    const QUEUE: QueueId = QueueId([1; 16]);
    const PARTITION: Partition = Partition(3);

    fn status(votes: u64) -> QueueStatus {
        let layout = Layout { partitions: Partitions::default(), fingerprint: PepperFingerprint([7; 8]) };
        QueueStatus {
            id: QUEUE,
            version: 1,
            layout,
            active: true,
            server: String::new(),
            is_replica: false,
            accepted: [(PARTITION, "pets", votes)].into_iter().collect(),
            entries: Vec::new(),
            polls: PollStates::new(),
            replaced: Vec::new(),
            clock: QueueClock { now: Timestamp::MIN, ahead: None },
        }
    }

    fn frame(votes: u32) -> Frame {
        let digest = PollDigest([0; 16]);
        Frame { poll: "pets".parse().unwrap(), partition: PARTITION, digest, votes, bytes: Bytes::new() }
    }

    #[test]
    fn a_status_that_counts_a_flush_before_its_reply_arrives_is_no_loss() {
        let mut bounds = LowerBounds::default();
        bounds.reported(&status(10));
        // The flush of five votes was executed, and the status overtook its reply.
        bounds.reported(&status(15));
        bounds.acknowledged(QUEUE, &frame(5));
        assert_eq!(bounds.lost(&status(15)), None);
    }

    #[test]
    fn fewer_votes_than_a_status_reported_are_a_loss() {
        let mut bounds = LowerBounds::default();
        bounds.reported(&status(10));
        bounds.reported(&status(15));
        assert_eq!(bounds.lost(&status(14)), Some(PARTITION));
    }

    #[test]
    fn fewer_votes_than_were_acknowledged_are_a_loss() {
        let mut bounds = LowerBounds::default();
        bounds.reported(&status(10));
        bounds.acknowledged(QUEUE, &frame(5));
        assert_eq!(bounds.lost(&status(14)), Some(PARTITION));
        assert_eq!(bounds.lost(&status(15)), None);
    }

    #[test]
    fn bounds_of_another_queue_is_ignored() {
        let mut bounds = LowerBounds::default();
        bounds.reported(&status(10));
        let other = QueueStatus { id: QueueId([2; 16]), ..status(1) };
        assert_eq!(bounds.lost(&other), None);
        bounds.reported(&other);
        bounds.acknowledged(QUEUE, &frame(5));
        assert_eq!(bounds.lost(&other), None);
    }

    #[test]
    fn a_queue_that_comes_back_after_it_was_replaced_must_still_hold_its_votes() {
        let mut bounds = LowerBounds::default();
        bounds.reported(&status(10));
        bounds.reported(&QueueStatus { id: QueueId([2; 16]), ..status(1) });
        assert_eq!(bounds.lost(&status(9)), Some(PARTITION));
        assert_eq!(bounds.lost(&status(10)), None);
    }
}
