//! Record of what really happened in a history: what may be lost, and what was disturbed. Only the simulation knows it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;
use vote_core::{PollSlug, QueueId};

use crate::{
    history::OTHER_OPTION,
    voters::Acknowledged,
    world::{FRONTENDS, SERVERS},
};

/// A frontend that is disturbed within this time of a loss on its server may not notice the loss. No other component
/// can know of votes that no worker saw.
const NOTICED_WITHIN: Duration = Duration::from_secs(20);

/// Time after which all partitions are owned again after a start, stop or kill that the database notices at once.
const OWNED_AT_ONCE: Duration = Duration::from_secs(10);
/// The same after a freeze, or after a fault of a link or the database: an idle session ends only after 10 s.
const OWNED: Duration = Duration::from_secs(25);

/// Longest time until the checks notice that a poll is closed.
const SEEN_CLOSED_WITHIN: Duration = Duration::from_secs(1);

/// A loss of data. Votes that were acknowledged after `after` and sent until `until` may be lost.
#[derive(Debug, Clone, Copy)]
struct Loss {
    /// The server that lost data, or `None` if the database lost commits.
    server: Option<usize>,
    after: Instant,
    until: Instant,
}

/// A server that was copied.
#[derive(Debug, Clone)]
struct Copied {
    server: usize,
    at: Instant,
    /// Whether a worker could compare the two before the original lost the votes that it accepted after the copy.
    compared: bool,
    /// Whether the original lost those votes first.
    lost: bool,
    /// Polls that were final before the comparison. Those votes are late for them.
    finals: BTreeSet<PollSlug>,
}

/// What really happened in a history.
#[derive(Debug)]
pub(crate) struct Truth {
    losses: Vec<Loss>,
    /// Servers whose queues may be reported as diverged.
    diverged: BTreeSet<usize>,
    /// Disturbances of frontends.
    disturbed: Vec<(usize, Instant)>,
    closed_by_hand: BTreeSet<PollSlug>,
    /// Time from which every partition must have an owner.
    owned_from: Instant,
    copied: Vec<Copied>,
    /// Queues that the operator retired although they may have held votes.
    retired: BTreeSet<QueueId>,
    /// Whether the database ever came back in an earlier state.
    failed_over: bool,
    /// Polls whose registered definition the database lost.
    forgotten: BTreeSet<PollSlug>,
    /// Whether the database ever lost that a poll was final.
    finals_lost: bool,
    /// Times when the checks first saw each poll closed.
    closed: BTreeMap<PollSlug, Instant>,
}

