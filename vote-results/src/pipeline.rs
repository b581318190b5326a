//! The state of the whole pipeline, as workers reported it to the store: all queues, and the accounts of polls. Pure.

use std::collections::{BTreeMap, BTreeSet};

use vote_core::{
    Poll, Polls, QueueId, Timestamp,
    count::{Accounts, LedgerRow, QueueRecord, QueueState, RegisteredPoll},
};

use crate::{
    disclosure::{Disclosure, Figures, registered_as},
    receipts::QueueOutcome,
};

mod json;

/// All queues and all polls, with the figures that may be published.
///
/// While any poll is withheld, the figures of queues are withheld too: with a single poll, the votes that its queues
/// accepted are its turnout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pipeline {
    /// Every queue ever reported, sorted by id.
    pub queues: Vec<QueueLine>,
    /// The polls of the file in its order, then those that only the store has.
    pub polls: Vec<PollLine>,
}

/// The last report of a queue. Serializes as an element of `queues` in `status.json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueLine {
    /// Identity of the queue.
    pub queue: QueueId,
    /// The id under which the queue accepted its votes, if it is a replaced queue.
    pub original_id: Option<QueueId>,
    /// Address at which a worker last saw the queue.
    pub address: String,
    /// Time of the last report, by the store's clock. Workers report at fixed intervals, whether or not votes come in.
    pub seen_at: Timestamp,
    /// Whether the queue is active, has diverged, or is retired.
    pub state: QueueState,
    /// Everything that depends on votes.
    pub figures: Figures<QueueFigures>,
}

/// The figures of a queue as of its last report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueFigures {
    /// Votes that the queue has accepted, by its own count.
    pub accepted: u64,
    /// Votes in the queue that were not committed yet, counted from its entries; a lower bound for very long backlogs.
    pub queued: u64,
    /// Why the queue diverged or was retired. The text may contain figures.
    pub reason: String,
}

/// The accounts of a poll over all queues. Serializes as an element of `polls` in `status.json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PollLine {
    /// Name of the poll as the queue holds it. It may not be a valid slug if a frame was damaged.
    pub poll: String,
    /// Title of the poll (the question), if the file has the poll.
    pub title: Option<String>,
    /// Whether the poll is registered in the store.
    pub registered: bool,
    /// Reason why the poll is not counted or shown as the file defines it.
    pub problem: Option<String>,
    /// Whether every vote that was read is accounted for: the residual is 0. Public even if the poll is withheld.
    pub conserved: bool,
    /// The counts of votes.
    pub figures: Figures<PollFigures>,
}

/// The counts of the votes of a poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PollFigures {
    /// Votes that queues accepted, up to the positions read.
    pub accepted: u64,
    /// Votes that were the first of their voter to be counted.
    pub new_voters: u64,
    /// Votes of voters who already had one.
    pub superseded: u64,
    /// Votes that could not be counted and are quarantined.
    pub quarantined: i64,
    /// `accepted − (new_voters + superseded + quarantined)`, without what is missing from retired queues. Positive: lost
    /// votes; negative: votes counted twice.
    pub residual: i64,
}

#[derive(Default)]
struct Sums {
    accepted: u64,
    new_voters: u64,
    superseded: u64,
    quarantined: i64,
    residual: i128,
}

impl Pipeline {
    /// Derives what may be shown of the accounts of the store, given the polls of the file.
    #[must_use]
    pub(crate) fn new(polls: &Polls, accounts: &Accounts) -> Self {
        let disclosure = Disclosure::of_sums(polls, accounts);
        let mut queues: Vec<_> =
            accounts.queues.iter().map(|record| QueueLine::new(record, disclosure)).collect();
        queues.sort_by_key(|line| line.queue);

        let sums = sums(accounts);
        let of_file: Vec<&str> = polls.iter().map(|poll| poll.slug.as_str()).collect();
        let of_store: BTreeSet<&str> = accounts
            .polls
            .iter()
            .map(|poll| poll.slug.as_str())
            .chain(sums.keys().copied())
            .filter(|slug| !of_file.contains(slug))
            .collect();
        let lines = of_file
            .into_iter()
            .chain(of_store)
            .map(|slug| PollLine::new(slug, polls.get(slug), registered_as(accounts, slug), sums.get(slug)));
        Self { queues, polls: lines.collect() }
    }

