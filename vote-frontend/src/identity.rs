//! Identity of a voter. The rest of the frontend sees a voter only as an [`Identity`], so that another way of telling
//! voters apart can replace the cookie.

use vote_core::{Pepper, PollSlug, Timestamp, VoterKey};

/// A voter, as told apart from others by a cookie or by whatever replaces it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    id: [u8; 16],
    latest: Option<Timestamp>,
}

impl Identity {
    /// Creates the identity of a new voter.
    ///
    /// # Errors
    /// Fails if the operating system provides no random numbers.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut id = [0; 16];
        getrandom::fill(&mut id)?;
        Ok(Self { id, latest: None })
    }

    /// Creates the identity of a returning voter, with the time of their latest vote.
    #[must_use]
    pub const fn known(id: [u8; 16], latest: Option<Timestamp>) -> Self {
        Self { id, latest }
    }

    /// The voter's id, which must not be revealed to anyone but the voter.
    #[must_use]
    pub const fn id(&self) -> &[u8; 16] {
        &self.id
    }

    /// Time of the voter's latest vote; `None` before the first.
    #[must_use]
    pub const fn latest(&self) -> Option<Timestamp> {
        self.latest
    }

    /// Returns the voter's key in a poll.
    #[must_use]
    pub fn key(&self, pepper: &Pepper, poll: PollSlug) -> VoterKey {
        pepper.voter_key(poll, &self.id)
    }

    /// Returns a timestamp for a new vote and records it: strictly after this voter's previous one, even if that was
    /// cast at a frontend whose clock is ahead.
    pub fn cast(&mut self, now: Timestamp) -> Timestamp {
        let at = self.latest.map_or(now, |latest| now.max(latest.saturating_add(1)));
        self.latest = Some(at);
        at
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_of_one_voter_increase_whatever_the_clocks_show() {
        let mut voter = Identity::random().unwrap();
        let first = voter.cast(Timestamp::MIN.saturating_add(100));
        let second = voter.cast(Timestamp::MIN.saturating_add(50));
        let third = voter.cast(Timestamp::MIN.saturating_add(200));
        assert!(first < second && second < third);
        assert_eq!(third, Timestamp::MIN.saturating_add(200));
    }
}
