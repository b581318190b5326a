//! What really happened in a history, which only the simulation knows: what may be lost, and what was disturbed.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;
use vote_core::PollSlug;

use crate::{
    history::DURATION,
    voters::Acknowledged,
    world::{FRONTENDS, SERVERS},
};

/// A frontend that is disturbed this long before or after its server loses data may not have noticed the loss, and
/// nobody else can know of votes that no worker saw.
const NOTICED_WITHIN: Duration = Duration::from_secs(20);

/// How often it is looked at whether a poll is closed.
const LOOKED_AT_EVERY: Duration = Duration::from_secs(1);

/// What may be lost: votes acknowledged after `after` and until `until`.
#[derive(Debug, Clone, Copy)]
struct Loss {
    /// The server; none if the database lost what it had committed.
    server: Option<usize>,
    after: Instant,
    until: Instant,
}

/// The truth.
#[derive(Debug)]
pub(crate) struct Truth {
    losses: Vec<Loss>,
    /// Servers whose queues may be called diverged.
    diverged: BTreeSet<usize>,
    disturbed: Vec<(usize, Instant)>,
    closed_by_hand: BTreeSet<PollSlug>,
    owners_changed: Instant,
    /// When polls were first seen to be closed.
    closed: BTreeMap<PollSlug, Instant>,
}

impl Truth {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            losses: Vec::new(),
            diverged: BTreeSet::new(),
            disturbed: Vec::new(),
            closed_by_hand: BTreeSet::new(),
            owners_changed: now,
            closed: BTreeMap::new(),
        }
    }

    /// A server came back as it was at a moment.
    pub(crate) fn server_lost(&mut self, server: usize, kept: Instant, now: Instant) {
        self.losses.push(Loss { server: Some(server), after: kept, until: now });
        self.diverged.insert(server);
    }

    /// Two servers have one identity.
    pub(crate) fn server_was_copied(&mut self, server: usize) {
        self.diverged.insert(server);
    }

    /// A server was copied while no worker could compare the two. Where the original ends before one can, nobody knows that
    /// it went on: its votes are found when it returns, which may be after the poll was final.
    pub(crate) fn server_was_copied_unseen(&mut self, server: usize, now: Instant) {
        self.losses.push(Loss { server: Some(server), after: now, until: now + DURATION });
        self.disturbed.push((server, now));
    }

    /// The database came back as it was at a moment. With a delay of trimming that is longer than it lags, or if the
    /// standby is a witness, nothing is lost: the queues still hold it.
    pub(crate) fn database_lost(&mut self, kept: Instant, now: Instant, queues_hold_it: bool) {
        if !queues_hold_it {
            self.losses.push(Loss { server: None, after: kept, until: now });
            self.diverged.extend(0..SERVERS);
        }
    }

    pub(crate) fn frontend_disturbed(&mut self, frontend: usize, now: Instant) {
        self.disturbed.push((frontend, now));
    }

    pub(crate) fn closed_by_hand(&mut self, poll: PollSlug) {
        self.closed_by_hand.insert(poll);
    }

    pub(crate) fn is_closed_by_hand(&self, poll: PollSlug) -> bool {
        self.closed_by_hand.contains(&poll)
    }

    /// Something begins or ends that moves partitions.
    pub(crate) fn owners_change(&mut self, now: Instant) {
        self.owners_changed = now;
    }

    pub(crate) fn owners_changed(&self) -> Instant {
        self.owners_changed
    }

    /// Whether the queue of a server may be called diverged.
    pub(crate) fn may_have_diverged(&self, server: usize) -> bool {
        self.diverged.contains(&server)
    }

    /// Whether anything may have been lost.
    pub(crate) fn may_have_lost(&self) -> bool {
        !self.losses.is_empty()
    }

    /// Whether a vote may be lost.
    pub(crate) fn may_be_lost(&self, vote: &Acknowledged) -> bool {
        self.losses.iter().any(|loss| match loss.server {
            Some(server) => server == vote.server && vote.at > loss.after && vote.at <= loss.until,
            None => vote.at <= loss.until,
        })
    }

    pub(crate) fn became_closed(&mut self, poll: PollSlug) {
        self.closed.entry(poll).or_insert_with(Instant::now);
    }

    /// Whether a vote may have come after its poll was closed: a queue that lost data may have forgotten that it was
    /// sealed. It is counted if the poll is not final by then, and quarantined otherwise.
    pub(crate) fn may_be_late(&self, vote: &Acknowledged) -> bool {
        let is_closed = self.closed.get(&vote.vote.poll).is_some_and(|at| vote.at + LOOKED_AT_EVERY >= *at);
        is_closed && self.may_have_diverged(vote.server)
    }

    /// Whether a vote may be lost and nobody but its voter can know.
    pub(crate) fn may_be_lost_unseen(&self, vote: &Acknowledged) -> bool {
        let unseen = |loss: &Loss| {
            self.disturbed.iter().any(|(frontend, at)| {
                Some(*frontend) == loss.server
                    && *at + NOTICED_WITHIN >= loss.after
                    && *at <= loss.until + NOTICED_WITHIN
            })
        };
        self.may_be_lost(vote) && self.losses.iter().any(unseen) && vote.server < FRONTENDS
    }
}
