//! The file of polls, `polls.toml`.

use std::{collections::HashSet, fmt};

use serde::Deserialize;

use super::{Keep, MAX_TEXT, OPTIONS, Poll, PollOption, Polls, ResultsFrom, Voters};
use crate::{OptionSlug, PollSlug, Timestamp};

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
    check_texts(&raw, &mut wrong);
    let options = read_options(raw.options, &mut wrong);
    let opens_at = read_time("opens_at", raw.opens_at, &mut wrong);
    let closes_at = read_time("closes_at", raw.closes_at, &mut wrong);
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

/// Reports what is wrong with a field: its name, and a text.
type Wrong<'a> = dyn FnMut(&str, String) + 'a;

fn check_texts(raw: &RawPoll, wrong: &mut Wrong<'_>) {
    let labels = raw.options.iter().map(|option| ("options.label", &option.label));
    for (field, text) in [("title", &raw.title)].into_iter().chain(labels) {
        if text.trim().is_empty() || text.chars().count() > MAX_TEXT {
            wrong(field, format!("{text:?}: give 1 to {MAX_TEXT} characters"));
        }
    }
}

fn read_options(raw: Vec<RawOption>, wrong: &mut Wrong<'_>) -> Vec<PollOption> {
    if !OPTIONS.contains(&raw.len()) {
        wrong("options", format!("{} options: give {} to {}", raw.len(), OPTIONS.start(), OPTIONS.end()));
    }
    let mut options: Vec<PollOption> = Vec::new();
    for option in raw {
        match option.slug.parse::<OptionSlug>() {
            Err(e) => wrong("options.slug", e.to_string()),
            Ok(slug) if options.iter().any(|o| o.slug == slug) => {
                wrong("options.slug", format!("{slug:?} is used twice"));
            }
            Ok(slug) => options.push(PollOption { slug, label: option.label }),
        }
    }
    options
}

fn read_time(field: &str, raw: Option<RawTime>, wrong: &mut Wrong<'_>) -> Option<Timestamp> {
    let text = match raw? {
        RawTime::Toml(at) => at.to_string(),
        RawTime::Text(text) => text,
    };
    let at =
        text.parse::<jiff::Timestamp>().ok().and_then(|at| Timestamp::from_micros(at.as_microsecond()).ok());
    if at.is_none() {
        wrong(
            field,
            format!(
                "{text:?}: give a time within the years 2020 to 2199 and its zone, such as 2027-02-14T23:30:00Z"
            ),
        );
    }
    at
}
