//! Report of a run, as one line of JSON.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use vote_tools::Outcome;

use crate::{
    electorate::DIFFERING,
    journal::{Cast, VoterId},
    verify::{Circumstances, DIFFERS},
};

/// Maximum number of examples of problems that are printed.
pub(crate) const EXAMPLES: usize = 20;

/// Report of a run, which is the last line of stdout.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    /// How the third poll is closed.
    pub(crate) closing: &'static str,
    /// Whether Postgres may be rolled back.
    pub(crate) rolls_back: bool,
    pub(crate) duration_s: f64,
    pub(crate) fault_count: u64,
    pub(crate) faults: BTreeMap<String, u64>,
    pub(crate) voters: u64,
    pub(crate) sent: u64,
    pub(crate) acknowledged: u64,
    pub(crate) unknown: u64,
    pub(crate) refused: u64,
    /// Number of refused requests by answer.
    pub(crate) refusals: BTreeMap<String, u64>,
    /// Number of votes that followed another one in the same visit.
    pub(crate) double_votes: u64,
    /// Number of pairs of votes that were sent at the same time.
    pub(crate) at_once: u64,
    /// Number of repeated visits of voters.
    pub(crate) visits_again: u64,
    pub(crate) redis_replies_cut: u64,
    pub(crate) redis_replies_stalled: u64,
    pub(crate) store_replies_cut: u64,
    pub(crate) store_replies_stalled: u64,
    pub(crate) rows: u64,
    pub(crate) lost: u64,
    pub(crate) double_counted: u64,
    pub(crate) wrongly_counted: u64,
    pub(crate) wrongly_taken: u64,
    pub(crate) wrongly_refused: u64,
    /// Number of votes that frontends refused because their file defines the poll differently.
    pub(crate) refused_for_the_file: u64,
    /// Number of votes that these frontends accepted for other polls meanwhile.
    pub(crate) taken_beside: u64,
    /// Second of the run at which the third poll was first seen closed.
    pub(crate) closed_seconds: Option<f64>,
    /// Second of the run at which the third poll was first seen final.
    pub(crate) final_seconds: Option<f64>,
    /// Number of votes counted for the third poll at the end.
    pub(crate) final_votes: i64,
    /// Number of violations found by the watch over the polls.
    pub(crate) poll_failures: u64,
    /// Number of checks of the ledger during the run, in addition to the audits.
    pub(crate) ledger_checks: u64,
    pub(crate) audits: u64,
    pub(crate) audits_unavailable: u64,
    pub(crate) audit_failures: u64,
    pub(crate) drain_seconds: Option<f64>,
    pub(crate) unexpected_exits: Vec<String>,
    pub(crate) exact: bool,
}

impl Report {
    /// Counts the requests of the journal.
    pub(crate) fn count(&mut self, journal: &HashMap<VoterId, Vec<Cast>>, during: &Circumstances) {
        self.voters = journal.len() as u64;
        for (poll, cast) in journal.iter().flat_map(|(id, casts)| casts.iter().map(|cast| (id.0, cast))) {
            self.sent += 1;
            self.refused_for_the_file += u64::from(cast.answer.ends_with(DIFFERS));
            let beside = poll.as_str() != DIFFERING && cast.outcome == Outcome::Acknowledged;
            self.taken_beside += u64::from(beside && during.has_other_file(cast));
            *match cast.outcome {
                Outcome::Acknowledged => &mut self.acknowledged,
                Outcome::Unknown => &mut self.unknown,
                Outcome::Refused | Outcome::NotStored => {
                    *self.refusals.entry(cast.answer.clone()).or_default() += 1;
                    &mut self.refused
                }
            } += 1;
        }
    }

    /// Returns the report as one line of JSON.
    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(self)
            .unwrap_or_else(|e| unreachable!("numbers and texts can be written as JSON: {e}"))
    }
}