impl Truth {
    /// Creates the record of a history that begins at `now`.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            losses: Vec::new(),
            diverged: BTreeSet::new(),
            disturbed: Vec::new(),
            closed_by_hand: BTreeSet::new(),
            owned_from: now + OWNED_AT_ONCE,
            copied: Vec::new(),
            retired: BTreeSet::new(),
            failed_over: false,
            forgotten: BTreeSet::new(),
            finals_lost: false,
            closed: BTreeMap::new(),
        }
    }

    /// Records that a server came back in the state that it had at `kept`.
    pub(crate) fn server_lost(&mut self, server: usize, kept: Instant, now: Instant) {
        self.losses.push(Loss { server: Some(server), after: kept, until: now });
        self.diverged.insert(server);
        let of_server = self.copied.iter_mut().filter(|copied| copied.server == server && !copied.compared);
        of_server.for_each(|copied| copied.lost = true);
    }

    /// Records that a server was copied to the last one, so that two servers have one identity.
    ///
    /// Until a worker reaches both, the pipeline does not know that the original accepted more votes. If the original
    /// ends or loses them before, the pipeline never learns of them.
    pub(crate) fn server_was_copied(&mut self, server: usize, now: Instant) {
        self.diverged.extend([server, SERVERS - 1]);
        let finals = BTreeSet::new();
        self.copied.push(Copied { server, at: now, compared: false, lost: false, finals });
    }

    /// Records that a worker has reached a server and its copy since `since`, and which polls are final by now.
    pub(crate) fn could_compare<'a>(
        &mut self,
        server: usize,
        since: Instant,
        finals: impl Iterator<Item = &'a PollSlug> + Clone,
    ) {
        let of_server = self.copied.iter_mut().filter(|copied| copied.server == server && !copied.lost);
        for copied in of_server.filter(|copied| copied.at <= since && !copied.compared) {
            copied.compared = true;
            copied.finals.extend(finals.clone());
        }
    }

    /// Whether a vote may be one that a server accepted after it was copied, and that workers did not learn of in time.
    fn is_unknown(&self, vote: &Acknowledged) -> bool {
        self.copied.iter().any(|copied| {
            let is_in_original = copied.server == vote.server && vote.at >= copied.at;
            is_in_original && (!copied.compared || copied.finals.contains(&vote.vote.poll))
        })
    }

    /// Records that the database came back in the state that it had at `kept`.
    ///
    /// Nothing is lost if the queues still hold what the database lost: if trimming is delayed for longer than the
    /// standby lags, or if the standby is a witness.
    pub(crate) fn database_lost(&mut self, kept: Instant, now: Instant, queues_hold_it: bool) {
        self.failed_over = true;
        if !queues_hold_it {
            self.losses.push(Loss { server: None, after: kept, until: now });
            self.diverged.extend(0..SERVERS);
        }
    }

    /// Records that the database lost the registered definitions of some polls, and that some were final.
    pub(crate) fn polls_lost(&mut self, definitions: Vec<PollSlug>, finals: Vec<PollSlug>) {
        self.forgotten.extend(definitions);
        self.finals_lost |= !finals.is_empty();
    }

    /// Whether a poll may have been registered with another definition before. Queues may then have accepted votes that
    /// can't be counted.
    pub(crate) fn may_have_changed_definitions(&self) -> bool {
        !self.forgotten.is_empty()
    }

    /// Whether a vote was made for a definition that the database lost, and that another one has replaced since. The
    /// handbook tells the operator to put the file of polls back.
    pub(crate) fn is_of_forgotten_definition(&self, vote: &Acknowledged) -> bool {
        self.forgotten.contains(&vote.vote.poll) && vote.vote.option.as_str() == OTHER_OPTION
    }

    /// Records that a frontend is disturbed.
    pub(crate) fn frontend_disturbed(&mut self, frontend: usize, now: Instant) {
        self.disturbed.push((frontend, now));
    }

    /// Records that the operator closed a poll.
    pub(crate) fn closed_by_hand(&mut self, poll: PollSlug) {
        self.closed_by_hand.insert(poll);
    }

    /// Whether the operator closed a poll.
    pub(crate) fn is_closed_by_hand(&self, poll: PollSlug) -> bool {
        self.closed_by_hand.contains(&poll)
    }

    /// Records that the operator retired a queue although it may have held votes.
    pub(crate) fn was_retired(&mut self, queue: QueueId) {
        self.retired.insert(queue);
    }

    /// Whether the operator retired a queue and the database may have lost that since. The server of the queue then has
    /// another queue, as after a loss.
    pub(crate) fn may_be_active_again(&self, queue: QueueId) -> bool {
        self.failed_over && self.retired.contains(&queue)
    }

    /// Records that partitions will change owners once database and workers notice that a disturbance began or ended.
    pub(crate) fn owners_change(&mut self, now: Instant) {
        self.owned_from = self.owned_from.max(now + OWNED);
    }

    /// Records that partitions change owners, which the database notices at once.
    pub(crate) fn owners_change_at_once(&mut self, now: Instant) {
        self.owned_from = self.owned_from.max(now + OWNED_AT_ONCE);
    }

    /// Whether every partition must have an owner.
    pub(crate) fn must_be_owned(&self) -> bool {
        Instant::now() >= self.owned_from
    }

    /// Whether the queue of a server may be reported as diverged.
    pub(crate) fn may_have_diverged(&self, server: usize) -> bool {
        self.diverged.contains(&server)
    }

    /// Whether anything may have been lost.
    pub(crate) fn may_have_lost(&self) -> bool {
        !self.losses.is_empty()
    }

    /// Whether the database ever came back in an earlier state.
    pub(crate) fn failed_over(&self) -> bool {
        self.failed_over
    }

    /// Whether a poll that was final may no longer be: the database lost votes, or it lost with its latest commits that
    /// the poll was final, and open queues take votes for it again, or that the operator had retired a queue, whose votes
    /// are then counted after all.
    pub(crate) fn may_take_back_finality(&self) -> bool {
        self.may_have_lost() || self.finals_lost || (self.failed_over && !self.retired.is_empty())
    }

    /// Whether a vote may be lost.
    pub(crate) fn may_be_lost(&self, vote: &Acknowledged) -> bool {
        if self.is_unknown(vote)
            || self.retired.contains(&vote.stored.queue)
            || self.is_of_forgotten_definition(vote)
        {
            return true;
        }
        self.losses.iter().any(|loss| match loss.server {
            Some(server) => server == vote.server && vote.at > loss.after && vote.sent <= loss.until,
            None => vote.sent <= loss.until,
        })
    }

    /// Records that a poll is closed.
    pub(crate) fn became_closed(&mut self, poll: PollSlug) {
        self.closed.entry(poll).or_insert_with(Instant::now);
    }

    /// Whether a vote may have been accepted after its poll was closed: a queue that lost data may have lost its seal.
    /// Such a vote is counted if the poll is not final by then, and quarantined otherwise.
    pub(crate) fn may_be_late(&self, vote: &Acknowledged) -> bool {
        let is_closed =
            self.closed.get(&vote.vote.poll).is_some_and(|at| vote.at + SEEN_CLOSED_WITHIN >= *at);
        is_closed && self.may_have_diverged(vote.server)
    }

    /// Whether a vote may be lost without any component noticing: only its voter can know.
    pub(crate) fn may_be_lost_unseen(&self, vote: &Acknowledged) -> bool {
        let unseen = |loss: &Loss| {
            self.disturbed.iter().any(|(frontend, at)| {
                Some(*frontend) == loss.server
                    && *at + NOTICED_WITHIN >= loss.after
                    && *at <= loss.until + NOTICED_WITHIN
            })
        };
        if self.is_unknown(vote) {
            return true;
        }
        self.may_be_lost(vote) && self.losses.iter().any(unseen) && vote.server < FRONTENDS
    }
}
