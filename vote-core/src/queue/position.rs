//! Positions: names of the entries of a partition, in the order of its log.

use std::fmt;

use sha2::{Digest, Sha256};

/// Position in one partition of one queue: up to 32 bytes whose byte order is the order of the log.
///
/// The position of an entry is its order number in the log, followed by a [check](Self::of_entry) of its content. A
/// server that is rolled back to an older state may assign order numbers again; the check distinguishes an entry that
/// was read before from another one that got its number later. Only the implementation of a queue knows how long its
/// order numbers are, and they alone decide which entries are before a position. [`Position::START`] is before all
/// entries.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    bytes: [u8; Self::MAX],
    len: u8,
}

impl Position {
    /// Maximum length of a position in bytes.
    pub const MAX: usize = 32;
    /// Length in bytes of the check, with which the position of an entry ends.
    pub const CHECK: usize = 8;
    /// The position before the first entry.
    pub const START: Self = Self { bytes: [0; Self::MAX], len: 0 };

    /// Creates a position from its bytes; `None` if there are more than [`MAX`](Self::MAX).
    #[must_use]
    pub fn from_bytes(from: &[u8]) -> Option<Self> {
        let mut bytes = [0; Self::MAX];
        bytes.get_mut(..from.len())?.copy_from_slice(from);
        Some(Self { bytes, len: from.len() as u8 })
    }

    /// Returns the position of an entry with this order number and this content; `None` if the number is longer than
    /// [`MAX`](Self::MAX) minus [`CHECK`](Self::CHECK).
    ///
    /// The check is the first 8 bytes of the SHA-256 of: the poll, a zero byte, the number of votes as 8 bytes
    /// big-endian, and the frame. It is not a CRC: a frame ends with its own CRC, and over both a CRC always has the
    /// same value.
    #[must_use]
    pub fn of_entry(order: &[u8], poll: &str, votes: u64, frame: &[u8]) -> Option<Self> {
        let hash = Sha256::new()
            .chain_update(poll)
            .chain_update([0])
            .chain_update(votes.to_be_bytes())
            .chain_update(frame)
            .finalize();
        let mut bytes = [0; Self::MAX];
        let len = order.len() + Self::CHECK;
        let (number, check) = bytes.get_mut(..len)?.split_at_mut(order.len());
        number.copy_from_slice(order);
        check.copy_from_slice(&hash[..Self::CHECK]);
        Some(Self { bytes, len: len as u8 })
    }

    /// Returns whether both positions name the same entry: they are equal, or their order numbers are and this one was
    /// stored before positions had a check.
    #[must_use]
    pub fn is_of(&self, entry: &Self) -> bool {
        let (this, entry) = (self.as_bytes(), entry.as_bytes());
        this == entry || (this.len() + Self::CHECK == entry.len() && entry.starts_with(this))
    }

    /// Parses what [`Display`](fmt::Display) wrote.
    ///
    /// # Errors
    /// If the text is not hexadecimal, or too long.
    pub fn from_hex(text: &str) -> Result<Self, hex::FromHexError> {
        Self::from_bytes(&hex::decode(text)?).ok_or(hex::FromHexError::InvalidStringLength)
    }

    /// Returns the bytes of the position.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl Ord for Position {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl PartialOrd for Position {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Default for Position {
    fn default() -> Self {
        Self::START
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.as_bytes()))
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Position({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(number: u64, poll: &str, votes: u64, frame: &[u8]) -> Position {
        Position::of_entry(&number.to_be_bytes(), poll, votes, frame).unwrap()
    }

    /// Stores hold positions, so this value must never change.
    #[test]
    fn the_check_covers_poll_votes_and_frame() {
        assert_eq!(of(5, "pets", 2, b"frame").to_string(), "00000000000000058c6fae8001b5aa71");
        let positions = [of(5, "pets", 2, b"frame"), of(5, "pet", 2, b"sframe"), of(5, "pets", 3, b"frame")];
        assert!(positions[1..].iter().all(|other| !positions[0].is_of(other)), "{positions:?}");
    }

    #[test]
    fn the_order_number_decides_the_order() {
        assert!(
            of(5, "pets", 1, b"a") < of(6, "pets", 1, b"b")
                && of(6, "pets", 1, b"a") > of(5, "pets", 1, b"b")
        );
    }

    #[test]
    fn a_position_without_a_check_matches_the_entry_with_its_number() {
        let old = Position::from_bytes(&5_u64.to_be_bytes()).unwrap();
        assert!(old.is_of(&of(5, "pets", 1, b"a")) && old < of(5, "pets", 1, b"a"));
        assert!(!old.is_of(&of(6, "pets", 1, b"a")));
    }
}
