//! Random numbers that are reproducible from a seed.
//!
//! Each part of the simulation draws from a stream of its own, so that leaving out a fault changes nothing else in the
//! history.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus};

/// A stream of random numbers; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Random(Arc<Mutex<Xoshiro256PlusPlus>>);

impl Random {
    /// Returns the stream for one part of the history of a seed.
    pub(crate) fn of(seed: u64, part: &str) -> Self {
        // FNV-1a; any function that distinguishes the names of the parts would do.
        let name = part.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self(Arc::new(Mutex::new(Xoshiro256PlusPlus::seed_from_u64(seed ^ name))))
    }

    /// Returns a number from 0 to `n` - 1.
    pub(crate) fn below(&self, n: u64) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).random_range(0..n.max(1))
    }

    /// Returns 16 bytes for an identity.
    pub(crate) fn identity(&self) -> [u8; 16] {
        let (high, low) = (u128::from(self.below(u64::MAX)), u128::from(self.below(u64::MAX)));
        (high << 64 | low).to_be_bytes()
    }

    /// Returns true with a probability of `per_mille` / 1000.
    pub(crate) fn chance(&self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    /// Returns a duration below `limit`.
    pub(crate) fn up_to(&self, limit: Duration) -> Duration {
        Duration::from_micros(self.below(limit.as_micros() as u64))
    }

    /// Returns the latency of a message: 0.05 to 3.05 ms in most cases, and up to 300 ms in one of 50.
    pub(crate) fn latency(&self) -> Duration {
        Duration::from_micros(if self.chance(20) { self.below(300_000) } else { 50 + self.below(3000) })
    }
}
