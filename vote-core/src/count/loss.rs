//! Detection of a queue that lost data.

use std::collections::BTreeMap;

use crate::{Partition, queue::Counters};

/// Returns the first partition in which a queue counts fewer votes of a poll than before; `None` if no count fell.
///
/// The counts of an append-only log never fall: a queue whose counts did lost data, or was rolled back.
#[must_use]
pub fn first_fall(
    before: &BTreeMap<Partition, Counters>,
    now: &BTreeMap<Partition, Counters>,
) -> Option<Partition> {
    let fell = |(partition, before): &(&Partition, &Counters)| {
        let count = |poll| now.get(partition)?.get(poll).copied();
        before.iter().any(|(poll, before)| count(poll).unwrap_or(0) < *before)
    };
    before.iter().find(fell).map(|(partition, _)| *partition)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(partitions: &[(u16, &str, u64)]) -> BTreeMap<Partition, Counters> {
        let mut counts = BTreeMap::<Partition, Counters>::new();
        for (partition, poll, votes) in partitions {
            counts.entry(Partition(*partition)).or_default().insert((*poll).to_owned(), *votes);
        }
        counts
    }

    #[test]
    fn the_first_partition_whose_count_fell_is_returned() {
        let before = counts(&[(0, "pets", 5), (1, "pets", 5), (1, "cars", 2), (2, "pets", 5)]);
        assert_eq!(first_fall(&before, &before), None);
        let grown = counts(&[(0, "pets", 6), (1, "pets", 5), (1, "cars", 2), (2, "pets", 9), (3, "tea", 1)]);
        assert_eq!(first_fall(&before, &grown), None);
        let fallen = counts(&[(0, "pets", 9), (1, "pets", 9), (1, "cars", 1), (2, "pets", 4)]);
        assert_eq!(first_fall(&before, &fallen), Some(Partition(1)), "although other counts grew");
    }

    #[test]
    fn a_count_that_is_missing_fell_to_zero() {
        assert_eq!(first_fall(&counts(&[(2, "pets", 1)]), &BTreeMap::new()), Some(Partition(2)));
        assert_eq!(first_fall(&counts(&[(2, "pets", 0)]), &BTreeMap::new()), None);
    }
}
