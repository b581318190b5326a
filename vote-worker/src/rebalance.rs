//! Partitions that a lane releases and acquires, so that it owns its share. Pure.

use vote_core::Partition;

use crate::duty::Duty;

/// Returns the partitions to release, of those that a lane owns, each with the number of votes read ahead: those that
/// it may not own now, and of the others what is beyond the number of partitions that it may own.
pub(crate) fn surplus(
    duty: Duty,
    most: usize,
    owned: impl Iterator<Item = (Partition, u64)>,
) -> Vec<Partition> {
    let (mut covered, not_covered): (Vec<_>, Vec<_>) =
        owned.partition(|(partition, _)| duty.covers(*partition));
    // Releases the partitions with the fewest votes read ahead, which their next owner has to read again.
    covered.sort_by_key(|(_, votes)| *votes);
    let beyond = covered.len().saturating_sub(most);
    not_covered.into_iter().chain(covered.into_iter().take(beyond)).map(|(partition, _)| partition).collect()
}

/// Returns the free partitions that a lane tries to acquire until it has its share, beginning with the one at `start`.
pub(crate) fn candidates(duty: Duty, mut free: Vec<Partition>, start: usize) -> Vec<Partition> {
    free.retain(|partition| duty.covers(*partition));
    let start = start % free.len().max(1);
    free.rotate_left(start);
    free
}

#[cfg(test)]
mod tests {
    use vote_core::Partitions;

    use super::*;

    const HALF: Duty = Duty::Share { lanes: 2 };
    const ODD: Duty = Duty::Turn { lanes: 1, groups: 2, turn: 1 };

    fn partitions(numbers: &[u16]) -> Vec<Partition> {
        numbers.iter().copied().map(Partition).collect()
    }

    /// Returns what a lane releases of partitions with these numbers of votes, of four partitions in all.
    fn released(duty: Duty, votes: &[u64]) -> Vec<Partition> {
        let all = Partitions::new(4).unwrap();
        surplus(duty, duty.share(all), all.iter().zip(votes.iter().copied()))
    }

    #[test]
    fn a_lane_with_its_share_or_less_releases_nothing() {
        assert_eq!(released(HALF, &[5, 0]), []);
        assert_eq!(released(HALF, &[5]), []);
        assert_eq!(released(HALF, &[]), []);
    }

    #[test]
    fn a_lane_beyond_its_share_releases_those_with_the_fewest_votes_read_ahead() {
        assert_eq!(released(HALF, &[5, 0, 7]), partitions(&[1]));
        assert_eq!(released(HALF, &[5, 6, 0, 7]), partitions(&[2, 0]));
        assert_eq!(released(HALF, &[0, 0, 0, 0]), partitions(&[0, 1]), "of equal ones the first");
    }

    #[test]
    fn partitions_whose_turn_it_is_not_are_released_whatever_was_read_ahead() {
        assert_eq!(released(ODD, &[9, 0, 9, 0]), partitions(&[0, 2]));
        let half_of_the_odd_ones = Duty::Turn { lanes: 2, groups: 2, turn: 1 };
        assert_eq!(released(half_of_the_odd_ones, &[9, 3, 9, 1]), partitions(&[0, 2, 3]));
        assert_eq!(released(Duty::Nothing, &[9, 3]), partitions(&[0, 1]));
    }

    #[test]
    fn lanes_try_all_free_partitions_each_from_another_start() {
        assert_eq!(candidates(HALF, partitions(&[1, 4, 6]), 0), partitions(&[1, 4, 6]));
        assert_eq!(candidates(HALF, partitions(&[1, 4, 6]), 7), partitions(&[4, 6, 1]));
        assert_eq!(candidates(HALF, Vec::new(), 7), []);
    }

    #[test]
    fn a_lane_never_tries_a_partition_whose_turn_it_is_not() {
        assert_eq!(candidates(ODD, partitions(&[1, 2, 3, 4, 5]), 1), partitions(&[3, 5, 1]));
        assert_eq!(candidates(Duty::Nothing, partitions(&[1, 2]), 0), []);
    }
}
