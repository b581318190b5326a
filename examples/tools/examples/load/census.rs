//! What is known about the votes of all voters together.

use std::collections::BTreeMap;

use vote_core::Keep;

use crate::{
    assignment,
    ballot::{Ballot, Choices},
};

/// Number of voters by what they can add to the tally.
#[derive(Debug, Clone)]
pub(crate) struct Census {
    keep: Keep,
    /// Votes by option if only the acknowledged votes were stored.
    expected: Vec<u64>,
    groups: BTreeMap<Choices, u64>,
}

impl Census {
    /// Creates an empty census for a poll with this number of options.
    pub(crate) fn new(keep: Keep, options: usize) -> Self {
        Self { keep, expected: vec![0; options], groups: BTreeMap::new() }
    }

    pub(crate) fn add(&mut self, ballot: &Ballot) {
        if let Some(option) = ballot.acknowledged(self.keep) {
            self.expected[option] += 1;
        }
        *self.groups.entry(ballot.choices(self.keep)).or_default() += 1;
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.expected.iter_mut().zip(&other.expected) {
            *mine += theirs;
        }
        for (choices, n) in &other.groups {
            *self.groups.entry(*choices).or_default() += n;
        }
    }

    /// Returns the tally that the acknowledged votes imply, by option.
    pub(crate) fn expected(&self) -> &[u64] {
        &self.expected
    }

    /// Returns the number of voters whose contribution is open because of unknown votes.
    pub(crate) fn ambiguous(&self) -> u64 {
        self.groups.iter().filter(|(choices, _)| choices.len() > 1).map(|(_, n)| n).sum()
    }

    /// Returns the largest possible total of the tally.
    pub(crate) fn most(&self) -> u64 {
        let nothing = Choices::one(Choices::NONE);
        self.groups.iter().filter(|(choices, _)| **choices != nothing).map(|(_, n)| n).sum()
    }

    /// Returns whether the acknowledged votes and some subset of the unknown ones imply this tally.
    pub(crate) fn explains(&self, tally: &[i64]) -> bool {
        assignment::possible(&self.groups, tally)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ballot::{Tries, Try};

    fn tries(tried: Try) -> Tries {
        let mut tries = Tries::default();
        tries.add(tried);
        tries
    }

    fn census(keep: Keep, ballots: &[(Try, Option<Try>)]) -> Census {
        let mut census = Census::new(keep, 2);
        for (first, second) in ballots {
            census
                .add(&Ballot { first: (0, tries(*first)), second: second.map(|second| (1, tries(second))) });
        }
        census
    }

    #[test]
    fn the_first_or_the_last_acknowledged_vote_is_expected() {
        let ballots = [(Try::Acked, Some(Try::Acked)), (Try::Acked, None), (Try::Refused, None)];
        assert_eq!(census(Keep::First, &ballots).expected(), [2, 0]);
        assert_eq!(census(Keep::Last, &ballots).expected(), [1, 1]);
    }

    #[test]
    fn without_unknown_votes_only_the_expected_tally_is_possible() {
        let census = census(Keep::Last, &[(Try::Acked, Some(Try::Acked)), (Try::Acked, Some(Try::Refused))]);
        assert_eq!((census.ambiguous(), census.most()), (0, 2));
        for tally in [[0, 0], [1, 0], [0, 1], [2, 0], [1, 1], [0, 2], [2, 1]] {
            assert_eq!(census.explains(&tally), tally == [1, 1], "{tally:?}");
        }
    }

    #[test]
    fn an_unknown_second_vote_can_replace_the_first_only_if_the_last_is_kept() {
        let ballots = [(Try::Acked, Some(Try::Unknown))];
        let (first, last) = (census(Keep::First, &ballots), census(Keep::Last, &ballots));
        assert!(first.explains(&[1, 0]) && !first.explains(&[0, 1]));
        assert!(last.explains(&[1, 0]) && last.explains(&[0, 1]) && !last.explains(&[0, 0]));
        assert_eq!((last.expected(), last.ambiguous()), (&[1, 0][..], 1));
    }

    #[test]
    fn merged_counts_add_up() {
        let mut all = census(Keep::First, &[(Try::Acked, None), (Try::Unknown, None)]);
        all.merge(&census(Keep::First, &[(Try::Acked, None), (Try::Refused, None)]));
        assert_eq!((all.expected(), all.ambiguous(), all.most()), (&[2, 0][..], 1, 3));
        assert!(all.explains(&[2, 0]) && all.explains(&[3, 0]) && !all.explains(&[4, 0]));
    }
}
