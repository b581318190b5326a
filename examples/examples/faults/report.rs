//! What came of a run, as one line of JSON.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use crate::journal::{Cast, Outcome, VoterId};

/// The most examples of what is wrong that are shown.
pub(crate) const EXAMPLES: usize = 20;

/// The last line of stdout.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) duration_s: f64,
    pub(crate) fault_count: u64,
    pub(crate) faults: BTreeMap<String, u64>,
    pub(crate) voters: u64,
    pub(crate) sent: u64,
    pub(crate) acknowledged: u64,
    pub(crate) unknown: u64,
    pub(crate) refused: u64,
    /// Votes that followed another one of the same visit.
    pub(crate) double_votes: u64,
    /// Pairs of votes that were sent at the same time.
    pub(crate) at_once: u64,
    /// Visits of voters that had been there before.
    pub(crate) visits_again: u64,
    pub(crate) redis_replies_cut: u64,
    pub(crate) redis_replies_stalled: u64,
    pub(crate) store_replies_cut: u64,
    pub(crate) store_replies_stalled: u64,
    pub(crate) rows: u64,
    pub(crate) lost: u64,
    pub(crate) double_counted: u64,
    pub(crate) wrongly_counted: u64,
    /// How often the sums of the ledger were looked at during the run, beside the audit.
    pub(crate) ledger_checks: u64,
    pub(crate) audits: u64,
    pub(crate) audits_unavailable: u64,
    pub(crate) audit_failures: u64,
    pub(crate) drain_seconds: Option<f64>,
    pub(crate) unexpected_exits: Vec<String>,
    pub(crate) exact: bool,
}

impl Report {
    /// Counts what was sent.
    pub(crate) fn count(&mut self, journal: &HashMap<VoterId, Vec<Cast>>) {
        self.voters = journal.len() as u64;
        for cast in journal.values().flatten() {
            self.sent += 1;
            *match cast.outcome {
                Outcome::Acknowledged => &mut self.acknowledged,
                Outcome::Unknown => &mut self.unknown,
                Outcome::Refused => &mut self.refused,
            } += 1;
        }
    }

    /// As one line.
    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|e| unreachable!("numbers and texts are JSON: {e}"))
    }
}
