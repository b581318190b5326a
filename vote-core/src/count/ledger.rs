//! The ledger: what happened to the votes of each queue, partition and poll.

use crate::{Partition, QueueId};

/// Counts of the votes that were read from one partition of one queue for one poll.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerEntry {
    /// The queue.
    pub queue: QueueId,
    /// Name of the poll, as the queue holds it.
    pub poll: String,
    /// Votes accepted up to the new position. In a plan, this replaces the count in the store.
    pub accepted: u64,
    /// Votes that added a voter. In a plan, this and the following counts are added to those in the store.
    pub new_voters: u64,
    /// Votes of voters who had a ballot already, whichever of the two became effective.
    pub superseded: u64,
    /// Votes that were quarantined, minus those that were counted by a replay, so it may be negative in a plan. Other
    /// votes of the same frames are not included.
    pub quarantined: i64,
}

impl LedgerEntry {
    /// Returns the votes that violate the conservation invariant `accepted = new_voters + superseded + quarantined`: 0 in
    /// every row of a ledger, whatever is read or committed meanwhile. A positive number of accepted votes was lost; a
    /// negative number was counted or quarantined without having been accepted.
    ///
    /// If the queue [is retired](super::QueueState::Retired), an operator has accepted that votes of it are missing, so a
    /// loss there violates nothing. Votes that were never accepted still do.
    #[must_use]
    pub fn unaccounted(&self, is_retired: bool) -> i128 {
        unaccounted([self.accepted, self.new_voters, self.superseded], self.quarantined, is_retired)
    }
}

/// Computes what [`LedgerEntry::unaccounted`] returns: the only statement of the conservation invariant.
pub(super) fn unaccounted(
    [accepted, new_voters, superseded]: [u64; 3],
    quarantined: i64,
    is_retired: bool,
) -> i128 {
    let accounted = i128::from(new_voters) + i128::from(superseded) + i128::from(quarantined);
    let unaccounted = i128::from(accepted) - accounted;
    if is_retired { unaccounted.min(0) } else { unaccounted }
}

/// Row of the ledger: totals of everything ever read from one partition of one queue for one poll.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerRow {
    /// The partition.
    pub partition: Partition,
    /// The totals. The [conservation invariant](LedgerEntry::unaccounted) holds for them, unless votes were lost.
    pub entry: LedgerEntry,
}
