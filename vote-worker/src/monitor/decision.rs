//! What a worker concludes from what it saw of a queue. Pure: the monitor asks the queue and the store, passes on their
//! answers and the time, and carries out what is decided here.
//!
//! ```text
//! look → is it new? then check it → has it diverged? → claim → is its server confirmed? → is an inspection due?
//! inspection: status → observe → has it diverged? → next step
//! ```
//!
//! The order matters: what the last report tells is looked at before a look opens the queue. A loss that a seal or a read
//! shows takes effect at the next look.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use vote_core::{
    Partition, PollSlug, QueueId, Timestamp,
    count::QueueState,
    queue::{Accepted, Look, QueueStatus},
    store::{Catalog, CatalogQueue},
};

use super::claims::ClaimError;

mod check;
mod evidence;
#[cfg(test)]
mod machine;
mod obstacle;
mod reporter;
#[cfg(test)]
mod tests;

pub(super) use check::{
    LastReport, SealCheck, compare_seals, compare_with_report, evidence_if_gone, first_end_less,
};
pub(super) use evidence::Evidence;
pub(super) use obstacle::{Obstacle, compatible};
pub(super) use reporter::{Inspection, Role};

/// Interval at which the queue is reported to the store.
const REPORT_EVERY: Duration = Duration::from_secs(2);
/// How long another queue must have been at a fixed address before the one that was there counts as lost.
const VANISHED_AFTER: Duration = Duration::from_secs(10);

/// Address of a queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) address: &'a str,
    /// Whether it is one of a fixed list, and so leads to one server.
    pub(super) fixed: bool,
}

/// What is done with a queue that may be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NextStep {
    /// Nothing: another worker keeps it.
    Nothing,
    /// It accepts no votes yet: it is reported, sealed, told the polls and activated.
    Activate,
    /// It is sealed and told the polls where necessary.
    Keep {
        /// Whether it is reported to the store after that.
        report: bool,
        /// Whether its clock is compared with the store's after that.
        compare_clocks: bool,
    },
}

/// What a monitor remembers of the queue at its address.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// The queue that was checked last, and its server.
    last: Option<(QueueId, String)>,
    /// The queue that answered last, its server, and the store's time when that server had answered for the first time.
    met: Option<(QueueId, String, Timestamp)>,
    /// The queue that answered last, and its server, if its record had another server that was seen since it was met.
    rival: Option<(QueueId, String)>,
    /// Votes in partitions at the last look.
    seen: BTreeMap<Partition, u64>,
    /// Counts in the last status.
    accepted: Accepted,
    /// When this worker last reported the queue, since it was checked.
    reported_at: Option<Instant>,
    /// The last inspection since the queue was checked.
    inspected: Option<reporter::Inspected>,
    /// Polls whose seal was compared with the store's since the monitor met this queue.
    sealed: BTreeSet<PollSlug>,
    /// How it was detected that queues diverged, until the one that is here is replaced. By queue, so that a late report
    /// about an earlier queue takes nothing from what is known of this one.
    diverged: BTreeMap<QueueId, Evidence>,
    /// The queue at this address if another server had it, and when this server first answered that it has it.
    conflict: Option<(QueueId, Instant)>,
    /// Queues last reported from this address that are not here: the time of the last report, and since when it has not
    /// changed.
    missing: BTreeMap<QueueId, (Timestamp, Instant)>,
}

impl Memory {
    /// Forgets which queue is here, so that it is checked when it is read again.
    pub(super) fn forget(&mut self) {
        (self.last, self.met) = (None, None);
    }

    /// Records that a server has answered which queue it has. `at` is the store's time, or a little later.
    pub(super) fn meet(&mut self, look: &Look, at: Timestamp) {
        let is_known =
            self.met.as_ref().is_some_and(|(id, server, _)| *id == look.id && *server == look.server);
        if !is_known {
            self.met = Some((look.id, look.server.clone(), at));
        }
    }

