//! The outcome of a poll at one moment. Pure.

use std::{collections::HashMap, fmt};

use serde::{Serialize, Serializer};
use vote_core::{
    OptionSlug, Poll, PollSlug, Timestamp,
    count::{PollSummary, RegisteredPoll},
};

use crate::disclosure::Disclosure;

/// Whether the count of a poll may still change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It may still change.
    Provisional,
    /// It will not change: the poll is sealed in every queue, and all votes before the seals are counted.
    Final,
}

impl Status {
    /// Returns the status of a registered poll. Only the store decides that a count is final.
    #[must_use]
    pub fn of(poll: Option<&RegisteredPoll>) -> Self {
        if poll.is_some_and(|poll| poll.final_at.is_some()) { Self::Final } else { Self::Provisional }
    }

    /// The word in `results.json`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Provisional => "provisional",
            Self::Final => "final",
        }
    }
}

/// A share in tenths of a percent, rounded half up. Because of rounding, the shares of a poll may not add up to 100 %.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Percent(u16);

impl Percent {
    /// Returns the share of `votes` in `total`, or 0 if there are no votes.
    #[must_use]
    pub fn of(votes: u64, total: u64) -> Self {
        let (votes, total) = (u128::from(votes), u128::from(total));
        let tenths = (votes * 2000 + total).checked_div(total * 2).unwrap_or(0);
        Self(u16::try_from(tenths).unwrap_or(u16::MAX))
    }
}

impl fmt::Display for Percent {
    /// Formats the share with one decimal, such as `66.7`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 / 10, self.0 % 10)
    }
}

impl Serialize for Percent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // The double nearest to a number with one decimal is printed with exactly that decimal.
        serializer.serialize_f64(f64::from(self.0) / 10.0)
    }
}

/// An option with its votes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OptionVotes {
    /// Slug of the option: its name in addresses and files.
    pub option: OptionSlug,
    /// Label of the option for people; its slug if the file of polls does not have the option.
    pub label: String,
    /// Number of effective ballots for the option.
    pub votes: u64,
    /// Share of these ballots in the total.
    pub percent: Percent,
}

/// An option whose votes are withheld.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OptionName {
    /// Slug of the option: its name in addresses and files.
    pub option: OptionSlug,
    /// Label of the option for people; its slug if the file of polls does not have the option.
    pub label: String,
}

/// The part of an outcome that may be shown. The withheld variant holds no numbers, so that none is shown by mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The figures are published.
    Shown {
        /// Number of effective ballots, one per voter.
        total: u64,
        /// The options in the order of the file, then those that only the tally has.
        options: Vec<OptionVotes>,
    },
    /// The figures are withheld until the poll is final; see [`Disclosure`].
    Withheld {
        /// The options in the order of the file, then those that only the tally has.
        options: Vec<OptionName>,
    },
}

/// The outcome of one poll at one moment. Serializes as `results.json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Slug of the poll.
    pub poll: PollSlug,
    /// Title of the poll: the question.
    pub title: String,
    /// Whether the count may still change.
    pub status: Status,
    /// The figures, unless they are withheld.
    pub outcome: Outcome,
    /// Time of the last change of the outcome, by the store's clock; `None` before the first one. It is the same in every
    /// process that reads the store. While the figures are withheld, it does not change with the votes.
    pub updated_at: Option<Timestamp>,
}

impl Snapshot {
    /// Derives the outcome of `poll` from its registration in the store and its tally. Options that only the file has
    /// count 0. Options that only the tally has follow those of the file and use their slugs as labels.
    #[must_use]
    pub(crate) fn new(poll: &Poll, counted: Option<&PollSummary>) -> Self {
        let registered = counted.map(|counted| &counted.poll);
        let disclosure = Disclosure::of(Some(poll), registered);
        let tally = counted.map(|counted| &counted.tally[..]).unwrap_or_default();
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
        // Of a withheld poll, not even the time of the last vote is public.
        let is_shown = disclosure != Disclosure::Withheld;
        let counted_at = counted.filter(|_| is_shown).and_then(|counted| counted.tally_changed_at);
        let updated_at = counted_at
            .max(registered.and_then(|poll| poll.closed_at))
            .max(registered.and_then(|poll| poll.final_at));
        Self { poll: poll.slug, title: poll.title.clone(), status, outcome, updated_at }
    }

    /// Whether the figures are withheld.
    #[must_use]
    pub const fn is_withheld(&self) -> bool {
        matches!(self.outcome, Outcome::Withheld { .. })
    }
}

