//! What a lane does after a read of a queue. Pure.

use vote_core::{
    Partition,
    queue::{QueueError, Read},
    store::Acquired,
};

use crate::owned::ReadOutcome;

/// What a lane does after a read.
#[derive(Debug)]
pub(crate) enum AfterRead {
    /// Nothing.
    Nothing,
    /// If the queue is a replaced one, trims it up to where the read started, since all before is committed.
    Trim,
    /// Pauses the reads of the queue, which can't be read now.
    Pause(QueueError),
    /// Acquires the partition again, and unless the lane [is behind](is_behind), stops counting the queue: entries are
    /// missing, or contradict what it counts, as described.
    Check(String),
}

/// Decides what a lane does after a read of a partition of a queue.
pub(crate) fn judge(partition: Partition, outcome: Result<ReadOutcome, QueueError>) -> AfterRead {
    match outcome {
        Ok(ReadOutcome::Fine) => AfterRead::Nothing,
        Ok(ReadOutcome::Drained) => AfterRead::Trim,
        Ok(ReadOutcome::Contradicts(how)) => AfterRead::Check(how),
        Err(e @ QueueError::Diverged(_)) => AfterRead::Check(format!("partition {partition}: {e}")),
        Err(e) => AfterRead::Pause(e),
    }
}

/// Returns whether a lane that knows this version of a partition is behind, by what it got when it acquired the
/// partition again: if another lane has committed and trimmed meanwhile, the queue is intact.
pub(crate) fn is_behind(version: u64, acquired: Option<&Acquired>) -> bool {
    acquired.is_none_or(|acquired| acquired.version != version)
}

/// Returns a read if it is from the server that the monitor has checked. One that was restarted meanwhile may have lost
/// entries, which its monitor finds out before more is read.
pub(super) fn from_server(read: Read, checked: Option<&str>) -> Result<Read, QueueError> {
    if checked.is_some_and(|server| *read.server == *server) {
        Ok(read)
    } else {
        Err(QueueError::Unavailable("its server was restarted".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use vote_core::Position;

    use super::*;

    const PARTITION: Partition = Partition(3);

    #[test]
    fn entries_that_are_missing_or_contradict_the_count_are_checked() {
        let contradicts = ReadOutcome::Contradicts("it counts less".to_owned());
        assert!(
            matches!(judge(PARTITION, Ok(contradicts)), AfterRead::Check(how) if how == "it counts less")
        );
        let missing = QueueError::Diverged(Position::START);
        let expected = format!("partition 3: {missing}");
        assert!(matches!(judge(PARTITION, Err(missing)), AfterRead::Check(how) if how == expected));
    }

    #[test]
    fn a_queue_that_does_not_answer_has_lost_nothing() {
        let down = QueueError::Unavailable("it is down".to_owned());
        assert!(matches!(judge(PARTITION, Err(down)), AfterRead::Pause(_)));
        assert!(matches!(judge(PARTITION, Ok(ReadOutcome::Fine)), AfterRead::Nothing));
    }

    #[test]
    fn only_a_drained_partition_is_trimmed_again() {
        assert!(matches!(judge(PARTITION, Ok(ReadOutcome::Drained)), AfterRead::Trim));
    }

    #[test]
    fn a_lane_whose_partition_another_one_committed_or_owns_is_behind() {
        let acquired = |version| Acquired { version, checkpoints: BTreeMap::new() };
        assert!(!is_behind(7, Some(&acquired(7))));
        assert!(is_behind(7, Some(&acquired(8))));
        assert!(is_behind(7, None));
    }
}