    /// Records that a queue diverged: it lost data, was rolled back, or was copied.
    pub(super) fn record_divergence(&mut self, id: QueueId, evidence: Evidence) {
        self.diverged.insert(id, evidence);
    }

    /// Returns whether a queue was not seen before, or whether its server was restarted since. It must be
    /// [checked](compare_with_report) against the last report of it, before anything else is concluded.
    pub(super) fn is_new(&self, id: QueueId, server: &str) -> bool {
        self.last.as_ref().is_none_or(|(known, known_server)| *known != id || known_server != server)
    }

    /// Begins the check of a queue that is new here.
    pub(super) fn start_check(&mut self) {
        (self.reported_at, self.inspected) = (None, None);
        self.sealed.clear();
    }

    /// Ends the check of a queue, which had this server when the check began.
    pub(super) fn end_check(&mut self, id: QueueId, server: String, lost: Option<Evidence>) {
        if let Some(evidence) = lost {
            self.record_divergence(id, evidence);
        }
        self.accepted = Accepted::default();
        self.seen.clear();
        self.last = Some((id, server));
    }

    /// Compares the votes in partitions with those a moment ago, and applies what others have recorded in the store:
    /// another worker may have found that the queue diverged, or an operator may have retired it.
    pub(super) fn observe_look(&mut self, look: &Look, partitions: &[Partition], catalog: &Catalog) {
        let seen: BTreeMap<Partition, u64> =
            partitions.iter().copied().zip(look.accepted.iter().copied()).collect();
        let fell = |(partition, votes): (&Partition, &u64)| {
            self.seen.get(partition).is_some_and(|before| votes < before)
        };
        if seen.iter().any(fell) {
            self.record_divergence(look.id, Evidence::CountFell);
        }
        self.seen = seen;
        if let Some(record) = catalog.queues.get(&look.id).filter(|record| record.state.is_ended())
            && !self.diverged.contains_key(&look.id)
        {
            self.record_divergence(look.id, Evidence::Recorded(record.reason.clone()));
        }
    }

    /// Compares the counts in the status of a queue with those in the status before. Returns queues that were here before
    /// and are nowhere now, if a report is due: they are to be recorded as diverged.
    pub(super) fn observe(
        &mut self,
        status: &QueueStatus,
        report: bool,
        at: Place<'_>,
        catalog: &Catalog,
        now: Instant,
    ) -> Vec<QueueId> {
        if self.accepted.first_fall(&status.accepted).is_some() {
            self.record_divergence(status.id, Evidence::CountFell);
        }
        self.accepted.clone_from(&status.accepted);
        if report { self.vanished(status.id, at, catalog, now) } else { Vec::new() }
    }

    /// Returns queues that were last seen at this address, and that no worker has seen for some time while another
    /// queue was here: their server came back without them. None unless the address is one of a fixed list; behind a
    /// name, servers change their addresses.
    fn vanished(&mut self, here: QueueId, at: Place<'_>, catalog: &Catalog, now: Instant) -> Vec<QueueId> {
        if !at.fixed {
            return Vec::new();
        }
        let is_missing = |(id, record): &(&QueueId, &CatalogQueue)| {
            **id != here
                && record.state == QueueState::Active
                && record.original_id.is_none()
                && record.address == at.address
        };
        // A queue that is not late was seen lately, here or at another address.
        let missing: BTreeMap<QueueId, Timestamp> = catalog
            .queues
            .iter()
            .filter(is_missing)
            .filter_map(|(id, _)| Some((*id, *catalog.late.get(id)?)))
            .collect();
        self.missing.retain(|id, _| missing.contains_key(id));
        let mut is_gone = |(id, last_seen): (&QueueId, &Timestamp)| {
            let (seen_at, since) = self.missing.entry(*id).or_insert((*last_seen, now));
            if seen_at != last_seen {
                (*seen_at, *since) = (*last_seen, now);
            }
            now.saturating_duration_since(*since) >= VANISHED_AFTER
        };
        missing.iter().filter(|queue| is_gone(*queue)).map(|(id, _)| *id).collect()
    }

