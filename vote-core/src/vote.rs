//! The vote: what a voter chose in a poll, and when.

use crate::{OptionSlug, PollSlug, Timestamp, VoterKey};

/// A vote that a frontend accepted. [`merge`](fn@crate::count::merge) decides which vote of a voter is effective.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Vote {
    /// The poll.
    pub poll: PollSlug,
    /// Key of the voter, which cannot be traced back without the pepper.
    pub voter: VoterKey,
    /// The chosen option.
    pub option: OptionSlug,
    /// Time at which the frontend accepted it, by the frontend's clock.
    pub cast_at: Timestamp,
}
