//! Check that the counted votes follow from the votes that were sent. Pure: no I/O, no clock.
//!
//! The frontend that accepts a vote sets its time, between the request and its answer, by a clock whose offset is known
//! at any time; and always later than the voter's previous vote according to the cookie. So if two requests of a voter
//! do not overlap on these clocks, it is certain which vote is earlier; and for each effective ballot it is known which
//! requests may have brought it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use vote_core::{Keep, PollSlug, VoterKey};
use vote_tools::Outcome;

use crate::{
    clocks::History,
    electorate::{Ballots, DIFFERING},
    journal::{Cast, VoterId},
    pipeline::Differing,
};

/// Error code of a frontend whose file defines the poll differently from the store.
pub(crate) const DIFFERS: &str = "poll-differs";

/// Effective ballot in the store. Names are text, since a wrong one may not be a valid name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) poll: String,
    pub(crate) voter: VoterKey,
    pub(crate) option: String,
    pub(crate) cast_at: i64,
}

/// Votes and tally of the store, in one snapshot.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counted {
    pub(crate) rows: Vec<Row>,
    /// Votes by poll and option.
    pub(crate) tally: BTreeMap<(String, String), i64>,
}

/// Problems that the check found. All counts are 0 if the run is exact.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    /// Acknowledged votes that are neither effective nor superseded by a vote of the same voter, and rows missing from
    /// the tally.
    pub(crate) lost: u64,
    /// Votes in the tally beyond those in the rows, and rows of one voter beyond the first.
    pub(crate) double_counted: u64,
    /// Rows that match no vote that was sent and not refused.
    pub(crate) wrongly_counted: u64,
    /// Votes that a frontend acknowledged for a poll that its file defines differently.
    pub(crate) wrongly_taken: u64,
    /// Votes that a frontend refused for a difference between its file and the store that does not exist, or as votes
    /// for an unknown option that exists.
    pub(crate) wrongly_refused: u64,
    /// Description of each problem, with all that is known.
    pub(crate) examples: Vec<String>,
}

impl Findings {
    pub(crate) const fn is_exact(&self) -> bool {
        self.lost == 0
            && self.double_counted == 0
            && self.wrongly_counted == 0
            && self.wrongly_taken == 0
            && self.wrongly_refused == 0
    }
}

/// Clocks and files of the frontends during a run.
#[derive(Debug, Default)]
pub(crate) struct Circumstances {
    /// History of the clock of each frontend.
    pub(crate) clocks: [History; 2],
    /// Periods in which a frontend had a file that defines a poll differently.
    pub(crate) differing: Vec<Differing>,
}

impl Circumstances {
    /// Returns whether the frontend certainly had a differing file when it answered.
    pub(crate) fn has_other_file(&self, cast: &Cast) -> bool {
        let Some(until) = cast.until else { return false };
        let covers = |differing: &Differing| {
            differing.starts.1 <= cast.from && differing.ends.is_none_or(|ends| until <= ends.0)
        };
        self.of(cast.frontend).any(covers)
    }

    /// Returns whether the frontend may have had a differing file when it answered.
    fn may_have_other_file(&self, cast: &Cast) -> bool {
        let touches = |differing: &Differing| {
            cast.until.is_none_or(|until| differing.starts.0 <= until)
                && differing.ends.is_none_or(|ends| cast.from <= ends.1)
        };
        self.of(cast.frontend).any(touches)
    }

    fn of(&self, frontend: usize) -> impl Iterator<Item = &Differing> {
        self.differing.iter().filter(move |differing| differing.frontend == frontend)
    }

    /// Records a vote that the frontend accepted or refused wrongly, given its file.
    fn check_files(&self, poll: PollSlug, cast: &Cast, findings: &mut Findings) {
        let differs = poll.as_str() == DIFFERING;
        let (wrong, what) = if differs && cast.outcome == Outcome::Acknowledged && self.has_other_file(cast) {
            (
                &mut findings.wrongly_taken,
                "accepted although the file of the frontend defines the poll differently",
            )
        } else if cast.answer.ends_with(DIFFERS) && !(differs && self.may_have_other_file(cast)) {
            (&mut findings.wrongly_refused, "refused for a difference that does not exist")
        } else if cast.answer.ends_with("unknown-option") {
            (&mut findings.wrongly_refused, "refused for an unknown option that exists")
        } else {
            return;
        };
        *wrong += 1;
        findings.examples.push(format!("{what}: in {poll} {cast}"));
    }
}

