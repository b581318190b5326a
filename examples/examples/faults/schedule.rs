//! Which fault comes next, and when: a function of the seed.

use std::time::Duration;

use clap::ValueEnum;
use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus, seq::SliceRandom};

use crate::fault::{Fault, Group, Kind};

/// Deals kinds like cards from a shuffled deck, so that each comes as often as any other.
#[derive(Debug)]
pub(crate) struct Schedule {
    rng: Xoshiro256PlusPlus,
    kinds: Vec<Kind>,
    deck: Vec<Kind>,
    every: Duration,
}

impl Schedule {
    /// Of these kinds, or of all if there is none.
    pub(crate) fn new(seed: u64, only: &[Kind], every: Duration) -> Self {
        let kinds = if only.is_empty() { Kind::value_variants().to_vec() } else { only.to_vec() };
        Self { rng: Xoshiro256PlusPlus::seed_from_u64(seed), kinds, deck: Vec::new(), every }
    }

    /// The next fault that is of none of the groups in `taken`; none if all kinds left in the deck are.
    pub(crate) fn next(&mut self, taken: &[Group]) -> Option<Fault> {
        if self.deck.is_empty() {
            self.deck.clone_from(&self.kinds);
            self.deck.shuffle(&mut self.rng);
        }
        let at = self.deck.iter().rposition(|kind| !taken.contains(&kind.group()))?;
        let kind = self.deck.remove(at);
        Some(Fault::new(kind, &mut self.rng))
    }

    /// How long to wait before the next one: half to one and a half times the mean.
    pub(crate) fn pause(&mut self) -> Duration {
        self.every.mul_f64(self.rng.random_range(0.5..1.5))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(seed: u64) -> Vec<Kind> {
        let mut schedule = Schedule::new(seed, &[], Duration::from_secs(1));
        (0..44).filter_map(|_| Some(schedule.next(&[])?.kind)).collect()
    }

    #[test]
    fn the_seed_decides() {
        assert_eq!(kinds(1), kinds(1));
        assert_ne!(kinds(1), kinds(2));
    }

    #[test]
    fn all_kinds_come_before_one_comes_again() {
        let all = Kind::value_variants().len();
        let mut first = kinds(3)[..all].to_vec();
        first.sort_unstable();
        first.dedup();
        assert_eq!(first.len(), all);
    }

    #[test]
    fn a_group_that_is_taken_is_passed_over() {
        let mut schedule = Schedule::new(4, &[Kind::KillRedis, Kind::KillWorker], Duration::from_secs(1));
        assert_eq!(schedule.next(&[Group::Redis]).map(|fault| fault.kind), Some(Kind::KillWorker));
        assert!(schedule.next(&[Group::Redis]).is_none());
        assert_eq!(schedule.next(&[]).map(|fault| fault.kind), Some(Kind::KillRedis));
    }
}
