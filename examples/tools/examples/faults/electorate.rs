//! The polls, the secrets, and the voters with their votes.

use http::{
    HeaderMap,
    header::{COOKIE, SET_COOKIE},
};
use rand::{RngExt, rngs::Xoshiro256PlusPlus};
use vote_core::{
    Keep, OptionSlug, Pepper, PollSlug, Polls, Secret, Timestamp, VoterKey, secret::SecretError,
};
use vote_frontend::{cookie::CookieKeys, identity::Identity};
use vote_tools::{Cookies, VoterPopulation};

/// Secret for the pepper, the cookies and the receipts: votes of a test need no protection.
pub(crate) const SECRET: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// A day in microseconds.
const DAY: i64 = 86_400_000_000;
/// The poll that is closed while votes are cast.
pub(crate) const CLOSING: &str = "closing";
/// The poll that [`File::Otherwise`] defines differently.
pub(crate) const DIFFERING: &str = "keep-first";

/// File of polls with which a service is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum File {
    /// The file whose polls are registered.
    Right,
    /// A file in which every poll closed yesterday.
    Yesterday,
    /// A file with other options for one poll.
    Otherwise,
}

/// Closing times of the polls in [`File::Right`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// Closing time of the poll that stays open during the run. A clock that is far enough ahead passes it.
    pub(crate) open: Timestamp,
    /// Closing time of the poll that is closed during the run.
    pub(crate) closing: Timestamp,
}

impl Times {
    /// Closing times that are never reached.
    pub(crate) const NEVER: Self = Self { open: Timestamp::MAX, closing: Timestamp::MAX };
}

impl File {
    /// Returns the text of the file: a poll of each rule and one to be closed, each with enough options that a vote for
    /// a wrong one shows.
    pub(crate) fn text(self, times: Times) -> String {
        let line = |at: Timestamp| format!("closes_at = \"{at}\"");
        let yesterday = || line(times.open.saturating_add(-DAY));
        let (first, last, closing) = match self {
            Self::Right | Self::Otherwise => (String::new(), line(times.open), line(times.closing)),
            Self::Yesterday => (yesterday(), yesterday(), yesterday()),
        };
        let third = if self == Self::Otherwise { "d" } else { "c" };
        format!(
            r#"
[[poll]]
slug = "{DIFFERING}"
title = "The first vote is kept"
options = [{{ slug = "a", label = "A" }}, {{ slug = "b", label = "B" }}, {{ slug = "{third}", label = "C" }}]
keep = "first"
{first}

[[poll]]
slug = "keep-last"
title = "The last vote is kept"
options = [{{ slug = "x", label = "X" }}, {{ slug = "y", label = "Y" }}, {{ slug = "z", label = "Z" }}]
keep = "last"
{last}

[[poll]]
slug = "{CLOSING}"
title = "It is closed while votes are cast"
options = [{{ slug = "n", label = "N" }}, {{ slug = "o", label = "O" }}, {{ slug = "p", label = "P" }}]
keep = "first"
{closing}
"#
        )
    }
}

/// The parts of a poll that voters and the check need.
#[derive(Debug, Clone)]
pub(crate) struct Ballots {
    pub(crate) poll: PollSlug,
    pub(crate) keep: Keep,
    pub(crate) options: Vec<OptionSlug>,
}

/// The voters of a run, and the polls in which they vote.
#[derive(Debug)]
pub(crate) struct Electorate {
    pub(crate) polls: Vec<Ballots>,
    population: VoterPopulation,
    pepper: Pepper,
    keys: CookieKeys,
}

/// Voter in one poll.
#[derive(Debug, Clone)]
pub(crate) struct Voter {
    /// Index of the poll in [`Electorate::polls`].
    pub(crate) poll: usize,
    pub(crate) key: VoterKey,
    pub(crate) cookies: Cookies,
    pub(crate) rng: Xoshiro256PlusPlus,
}

/// Votes that a voter casts in one visit; options as indices into those of the poll.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Visit {
    /// Votes one after the other, through alternating frontends.
    InTurn(Vec<usize>),
    /// Two votes at the same time, one through each frontend.
    AtOnce([usize; 2]),
}

