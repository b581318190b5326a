//! Votes by partition and poll.

use crate::{Partition, queue::Counters};

/// Number of votes that a queue has ever accepted, by partition and poll. The name of a poll is as stored in the queue; if
/// the data is damaged, it may not be a valid slug.
///
/// Collect it from an iterator of partitions, names and numbers. Numbers of the same partition and poll are added up.
///
/// A worker keeps one for each queue. With a thousand queues of 64 partitions and ten polls these are 640,000 numbers, so
/// they are in one table for each queue, in which the name of a poll is stored once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Accepted {
    /// Polls that have votes, sorted.
    polls: Vec<String>,
    /// A row for each partition up to the last one that has votes, with a number for each poll.
    votes: Vec<u64>,
}

impl Accepted {
    /// Returns whether there are no votes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.votes.is_empty()
    }

    /// Returns the number of votes of a poll in a partition.
    #[must_use]
    pub fn get(&self, partition: Partition, poll: &str) -> u64 {
        let row = self.row(partition);
        self.column(poll).and_then(|column| row.get(column)).copied().unwrap_or_default()
    }

    /// Returns the number of votes in a partition, over all polls.
    #[must_use]
    pub fn in_partition(&self, partition: Partition) -> u64 {
        self.row(partition).iter().sum()
    }

    /// Returns the number of votes of a poll, over all partitions.
    #[must_use]
    pub fn of_poll(&self, poll: &str) -> u64 {
        self.column(poll).map_or(0, |column| self.rows().map(|row| row[column]).sum())
    }

    /// Returns the number of votes of each poll, over all partitions.
    #[must_use]
    pub fn by_poll(&self) -> Counters {
        let mut sums = vec![0; self.polls.len()];
        for row in self.rows() {
            sums.iter_mut().zip(row).for_each(|(sum, votes)| *sum += votes);
        }
        self.polls.iter().cloned().zip(sums).collect()
    }

    /// Returns the number of all votes.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.votes.iter().sum()
    }

    /// Returns the polls that have votes in each partition, with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (Partition, &str, u64)> {
        let of_row = |(partition, row)| {
            let named = self.polls.iter().map(String::as_str).zip(row);
            named.map(move |(poll, votes): (&str, &u64)| (partition, poll, *votes))
        };
        (0..).map(Partition).zip(self.rows()).flat_map(of_row).filter(|(.., votes)| *votes > 0)
    }

    /// Returns the first partition in which a poll has fewer votes `now`; `None` if no number fell.
    ///
    /// The numbers of an append-only log never fall: a queue whose numbers did lost data, or was rolled back.
    #[must_use]
    pub fn first_fall(&self, now: &Self) -> Option<Partition> {
        if self.polls == now.polls && self.votes.len() <= now.votes.len() {
            let fell = self.votes.iter().zip(&now.votes).position(|(before, now)| now < before)?;
            return u16::try_from(fell / self.polls.len()).ok().map(Partition);
        }
        let fell = self.iter().find(|(partition, poll, before)| now.get(*partition, poll) < *before);
        fell.map(|(partition, ..)| partition)
    }

    fn column(&self, poll: &str) -> Option<usize> {
        self.polls.binary_search_by(|name| name.as_str().cmp(poll)).ok()
    }

    fn rows(&self) -> impl Iterator<Item = &[u64]> {
        self.votes.chunks_exact(self.polls.len().max(1))
    }

    fn row(&self, partition: Partition) -> &[u64] {
        let (columns, row) = (self.polls.len(), usize::from(partition.0));
        self.votes.get(row * columns..(row + 1) * columns).unwrap_or_default()
    }
}

