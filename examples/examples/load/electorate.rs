//! Who votes for what. A function of the seed and the voter's number alone, whichever task serves the voter when.

use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus};

/// All voters.
#[derive(Debug, Clone)]
pub(crate) struct Electorate {
    seed: u64,
    options: usize,
    double: f64,
}

/// What one voter is going to do; options by their place in the poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Voter {
    pub(crate) first: usize,
    /// Another option, for those who vote twice.
    pub(crate) second: Option<usize>,
}

impl Electorate {
    /// Voters of a poll with `options` ≥ 2, of whom a share of `double` (0 to 1) votes twice.
    pub(crate) fn new(seed: u64, options: usize, double: f64) -> Self {
        Self { seed, options, double }
    }

    pub(crate) fn voter(&self, number: u64) -> Voter {
        // An odd factor keeps voters apart, and those of one seed from the neighbours of another.
        let own = self.seed ^ number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(own);
        let first = self.preference(&mut rng);
        let second = rng.random_bool(self.double).then(|| {
            let other = rng.random_range(0..self.options - 1);
            other + usize::from(other >= first)
        });
        Voter { first, second }
    }

    /// The options are liked unequally, so that a swap of two is seen in the tally: with two 3 : 2, with three 4 : 3 : 2.
    fn preference(&self, rng: &mut impl rand::Rng) -> usize {
        let weight = |option: usize| self.options + 1 - option;
        let mut point = rng.random_range(0..(0..self.options).map(weight).sum());
        for option in 0..self.options - 1 {
            if point < weight(option) {
                return option;
            }
            point -= weight(option);
        }
        self.options - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(electorate: &Electorate, voters: u64) -> Vec<usize> {
        let mut counts = vec![0; electorate.options];
        (0..voters).for_each(|number| counts[electorate.voter(number).first] += 1);
        counts
    }

    #[test]
    fn of_two_options_the_first_is_liked_by_three_in_five() {
        let [cats, dogs] = counts(&Electorate::new(1, 2, 0.0), 100_000)[..] else { panic!() };
        assert!((59_000..61_000).contains(&cats) && cats + dogs == 100_000, "{cats} {dogs}");
    }

    #[test]
    fn every_option_is_somebodys_favourite() {
        assert!(counts(&Electorate::new(1, 64, 0.0), 100_000).into_iter().all(|n| n > 0));
    }

    #[test]
    fn a_share_votes_twice_for_another_option() {
        let electorate = Electorate::new(7, 5, 0.25);
        let second: Vec<_> =
            (0..100_000).map(|n| electorate.voter(n)).filter(|voter| voter.second.is_some()).collect();
        assert!((24_000..26_000).contains(&second.len()), "{}", second.len());
        assert!(second.iter().all(|voter| voter.second.is_some_and(|o| o != voter.first && o < 5)));
        assert!((0..5).all(|option| second.iter().any(|voter| voter.second == Some(option))));
    }

    #[test]
    fn the_seed_decides() {
        let all = |seed| (0..50).map(|n| Electorate::new(seed, 2, 0.5).voter(n)).collect::<Vec<_>>();
        assert_eq!(all(3), all(3));
        assert_ne!(all(3), all(4));
    }
}
