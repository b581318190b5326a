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

use std::{collections::HashSet, fmt};

use serde::{Deserialize, Serialize};

use crate::{OptionSlug, PollSlug, Timestamp};

mod digest;

pub use digest::PollDigest;

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

/// Everything that is wrong with a polls file. Each problem names its poll and field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PollsError {
    file: String,
    problems: Vec<String>,
}

impl fmt::Display for PollsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            write!(f, "{}{}: {problem}", if i > 0 { "\n" } else { "" }, self.file)?;
        }
        Ok(())
    }
}

impl std::error::Error for PollsError {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPoll {
    slug: String,
    title: String,
    options: Vec<RawOption>,
    opens_at: Option<RawTime>,
    closes_at: Option<RawTime>,
    #[serde(default)]
    keep: Keep,
    #[serde(default)]
    voters: Voters,
    #[serde(default)]
    results: ResultsFrom,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawOption {
    slug: String,
    label: String,
}

/// A time, with or without quotes.
#[derive(Deserialize)]
#[serde(untagged)]
enum RawTime {
    Toml(toml::value::Datetime),
    Text(String),
}

impl Polls {
    /// Parses the text of a `polls.toml`. `file` is its name in error messages.
    ///
    /// # Errors
    /// Reports every problem found: unknown or missing fields, invalid or duplicate slugs, too few or too many options,
    /// invalid times, `closes_at` not after `opens_at`.
    pub fn from_toml(file: &str, text: &str) -> Result<Self, PollsError> {
        let fail = |problems| PollsError { file: file.to_owned(), problems };
        let table: toml::Table = text.parse().map_err(|e: toml::de::Error| fail(vec![e.to_string()]))?;
        let mut problems = Vec::new();
        let mut polls = Vec::new();
        for (key, value) in table {
            match (key.as_str(), value) {
                ("poll", toml::Value::Array(entries)) => {
                    for (i, entry) in entries.into_iter().enumerate() {
                        polls.extend(read_poll(i + 1, entry, &mut problems));
                    }
                }
                ("poll", _) => problems.push("poll: write each poll as a [[poll]] table".to_owned()),
                (other, _) => {
                    problems.push(format!("{other}: unknown field; only [[poll]] tables are expected"))
                }
            }
        }
        let mut seen = HashSet::new();
        for poll in &polls {
            if !seen.insert(poll.slug) {
                problems
                    .push(format!("poll {:?}, field slug: another poll has this slug already", poll.slug));
            }
        }
        if polls.is_empty() && problems.is_empty() {
            problems.push("no poll: add a [[poll]] table".to_owned());
        }
        if problems.is_empty() { Ok(Self(polls)) } else { Err(fail(problems)) }
    }

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

/// Reads one `[[poll]]` table, and adds what is wrong with it to `problems`.
fn read_poll(number: usize, entry: toml::Value, problems: &mut Vec<String>) -> Option<Poll> {
    let name = match entry.get("slug").and_then(toml::Value::as_str) {
        Some(slug) => format!("poll {slug:?}"),
        None => format!("poll number {number}"),
    };
    let raw: RawPoll = match entry.try_into() {
        Ok(raw) => raw,
        Err(e) => {
            problems.push(format!("{name}: {}", e.to_string().trim().replace('\n', " ")));
            return None;
        }
    };
    let before = problems.len();
    let mut wrong = |field: &str, what: String| problems.push(format!("{name}, field {field}: {what}"));

    let slug = raw.slug.parse::<PollSlug>().map_err(|e| wrong("slug", e.to_string())).ok();
    for (field, text) in
        [("title", &raw.title)].into_iter().chain(raw.options.iter().map(|o| ("options.label", &o.label)))
    {
        if text.trim().is_empty() || text.chars().count() > MAX_TEXT {
            wrong(field, format!("{text:?}: give 1 to {MAX_TEXT} characters"));
        }
    }
    if !OPTIONS.contains(&raw.options.len()) {
        wrong(
            "options",
            format!("{} options: give {} to {}", raw.options.len(), OPTIONS.start(), OPTIONS.end()),
        );
    }
    let mut options: Vec<PollOption> = Vec::new();
    for option in raw.options {
        match option.slug.parse::<OptionSlug>() {
            Err(e) => wrong("options.slug", e.to_string()),
            Ok(slug) if options.iter().any(|o| o.slug == slug) => {
                wrong("options.slug", format!("{slug:?} is used twice"));
            }
            Ok(slug) => options.push(PollOption { slug, label: option.label }),
        }
    }
    let mut time = |field, raw: Option<RawTime>| {
        let text = match raw? {
            RawTime::Toml(at) => at.to_string(),
            RawTime::Text(text) => text,
        };
        let at = text
            .parse::<jiff::Timestamp>()
            .ok()
            .and_then(|at| Timestamp::from_micros(at.as_microsecond()).ok());
        if at.is_none() {
            wrong(
                field,
                format!(
                    "{text:?}: give a time within the years 2020 to 2199 and its zone, such as 2027-02-14T23:30:00Z"
                ),
            );
        }
        at
    };
    let (opens_at, closes_at) = (time("opens_at", raw.opens_at), time("closes_at", raw.closes_at));
    if let (Some(opens), Some(closes)) = (opens_at, closes_at)
        && closes <= opens
    {
        wrong("closes_at", format!("{closes} is not after opens_at, {opens}"));
    }
    if problems.len() > before {
        return None;
    }
    Some(Poll {
        slug: slug?,
        title: raw.title,
        options,
        opens_at,
        closes_at,
        keep: raw.keep,
        voters: raw.voters,
        results: raw.results,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: &str = r#"options = [{ slug = "a", label = "A" }, { slug = "b", label = "B" }]"#;

    fn error(body: &str) -> String {
        Polls::from_toml("polls.toml", body).unwrap_err().to_string()
    }

    #[test]
    fn the_example_is_the_poll_in_the_documentation() {
        let file = r#"
            [[poll]]
            slug = "pets"
            title = "Cats or dogs?"
            options = [{ slug = "cats", label = "Cats" }, { slug = "dogs", label = "Dogs" }]
        "#;
        assert_eq!(Polls::from_toml("polls.toml", file).unwrap(), Polls::example());
    }

    #[test]
    fn the_polls_file_of_the_documentation_is_valid() {
        let polls = Polls::from_toml("docs/polls.toml", include_str!("../../docs/polls.toml")).unwrap();
        assert_eq!(polls.get("snack").map(|poll| poll.keep), Some(Keep::Last));
    }

    #[test]
    fn the_polls_file_of_the_deployment_is_valid() {
        let polls = Polls::from_toml("polls.toml", include_str!("../../deploy/polls.toml")).unwrap();
        assert_eq!(polls, Polls::example());
    }

    #[test]
    fn an_unknown_field_is_reported_with_its_poll() {
        let e = error(&format!("[[poll]]\nslug = \"pets\"\ntitle = \"?\"\nopen_at = 1\n{OPTIONS}"));
        assert!(e.contains("polls.toml: poll \"pets\"") && e.contains("open_at"), "{e}");
    }

    #[test]
    fn every_problem_is_reported_at_once() {
        let e = error(&format!(
            "[[poll]]\nslug = \"P\"\ntitle = \"\"\nopens_at = 2027-01-02T00:00:00Z\ncloses_at = \"2027-01-01T00:00:00Z\"\n{OPTIONS}"
        ));
        for field in ["field slug", "field title", "field closes_at"] {
            assert!(e.contains(field), "{field} in {e}");
        }
    }

    #[test]
    fn a_slug_that_is_used_twice_is_refused() {
        let poll = format!("[[poll]]\nslug = \"pets\"\ntitle = \"?\"\n{OPTIONS}\n");
        assert!(error(&format!("{poll}{poll}")).contains("another poll has this slug"));
    }

    #[test]
    fn the_number_of_options_is_bounded() {
        let e = error("[[poll]]\nslug = \"p\"\ntitle = \"?\"\noptions = [{ slug = \"a\", label = \"A\" }]");
        assert!(e.contains("give 2 to 64"), "{e}");
    }

    #[test]
    fn a_time_without_a_zone_is_refused() {
        let e = error(&format!(
            "[[poll]]\nslug = \"p\"\ntitle = \"?\"\nopens_at = 2027-01-02T00:00:00\n{OPTIONS}"
        ));
        assert!(e.contains("field opens_at"), "{e}");
    }

    #[test]
    fn a_poll_is_open_from_opens_at_to_just_before_closes_at() {
        let mut poll = Polls::example().get("pets").unwrap().clone();
        let at = |s| Timestamp::MIN.saturating_add(s);
        (poll.opens_at, poll.closes_at) = (Some(at(10)), Some(at(20)));
        assert_eq!(poll.phase(at(9)), Phase::NotYetOpen);
        assert_eq!((poll.phase(at(10)), poll.phase(at(19))), (Phase::Open, Phase::Open));
        assert_eq!(poll.phase(at(20)), Phase::Closed);
    }
}
