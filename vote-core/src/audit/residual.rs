//! What the books leave over, as numbers: cheap enough to be watched every second, where an [audit](super::audit) says in
//! words what is wrong.

use std::{collections::BTreeMap, ops::Add};

use super::View;
use crate::store::{Books, LedgerEntry};

/// Votes that the books of a poll leave over: 0 each, in every snapshot of a store, unless something is very wrong.
///
/// Differences are added up without their sign, so that a vote lost here does not hide one counted twice there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Residual {
    /// Accepted votes against what became of them. What a queue that was written off lost is known, and not among it.
    pub accepted: u64,
    /// Votes that added a voter against the tally.
    pub tally: u64,
    /// Quarantined votes of the ledger against those in quarantine.
    pub quarantined: u64,
}

impl Residual {
    /// Whether nothing is left over.
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

/// What is left over of each poll, by its name as queues hold it: of those registered, and of those that only the ledger
/// or the tally know.
#[must_use]
pub fn residuals(books: &Books) -> BTreeMap<String, Residual> {
    let view = View::new(books);
    let registered = books.polls.iter().map(|poll| (poll.slug.to_string(), Residual::default()));
    let mut residuals: BTreeMap<String, Residual> = registered.collect();
    let mut tallies: BTreeMap<&str, i128> = BTreeMap::new();
    for row in &books.ledger {
        let entry = &row.entry;
        let residual = residuals.entry(entry.poll.clone()).or_default();
        count(&mut residual.accepted, unaccounted(entry, view.is_retired(entry.queue)));
        count(&mut residual.quarantined, view.not_set_aside(row));
        *tallies.entry(&entry.poll).or_default() += i128::from(entry.new_voters);
    }
    for row in &books.tally {
        *tallies.entry(row.poll.as_str()).or_default() -= i128::from(row.votes);
    }
    for (poll, difference) in tallies {
        count(&mut residuals.entry(poll.to_owned()).or_default().tally, difference);
    }
    residuals
}

/// Votes that were accepted and of which nobody knows what became; below 0, those that were not accepted and are counted.
/// What is missing of a retired queue is known to be missing.
pub(super) fn unaccounted(entry: &LedgerEntry, is_retired: bool) -> i128 {
    let accounted =
        i128::from(entry.new_voters) + i128::from(entry.superseded) + i128::from(entry.quarantined);
    let unaccounted = i128::from(entry.accepted) - accounted;
    if is_retired { unaccounted.min(0) } else { unaccounted }
}

/// Numbers too large to be true come from damage; they must show, not wrap to 0.
fn count(sum: &mut u64, difference: i128) {
    *sum = sum.saturating_add(u64::try_from(difference.unsigned_abs()).unwrap_or(u64::MAX));
}
