//! The accounts, indexed: the cost of an audit grows with the number of rows, and no faster.

use std::collections::{BTreeSet, HashMap};

use super::NOT_HEARD_FROM_AFTER;
use crate::{
    OptionSlug, Partition, PollSlug, QueueId,
    count::{
        Accounts, LedgerRow, QuarantineTotal, QueueRecord, RegisteredPoll, SealRecord, TallyRow, was_within,
    },
};

/// The accounts, with polls, queues and seals by their names.
pub(super) struct View<'a> {
    pub(super) accounts: &'a Accounts,
    polls: HashMap<&'a str, &'a RegisteredPoll>,
    queues: HashMap<QueueId, &'a QueueRecord>,
    seals: HashMap<(QueueId, PollSlug), &'a SealRecord>,
}

impl<'a> View<'a> {
    pub(super) fn new(accounts: &'a Accounts) -> Self {
        Self {
            accounts,
            polls: accounts.polls.iter().map(|poll| (poll.slug.as_str(), poll)).collect(),
            queues: accounts.queues.iter().map(|queue| (queue.id, queue)).collect(),
            seals: accounts.seals.iter().map(|seal| ((seal.queue, seal.poll), seal)).collect(),
        }
    }

    /// Returns a poll by its name, if it is registered.
    pub(super) fn registered(&self, poll: &str) -> Option<&'a RegisteredPoll> {
        self.polls.get(poll).copied()
    }

    /// Returns a queue, if it was ever reported.
    pub(super) fn queue(&self, id: QueueId) -> Option<&'a QueueRecord> {
        self.queues.get(&id).copied()
    }

    /// Returns what a queue held of a poll when the poll was sealed in it.
    pub(super) fn seal(&self, queue: QueueId, poll: PollSlug) -> Option<&'a SealRecord> {
        self.seals.get(&(queue, poll)).copied()
    }

    /// Returns whether no more votes for the poll can come from the queue.
    pub(super) fn is_complete(&self, queue: &QueueRecord, poll: PollSlug) -> bool {
        let seal = self.seal(queue.id, poll);
        seal.is_some_and(|record| self.accounts.is_read_to_all(queue.id, &record.seal.ends))
    }

    pub(super) fn is_late(&self, queue: &QueueRecord) -> bool {
        !was_within(queue.seen_at, self.accounts.taken_at, NOT_HEARD_FROM_AFTER)
    }

    /// Returns whether votes for the audited polls may still come from a queue.
    pub(super) fn may_yield_votes(&self, queue: &QueueRecord, only: Option<PollSlug>) -> bool {
        let registered = &self.accounts.polls;
        let mut asked = registered.iter().filter(|poll| only.is_none_or(|only| only == poll.slug));
        let some = asked.any(|poll| poll.final_at.is_none() && !self.is_complete(queue, poll.slug));
        let of_no_poll = only.is_none() && !queue.accepted.keys().all(|name| self.registered(name).is_some());
        some || of_no_poll || registered.is_empty()
    }
}

/// The rows of one poll.
#[derive(Default)]
pub(super) struct Rows<'a> {
    pub(super) ledger: Vec<&'a LedgerRow>,
    pub(super) seals: Vec<&'a SealRecord>,
    pub(super) tally: Vec<&'a TallyRow>,
    /// Effective ballots counted row by row, if they were.
    pub(super) ballots: Vec<(OptionSlug, u64)>,
    pub(super) quarantine: Vec<&'a QuarantineTotal>,
}

impl<'a> Rows<'a> {
    /// Returns the rows of each poll that has any, or of one.
    pub(super) fn by_poll(accounts: &'a Accounts, only: Option<&str>) -> HashMap<&'a str, Self> {
        let mut polls: HashMap<&str, Self> = HashMap::new();
        let is_asked = |poll: &str| only.is_none_or(|only| only == poll);
        for row in accounts.ledger.iter().filter(|row| is_asked(&row.entry.poll)) {
            polls.entry(&row.entry.poll).or_default().ledger.push(row);
        }
        for record in accounts.seals.iter().filter(|record| is_asked(record.poll.as_str())) {
            polls.entry(record.poll.as_str()).or_default().seals.push(record);
        }
        for row in accounts.tally.iter().filter(|row| is_asked(row.poll.as_str())) {
            polls.entry(row.poll.as_str()).or_default().tally.push(row);
        }
        let ballots = accounts.rows.iter().flatten();
        for ((poll, option), votes) in ballots.filter(|((poll, _), _)| is_asked(poll.as_str())) {
            polls.entry(poll.as_str()).or_default().ballots.push((*option, *votes));
        }
        for total in accounts.quarantine.iter().filter(|total| is_asked(&total.poll)) {
            polls.entry(&total.poll).or_default().quarantine.push(total);
        }
        polls
    }

    /// Returns the rows of one poll.
    pub(super) fn of(accounts: &'a Accounts, poll: &str) -> Self {
        Self::by_poll(accounts, Some(poll)).remove(poll).unwrap_or_default()
    }

    /// Returns the number of quarantined votes by queue and partition.
    pub(super) fn quarantined(&self) -> HashMap<(QueueId, Partition), u64> {
        let mut votes: HashMap<_, u64> = HashMap::new();
        for total in &self.quarantine {
            *votes.entry((total.queue, total.partition)).or_default() += total.votes;
        }
        votes
    }

    /// Returns the number of frames whose quarantined votes are pending.
    pub(super) fn frames_pending(&self) -> u64 {
        self.quarantine.iter().map(|total| total.pending).sum()
    }

    /// Returns the numbers of votes that were read, sorted by queue and partition.
    pub(super) fn accepted(&self) -> Vec<((QueueId, Partition), u64)> {
        let of_row = |row: &&LedgerRow| ((row.entry.queue, row.partition), row.entry.accepted);
        let mut accepted: Vec<_> = self.ledger.iter().map(of_row).collect();
        accepted.sort_unstable();
        accepted
    }
}

/// Returns the names of the polls to audit: those registered, and those that only queues or the ledger know.
pub(super) fn names<'a>(
    view: &View<'a>,
    rows: &HashMap<&'a str, Rows<'a>>,
    only: Option<PollSlug>,
) -> Vec<String> {
    if let Some(poll) = only {
        return vec![poll.to_string()];
    }
    let mut unknown: BTreeSet<&str> = BTreeSet::new();
    for queue in &view.accounts.queues {
        unknown.extend(queue.accepted.keys().chain(queue.queued.keys()).map(String::as_str));
    }
    unknown.extend(rows.iter().filter(|(_, rows)| !rows.ledger.is_empty()).map(|(name, _)| *name));
    unknown.retain(|name| view.registered(name).is_none());
    let registered = view.accounts.polls.iter().map(|poll| poll.slug.to_string());
    registered.chain(unknown.into_iter().map(str::to_owned)).collect()
}
