//! Bloom filters of voters that may have voted already, one for each partition and poll, so that only those voters are
//! looked up.
//!
//! A filter is valid as long as its session owns the partition: the session adds the voters that it inserts, and a
//! commit by any other session changes the version, which ends this session at its next commit. The filter is filled
//! from the table step by step, in the order of keys, so that taking over a large partition delays no commit; beyond
//! the last scanned key, every voter is looked up.
//!
//! A filter grows with the turnout: once it is full, a larger one is added to it, so that no voter is read from the table
//! again. A partition that is complete for a poll needs no filter, and its is dropped.

use fastbloom::BloomFilter;

use crate::VoterKey;

/// Share of new voters that each part of a filter lets be looked up in vain: one in two hundred.
const FALSE_POSITIVES: f64 = 0.005;
/// Smallest capacity of a filter in voters: 11 kB of memory.
const MIN_CAPACITY: usize = 1 << 13;
/// Capacity that is added to a full filter, as a multiple of the one it has. Every new voter is looked up in each part, so
/// there should be few.
const GROWTH: usize = 3;

/// The filter of one partition and poll.
#[derive(Debug)]
pub(super) struct Filter {
    parts: Vec<BloomFilter>,
    /// Voters that fit into all parts together.
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
        let mut filter = Self { parts: Vec::new(), capacity: 0, len: 0, scanned: Scanned::Nothing };
        filter.grow_by((voters + voters / 2).max(MIN_CAPACITY));
        filter
    }

    fn grow_by(&mut self, capacity: usize) {
        self.parts.push(BloomFilter::with_false_pos(FALSE_POSITIVES).expected_items(capacity));
        self.capacity += capacity;
    }

    pub(super) const fn scanned(&self) -> Scanned {
        self.scanned
    }

    pub(super) fn set_scanned(&mut self, scanned: Scanned) {
        self.scanned = scanned;
    }

    pub(super) fn add(&mut self, voter: VoterKey) {
        if self.len >= self.capacity {
            self.grow_by(self.capacity * GROWTH);
        }
        if let Some(last) = self.parts.last_mut() {
            last.insert_hash(hash(voter));
        }
        self.len += 1;
    }

    /// Returns false only if the voter certainly has no row.
    pub(super) fn may_hold(&self, voter: VoterKey) -> bool {
        let scanned = match self.scanned {
            Scanned::Nothing => false,
            Scanned::UpTo(last) => voter <= last,
            Scanned::All => true,
        };
        !scanned || self.parts.iter().any(|part| part.contains_hash(hash(voter)))
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

    fn bytes(filter: &Filter) -> usize {
        filter.parts.iter().map(|part| part.num_bits() / 8).sum()
    }

    #[test]
    fn an_added_voter_is_always_found_however_far_a_filter_grows() {
        for (expected, added, parts) in [(0, 8_000, 1), (0, 200_000, 4), (200_000, 200_000, 1)] {
            let mut filter = Filter::new(expected);
            filter.set_scanned(Scanned::All);
            (0..added).for_each(|n| filter.add(voter(n)));
            assert_eq!(filter.parts.len(), parts);
            assert!((0..added).all(|n| filter.may_hold(voter(n))));
            let false_positives = (added..added + 100_000).filter(|n| filter.may_hold(voter(*n))).count();
            assert!(false_positives < 1_000 * parts, "{false_positives} of 100,000 others");
        }
    }

    #[test]
    fn a_filter_takes_memory_by_its_voters() {
        assert!(bytes(&Filter::new(0)) < 12_000, "{}", bytes(&Filter::new(0)));
        let mut filter = Filter::new(0);
        for n in 0..1_000_000 {
            filter.add(voter(n));
            let most = 12_000 + 6 * filter.len;
            assert!(bytes(&filter) < most, "{} bytes for {} voters", bytes(&filter), filter.len);
        }
        // A partition of 64, with 100 million voters.
        let taken_over = bytes(&Filter::new(1_562_500));
        assert!(taken_over < 3_300_000, "{taken_over}");
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
