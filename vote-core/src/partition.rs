//! Partitions: ranges of voter keys. All votes of a voter belong to the same partition.

use std::{fmt, ops::RangeInclusive};

use serde::{Deserialize, Serialize};

use crate::VoterKey;

/// Number of partitions: a power of two from 1 to 1024.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "u16", try_from = "u16")]
pub struct Partitions(u16);

/// Number of one partition, counted from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Partition(pub u16);

/// An invalid number of partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} partitions: the number must be a power of two from 1 to 1024")]
pub struct PartitionsError(u16);

impl Partitions {
    /// Checks a number of partitions.
    ///
    /// # Errors
    /// Fails if `count` is not a power of two from 1 to 1024.
    pub fn new(count: u16) -> Result<Self, PartitionsError> {
        if count.is_power_of_two() && count <= 1024 { Ok(Self(count)) } else { Err(PartitionsError(count)) }
    }

    /// Returns the number of partitions.
    #[must_use]
    pub const fn count(self) -> u16 {
        self.0
    }

    /// Returns the partition of a voter, which the leading bits of the key determine.
    #[must_use]
    pub fn of(self, voter: VoterKey) -> Partition {
        let leading = u16::from_be_bytes([voter.0[0], voter.0[1]]);
        // Divides the 2¹⁶ values of the leading bits evenly; a single partition needs none of the bits.
        Partition(((u32::from(leading) * u32::from(self.0)) >> 16) as u16)
    }

    /// Returns the first and the last key of a partition.
    #[must_use]
    pub fn range(self, partition: Partition) -> RangeInclusive<VoterKey> {
        let width = u128::MAX / u128::from(self.0) + u128::from(self.0 != 1);
        let first = width.wrapping_mul(u128::from(partition.0));
        let last = first.wrapping_add(width.wrapping_sub(1));
        let last = if self.0 == 1 { u128::MAX } else { last };
        VoterKey(first.to_be_bytes())..=VoterKey(last.to_be_bytes())
    }

    /// Iterates over all partitions in order.
    pub fn iter(self) -> impl ExactSizeIterator<Item = Partition> + Clone {
        (0..self.0).map(Partition)
    }

    /// Returns whether there is a partition of that number.
    #[must_use]
    pub const fn contains(self, partition: Partition) -> bool {
        partition.0 < self.0
    }
}

impl Default for Partitions {
    /// 16 partitions, which suits one to a few dozen nodes. More partitions make
    /// frames smaller; fewer reduce locality.
    fn default() -> Self {
        Self(16)
    }
}

impl From<Partitions> for u16 {
    fn from(partitions: Partitions) -> Self {
        partitions.0
    }
}

impl TryFrom<u16> for Partitions {
    type Error = PartitionsError;
    fn try_from(count: u16) -> Result<Self, PartitionsError> {
        Self::new(count)
    }
}

impl fmt::Display for Partitions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Partition({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn counts_are_powers_of_two_up_to_1024() {
        let allowed: Vec<u16> = (0..=u16::MAX).filter(|n| Partitions::new(*n).is_ok()).collect();
        assert_eq!(allowed, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]);
    }

    #[test]
    fn ranges_cover_all_keys_without_overlap() {
        for count in [1, 2, 16, 1024] {
            let partitions = Partitions::new(count).unwrap();
            let mut next = Some(0_u128);
            for partition in partitions.iter() {
                let range = partitions.range(partition);
                assert_eq!(Some(u128::from_be_bytes(range.start().0)), next);
                next = u128::from_be_bytes(range.end().0).checked_add(1);
            }
            assert_eq!(next, None, "the last range ends at the last key");
        }
    }

    proptest! {
        #[test]
        fn a_key_lies_in_the_range_of_its_partition(key: [u8; 16], power in 0_u32..=10) {
            let partitions = Partitions::new(1 << power).unwrap();
            prop_assert!(partitions.range(partitions.of(VoterKey(key))).contains(&VoterKey(key)));
        }
    }
}
