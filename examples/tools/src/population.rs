//! The voters: what each of them does is a function of the seed and the voter's number alone.

use rand::{SeedableRng, rngs::Xoshiro256PlusPlus};

/// Population of voters, in which every voter decides by a random generator of its own, whichever task serves it.
#[derive(Debug, Clone, Copy)]
pub struct VoterPopulation {
    seed: u64,
}

impl VoterPopulation {
    /// Creates the population of a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// Returns the random generator of the voter with this number, as it is before the voter's first decision.
    #[must_use]
    pub fn voter(&self, number: u64) -> Xoshiro256PlusPlus {
        // Not the increment that `seed_from_u64` uses, or neighbours would share most of their generators' states.
        let own = self.seed ^ number.wrapping_add(1).wrapping_mul(0xd134_2543_de82_ef95);
        Xoshiro256PlusPlus::seed_from_u64(own)
    }
}

#[cfg(test)]
mod tests {
    use rand::RngExt;

    use super::*;

    #[test]
    fn seed_and_number_determine_the_decisions_of_a_voter() {
        let decisions = |seed, number| VoterPopulation::new(seed).voter(number).random::<u64>();
        assert_eq!(decisions(1, 7), decisions(1, 7));
        assert_ne!(decisions(1, 7), decisions(1, 8));
        assert_ne!(decisions(1, 7), decisions(2, 7));
    }
}
