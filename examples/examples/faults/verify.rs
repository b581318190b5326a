//! Whether what is counted follows from what was sent. Pure: no I/O, no clock.
//!
//! A vote's time is set by the frontend that takes it, on the same machine, between the sending of the request and its
//! answer. So of two requests of a voter that do not overlap it is certain which vote is the earlier, and of a vote
//! that stands it is known which requests can have brought it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use vote_core::{Keep, PollSlug, VoterKey};

use crate::{
    electorate::Ballots,
    journal::{Cast, Outcome, VoterId},
};

/// A standing vote as the store has it, with names as text, since a wrong one may be no name at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) poll: String,
    pub(crate) voter: VoterKey,
    pub(crate) option: String,
    pub(crate) cast_at: i64,
}

/// What the store has, in one snapshot.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counted {
    pub(crate) rows: Vec<Row>,
    /// Votes by poll and option.
    pub(crate) tally: BTreeMap<(String, String), i64>,
}

/// What is wrong. All counts are 0 if nothing is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    /// Acknowledged votes that neither stand nor were superseded by a vote of the same voter.
    pub(crate) lost: u64,
    /// Votes that are in the tally more often than in the rows, and rows of one voter beyond the first.
    pub(crate) double_counted: u64,
    /// Rows that no vote explains which was sent and not refused.
    pub(crate) wrongly_counted: u64,
    /// Each in words, with all that is known.
    pub(crate) examples: Vec<String>,
}

impl Findings {
    pub(crate) const fn is_exact(&self) -> bool {
        self.lost == 0 && self.double_counted == 0 && self.wrongly_counted == 0
    }
}

/// Looks at every voter, every row and the tally.
pub(crate) fn verify(
    polls: &[Ballots],
    journal: &HashMap<VoterId, Vec<Cast>>,
    counted: &Counted,
) -> Findings {
    let mut findings = Findings::default();
    let mut rows: HashMap<VoterId, &Row> = HashMap::new();
    for row in &counted.rows {
        let Some(poll) = polls.iter().find(|ballots| ballots.poll.as_str() == row.poll) else {
            findings.wrongly_counted += 1;
            findings.examples.push(format!("{row:?} is of a poll that there is not"));
            continue;
        };
        let id = (poll.poll, row.voter);
        if let Some(other) = rows.insert(id, row) {
            findings.double_counted += 1;
            findings.examples.push(format!("two votes of one voter are counted: {other:?} and {row:?}"));
        }
        if !journal.contains_key(&id) {
            findings.wrongly_counted += 1;
            findings.examples.push(format!("nobody sent this vote: {row:?}"));
        }
    }
    let keeps: HashMap<PollSlug, Keep> = polls.iter().map(|ballots| (ballots.poll, ballots.keep)).collect();
    // In an order, so that the same run shows the same examples.
    for (id, casts) in journal.iter().collect::<BTreeMap<_, _>>() {
        let keep = keeps.get(&id.0).copied().unwrap_or_default();
        let (wrong, what) = match judge(keep, casts, rows.get(id).copied()) {
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

enum Verdict {
    Fine,
    Lost(&'static str),
    Wrong(&'static str),
}

/// Whether the row of a voter can be explained.
fn judge(keep: Keep, casts: &[Cast], row: Option<&Row>) -> Verdict {
    let acknowledged = || casts.iter().filter(|cast| cast.outcome == Outcome::Acknowledged);
    let Some(row) = row else {
        return match acknowledged().next() {
            Some(_) => Verdict::Lost("a vote was acknowledged and none stands"),
            None => Verdict::Fine,
        };
    };
    let is_this = |cast: &&Cast| cast.option.as_str() == row.option && cast.covers(row.cast_at);
    if !casts.iter().filter(|cast| cast.outcome != Outcome::Refused).any(|cast| is_this(&cast)) {
        return match casts.iter().find(is_this) {
            Some(_) => Verdict::Wrong("the vote that stands was said not to be stored"),
            None => Verdict::Wrong("no vote that was sent is the one that stands"),
        };
    }
    // The option decides between votes of the same microsecond, so that touching intervals leave it open.
    let displaced = match keep {
        Keep::First => acknowledged().any(|cast| cast.until.is_some_and(|until| until < row.cast_at)),
        Keep::Last => acknowledged().any(|cast| cast.from > row.cast_at),
    };
    match (displaced, keep) {
        (false, _) => Verdict::Fine,
        (true, Keep::First) => Verdict::Lost("an earlier vote was acknowledged, and the first is to stand"),
        (true, Keep::Last) => Verdict::Lost("a later vote was acknowledged, and the last is to stand"),
    }
}

fn story((poll, voter): VoterId, keep: Keep, casts: &[Cast], row: Option<&Row>, what: &str) -> String {
    let mut text = format!("{what}: voter {voter} in {poll}, where the {} vote stands", keep.as_str());
    for cast in casts {
        text.push_str(&format!("\n    sent {cast}"));
    }
    match row {
        Some(row) => text.push_str(&format!("\n    counted {} cast at {}", row.option, row.cast_at)),
        None => text.push_str("\n    counted nothing"),
    }
    text
}

/// The tally must be the recount of the rows.
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
            findings.examples.push(format!("the tally says {tally} for {option} in {poll}, the rows {rows}"));
        }
    }
}

#[cfg(test)]
mod tests;
