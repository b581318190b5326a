//! Poll definitions: question, options, times, and the rule that picks a voter's effective ballot.
//!
//! All services read the same `polls.toml`:
//!
//! ```
//! let polls = vote_core::Polls::from_toml("polls.toml", r#"
//!     [[poll]]
//!     slug = "pets"
//!     title = "Cats or dogs?"
//!     options = [{ slug = "cats", label = "Cats" }, { slug = "dogs", label = "Dogs" }]
//!     opens_at = 2027-02-14T23:30:00Z  # optional: without it the poll is open at once
//!     closes_at = 2027-02-15T06:00:00Z # optional: without it the poll is closed by hand
//!     keep = "first"                   # or "last": voters may change their vote
//!     voters = "cookie"                # one vote per browser
//!     results = "live"                 # or "after-close"
//! "#)?;
//! assert_eq!(polls.iter().count(), 1);
//! # Ok::<(), vote_core::poll::PollsError>(())
//! ```

use serde::{Deserialize, Serialize};

use crate::{OptionSlug, PollSlug, Timestamp};

mod digest;
mod file;

pub use digest::PollDigest;
pub use file::PollsError;

/// Minimum and maximum number of options of a poll.
pub const OPTIONS: std::ops::RangeInclusive<usize> = 2..=64;
/// Maximum number of characters of a title or a label.
pub const MAX_TEXT: usize = 200;

/// Rule that picks a voter's effective ballot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keep {
    /// The earliest ballot is effective: later ones change nothing.
    #[default]
    First,
    /// The latest ballot is effective: voters may change their vote.
    Last,
}

/// How voters are identified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Voters {
    /// By a random id in a signed cookie: one vote per browser.
    #[default]
    Cookie,
}

/// When results may be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResultsFrom {
    /// While votes are coming in.
    #[default]
    Live,
    /// Not before the poll is final.
    AfterClose,
}

macro_rules! as_str {
    ($($name:ident { $($variant:ident = $text:literal),+ })+) => {$(
        impl $name {
            /// Returns the value as written in `polls.toml`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }
        impl std::str::FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                match text { $($text => Ok(Self::$variant),)+ _ => Err(format!("{text:?}: expected one of {}", [$($text),+].join(", "))) }
            }
        }
    )+};
}
as_str! {
    Keep { First = "first", Last = "last" }
    Voters { Cookie = "cookie" }
    ResultsFrom { Live = "live", AfterClose = "after-close" }
}

/// An option of a poll.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PollOption {
    /// Name of the option in votes, URLs and files.
    pub slug: OptionSlug,
    /// Name of the option as shown to people.
    pub label: String,
}

/// A poll, as defined in `polls.toml`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Poll {
    /// Name of the poll in votes, URLs and files. Never reused for another poll.
    pub slug: PollSlug,
    /// The question, as shown to people.
    pub title: String,
    /// The options, in the order shown.
    pub options: Vec<PollOption>,
    /// Time before which no votes are accepted; `None` if the poll is open at once.
    pub opens_at: Option<Timestamp>,
    /// Time from which on no votes are accepted; `None` if the poll is closed by hand.
    pub closes_at: Option<Timestamp>,
    /// Rule that picks a voter's effective ballot.
    pub keep: Keep,
    /// How voters are identified.
    pub voters: Voters,
    /// When results may be published.
    pub results: ResultsFrom,
}

/// Whether a poll accepts votes at a given time. Only frontends use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Before `opens_at`.
    NotYetOpen,
    /// Votes are accepted.
    Open,
    /// From `closes_at` on.
    Closed,
}

impl Poll {
    /// Returns the phase of the poll at `now`, by the times of this definition.
    #[must_use]
    pub fn phase(&self, now: Timestamp) -> Phase {
        self.phase_until(self.closes_at, now)
    }

    /// Returns the phase of the poll at `now`, with a closing time that replaces the one of this definition.
    #[must_use]
    pub fn phase_until(&self, closes_at: Option<Timestamp>, now: Timestamp) -> Phase {
        if self.opens_at.is_some_and(|at| now < at) {
            Phase::NotYetOpen
        } else if closes_at.is_some_and(|at| now >= at) {
            Phase::Closed
        } else {
            Phase::Open
        }
    }

    /// Returns the option with this slug.
    #[must_use]
    pub fn option(&self, slug: &str) -> Option<&PollOption> {
        self.options.iter().find(|option| option.slug.as_str() == slug)
    }
}

/// All polls of a deployment: at least one, each with a unique slug.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Polls(Vec<Poll>);

impl Polls {
    /// Returns the poll of the examples, cats or dogs, which is used if no file is given.
    #[must_use]
    pub fn example() -> Self {
        let option =
            |slug: &str, label: &str| Some(PollOption { slug: slug.parse().ok()?, label: label.to_owned() });
        let slug = "pets".parse().ok();
        Self(Vec::from_iter(slug.map(|slug| Poll {
            slug,
            title: "Cats or dogs?".to_owned(),
            options: [option("cats", "Cats"), option("dogs", "Dogs")].into_iter().flatten().collect(),
            opens_at: None,
            closes_at: None,
            keep: Keep::First,
            voters: Voters::Cookie,
            results: ResultsFrom::Live,
        })))
    }

    /// Iterates over the polls in the order of the file.
    pub fn iter(&self) -> std::slice::Iter<'_, Poll> {
        self.0.iter()
    }

    /// Returns the poll with this slug.
    #[must_use]
    pub fn get(&self, slug: &str) -> Option<&Poll> {
        self.0.iter().find(|poll| poll.slug.as_str() == slug)
    }
}

impl<'a> IntoIterator for &'a Polls {
    type Item = &'a Poll;
    type IntoIter = std::slice::Iter<'a, Poll>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests;
