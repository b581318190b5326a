//! Residuals: violations of the accounting invariants as numbers.
//!
//! They are cheap enough to be computed every second, whereas an [audit](super::audit) says in words what is wrong.

use std::{collections::BTreeMap, ops::Add};

use super::{
    poll::Poll,
    view::{Rows, View},
};
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
    let (view, rows) = (View::new(accounts), Rows::by_poll(accounts, None));
    let registered = accounts.polls.iter().map(|poll| (poll.slug.to_string(), Residual::default()));
    let mut residuals: BTreeMap<String, Residual> = registered.collect();
    let has_counts = |rows: &Rows<'_>| !rows.ledger.is_empty() || !rows.tally.is_empty();
    for (name, rows) in rows.iter().filter(|(_, rows)| has_counts(rows)) {
        let poll = Poll::new(&view, name, rows);
        let residual = residuals.entry((*name).to_owned()).or_default();
        let mut tally = 0_i128;
        for row in &rows.ledger {
            count(&mut residual.accepted, poll.unaccounted(row));
            count(&mut residual.quarantined, poll.missing_in_quarantine(row));
            tally += i128::from(row.entry.new_voters);
        }
        tally -= rows.tally.iter().map(|row| i128::from(row.votes)).sum::<i128>();
        count(&mut residual.tally, tally);
    }
    residuals
}

/// Adds the absolute value of a difference, saturating: impossible numbers come from damage, and must not wrap to 0.
fn count(sum: &mut u64, difference: i128) {
    *sum = sum.saturating_add(u64::try_from(difference.unsigned_abs()).unwrap_or(u64::MAX));
}
