//! The content of the store at one moment, compared with what voters know.

use vote_core::{
    Keep, Partition, PollSlug, QueueId, StoreReader,
    count::{self, Accounts, Ballot, QueueRecord, QueueState, SealRecord},
};
use vote_results::receipts::{self, QueueOutcome, ReceiptStatus};
use vote_service::Receipt;

use crate::{
    server::at_once,
    voters::{Acknowledged, Journal},
    world::World,
};

/// The effective ballots of a poll, in the order of their voters' keys.
pub(super) struct Counted {
    pub(super) poll: PollSlug,
    pub(super) keep: Keep,
    pub(super) ballots: Vec<Ballot>,
}

/// The content of the store at one moment, read without the network.
pub(super) struct Moment {
    pub(super) accounts: Accounts,
    pub(super) counted: Vec<Counted>,
    /// Acknowledged votes that are not counted, in the order of their answers.
    pub(super) uncounted: Vec<Acknowledged>,
}

impl Moment {
    /// Reads the store, and compares it with the acknowledged votes except the first `trusted`.
    pub(super) fn of(world: &World, journal: &Journal, trusted: usize) -> Result<Self, String> {
        let mut snapshot = at_once(world.database.store.snapshot()).map_err(|e| e.to_string())?;
        let accounts = at_once(snapshot.accounts(true)).map_err(|e| e.to_string())?;
        let mut counted = Vec::new();
        for poll in &accounts.polls {
            let ballots = at_once(snapshot.ballots(poll.slug, None, usize::MAX));
            let ballots = ballots.map_err(|e| e.to_string())?;
            counted.push(Counted { poll: poll.slug, keep: poll.keep, ballots });
        }
        let mut moment = Self { accounts, counted, uncounted: Vec::new() };
        let votes = journal.acknowledged.iter().skip(trusted);
        moment.uncounted = votes.filter(|vote| !moment.counts(vote)).copied().collect();
        Ok(moment)
    }

    /// Whether a vote is counted, or superseded by another vote of its voter by the rule of the poll.
    pub(super) fn counts(&self, vote: &Acknowledged) -> bool {
        let vote = vote.vote;
        let ours = Ballot { voter: vote.voter, option: vote.option, cast_at: vote.cast_at };
        let Some(counted) = self.counted.iter().find(|counted| counted.poll == vote.poll) else {
            return false;
        };
        let place = counted.ballots.binary_search_by_key(&vote.voter, |ballot| ballot.voter);
        let theirs = place.ok().and_then(|place| counted.ballots.get(place));
        theirs.is_some_and(|theirs| count::merge(counted.keep, *theirs, ours) == *theirs)
    }

    /// Returns the server at the address of a queue.
    pub(super) fn server_of(world: &World, queue: &QueueRecord) -> Option<usize> {
        world.servers.iter().position(|server| server.name == queue.address)
    }
}

/// Returns whether every queue that is sealed for a poll was read to its seal. It may hold votes whose voters do not know
/// that they are stored, and only one worker may reach it, over a link that loses messages.
pub(super) fn is_read_to_its_seals(accounts: &Accounts, poll: PollSlug) -> bool {
    let is_read = |record: &SealRecord| {
        (0..).zip(&record.seal.ends).all(|(partition, end)| {
            let read = accounts.positions.get(&(record.queue, Partition(partition)));
            read.copied().unwrap_or_default() >= *end
        })
    };
    accounts.seals.iter().filter(|record| record.poll == poll).all(is_read)
}

/// Whether the operator retired the queue of a vote, and so knows that votes are missing.
pub(super) fn is_retired(moment: &Moment, vote: &Acknowledged) -> bool {
    let queue = moment.accounts.queues.iter().find(|queue| queue.id == vote.stored.queue);
    queue.is_some_and(|queue| queue.state == QueueState::Retired)
}

/// Whether the store does not know the queue of a vote: it was set back to a moment before the queue was recorded. The
/// handbook tells the operator to compare the queues with the nodes then.
pub(super) fn is_forgotten(moment: &Moment, vote: &Acknowledged) -> bool {
    !moment.accounts.queues.iter().any(|queue| queue.id == vote.stored.queue)
}

/// Returns the status that the results service reports for the receipt of a vote.
pub(super) async fn receipt_status(
    world: &World,
    moment: &Moment,
    vote: &Acknowledged,
) -> Result<ReceiptStatus, String> {
    let Acknowledged { vote, stored, .. } = vote;
    let receipt = Receipt {
        poll: vote.poll,
        queue: stored.queue,
        partition: stored.partition,
        position: stored.position,
        voter: vote.voter,
        cast_at: vote.cast_at,
        option: vote.option,
    };
    let record = |id: QueueId| moment.accounts.queues.iter().find(move |queue| queue.id == id);
    let replaced = moment.accounts.queues.iter().filter(|queue| queue.original_id == Some(stored.queue));
    let of_queue = QueueOutcome {
        is_ended: record(stored.queue).is_some_and(|queue| queue.state.is_ended()),
        replaced: replaced.map(|queue| queue.id).collect(),
    };
    receipts::status_of(&world.results, &world.files.full, &receipt, &of_queue)
        .await
        .map_err(|e| e.to_string())
}