/// The fields of `results.json`, in order.
#[derive(Serialize)]
struct Json<'a> {
    poll: PollSlug,
    title: &'a str,
    status: Status,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    withheld: bool,
    total: Option<u64>,
    options: Options<'a>,
    updated_at: Option<String>,
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
        let updated_at = self.updated_at.map(|at| at.to_string());
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

    fn counted(poll: RegisteredPoll, tally: &[(&str, u64)]) -> PollSummary {
        let tally = tally.iter().map(|(option, n)| (slug(option), *n)).collect();
        PollSummary { poll, tally, tally_changed_at: Some(second(3)) }
    }

    fn second(n: i64) -> Timestamp {
        Timestamp::MIN.saturating_add(n * 1_000_000)
    }

    fn pets(tally: &[(&str, u64)], results: ResultsFrom, status: Status) -> Snapshot {
        let poll = Poll { results, ..Polls::example().get("pets").unwrap().clone() };
        let final_at = (status == Status::Final).then_some(second(9));
        let registered = RegisteredPoll { closed_at: final_at, final_at, ..RegisteredPoll::from(&poll) };
        Snapshot::new(&poll, Some(&counted(registered, tally)))
    }

    fn json(snapshot: &Snapshot) -> String {
        serde_json::to_string(snapshot).unwrap()
    }

    #[test]
    fn the_json_has_the_documented_format() {
        assert_eq!(
            json(&pets(&[("cats", 2), ("dogs", 1)], ResultsFrom::Live, Status::Provisional)),
            r#"{"poll":"pets","title":"Cats or dogs?","status":"provisional","total":3,"options":[{"option":"cats","label":"Cats","votes":2,"percent":66.7},{"option":"dogs","label":"Dogs","votes":1,"percent":33.3}],"updated_at":"2020-01-01T00:00:03Z"}"#
        );
    }

    #[test]
    fn a_poll_with_results_after_close_withholds_every_number() {
        let snapshot = pets(&[("cats", 2), ("dogs", 1)], ResultsFrom::AfterClose, Status::Provisional);
        assert_eq!(
            json(&snapshot),
            r#"{"poll":"pets","title":"Cats or dogs?","status":"provisional","withheld":true,"total":null,"options":[{"option":"cats","label":"Cats"},{"option":"dogs","label":"Dogs"}],"updated_at":null}"#
        );
    }

    #[test]
    fn a_final_poll_withholds_nothing() {
        let snapshot = pets(&[("cats", 2)], ResultsFrom::AfterClose, Status::Final);
        assert!(!snapshot.is_withheld());
        assert!(json(&snapshot).contains(r#""status":"final","total":2"#));
    }

    #[test]
    fn an_unregistered_poll_shows_zeros_if_its_results_are_live_in_the_file_and_nothing_otherwise() {
        let poll = Polls::example().get("pets").unwrap().clone();
        let live = Snapshot::new(&poll, None);
        let Outcome::Shown { total, options } = live.outcome else { panic!("withheld") };
        assert_eq!((total, options.iter().map(|o| o.votes).collect::<Vec<_>>()), (0, vec![0, 0]));
        let secret = Poll { results: ResultsFrom::AfterClose, ..poll };
        assert!(Snapshot::new(&secret, None).is_withheld());
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
    fn options_only_in_the_file_count_zero_and_options_only_in_the_store_are_shown_too() {
        let snapshot = pets(&[("birds", 3), ("cats", 1)], ResultsFrom::Live, Status::Provisional);
        let Outcome::Shown { total, options } = snapshot.outcome else { panic!("withheld") };
        let shown: Vec<_> = options.iter().map(|o| (o.option.as_str(), o.label.as_str(), o.votes)).collect();
        assert_eq!(
            (total, shown),
            (4, vec![("cats", "Cats", 1), ("dogs", "Dogs", 0), ("birds", "birds", 3)])
        );
    }

    #[test]
    fn the_time_of_the_last_change_is_that_of_tally_closing_or_finality() {
        let poll = Polls::example().get("pets").unwrap().clone();
        let updated_at = |poll: &Poll, closed_at, final_at| {
            let registered = RegisteredPoll { closed_at, final_at, ..RegisteredPoll::from(poll) };
            Snapshot::new(poll, Some(&counted(registered, &[("cats", 1)]))).updated_at
        };
        assert_eq!(updated_at(&poll, None, None), Some(second(3)));
        assert_eq!(
            updated_at(&poll, Some(second(2)), None),
            Some(second(3)),
            "votes are counted after it closed"
        );
        assert_eq!(updated_at(&poll, Some(second(4)), None), Some(second(4)));
        assert_eq!(updated_at(&poll, Some(second(4)), Some(second(5))), Some(second(5)));
        let secret = Poll { results: ResultsFrom::AfterClose, ..poll };
        assert_eq!(updated_at(&secret, None, None), None, "the time of the last vote is withheld");
        assert_eq!(updated_at(&secret, Some(second(2)), None), Some(second(2)));
        assert_eq!(Snapshot::new(&secret, None).updated_at, None, "it is not registered");
    }
}
