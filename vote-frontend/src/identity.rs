//! Who votes. Everything else of the frontend sees a voter only as an [`Identity`], so that other ways to tell voters
//! apart than a cookie can take its place.

use vote_core::{Pepper, PollSlug, Timestamp, VoterKey};

/// A voter as one way of telling voters apart knows them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    id: [u8; 16],
    latest: Option<Timestamp>,
}

impl Identity {
    /// A voter nobody saw before.
    ///
    /// # Errors
    /// When the operating system has no random numbers.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut id = [0; 16];
        getrandom::fill(&mut id)?;
        Ok(Self { id, latest: None })
    }

    /// A voter seen before, with the time of their latest vote.
    #[must_use]
    pub const fn known(id: [u8; 16], latest: Option<Timestamp>) -> Self {
        Self { id, latest }
    }

    /// The voter's id, to be told to nobody but the voter.
    #[must_use]
    pub const fn id(&self) -> &[u8; 16] {
        &self.id
    }

    /// When the latest vote was cast.
    #[must_use]
    pub const fn latest(&self) -> Option<Timestamp> {
        self.latest
    }

    /// The voter's key in a poll.
    #[must_use]
    pub fn key(&self, pepper: &Pepper, poll: PollSlug) -> VoterKey {
        pepper.voter_key(poll, &self.id)
    }

    /// Notes a vote cast now and says when: later than the latest one, also where that was cast at another frontend,
    /// whose clock is ahead.
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
    fn votes_of_one_voter_are_cast_one_after_the_other_whatever_the_clocks_say() {
        let mut voter = Identity::random().unwrap();
        let first = voter.cast(Timestamp::MIN.saturating_add(100));
        let second = voter.cast(Timestamp::MIN.saturating_add(50));
        let third = voter.cast(Timestamp::MIN.saturating_add(200));
        assert!(first < second && second < third);
        assert_eq!(third, Timestamp::MIN.saturating_add(200));
    }
}
