//! Report of a run: for people on stderr, and for programs as one JSON object.

use std::collections::BTreeMap;

use serde::Serialize;

/// Result of a run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    /// Number of acknowledged votes. This and the next three fields are the votes by outcome.
    pub(crate) acked: u64,
    pub(crate) unknown: u64,
    pub(crate) refused: u64,
    pub(crate) unsent: u64,
    /// Number of attempts beyond the first of each vote.
    pub(crate) retries: u64,
    pub(crate) votes_per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) seconds: f64,
    pub(crate) drain_seconds: Option<f64>,
    pub(crate) voters: u64,
    /// Number of second votes that were cast.
    pub(crate) double_votes: u64,
    pub(crate) double_votes_percent: f64,
    /// Number of voters whose contribution to the tally is open because of unknown votes.
    pub(crate) ambiguous: u64,
    pub(crate) keep: &'static str,
    pub(crate) seed: u64,
    pub(crate) expected: BTreeMap<String, u64>,
    pub(crate) tally: BTreeMap<String, i64>,
    pub(crate) exact: bool,
    /// Reason for which the run proves less than was asked for, if it does.
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

    /// Returns the report as one line of JSON.
    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|e| format!("{{\"error\": {:?}}}", e.to_string()))
    }

    /// Prints on stderr what is wrong, if anything is.
    pub(crate) fn explain(&self) {
        if !self.exact {
            eprintln!(
                "load: NOT EXACT: the tally is not what the acknowledged votes and any subset of the {} unknown ones \
                 imply (the contribution of {} voters is open)",
                self.unknown, self.ambiguous
            );
            eprintln!("{:>34} {:>14} {:>14} {:>12}", "option", "expected", "tally", "difference");
            for (option, expected) in &self.expected {
                let tally = self.tally.get(option).copied().unwrap_or_default();
                let difference = i128::from(tally) - i128::from(*expected);
                eprintln!("{option:>34} {expected:>14} {tally:>14} {difference:>+12}");
            }
            eprintln!(
                "load: check that no other votes were cast during the run and that the poll has keep = {:?}; then run \
                 `vote-results audit`, which tells a backlog (wait longer: --timeout-seconds) from votes lost or \
                 counted twice",
                self.keep
            );
        }
        if let Some(why) = &self.incomplete {
            eprintln!("load: {why}");
        }
    }
}
