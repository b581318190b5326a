//! Summary and balances: what is shown and exported of a store all the time, without a row for each partition.
//!
//! Both are defined by the [`Accounts`]: [`Summary::of`] and [`Balances::of`]. A store may compute them in another way, so
//! that a caller does not have to read all accounts.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Accounts, QueueRecord, QueueState, RegisteredPoll,
    audit::{self, NOT_HEARD_FROM_AFTER, Residual},
    was_within,
};
use crate::{OptionSlug, QueueId, Timestamp};

/// Polls with their tallies, and queues, as of one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Time of the snapshot, by the store's clock.
    pub taken_at: Timestamp,
    /// On a standby of a database: time of the last change that has reached it, by the clock of its primary. `None` if
    /// the store is no standby, or has received no change yet.
    pub replayed_at: Option<Timestamp>,
    /// All registered polls, in the order of registration.
    pub polls: Vec<PollSummary>,
    /// All queues ever reported, including replaced queues, in the order of their identities.
    pub queues: Vec<QueueSummary>,
    /// Names of all polls in the last reports of queues.
    pub reported: BTreeSet<String>,
}

/// A registered poll and its tally.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PollSummary {
    /// The poll.
    pub poll: RegisteredPoll,
    /// Its [tally](Accounts::tally_of).
    pub tally: Vec<(OptionSlug, u64)>,
    /// Time of the [last change](Accounts::tally_changed_at) of its tally.
    pub tally_changed_at: Option<Timestamp>,
}

/// The last report of a queue, without its partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueSummary {
    /// Identity of the queue.
    pub id: QueueId,
    /// For a replaced queue, the identity under which it accepted votes.
    pub original_id: Option<QueueId>,
    /// Address at which it was last seen.
    pub address: String,
    /// Time of the last report, by the store's clock.
    pub seen_at: Timestamp,
    /// Votes that it reported as accepted, of all polls.
    pub accepted: u64,
    /// Votes that were not committed at that time, of all polls, as far as they were counted.
    pub queued: u64,
    /// State of the queue.
    pub state: QueueState,
    /// Why it diverged or was retired; otherwise empty.
    pub reason: String,
    /// Whether it is among those [not heard from](audit::not_heard_from).
    pub is_not_heard_from: bool,
}

impl Summary {
    /// Returns the summary of a store with these accounts, which is no standby.
    #[must_use]
    pub fn of(accounts: &Accounts) -> Self {
        let polls = accounts.polls.iter().map(|poll| PollSummary {
            poll: poll.clone(),
            tally: accounts.tally_of(poll.slug),
            tally_changed_at: accounts.tally_changed_at.get(&poll.slug).copied(),
        });
        let missed: BTreeSet<QueueId> = audit::not_heard_from(accounts).into_iter().collect();
        let queues = accounts
            .queues
            .iter()
            .map(|record| QueueSummary { is_not_heard_from: missed.contains(&record.id), ..record.into() });
        let counters =
            accounts.queues.iter().flat_map(|record| record.accepted.keys().chain(record.queued.keys()));
        Self {
            taken_at: accounts.taken_at,
            replayed_at: None,
            polls: polls.collect(),
            queues: queues.collect(),
            reported: counters.cloned().collect(),
        }
    }
}

impl Summary {
    /// Returns the poll of this name, if it is registered.
    #[must_use]
    pub fn poll(&self, name: &str) -> Option<&PollSummary> {
        self.polls.iter().find(|known| known.poll.slug.as_str() == name)
    }
}

impl From<&QueueRecord> for QueueSummary {
    /// Returns the summary of a queue that workers report.
    fn from(record: &QueueRecord) -> Self {
        // Impossibly large numbers come from damaged data. They must not crash the process.
        let sum = |counters: &crate::queue::Counters| {
            counters.values().fold(0, |sum: u64, n| sum.saturating_add(*n))
        };
        Self {
            id: record.id,
            original_id: record.original_id,
            address: record.address.clone(),
            seen_at: record.seen_at,
            accepted: sum(&record.accepted),
            queued: sum(&record.queued),
            state: record.state,
            reason: record.reason.clone(),
            is_not_heard_from: false,
        }
    }
}