/// Checks every voter, every row and the tally.
pub(crate) fn verify(
    polls: &[Ballots],
    journal: &HashMap<VoterId, Vec<Cast>>,
    counted: &Counted,
    during: &Circumstances,
) -> Findings {
    let mut findings = Findings::default();
    let mut rows: HashMap<VoterId, &Row> = HashMap::new();
    for row in &counted.rows {
        let Some(poll) = polls.iter().find(|ballots| ballots.poll.as_str() == row.poll) else {
            findings.wrongly_counted += 1;
            findings.examples.push(format!("the poll of this row does not exist: {row:?}"));
            continue;
        };
        let id = (poll.poll, row.voter);
        if let Some(other) = rows.insert(id, row) {
            findings.double_counted += 1;
            findings.examples.push(format!("two votes of one voter are counted: {other:?} and {row:?}"));
        }
        if !journal.contains_key(&id) {
            findings.wrongly_counted += 1;
            findings.examples.push(format!("no voter sent this vote: {row:?}"));
        }
    }
    let keeps: HashMap<PollSlug, Keep> = polls.iter().map(|ballots| (ballots.poll, ballots.keep)).collect();
    // Sorted, so that the same run shows the same examples.
    for (id, casts) in journal.iter().collect::<BTreeMap<_, _>>() {
        let keep = keeps.get(&id.0).copied().unwrap_or_default();
        casts.iter().for_each(|cast| during.check_files(id.0, cast, &mut findings));
        let (wrong, what) = match judge(keep, casts, rows.get(id).copied(), &during.clocks) {
            Verdict::Fine => continue,
            Verdict::Lost(what) => (&mut findings.lost, what),
            Verdict::Wrong(what) => (&mut findings.wrongly_counted, what),
        };
        *wrong += 1;
        findings.examples.push(story(*id, keep, casts, rows.get(id).copied(), what));
    }
    check_tally(counted, &mut findings);
    findings
}

/// Result of the check of one voter.
enum Verdict {
    Fine,
    Lost(&'static str),
    Wrong(&'static str),
}

/// Checks whether the requests of a voter explain the voter's row.
fn judge(keep: Keep, casts: &[Cast], row: Option<&Row>, clocks: &[History; 2]) -> Verdict {
    let acknowledged = || casts.iter().filter(|cast| cast.outcome == Outcome::Acknowledged);
    let Some(row) = row else {
        return match acknowledged().next() {
            Some(_) => Verdict::Lost("a vote was acknowledged, but none is counted"),
            None => Verdict::Fine,
        };
    };
    let is_this = |cast: &&Cast| {
        let may_be = |(first, last): (i64, i64)| (first..=last).contains(&row.cast_at);
        cast.option.as_str() == row.option && times(cast, clocks).any(may_be)
    };
    if !casts.iter().filter(|cast| cast.outcome.may_be_stored()).any(|cast| is_this(&cast)) {
        return match casts.iter().find(is_this) {
            Some(_) => Verdict::Wrong("the counted vote was refused"),
            None => Verdict::Wrong("the counted vote matches no vote that was sent"),
        };
    }
    // Of two votes of the same microsecond the option decides, so that touching intervals leave the order open.
    let displaced = match keep {
        Keep::First => acknowledged().any(|cast| times(cast, clocks).all(|(_, last)| last < row.cast_at)),
        Keep::Last => acknowledged().any(|cast| times(cast, clocks).all(|(first, _)| first > row.cast_at)),
    };
    match (displaced, keep) {
        (false, _) => Verdict::Fine,
        (true, Keep::First) => Verdict::Lost("an earlier vote was acknowledged, and the first must be kept"),
        (true, Keep::Last) => Verdict::Lost("a later vote was acknowledged, and the last must be kept"),
    }
}

/// Returns the times at which a vote may have been cast, as inclusive ranges.
fn times(cast: &Cast, clocks: &[History; 2]) -> impl Iterator<Item = (i64, i64)> {
    let least = cast.after.map_or(i64::MIN, |after| after.saturating_add(1));
    let shown = clocks[cast.frontend].shown(cast.from, cast.until);
    shown.map(move |(first, last)| (first.max(least), last.max(least)))
}

/// Describes all requests and the row of a voter.
fn story((poll, voter): VoterId, keep: Keep, casts: &[Cast], row: Option<&Row>, what: &str) -> String {
    let mut text = format!("{what}: voter {voter} in poll {poll}, which keeps the {} vote", keep.as_str());
    for cast in casts {
        text.push_str(&format!("\n    sent {cast}"));
    }
    match row {
        Some(row) => text.push_str(&format!("\n    counted {} cast at {}", row.option, row.cast_at)),
        None => text.push_str("\n    counted nothing"),
    }
    text
}

/// Checks that the tally equals the recount of the rows.
fn check_tally(counted: &Counted, findings: &mut Findings) {
    let mut recount: BTreeMap<(String, String), i64> = BTreeMap::new();
    for row in &counted.rows {
        *recount.entry((row.poll.clone(), row.option.clone())).or_default() += 1;
    }
    for key in counted.tally.keys().chain(recount.keys()).collect::<BTreeSet<_>>() {
        let count = |of: &BTreeMap<_, i64>| of.get(key).copied().unwrap_or_default();
        let (tally, rows) = (count(&counted.tally), count(&recount));
        if tally != rows {
            let (poll, option) = key;
            let differing = tally.abs_diff(rows);
            let kind = if tally > rows { &mut findings.double_counted } else { &mut findings.lost };
            *kind += differing;
            findings
                .examples
                .push(format!("{tally} votes for {option} in the tally of {poll}, but {rows} rows"));
        }
    }
}

#[cfg(test)]
mod tests;
