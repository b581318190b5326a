//! Bloom filters of voters that may have voted already, one for each partition and poll, so that only those voters are
//! looked up.
//!
//! A filter is valid as long as its session owns the partition: the session adds the voters that it inserts, and a
//! commit by any other session changes the version, which ends this session at its next commit. The filter is filled
//! from the table step by step, in the order of keys, so that taking over a large partition delays no commit; beyond
//! the last scanned key, every voter is looked up.

use fastbloom::BloomFilter;

use crate::VoterKey;

/// Share of new voters that are looked up in vain: one in a hundred.
const FALSE_POSITIVES: f64 = 0.01;
/// Smallest capacity of a filter in voters: 300 kB of memory.
const MIN_CAPACITY: usize = 1 << 18;

/// The filter of one partition and poll.
#[derive(Debug)]
pub(super) struct Filter {
    bloom: BloomFilter,
    capacity: usize,
    len: usize,
    scanned: Scanned,
}

/// Part of the partition's keys that was read from the table into the filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scanned {
    Nothing,
    UpTo(VoterKey),
    All,
}

impl Filter {
    /// Returns an empty filter for a partition that holds about `voters` voters.
    pub(super) fn new(voters: usize) -> Self {
        let capacity = (voters * 2).max(MIN_CAPACITY);
        let bloom = BloomFilter::with_false_pos(FALSE_POSITIVES).expected_items(capacity);
        Self { bloom, capacity, len: 0, scanned: Scanned::Nothing }
    }

    /// Returns whether the filter holds more voters than it was made for, and should be replaced by a larger one.
    pub(super) const fn is_full(&self) -> bool {
        self.len > self.capacity
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) const fn scanned(&self) -> Scanned {
        self.scanned
    }

    pub(super) fn set_scanned(&mut self, scanned: Scanned) {
        self.scanned = scanned;
    }

    pub(super) fn add(&mut self, voter: VoterKey) {
        self.bloom.insert_hash(hash(voter));
        self.len += 1;
    }

    /// Returns false only if the voter certainly has no row.
    pub(super) fn may_hold(&self, voter: VoterKey) -> bool {
        let scanned = match self.scanned {
            Scanned::Nothing => false,
            Scanned::UpTo(last) => voter <= last,
            Scanned::All => true,
        };
        !scanned || self.bloom.contains_hash(hash(voter))
    }
}

/// Returns the hash of a voter. A key is an HMAC, so its bits are as good as any hash's. Its leading bits are the same
/// for a whole partition, its last ones are not.
fn hash(voter: VoterKey) -> u64 {
    let mut last = [0; 8];
    last.copy_from_slice(&voter.0[8..]);
    u64::from_be_bytes(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voter(n: u64) -> VoterKey {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&n.to_be_bytes());
        key[8..].copy_from_slice(&n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
        VoterKey(key)
    }

    #[test]
    fn an_added_voter_is_always_found() {
        let mut filter = Filter::new(0);
        filter.set_scanned(Scanned::All);
        (0..10_000).for_each(|n| filter.add(voter(n)));
        assert!((0..10_000).all(|n| filter.may_hold(voter(n))));
        let false_positives = (10_000..110_000).filter(|n| filter.may_hold(voter(*n))).count();
        assert!(false_positives < 2_000, "{false_positives} of 100,000 others");
    }

    #[test]
    fn beyond_the_last_scanned_key_every_voter_may_be_there() {
        let mut filter = Filter::new(0);
        assert!(filter.may_hold(voter(1)));
        filter.set_scanned(Scanned::UpTo(voter(5)));
        assert!(!filter.may_hold(voter(5)));
        assert!(filter.may_hold(voter(6)));
    }
}
