//! The state of the whole pipeline, as workers reported it to the store: all queues, and the accounts of polls. Pure.

use std::collections::BTreeSet;

use vote_core::{
    Poll, Polls, QueueId, Timestamp,
    count::{Balance, Balances, QueueState, QueueSummary, RegisteredPoll, Summary},
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

impl Pipeline {
    /// Derives what may be shown of the store, given the polls of the file.
    #[must_use]
    pub(crate) fn new(polls: &Polls, summary: &Summary, balances: &Balances) -> Self {
        let disclosure = Disclosure::of_sums(polls, summary, balances);
        let queues = summary.queues.iter().map(|queue| QueueLine::new(queue, disclosure));
        let of_file: Vec<&str> = polls.iter().map(|poll| poll.slug.as_str()).collect();
        let of_store: BTreeSet<&str> = summary
            .polls
            .iter()
            .map(|known| known.poll.slug.as_str())
            .chain(balances.polls.keys().map(String::as_str))
            .filter(|slug| !of_file.contains(slug))
            .collect();
        let lines = of_file.into_iter().chain(of_store).map(|slug| {
            PollLine::new(slug, polls.get(slug), registered_as(summary, slug), balances.polls.get(slug))
        });
        Self { queues: queues.collect(), polls: lines.collect() }
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
    fn new(queue: &QueueSummary, disclosure: Disclosure) -> Self {
        let figures = Figures::disclosed(disclosure, || QueueFigures {
            accepted: queue.accepted,
            queued: queue.queued,
            reason: queue.reason.clone(),
        });
        Self {
            queue: queue.id,
            original_id: queue.original_id,
            address: queue.address.clone(),
            seen_at: queue.seen_at,
            state: queue.state,
            figures,
        }
    }
}

impl PollLine {
    fn new(
        slug: &str,
        poll: Option<&Poll>,
        registered: Option<&RegisteredPoll>,
        balance: Option<&Balance>,
    ) -> Self {
        let balance = balance.copied().unwrap_or_default();
        let figures = Figures::disclosed(Disclosure::of(poll, registered), || PollFigures {
            accepted: balance.accepted,
            new_voters: balance.new_voters,
            superseded: balance.superseded,
            quarantined: balance.quarantined,
            residual: balance.unaccounted,
        });
        Self {
            poll: slug.to_owned(),
            title: poll.map(|poll| poll.title.clone()),
            registered: registered.is_some(),
            problem: problem(poll, registered),
            conserved: balance.unaccounted == 0,
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

#[cfg(test)]
mod tests;
