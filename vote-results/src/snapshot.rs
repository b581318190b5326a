//! What is known of a poll's outcome at a moment. Pure.

use std::{collections::HashMap, fmt};

use serde::{Serialize, Serializer};
use vote_core::{OptionSlug, Poll, PollSlug, Timestamp, store::RegisteredPoll};

use crate::disclosure::Disclosure;

/// Whether more votes may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// They may.
    Provisional,
    /// The poll was sealed in every queue, and everything up to there was counted.
    Final,
}

impl Status {
    /// Of a poll as the store has it: its count is final when the store says so, and only then.
    #[must_use]
    pub fn of(poll: Option<&RegisteredPoll>) -> Self {
        if poll.is_some_and(|poll| poll.final_at.is_some()) { Self::Final } else { Self::Provisional }
    }

    /// As in `results.json`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Provisional => "provisional",
            Self::Final => "final",
        }
    }
}

/// A share in tenths of a percent, rounded half up. The shares of a poll need not add up to 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Percent(u16);

impl Percent {
    /// The share of `votes` in `total`; 0 when there are no votes.
    #[must_use]
    pub fn of(votes: u64, total: u64) -> Self {
        let (votes, total) = (u128::from(votes), u128::from(total));
        let tenths = (votes * 2000 + total).checked_div(total * 2).unwrap_or(0);
        Self(u16::try_from(tenths).unwrap_or(u16::MAX))
    }
}

impl fmt::Display for Percent {
    /// As in `66.7`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 / 10, self.0 % 10)
    }
}

impl Serialize for Percent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // The nearest double to a number of one decimal is printed with that decimal.
        serializer.serialize_f64(f64::from(self.0) / 10.0)
    }
}

/// An option and its votes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OptionVotes {
    /// Its name in addresses and files.
    pub option: OptionSlug,
    /// Its name for people; that of the former if the file of polls does not have the option.
    pub label: String,
    /// Voters whose standing vote is for it.
    pub votes: u64,
    /// Their share.
    pub percent: Percent,
}

/// An option whose votes are withheld.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OptionName {
    /// Its name in addresses and files.
    pub option: OptionSlug,
    /// Its name for people.
    pub label: String,
}

/// What may be shown. Where numbers are withheld there are none in here, so none can be published by mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The numbers.
    Shown {
        /// Voters whose vote stands.
        total: u64,
        /// In the order of the file.
        options: Vec<OptionVotes>,
    },
    /// The poll publishes nothing before it is final, or it is not known whether it does.
    Withheld {
        /// In the order of the file.
        options: Vec<OptionName>,
    },
}

/// The outcome of one poll at a moment. Serializes as `results.json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The poll.
    pub poll: PollSlug,
    /// The question.
    pub title: String,
    /// Whether more votes may come.
    pub status: Status,
    /// What may be shown.
    pub outcome: Outcome,
    /// When these numbers were read first: since then the store has said nothing else.
    pub updated_at: Timestamp,
}

impl Snapshot {
    /// What may be shown of the outcome of `poll`, which the store has as `registered`, given its tally. Options that
    /// only the file has count 0; options that only the tally has are shown after those of the file, by their slugs.
    #[must_use]
    pub(crate) fn new(
        poll: &Poll,
        registered: Option<&RegisteredPoll>,
        tally: &[(OptionSlug, u64)],
        updated_at: Timestamp,
    ) -> Self {
        let disclosure = Disclosure::of(Some(poll), registered);
        let tally = if disclosure == Disclosure::NothingCounted { &[] } else { tally };
        let votes: HashMap<OptionSlug, u64> = tally.iter().copied().collect();
        let of_file = poll.options.iter().map(|option| (option.slug, option.label.clone()));
        let of_store = tally
            .iter()
            .filter(|(slug, _)| poll.option(slug.as_str()).is_none())
            .map(|(slug, _)| (*slug, slug.to_string()));
        let names = of_file.chain(of_store);

        let outcome = if disclosure == Disclosure::Withheld {
            Outcome::Withheld { options: names.map(|(option, label)| OptionName { option, label }).collect() }
        } else {
            let total = tally.iter().fold(0, |sum: u64, (_, n)| sum.saturating_add(*n));
            let options = names.map(|(option, label)| {
                let votes = votes.get(&option).copied().unwrap_or(0);
                OptionVotes { option, label, votes, percent: Percent::of(votes, total) }
            });
            Outcome::Shown { total, options: options.collect() }
        };
        let status = Status::of(registered);
        Self { poll: poll.slug, title: poll.title.clone(), status, outcome, updated_at }
    }

    /// Whether it says the same as another, whenever that was.
    #[must_use]
    pub fn says_the_same(&self, other: &Self) -> bool {
        let Self { poll, title, status, outcome, updated_at: _ } = self;
        (poll, title, status, outcome) == (&other.poll, &other.title, &other.status, &other.outcome)
    }

    /// Whether the numbers are withheld.
    #[must_use]
    pub const fn is_withheld(&self) -> bool {
        matches!(self.outcome, Outcome::Withheld { .. })
    }
}

