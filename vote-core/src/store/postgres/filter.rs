//! Who may have voted already: a Bloom filter for each partition and poll, so that only those are looked up.
//!
//! A filter is valid as long as its lane owns the partition: the lane adds what it inserts, and nobody else's commit
//! goes through without changing the version, which ends the lane. It is filled from the table step by step, in the
//! order of keys, so that taking over a large partition delays no commit; beyond what was scanned, every voter is
//! looked up.

use fastbloom::BloomFilter;

use crate::VoterKey;

/// One voter in a hundred is looked up for nothing.
const FALSE_POSITIVES: f64 = 0.01;
/// Room for this many at least: 300 kB.
const MIN_CAPACITY: usize = 1 << 18;

#[derive(Debug)]
pub(super) struct Filter {
    bloom: BloomFilter,
    capacity: usize,
    len: usize,
    scanned: Scanned,
}

/// How far the table was read into the filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scanned {
    Nothing,
    UpTo(VoterKey),
    All,
}

impl Filter {
    /// An empty filter for a partition that holds about so many voters.
    pub(super) fn new(voters: usize) -> Self {
        let capacity = (voters * 2).max(MIN_CAPACITY);
        let bloom = BloomFilter::with_false_pos(FALSE_POSITIVES).expected_items(capacity);
        Self { bloom, capacity, len: 0, scanned: Scanned::Nothing }
    }

    /// Whether it holds more than it has room for, and should be made anew.
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

    /// False only if the voter certainly has no row.
    pub(super) fn may_hold(&self, voter: VoterKey) -> bool {
        let scanned = match self.scanned {
            Scanned::Nothing => false,
            Scanned::UpTo(last) => voter <= last,
            Scanned::All => true,
        };
        !scanned || self.bloom.contains_hash(hash(voter))
    }
}

/// A key is an HMAC, so its bits are as good as any hash's. The leading ones are the partition's; these are not.
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
    fn who_was_added_is_always_found() {
        let mut filter = Filter::new(0);
        filter.set_scanned(Scanned::All);
        (0..10_000).for_each(|n| filter.add(voter(n)));
        assert!((0..10_000).all(|n| filter.may_hold(voter(n))));
        let wrong = (10_000..110_000).filter(|n| filter.may_hold(voter(*n))).count();
        assert!(wrong < 2_000, "{wrong} of 100,000 others");
    }

    #[test]
    fn beyond_what_was_scanned_anybody_may_be_there() {
        let mut filter = Filter::new(0);
        assert!(filter.may_hold(voter(1)));
        filter.set_scanned(Scanned::UpTo(voter(5)));
        assert!(!filter.may_hold(voter(5)));
        assert!(filter.may_hold(voter(6)));
    }
}
