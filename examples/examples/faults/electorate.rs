//! The polls, the secrets, and the voters: what each is going to do is a function of the seed and its number.

use http::HeaderValue;
use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus};
use vote_core::{Keep, OptionSlug, Pepper, PollSlug, Polls, Secret, VoterKey, secret::SecretError};
use vote_frontend::{cookie::CookieKeys, identity::Identity};

/// One for all three: nothing here is worth keeping.
pub(crate) const SECRET: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// One poll of each rule, each with options enough that a wrong one is seen.
pub(crate) const POLLS: &str = r#"
[[poll]]
slug = "keep-first"
title = "The first vote stands"
options = [{ slug = "a", label = "A" }, { slug = "b", label = "B" }, { slug = "c", label = "C" }]
keep = "first"

[[poll]]
slug = "keep-last"
title = "The last vote stands"
options = [{ slug = "x", label = "X" }, { slug = "y", label = "Y" }, { slug = "z", label = "Z" }]
keep = "last"
"#;

/// A poll, as far as voters and the check are concerned.
#[derive(Debug, Clone)]
pub(crate) struct Ballots {
    pub(crate) poll: PollSlug,
    pub(crate) keep: Keep,
    pub(crate) options: Vec<OptionSlug>,
}

/// Makes voters.
#[derive(Debug)]
pub(crate) struct Electorate {
    pub(crate) polls: Vec<Ballots>,
    seed: u64,
    pepper: Pepper,
    keys: CookieKeys,
}

/// Somebody who votes in one poll.
#[derive(Debug, Clone)]
pub(crate) struct Voter {
    /// Its place in [`Electorate::polls`].
    pub(crate) poll: usize,
    pub(crate) key: VoterKey,
    pub(crate) cookie: HeaderValue,
    pub(crate) rng: Xoshiro256PlusPlus,
}

/// What a voter does at one visit, options by their place in the poll.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Visit {
    /// One vote after the other, each at the other frontend than the one before.
    InTurn(Vec<usize>),
    /// Two votes at the same time, one through each frontend.
    AtOnce([usize; 2]),
}

impl Electorate {
    /// # Errors
    /// When a constant of this file is wrong.
    pub(crate) fn new(seed: u64) -> Result<Self, String> {
        let polls = Polls::from_toml("polls.toml", POLLS).map_err(|e| e.to_string())?;
        let polls = polls.iter().map(|poll| Ballots {
            poll: poll.slug,
            keep: poll.keep,
            options: poll.options.iter().map(|option| option.slug).collect(),
        });
        let secret = Secret::from_hex(SECRET).map_err(|e: SecretError| e.to_string())?;
        let keys = CookieKeys::new(std::slice::from_ref(&secret), false).ok_or("no key for cookies")?;
        Ok(Self { polls: polls.collect(), seed, pepper: Pepper::from(secret), keys })
    }

    /// # Errors
    /// When the cookie is no header, which is a bug.
    pub(crate) fn voter(&self, number: u64) -> Result<Voter, String> {
        let own = self.seed ^ number.wrapping_add(1).wrapping_mul(0x9e6c_63d0_876a_3f6b);
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(own);
        let identity = Identity::known(rng.random(), None);
        let poll = rng.random_range(0..self.polls.len());
        let set = self.keys.set(&identity).ok_or("no cookie")?;
        Ok(Voter { poll, key: identity.key(&self.pepper, self.polls[poll].poll), cookie: pair(&set)?, rng })
    }
}

/// The part of a Set-Cookie header that is sent back.
///
/// # Errors
/// When it is no text.
pub(crate) fn pair(set: &HeaderValue) -> Result<HeaderValue, String> {
    let text = set.to_str().map_err(|e| e.to_string())?;
    let pair = text.split(';').next().unwrap_or_default();
    HeaderValue::from_str(pair).map_err(|e| e.to_string())
}

impl Voter {
    /// What the voter does when it comes (again): one to three votes, often for different options.
    pub(crate) fn visit(&mut self, options: usize) -> Visit {
        if self.rng.random_ratio(1, 5) {
            return Visit::AtOnce([self.rng.random_range(0..options), self.rng.random_range(0..options)]);
        }
        let votes = match self.rng.random_range(0..10) {
            0..6 => 1,
            6..9 => 2,
            _ => 3,
        };
        Visit::InTurn((0..votes).map(|_| self.rng.random_range(0..options)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_decides_who_votes_for_what() {
        let visits = |seed| {
            let electorate = Electorate::new(seed).unwrap();
            let mut voters: Vec<Voter> = (0..50).map(|n| electorate.voter(n).unwrap()).collect();
            voters.iter_mut().map(|voter| (voter.key, voter.visit(3))).collect::<Vec<_>>()
        };
        assert_eq!(visits(1), visits(1));
        assert_ne!(visits(1), visits(2));
    }

    #[test]
    fn frontends_know_voters_by_the_cookie_as_the_check_knows_them() {
        let electorate = Electorate::new(1).unwrap();
        let voter = electorate.voter(7).unwrap();
        let headers = http::HeaderMap::from_iter([(http::header::COOKIE, voter.cookie)]);
        let identity = electorate.keys.read(&headers).unwrap();
        assert_eq!(identity.key(&electorate.pepper, electorate.polls[voter.poll].poll), voter.key);
    }
}
