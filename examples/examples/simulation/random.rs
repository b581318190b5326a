//! Randomness that a seed repeats. Each part of the simulation draws from a stream of its own, so that a history
//! without one of its faults is otherwise the same.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus};

/// A stream of random numbers; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Random(Arc<Mutex<Xoshiro256PlusPlus>>);

impl Random {
    /// The stream of one part of the history with this seed.
    pub(crate) fn of(seed: u64, part: &str) -> Self {
        // FNV-1a: any function will do that tells the names of parts apart.
        let name = part.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self(Arc::new(Mutex::new(Xoshiro256PlusPlus::seed_from_u64(seed ^ name))))
    }

    /// A number from 0 to `n` - 1.
    pub(crate) fn below(&self, n: u64) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).random_range(0..n.max(1))
    }

    /// True in so many of a thousand cases.
    pub(crate) fn chance(&self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    /// A duration up to a limit.
    pub(crate) fn up_to(&self, limit: Duration) -> Duration {
        Duration::from_micros(self.below(limit.as_micros() as u64))
    }

    /// How long a message takes: mostly a millisecond or two, sometimes much longer.
    pub(crate) fn latency(&self) -> Duration {
        Duration::from_micros(if self.chance(20) { self.below(300_000) } else { 50 + self.below(3000) })
    }
}