/// `results.json`, field by field.
#[derive(Serialize)]
struct Json<'a> {
    poll: PollSlug,
    title: &'a str,
    status: Status,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    withheld: bool,
    total: Option<u64>,
    options: Options<'a>,
    updated_at: String,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Options<'a> {
    Votes(&'a [OptionVotes]),
    Names(&'a [OptionName]),
}

impl Serialize for Snapshot {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (withheld, total, options) = match &self.outcome {
            Outcome::Shown { total, options } => (false, Some(*total), Options::Votes(options)),
            Outcome::Withheld { options } => (true, None, Options::Names(options)),
        };
        let updated_at = self.updated_at.to_string();
        Json {
            poll: self.poll,
            title: &self.title,
            status: self.status,
            withheld,
            total,
            options,
            updated_at,
        }
        .serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use vote_core::{Polls, poll::ResultsFrom};

    use super::*;

    fn slug(text: &str) -> OptionSlug {
        text.parse().unwrap()
    }

    fn pets(tally: &[(&str, u64)], results: ResultsFrom, status: Status) -> Snapshot {
        let poll = Poll { results, ..Polls::example().get("pets").unwrap().clone() };
        let tally: Vec<_> = tally.iter().map(|(option, n)| (slug(option), *n)).collect();
        let final_at = (status == Status::Final).then_some(Timestamp::MIN);
        let registered = RegisteredPoll { closed_at: final_at, final_at, ..RegisteredPoll::from(&poll) };
        Snapshot::new(&poll, Some(&registered), &tally, Timestamp::MIN)
    }

    fn json(snapshot: &Snapshot) -> String {
        serde_json::to_string(snapshot).unwrap()
    }

    #[test]
    fn the_json_is_what_others_rely_on() {
        assert_eq!(
            json(&pets(&[("cats", 2), ("dogs", 1)], ResultsFrom::Live, Status::Provisional)),
            r#"{"poll":"pets","title":"Cats or dogs?","status":"provisional","total":3,"options":[{"option":"cats","label":"Cats","votes":2,"percent":66.7},{"option":"dogs","label":"Dogs","votes":1,"percent":33.3}],"updated_at":"2020-01-01T00:00:00Z"}"#
        );
    }

    #[test]
    fn a_poll_that_publishes_after_its_close_withholds_every_number() {
        let snapshot = pets(&[("cats", 2), ("dogs", 1)], ResultsFrom::AfterClose, Status::Provisional);
        assert_eq!(
            json(&snapshot),
            r#"{"poll":"pets","title":"Cats or dogs?","status":"provisional","withheld":true,"total":null,"options":[{"option":"cats","label":"Cats"},{"option":"dogs","label":"Dogs"}],"updated_at":"2020-01-01T00:00:00Z"}"#
        );
    }

    #[test]
    fn a_poll_that_is_final_withholds_nothing() {
        let snapshot = pets(&[("cats", 2)], ResultsFrom::AfterClose, Status::Final);
        assert!(!snapshot.is_withheld());
        assert!(json(&snapshot).contains(r#""status":"final","total":2"#));
    }

    #[test]
    fn a_poll_that_is_not_registered_shows_zeros_if_the_file_says_live_and_nothing_if_it_does_not() {
        let poll = Polls::example().get("pets").unwrap().clone();
        // No store has a tally of such a poll; if one had, it would not be shown.
        let tally = [(slug("cats"), 37)];
        let live = Snapshot::new(&poll, None, &tally, Timestamp::MIN);
        let Outcome::Shown { total, options } = live.outcome else { panic!("withheld") };
        assert_eq!((total, options.iter().map(|o| o.votes).collect::<Vec<_>>()), (0, vec![0, 0]));
        let secret = Poll { results: ResultsFrom::AfterClose, ..poll };
        assert!(Snapshot::new(&secret, None, &tally, Timestamp::MIN).is_withheld());
    }

    #[test]
    fn percentages_have_one_decimal_rounded_half_up() {
        let cases = [
            (1, 3, "33.3"),
            (2, 3, "66.7"),
            (1, 1, "100.0"),
            (1, 16, "6.3"),
            (1, 2000, "0.1"),
            (1, 2001, "0.0"),
        ];
        for (votes, total, expected) in cases {
            assert_eq!(Percent::of(votes, total).to_string(), expected, "{votes} of {total}");
            let json = serde_json::to_string(&Percent::of(votes, total)).unwrap();
            assert_eq!(json, expected, "as JSON");
        }
    }

    #[test]
    fn without_votes_every_share_is_zero() {
        assert_eq!(Percent::of(0, 0).to_string(), "0.0");
    }

    #[test]
    fn shares_of_the_largest_numbers_do_not_overflow() {
        assert_eq!(Percent::of(u64::MAX, u64::MAX).to_string(), "100.0");
    }

    #[test]
    fn what_only_the_file_has_counts_zero_and_what_only_the_store_has_is_shown_too() {
        let snapshot = pets(&[("birds", 3), ("cats", 1)], ResultsFrom::Live, Status::Provisional);
        let Outcome::Shown { total, options } = snapshot.outcome else { panic!("withheld") };
        let shown: Vec<_> = options.iter().map(|o| (o.option.as_str(), o.label.as_str(), o.votes)).collect();
        assert_eq!(
            (total, shown),
            (4, vec![("cats", "Cats", 1), ("dogs", "Dogs", 0), ("birds", "birds", 3)])
        );
    }

    #[test]
    fn the_time_alone_is_no_change() {
        let one = pets(&[("cats", 1)], ResultsFrom::Live, Status::Provisional);
        let later = Snapshot { updated_at: Timestamp::MAX, ..one.clone() };
        assert!(one.says_the_same(&later));
        assert!(!one.says_the_same(&pets(&[("cats", 2)], ResultsFrom::Live, Status::Provisional)));
    }
}
