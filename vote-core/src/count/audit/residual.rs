//! Residuals: violations of the accounting invariants as numbers.
//!
//! They are cheap enough to be computed every second, whereas an [audit](super::audit) says in words what is wrong.

use std::{collections::BTreeMap, ops::Add};

use super::View;
use crate::count::Accounts;

/// Votes of a poll that violate an accounting invariant: 0 each in every snapshot of a store, unless something is
/// seriously wrong.
///
/// Differences are added up as absolute values, so that a lost vote does not hide one that was counted twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Residual {
    /// Accepted votes against accounted-for votes. What a retired queue lost is known, and not included.
    pub accepted: u64,
    /// Votes that added a voter against the tally.
    pub tally: u64,
    /// Quarantined votes by the ledger against those in quarantine.
    pub quarantined: u64,
}

impl Residual {
    /// Returns whether no invariant is violated.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }
}

impl Add for Residual {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            accepted: self.accepted.saturating_add(other.accepted),
            tally: self.tally.saturating_add(other.tally),
            quarantined: self.quarantined.saturating_add(other.quarantined),
        }
    }
}

/// Returns the residual of each poll, by its name as queues hold it: of registered polls, and of those that only the
/// ledger or the tally know.
#[must_use]
pub fn residuals(accounts: &Accounts) -> BTreeMap<String, Residual> {
    let view = View::new(accounts);
    let registered = accounts.polls.iter().map(|poll| (poll.slug.to_string(), Residual::default()));
    let mut residuals: BTreeMap<String, Residual> = registered.collect();
    let mut tallies: BTreeMap<&str, i128> = BTreeMap::new();
    for row in &accounts.ledger {
        let entry = &row.entry;
        let residual = residuals.entry(entry.poll.clone()).or_default();
        count(&mut residual.accepted, entry.unaccounted(view.is_retired(entry.queue)));
        count(&mut residual.quarantined, view.missing_in_quarantine(row));
        *tallies.entry(&entry.poll).or_default() += i128::from(entry.new_voters);
    }
    for row in &accounts.tally {
        *tallies.entry(row.poll.as_str()).or_default() -= i128::from(row.votes);
    }
    for (poll, difference) in tallies {
        count(&mut residuals.entry(poll.to_owned()).or_default().tally, difference);
    }
    residuals
}

/// Adds the absolute value of a difference, saturating: impossible numbers come from damage, and must not wrap to 0.
fn count(sum: &mut u64, difference: i128) {
    *sum = sum.saturating_add(u64::try_from(difference.unsigned_abs()).unwrap_or(u64::MAX));
}
