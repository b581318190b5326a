//! Comparison of a queue with what was recorded of it before.

use vote_core::{
    Partition, PollSlug, Position,
    count::{QueueRecord, QueueState},
    queue::{QueueStatus, Seal},
};

use super::Evidence;

/// Result of a comparison of a queue with the last report of it.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::monitor) enum LastReport {
    /// The queue contradicts it.
    Contradicts(Evidence),
    /// The counts agree. Later entries may have made up for lost ones in them, so these entries are to be
    /// [looked for](evidence_if_gone): each was the last of its partition at the report.
    Agrees {
        /// Partitions that had entries, and the last one of each.
        ends: Vec<(Partition, Position)>,
    },
}

/// Compares a queue with the last report of it. To be called when the queue is seen for the first time, or for the
/// first time since its server was restarted, with a status that was requested after the report was read: such a
/// status is newer, so less is a loss.
pub(in crate::monitor) fn compare_with_report(status: &QueueStatus, record: &QueueRecord) -> LastReport {
    if record.state != QueueState::Active {
        return LastReport::Contradicts(Evidence::Recorded(record.reason.clone()));
    }
    for (poll, before) in &record.accepted {
        let now: u64 = status.accepted.of_poll(poll);
        if now < *before {
            let poll = poll.clone();
            return LastReport::Contradicts(Evidence::LessThanReported { poll, now, before: *before });
        }
    }
    let ends = (0..).map(Partition).zip(record.ends.iter().copied());
    LastReport::Agrees { ends: ends.filter(|(_, end)| *end != Position::START).collect() }
}

/// Returns the evidence that an entry is gone which the queue no longer has, if it was not read: `committed` is how far
/// its partition was read, requested after the queue was asked. An entry that was read may have been trimmed.
pub(in crate::monitor) fn evidence_if_gone(
    partition: Partition,
    end: Position,
    committed: Position,
) -> Option<Evidence> {
    (committed < end).then_some(Evidence::EntryGone { partition, end })
}

/// Result of a comparison of a seal with the recorded one.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::monitor) enum SealCheck {
    /// The queue holds what it held when it was sealed.
    Intact,
    /// The queue lost data since it was sealed.
    Lost(Evidence),
    /// The queue ended before the recorded end when it was sealed. Another worker may have recorded entries of other
    /// polls that were appended meanwhile. A second answer has them, so it is to be
    /// [compared](first_end_less).
    Unclear,
}

/// Compares a seal with the one that is recorded for the same queue and poll.
pub(in crate::monitor) fn compare_seals(poll: PollSlug, seal: &Seal, recorded: &Seal) -> SealCheck {
    if let Some((partition, now, before)) = first_less(&seal.accepted, &recorded.accepted) {
        return SealCheck::Lost(Evidence::LessThanSealed { partition, poll, now, before });
    }
    match first_end_less(poll, seal, recorded) {
        Some(_) => SealCheck::Unclear,
        None => SealCheck::Intact,
    }
}

/// Returns the evidence that a queue ends before an entry that it held when it was sealed, if it does.
pub(in crate::monitor) fn first_end_less(poll: PollSlug, seal: &Seal, recorded: &Seal) -> Option<Evidence> {
    let (partition, _, before) = first_less(&seal.ends, &recorded.ends)?;
    Some(Evidence::EndsBeforeSeal { partition, poll, before })
}

/// Returns the first partition whose value is less now than before, with both values.
fn first_less<T: Copy + PartialOrd>(now: &[T], before: &[T]) -> Option<(Partition, T, T)> {
    let mut partitions = (0..).map(Partition).zip(now.iter().zip(before));
    partitions
        .find(|(_, (now, before))| now < before)
        .map(|(partition, (now, before))| (partition, *now, *before))
}

#[cfg(test)]
mod tests {
    use vote_core::{QueueId, queue::Accepted};

    use super::*;
    use crate::monitor::decision::tests::{ended, position, record, slug, status};

    const QUEUE: QueueId = QueueId([1; 16]);

    #[test]
    fn a_server_that_comes_back_with_fewer_votes_than_reported_has_lost_some() {
        let evidence = Evidence::LessThanReported { poll: "pets".to_owned(), now: 40, before: 70 };
        let compared = compare_with_report(&status(QUEUE, "b", [20, 20]), &record(QUEUE, 70, Vec::new()));
        assert_eq!(compared, LastReport::Contradicts(evidence));
        let empty = QueueStatus { accepted: Accepted::default(), ..status(QUEUE, "b", [0, 0]) };
        let compared = compare_with_report(&empty, &record(QUEUE, 1, Vec::new()));
        assert!(matches!(compared, LastReport::Contradicts(Evidence::LessThanReported { now: 0, .. })));
    }

    /// As after a failover to a replica that has everything.
    #[test]
    fn a_server_that_comes_back_with_all_votes_is_asked_for_the_last_entries() {
        let ends = vec![position(9), Position::START];
        let compared = compare_with_report(&status(QUEUE, "b", [35, 35]), &record(QUEUE, 70, ends));
        assert_eq!(compared, LastReport::Agrees { ends: vec![(Partition(0), position(9))] });
    }

    /// As after a restore of the store.
    #[test]
    fn a_report_of_fewer_votes_than_the_queue_counts_says_nothing() {
        let compared = compare_with_report(&status(QUEUE, "a", [20, 20]), &record(QUEUE, 0, Vec::new()));
        assert_eq!(compared, LastReport::Agrees { ends: Vec::new() });
    }

    #[test]
    fn an_entry_that_was_read_may_be_gone() {
        assert_eq!(evidence_if_gone(Partition(1), position(9), position(9)), None);
        assert_eq!(evidence_if_gone(Partition(1), position(9), position(10)), None);
    }

    #[test]
    fn a_queue_that_ended_while_no_monitor_watched_it_is_not_read() {
        for state in [QueueState::Diverged, QueueState::Retired] {
            let compared = compare_with_report(&status(QUEUE, "a", [5, 5]), &ended(state, "gone"));
            assert_eq!(compared, LastReport::Contradicts(Evidence::Recorded("gone".to_owned())));
        }
    }

    fn seal(votes: u64, end: u8) -> Seal {
        Seal { ends: vec![Position::START, position(end)], accepted: vec![0, votes] }
    }

    #[test]
    fn a_queue_that_counts_fewer_votes_than_when_it_was_sealed_has_lost_some() {
        let evidence = Evidence::LessThanSealed { partition: Partition(1), poll: slug(), now: 4, before: 5 };
        assert_eq!(compare_seals(slug(), &seal(4, 9), &seal(5, 5)), SealCheck::Lost(evidence));
    }

    #[test]
    fn a_queue_that_ends_before_its_seal_is_asked_again() {
        assert_eq!(compare_seals(slug(), &seal(5, 4), &seal(5, 5)), SealCheck::Unclear);
        let evidence =
            Evidence::EndsBeforeSeal { partition: Partition(1), poll: slug(), before: position(5) };
        assert_eq!(first_end_less(slug(), &seal(5, 4), &seal(5, 5)), Some(evidence));
        assert_eq!(first_end_less(slug(), &seal(5, 5), &seal(5, 5)), None, "entries of another poll");
    }

    #[test]
    fn a_queue_that_holds_what_it_held_when_it_was_sealed_is_intact() {
        assert_eq!(compare_seals(slug(), &seal(5, 5), &seal(5, 5)), SealCheck::Intact);
        assert_eq!(compare_seals(slug(), &seal(5, 6), &seal(5, 5)), SealCheck::Intact);
    }
}