    /// Returns what the status of a vote in a queue depends on.
    #[must_use]
    pub fn queue_outcome(&self, queue: QueueId) -> QueueOutcome {
        let replaced = self.queues.iter().filter(|line| line.original_id == Some(queue));
        QueueOutcome {
            is_ended: self.queues.iter().any(|line| line.queue == queue && line.state.is_ended()),
            replaced: replaced.map(|line| line.queue).collect(),
        }
    }
}

impl QueueLine {
    fn new(record: &QueueRecord, disclosure: Disclosure) -> Self {
        let figures = Figures::disclosed(disclosure, || QueueFigures {
            accepted: record.votes_accepted(),
            queued: record.queued.values().sum(),
            reason: record.reason.clone(),
        });
        Self {
            queue: record.id,
            original_id: record.original_id,
            address: record.address.clone(),
            seen_at: record.seen_at,
            state: record.state,
            figures,
        }
    }
}

impl PollLine {
    fn new(
        slug: &str,
        poll: Option<&Poll>,
        registered: Option<&RegisteredPoll>,
        sums: Option<&Sums>,
    ) -> Self {
        let none = Sums::default();
        let sums = sums.unwrap_or(&none);
        let out_of_range = if sums.residual < 0 { i64::MIN } else { i64::MAX };
        let figures = Figures::disclosed(Disclosure::of(poll, registered), || PollFigures {
            accepted: sums.accepted,
            new_voters: sums.new_voters,
            superseded: sums.superseded,
            quarantined: sums.quarantined,
            residual: i64::try_from(sums.residual).unwrap_or(out_of_range),
        });
        Self {
            poll: slug.to_owned(),
            title: poll.map(|poll| poll.title.clone()),
            registered: registered.is_some(),
            problem: problem(poll, registered),
            conserved: sums.residual == 0,
            figures,
        }
    }

    /// Whether the figures are withheld.
    #[must_use]
    pub const fn is_withheld(&self) -> bool {
        matches!(self.figures, Figures::Withheld)
    }
}

fn problem(poll: Option<&Poll>, registered: Option<&RegisteredPoll>) -> Option<String> {
    match (poll, registered) {
        (Some(poll), Some(registered)) => match registered.difference(poll) {
            Some(difference) => Some(format!("in the store, its {difference}")),
            None if registered.results != poll.results && registered.final_at.is_none() => Some(format!(
                "in the store, its results are {:?} where the file says {:?}: they are withheld until the poll is final",
                registered.results.as_str(),
                poll.results.as_str()
            )),
            None => None,
        },
        (Some(_), None) => Some("not in the store: no worker has registered it yet".to_owned()),
        (None, Some(_)) => Some("not in this service's file of polls: its results are not shown".to_owned()),
        (None, None) => Some("not registered: its votes are quarantined".to_owned()),
    }
}

fn sums(accounts: &Accounts) -> BTreeMap<&str, Sums> {
    let is_retired = |queue: &&QueueRecord| queue.state == QueueState::Retired;
    let retired: BTreeSet<QueueId> =
        accounts.queues.iter().filter(is_retired).map(|queue| queue.id).collect();
    let mut sums: BTreeMap<&str, Sums> = BTreeMap::new();
    for LedgerRow { entry, .. } in &accounts.ledger {
        let sum = sums.entry(entry.poll.as_str()).or_default();
        // Impossibly large numbers come from damaged data. They must show up in the residual, not crash the process.
        sum.accepted = sum.accepted.saturating_add(entry.accepted);
        sum.new_voters = sum.new_voters.saturating_add(entry.new_voters);
        sum.superseded = sum.superseded.saturating_add(entry.superseded);
        sum.quarantined = sum.quarantined.saturating_add(entry.quarantined);
        sum.residual += entry.unaccounted(retired.contains(&entry.queue));
    }
    sums
}

#[cfg(test)]
mod tests;