impl QueueSummary {
    /// Returns whether the queue may be [not heard from](audit::not_heard_from) at a time of the store's clock, which
    /// then depends on what is still to be read from it.
    #[must_use]
    pub fn is_late(&self, taken_at: Timestamp) -> bool {
        !self.state.is_ended() && !was_within(self.seen_at, taken_at, NOT_HEARD_FROM_AFTER)
    }
}

/// Sums of the ledger and of the quarantine over all queues and partitions, as of one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Balances {
    /// By name as queues hold it: of registered polls, and of those that only the ledger or the tally know.
    pub polls: BTreeMap<String, Balance>,
    /// Number of votes in quarantine.
    pub quarantined: u64,
    /// Number of frames in quarantine that no operator has decided on.
    pub pending: u64,
    /// Names of all polls in the ledger, in seals and in quarantine.
    pub named: BTreeSet<String>,
}

/// Sums of the ledger of one poll, and the votes that violate the invariants.
///
/// Sums that are too large, which only damage can cause, are the largest number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Balance {
    /// Accepted votes, up to the positions read.
    pub accepted: u64,
    /// Votes that added a voter.
    pub new_voters: u64,
    /// Votes of voters who had a ballot already.
    pub superseded: u64,
    /// Quarantined votes.
    pub quarantined: i64,
    /// Sum of the [unaccounted](super::LedgerEntry::unaccounted) votes, in which those lost and those counted twice cancel
    /// each other out.
    pub unaccounted: i64,
    /// Votes that violate an invariant.
    pub residual: Residual,
}

/// Exact sums of the ledger of one poll.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sums {
    pub(crate) accepted: i128,
    pub(crate) new_voters: i128,
    pub(crate) superseded: i128,
    pub(crate) quarantined: i128,
    pub(crate) unaccounted: i128,
}

impl Sums {
    /// Returns the balance with these sums.
    pub(crate) fn balance(&self, residual: Residual) -> Balance {
        let count = |n: i128| u64::try_from(n.max(0)).unwrap_or(u64::MAX);
        let signed = |n: i128| i64::try_from(n).unwrap_or(if n < 0 { i64::MIN } else { i64::MAX });
        Balance {
            accepted: count(self.accepted),
            new_voters: count(self.new_voters),
            superseded: count(self.superseded),
            quarantined: signed(self.quarantined),
            unaccounted: signed(self.unaccounted),
            residual,
        }
    }
}

impl Balances {
    /// Returns the balances of a store with these accounts.
    #[must_use]
    pub fn of(accounts: &Accounts) -> Self {
        let retired: BTreeSet<QueueId> = accounts
            .queues
            .iter()
            .filter(|queue| queue.state == QueueState::Retired)
            .map(|queue| queue.id)
            .collect();
        let mut sums: BTreeMap<&str, Sums> = BTreeMap::new();
        for row in &accounts.ledger {
            let (entry, sum) = (&row.entry, sums.entry(&row.entry.poll).or_default());
            sum.accepted += i128::from(entry.accepted);
            sum.new_voters += i128::from(entry.new_voters);
            sum.superseded += i128::from(entry.superseded);
            sum.quarantined += i128::from(entry.quarantined);
            sum.unaccounted += entry.unaccounted(retired.contains(&entry.queue));
        }
        let polls = audit::residuals(accounts).into_iter().map(|(poll, residual)| {
            let balance = sums.get(poll.as_str()).copied().unwrap_or_default().balance(residual);
            (poll, balance)
        });
        let in_quarantine = |of: fn(&super::QuarantineTotal) -> u64| {
            accounts.quarantine.iter().map(of).fold(0, |sum: u64, n| sum.saturating_add(n))
        };
        let in_ledger = sums.keys().map(|poll| (*poll).to_owned());
        let sealed = accounts.seals.iter().map(|record| record.poll.to_string());
        let quarantined = accounts.quarantine.iter().map(|total| total.poll.clone());
        Self {
            polls: polls.collect(),
            quarantined: in_quarantine(|total| total.votes),
            pending: in_quarantine(|total| total.pending),
            named: in_ledger.chain(sealed).chain(quarantined).collect(),
        }
    }
}
