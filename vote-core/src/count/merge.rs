//! The merge rule: which ballot of a voter is effective.

use std::cmp::Ordering;

use crate::{Keep, OptionSlug, Timestamp, VoterKey};

/// A voter's choice in one poll. The context tells which poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ballot {
    /// Key of the voter.
    pub voter: VoterKey,
    /// The chosen option.
    pub option: OptionSlug,
    /// Time at which the frontend accepted it.
    pub cast_at: Timestamp,
}

/// Returns the effective one of two ballots of a voter: with [`Keep::First`] the earlier, with [`Keep::Last`] the
/// later, by `(cast_at, option)`.
///
/// Commutative, associative and idempotent.
#[must_use]
pub fn merge(keep: Keep, a: Ballot, b: Ballot) -> Ballot {
    debug_assert_eq!(a.voter, b.voter, "ballots of different voters cannot be merged");
    let a_first = (a.cast_at, a.option).cmp(&(b.cast_at, b.option));
    match (keep, a_first) {
        (Keep::First, Ordering::Less | Ordering::Equal)
        | (Keep::Last, Ordering::Greater | Ordering::Equal) => a,
        (Keep::First, Ordering::Greater) | (Keep::Last, Ordering::Less) => b,
    }
}