impl Electorate {
    /// Creates the voters of a seed.
    ///
    /// # Errors
    /// Fails if a constant of this file is invalid.
    pub(crate) fn new(seed: u64) -> Result<Self, String> {
        let text = File::Right.text(Times::NEVER);
        let polls = Polls::from_toml("polls.toml", &text).map_err(|e| e.to_string())?;
        let polls = polls.iter().map(|poll| Ballots {
            poll: poll.slug,
            keep: poll.keep,
            options: poll.options.iter().map(|option| option.slug).collect(),
        });
        let secret = Secret::from_hex(SECRET).map_err(|e: SecretError| e.to_string())?;
        let keys = CookieKeys::new(std::slice::from_ref(&secret), false).ok_or("no key for cookies")?;
        Ok(Self {
            polls: polls.collect(),
            population: VoterPopulation::new(seed),
            pepper: Pepper::from(secret),
            keys,
        })
    }

    /// Returns the time of the voter's latest vote according to the cookies, in microseconds since 1970.
    pub(crate) fn latest(&self, cookies: &Cookies) -> Option<i64> {
        let headers = HeaderMap::from_iter([(COOKIE, cookies.header()?)]);
        self.keys.read(&headers)?.latest().map(Timestamp::as_micros)
    }

    /// Creates the voter with this number, who has a cookie already.
    ///
    /// # Errors
    /// Fails if no cookie can be made, which is a bug.
    pub(crate) fn voter(&self, number: u64) -> Result<Voter, String> {
        let mut rng = self.population.voter(number);
        let identity = Identity::known(rng.random(), None);
        let poll = rng.random_range(0..self.polls.len());
        let set = self.keys.set(&identity).ok_or("no cookie")?;
        let mut cookies = Cookies::default();
        cookies.take(&HeaderMap::from_iter([(SET_COOKIE, set)]));
        Ok(Voter { poll, key: identity.key(&self.pepper, self.polls[poll].poll), cookies, rng })
    }
}

impl Voter {
    /// Returns the votes of the voter's next visit: one to three, often for different options.
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
    fn the_seed_determines_all_votes() {
        let visits = |seed| {
            let electorate = Electorate::new(seed).unwrap();
            let mut voters: Vec<Voter> = (0..50).map(|n| electorate.voter(n).unwrap()).collect();
            voters.iter_mut().map(|voter| (voter.key, voter.visit(3))).collect::<Vec<_>>()
        };
        assert_eq!(visits(1), visits(1));
        assert_ne!(visits(1), visits(2));
    }

    #[test]
    fn files_differ_as_documented() {
        let times = Times { open: Timestamp::MAX.saturating_add(-1), closing: Timestamp::MAX };
        let polls = |file: File| Polls::from_toml("polls.toml", &file.text(times)).unwrap();
        let digests = |file| polls(file).iter().map(vote_core::Poll::digest).collect::<Vec<_>>();
        let (right, otherwise) = (digests(File::Right), digests(File::Otherwise));
        assert_eq!(right, digests(File::Yesterday), "closing times are not part of the digest");
        assert!(right[0] != otherwise[0] && right[1..] == otherwise[1..]);
        let closes_at = |file| polls(file).iter().map(|poll| poll.closes_at).collect::<Vec<_>>();
        assert_eq!(closes_at(File::Right), [None, Some(times.open), Some(times.closing)]);
        assert_eq!(closes_at(File::Yesterday), [Some(times.open.saturating_add(-DAY)); 3]);
    }

    #[test]
    fn frontends_derive_the_same_voter_key_from_the_cookie() {
        let electorate = Electorate::new(1).unwrap();
        let voter = electorate.voter(7).unwrap();
        let headers = HeaderMap::from_iter([(COOKIE, voter.cookies.header().unwrap())]);
        let identity = electorate.keys.read(&headers).unwrap();
        assert_eq!(identity.key(&electorate.pepper, electorate.polls[voter.poll].poll), voter.key);
    }
}
