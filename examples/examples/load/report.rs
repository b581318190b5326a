//! The verdict of a run, for people on stderr and for programs as one JSON object.

use std::collections::BTreeMap;

use serde::Serialize;

/// What a run found.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    /// Votes by outcome.
    pub(crate) acked: u64,
    pub(crate) unknown: u64,
    pub(crate) refused: u64,
    pub(crate) unsent: u64,
    /// Tries beyond the first of a vote.
    pub(crate) retries: u64,
    pub(crate) votes_per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) seconds: f64,
    pub(crate) drain_seconds: Option<f64>,
    pub(crate) voters: u64,
    /// Second votes that were cast.
    pub(crate) double_votes: u64,
    pub(crate) double_votes_percent: f64,
    /// Voters whose unknown votes leave open what they add.
    pub(crate) ambiguous: u64,
    pub(crate) keep: &'static str,
    pub(crate) seed: u64,
    pub(crate) expected: BTreeMap<String, u64>,
    pub(crate) tally: BTreeMap<String, i64>,
    pub(crate) exact: bool,
    /// Why this run proves less than was asked for.
    #[serde(skip)]
    pub(crate) incomplete: Option<String>,
}

impl Report {
    pub(crate) fn exit_code(&self) -> u8 {
        match (self.exact, &self.incomplete) {
            (false, _) => 1,
            (true, Some(_)) => 2,
            (true, None) => 0,
        }
    }

    /// One line.
    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|e| format!("{{\"error\": {:?}}}", e.to_string()))
    }

    /// Says on stderr what is wrong, if anything is.
    pub(crate) fn explain(&self) {
        if !self.exact {
            eprintln!(
                "load: NOT EXACT: the tally is not what the acknowledged votes imply, with whichever of the {} unknown \
                 ones ({} voters whose part is open)",
                self.unknown, self.ambiguous
            );
            eprintln!("{:>34} {:>14} {:>14} {:>12}", "option", "expected", "tally", "difference");
            for (option, expected) in &self.expected {
                let tally = self.tally.get(option).copied().unwrap_or_default();
                let difference = i128::from(tally) - i128::from(*expected);
                eprintln!("{option:>34} {expected:>14} {tally:>14} {difference:>+12}");
            }
            eprintln!(
                "load: check that nobody else voted meanwhile and that the poll's keep is {:?}; then look at \
                 `vote-results audit`: it tells a backlog (wait longer: --timeout-seconds) from votes lost or counted twice",
                self.keep
            );
        }
        if let Some(why) = &self.incomplete {
            eprintln!("load: {why}");
        }
    }
}