    /// Returns the evidence that the queue that is here diverged. If there is any, the queue is recorded as diverged and
    /// replaced, and nothing is read meanwhile.
    pub(super) fn divergence(&mut self, id: QueueId) -> Option<Evidence> {
        // A divergence of a queue that is no longer here is obsolete: another worker has replaced that queue.
        self.diverged.retain(|diverged, _| *diverged == id);
        self.diverged.get(&id).cloned()
    }

    /// Records that the queue that diverged was replaced.
    pub(super) fn record_replacement(&mut self) {
        self.diverged.clear();
    }

    /// Returns when the server that is here first answered that it has a queue, if another server had it.
    pub(super) fn conflict_since(&mut self, id: QueueId) -> Option<Instant> {
        // A conflict about another queue says nothing about this one.
        self.conflict.take_if(|(conflicting, _)| *conflicting != id);
        self.conflict.map(|(_, since)| since)
    }

    /// Applies the result of a claim on a queue, whose server answered at `answered`.
    ///
    /// # Errors
    /// Fails with the reason why the queue is not read now.
    pub(super) fn apply_claim(
        &mut self,
        id: QueueId,
        claim: Result<(), ClaimError>,
        answered: Instant,
    ) -> Result<(), Obstacle> {
        match claim {
            Ok(()) => {
                self.conflict = None;
                Ok(())
            }
            Err(ClaimError::Here(address)) => {
                self.conflict = None;
                Err(Obstacle::ReadElsewhere { address })
            }
            Err(ClaimError::Unclear(address)) => {
                self.conflict.get_or_insert((id, answered));
                Err(Obstacle::Unclear { address })
            }
            Err(ClaimError::Copy(address)) => {
                // Both accepted votes under one identity. Which one is the copy can't be known, so both get a new one.
                let evidence = Evidence::Copied { address };
                self.record_divergence(id, evidence.clone());
                Err(Obstacle::Diverged(evidence))
            }
        }
    }

    /// Returns the closed polls for which the queue is to be sealed: unless it is sealed and the store knows what it
    /// held then, since both a server and a store may come back in a state without the seal. After the monitor met the
    /// queue, it compares each seal once, since the server may have come back in a state that has the seal and lacks
    /// entries.
    pub(super) fn to_seal(&self, status: &QueueStatus, catalog: &Catalog) -> Vec<PollSlug> {
        let mut polls = Vec::new();
        for poll in catalog.polls.iter().filter(|poll| poll.closed_at.is_some()) {
            let is_compared =
                self.sealed.contains(&poll.slug) && catalog.sealed.contains(&(status.id, poll.slug));
            if (poll.final_at.is_some() || is_compared) && status.is_sealed(poll.slug) {
                continue;
            }
            polls.push(poll.slug);
        }
        polls
    }

    /// Records that a seal of a queue was compared with the store's, and what the queue lost according to it.
    pub(super) fn record_seal_check(&mut self, id: QueueId, poll: PollSlug, lost: Option<Evidence>) {
        if let Some(evidence) = lost {
            self.record_divergence(id, evidence);
        }
        self.sealed.insert(poll);
    }

    /// Records that the queue was reported to the store.
    pub(super) fn record_report(&mut self, now: Instant) {
        self.reported_at = Some(now);
    }
}

/// Decides what is done with a queue that was inspected.
pub(super) fn next_step(status: &QueueStatus, inspection: Inspection, is_new: bool) -> NextStep {
    match inspection.role {
        Role::Observer => NextStep::Nothing,
        Role::Reporter | Role::Predecessor if !status.active => NextStep::Activate,
        // The clock of a new queue is not compared: its status was requested a second time, after a read of the store.
        Role::Reporter | Role::Predecessor => {
            NextStep::Keep { report: inspection.report, compare_clocks: inspection.report && !is_new }
        }
    }
}

/// Returns whether a queue is recorded as one that is read.
pub(super) fn is_read(queue: QueueId, catalog: &Catalog) -> bool {
    catalog.queues.get(&queue).is_some_and(|record| !record.state.is_ended())
}
