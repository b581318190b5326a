//! The vote: what one voter chose in one poll, and when.

use crate::{OptionSlug, PollSlug, Timestamp, VoterKey};

/// A vote that was accepted at a frontend. Which vote of a voter stands is decided in [`dedup`](crate::dedup).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Vote {
    /// The poll voted in.
    pub poll: PollSlug,
    /// Who voted, as a key that cannot be traced back without the pepper.
    pub voter: VoterKey,
    /// The option chosen.
    pub option: OptionSlug,
    /// When the frontend accepted it.
    pub cast_at: Timestamp,
}
