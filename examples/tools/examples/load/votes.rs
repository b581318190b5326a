//! The votes of a run: how often each voter votes, and for what.

use rand::RngExt;
use vote_tools::VoterPopulation;

/// Votes that the voters of a run cast.
#[derive(Debug, Clone)]
pub(crate) struct PlannedVotes {
    population: VoterPopulation,
    seed: u64,
    options: usize,
    voters: u64,
    /// Number of voters who vote twice.
    twice: u64,
    /// Coprime to `voters`: its multiples, modulo `voters`, reach every voter exactly once.
    stride: u64,
}

/// Votes that one voter will cast; options as indices into those of the poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Voter {
    pub(crate) first: usize,
    /// Option of the second vote, different from the first, if there is one.
    pub(crate) second: Option<usize>,
}

impl PlannedVotes {
    /// Plans the votes of at least one voter in a poll with at least two options. Exactly the share `double` (0 to 1) of them
    /// votes twice, so that the number of acknowledgements to expect is known.
    pub(crate) fn new(seed: u64, options: usize, voters: u64, double: f64) -> Self {
        // The golden ratio spreads the voters who vote twice evenly, over the run and over the frontends.
        let golden = (voters as f64 * 0.618_033_988_749_895) as u64;
        let stride = (golden.max(1)..).find(|stride| gcd(*stride, voters) == 1).unwrap_or(1);
        let twice = (voters as f64 * double).round() as u64;
        Self { population: VoterPopulation::new(seed), seed, options, voters, twice, stride }
    }

    /// Returns the votes of the voter with this number.
    pub(crate) fn voter(&self, number: u64) -> Voter {
        let mut rng = self.population.voter(number);
        let first = self.preference(&mut rng);
        let second = self.votes_twice(number).then(|| {
            let other = rng.random_range(0..self.options - 1);
            other + usize::from(other >= first)
        });
        Voter { first, second }
    }

    fn votes_twice(&self, number: u64) -> bool {
        let voters = u128::from(self.voters);
        let place = (u128::from(number) * u128::from(self.stride) + u128::from(self.seed)) % voters;
        place < u128::from(self.twice)
    }

    /// Picks an option. Options have different probabilities, so that a swap of two shows in the tally: 3 : 2 with two
    /// options, 4 : 3 : 2 with three.
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

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voters(planned: &PlannedVotes) -> impl Iterator<Item = Voter> {
        (0..planned.voters).map(|number| planned.voter(number))
    }

    fn counts(planned: &PlannedVotes) -> Vec<u64> {
        let mut counts = vec![0; planned.options];
        voters(planned).for_each(|voter| counts[voter.first] += 1);
        counts
    }

    #[test]
    fn of_two_options_the_first_gets_three_votes_in_five() {
        for seed in 0..20 {
            let [cats, dogs] = counts(&PlannedVotes::new(seed, 2, 100_000, 0.0))[..] else { panic!() };
            // Within four standard deviations.
            assert!((59_380..60_620).contains(&cats) && cats + dogs == 100_000, "{cats} {dogs}");
        }
    }

    #[test]
    fn every_option_gets_votes() {
        assert!(counts(&PlannedVotes::new(1, 64, 100_000, 0.0)).into_iter().all(|n| n > 0));
    }

    #[test]
    fn votes_of_successive_voters_are_independent() {
        let votes: Vec<usize> =
            voters(&PlannedVotes::new(1, 2, 100_000, 0.0)).map(|voter| voter.first).collect();
        let same = votes.windows(2).filter(|pair| pair[0] == pair[1]).count();
        // 0.6² + 0.4² of all pairs, within four standard deviations.
        assert!((51_300..52_700).contains(&same), "{same}");
    }

    #[test]
    fn exactly_the_share_votes_twice() {
        for (n, double, twice) in [
            (10_000, 0.1, 1000),
            (1, 0.4, 0),
            (1, 1.0, 1),
            (2, 0.5, 1),
            (30, 0.05, 2),
            (997, 0.0, 0),
            (997, 1.0, 997),
        ] {
            for seed in [0, 7, u64::MAX] {
                let planned = PlannedVotes::new(seed, 2, n, double);
                assert_eq!(
                    voters(&planned).filter(|voter| voter.second.is_some()).count(),
                    twice,
                    "{n} {double}"
                );
            }
        }
    }

    #[test]
    fn voters_who_vote_twice_are_spread_over_all_frontends() {
        let planned = PlannedVotes::new(3, 2, 10_000, 0.5);
        for frontends in 2..=8 {
            let at_first =
                (0..10_000).filter(|n| n % frontends == 0 && planned.voter(*n).second.is_some()).count();
            let fair = 5000 / frontends as usize;
            assert!((fair * 9 / 10..=fair * 11 / 10).contains(&at_first), "{frontends}: {at_first}");
        }
    }

    #[test]
    fn the_second_vote_is_for_another_option() {
        let twice: Vec<Voter> = voters(&PlannedVotes::new(7, 5, 10_000, 1.0)).collect();
        assert!(
            twice.iter().all(|voter| voter.second.is_some_and(|option| option != voter.first && option < 5))
        );
        assert!((0..5).all(|option| twice.iter().any(|voter| voter.second == Some(option))));
    }

    #[test]
    fn the_seed_determines_all_votes() {
        let all = |seed| voters(&PlannedVotes::new(seed, 2, 50, 0.5)).collect::<Vec<_>>();
        assert_eq!(all(3), all(3));
        assert_ne!(all(3), all(4));
    }
}