impl<S: AsRef<str>> FromIterator<(Partition, S, u64)> for Accepted {
    fn from_iter<I: IntoIterator<Item = (Partition, S, u64)>>(numbers: I) -> Self {
        let mut names: Vec<S> = Vec::new();
        let mut cells: Vec<(usize, usize, u64)> = Vec::new();
        let mut next = 0;
        for (partition, name, votes) in numbers.into_iter().filter(|(.., votes)| *votes > 0) {
            // Mostly, the polls of each partition are in the same order.
            let is_next = names.get(next).is_some_and(|next| next.as_ref() == name.as_ref());
            let known = || names.iter().position(|known| known.as_ref() == name.as_ref());
            let column = if is_next { Some(next) } else { known() };
            let column = column.unwrap_or_else(|| {
                names.push(name);
                names.len() - 1
            });
            next = (column + 1) % names.len();
            cells.push((usize::from(partition.0), column, votes));
        }
        let columns = names.len();
        let mut order: Vec<usize> = (0..columns).collect();
        order.sort_by(|a, b| names[*a].as_ref().cmp(names[*b].as_ref()));
        let mut places = vec![0; columns];
        order.iter().zip(0..).for_each(|(column, place)| places[*column] = place);
        let rows = cells.iter().map(|(partition, ..)| partition + 1).max().unwrap_or_default();
        let mut votes = vec![0; rows * columns];
        for (partition, column, number) in cells {
            votes[partition * columns + places[column]] += number;
        }
        Self { polls: order.iter().map(|column| names[*column].as_ref().to_owned()).collect(), votes }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn accepted(numbers: &[(u16, &str, u64)]) -> Accepted {
        numbers.iter().map(|(partition, poll, votes)| (Partition(*partition), *poll, *votes)).collect()
    }

    #[test]
    fn the_first_partition_in_which_a_number_fell_is_returned() {
        let before = accepted(&[(0, "pets", 5), (1, "pets", 5), (1, "cars", 2), (2, "pets", 5)]);
        assert_eq!(before.first_fall(&before), None);
        let grown =
            accepted(&[(0, "pets", 6), (1, "pets", 5), (1, "cars", 2), (2, "pets", 9), (3, "tea", 1)]);
        assert_eq!(before.first_fall(&grown), None);
        let fallen = accepted(&[(0, "pets", 9), (1, "pets", 9), (1, "cars", 1), (2, "pets", 4)]);
        assert_eq!(before.first_fall(&fallen), Some(Partition(1)), "although other numbers grew");
    }

    #[test]
    fn a_number_that_is_missing_fell_to_zero() {
        assert_eq!(accepted(&[(2, "pets", 1)]).first_fall(&Accepted::default()), Some(Partition(2)));
        assert_eq!(accepted(&[(2, "pets", 0)]).first_fall(&Accepted::default()), None);
        let both = accepted(&[(0, "cars", 1), (2, "pets", 1)]);
        assert_eq!(both.first_fall(&accepted(&[(0, "cars", 1), (0, "pets", 1)])), Some(Partition(2)));
    }

    proptest! {
        #[test]
        fn it_holds_what_it_was_collected_from(
            numbers in prop::collection::vec((0_u16..5, "[abc]{1,2}", 0_u64..4), 0..40),
            more in prop::collection::vec((0_u16..5, "[abc]{1,2}", 0_u64..4), 0..40),
        ) {
            let collect = |numbers: &[(u16, String, u64)]| -> Accepted {
                numbers.iter().map(|(partition, poll, votes)| (Partition(*partition), poll, *votes)).collect()
            };
            let of = |partition: u16, poll: &str| -> u64 {
                let same = |(p, name, _): &&(u16, String, u64)| *p == partition && name == poll;
                numbers.iter().filter(same).map(|(.., votes)| votes).sum()
            };
            let all = collect(&numbers);
            for (partition, poll, _) in numbers.iter().chain(&more) {
                prop_assert_eq!(all.get(Partition(*partition), poll), of(*partition, poll));
                prop_assert_eq!(all.of_poll(poll), (0..5).map(|p| of(p, poll)).sum::<u64>());
                prop_assert_eq!(all.by_poll().get(poll).copied().unwrap_or_default(), all.of_poll(poll));
            }
            let total = numbers.iter().map(|(.., votes)| votes).sum::<u64>();
            prop_assert_eq!(all.total(), total);
            prop_assert_eq!((0..5).map(|p| all.in_partition(Partition(p))).sum::<u64>(), total);
            prop_assert_eq!(all.is_empty(), total == 0);
            let again: Accepted = all.iter().collect();
            prop_assert_eq!(&again, &all);
            let mut reversed = numbers.clone();
            reversed.reverse();
            prop_assert_eq!(collect(&reversed), all.clone(), "in any order");

            let other = collect(&more);
            let expected = (0..5).find(|p| all.iter().any(|(partition, poll, before)| {
                partition == Partition(*p) && other.get(partition, poll) < before
            }));
            prop_assert_eq!(all.first_fall(&other), expected.map(Partition));
            let grown: Accepted = all.iter().chain(other.iter()).collect();
            prop_assert_eq!(all.first_fall(&grown), None);
        }
    }
}
