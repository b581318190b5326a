//! Which worker reports a queue, when it inspects the queue, and which server of the queue may be read. Pure.

use std::time::{Duration, Instant};

use vote_core::{
    QueueId, Timestamp, WorkerId,
    count::QueueRecord,
    queue::{Look, QueueStatus},
    store::{Catalog, LATE_AFTER, WorkerRecord},
};

use super::{Evidence, Memory, Obstacle, REPORT_EVERY};

#[cfg(test)]
mod tests;

/// Time after which any worker reports a queue that is not reported. Shorter than the time after which the audit does not
/// hear from the queue.
const ANY_AFTER: Duration = Duration::from_secs(8);
/// An odd factor that spreads the difference of two identities over the leading bits.
const SPREAD: u128 = 0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835;

/// Whether this worker is the one that reports a queue, seals it, and records polls in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::monitor) enum Role {
    /// It does.
    Reporter,
    /// It does, until another worker that precedes it has taken over.
    Predecessor,
    /// Another worker does.
    Observer,
}

/// Whether the state of a queue is to be requested, and what for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::monitor) struct Inspection {
    pub(in crate::monitor) role: Role,
    /// Whether it is to be requested even without a report.
    pub(in crate::monitor) is_due: bool,
    /// Whether the queue is to be reported to the store.
    pub(in crate::monitor) report: bool,
}

/// An inspection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Inspected {
    at: Instant,
    /// Version of the catalog.
    version: u64,
    /// Whether the queue was active.
    active: bool,
}

impl Memory {
    /// Returns whether the server of a queue is the one that the store has on record, or is none that may be in conflict
    /// with it.
    pub(in crate::monitor) fn is_server_confirmed(
        &self,
        look: &Look,
        catalog: &Catalog,
        now: Instant,
    ) -> bool {
        // The catalog follows a report of this worker only after a moment.
        let reported_lately =
            self.reported_at.is_some_and(|at| now.saturating_duration_since(at) < REPORT_EVERY + LATE_AFTER);
        reported_lately
            || catalog
                .queues
                .get(&look.id)
                .is_none_or(|record| record.server.is_empty() || record.server == look.server)
    }

    /// Compares the server of a queue with the one in its record, which was read after the look, and at most at `now` of
    /// the store's clock.
    ///
    /// # Errors
    /// Fails unless the queue may be read: if both servers have it, or may have, or if another worker, which has to check
    /// the server first, has not reported it yet.
    pub(in crate::monitor) fn compare_servers(
        &mut self,
        look: &Look,
        record: Option<&QueueRecord>,
        role: Role,
        now: Timestamp,
    ) -> Result<(), Obstacle> {
        let Some(record) = record.filter(|record| record.server != look.server) else {
            self.rival = None;
            return Ok(());
        };
        let address = || record.address.clone();
        let answered = self.met.as_ref().map_or(Timestamp::MAX, |(_, _, at)| *at);
        // The other server was seen after this one had answered for the first time. A time in the future was recorded
        // before the store's clock was set back.
        if record.seen_at > answered && record.seen_at <= now {
            let here = Some((look.id, look.server.clone()));
            if self.rival == here {
                // This one has answered again, after the record was read that has the other one. So there was no
                // restart.
                let evidence = Evidence::Copied { address: address() };
                self.record_divergence(look.id, evidence.clone());
                return Err(Obstacle::Diverged(evidence));
            }
            self.rival = here;
            return Err(Obstacle::Unclear { address: address() });
        }
        self.rival = None;
        match role {
            Role::Reporter | Role::Predecessor => Ok(()),
            Role::Observer => Err(Obstacle::Unclear { address: address() }),
        }
    }

    /// Returns whether this worker is the one that reports a queue: the one that reported it last, unless another one
    /// that is alive precedes it. All workers have the same order for a queue, and another one for each queue, so that the
    /// queues are shared among them.
    ///
    /// If the queue is late, the first of the other workers takes over, and after a while any: the first may not reach
    /// the queue. Not all at once, since the queue may be late because the store is busy.
    pub(in crate::monitor) fn role(&self, id: QueueId, catalog: &Catalog, me: WorkerId) -> Role {
        let Some(reporter) = catalog.queues.get(&id).and_then(|record| record.reporter) else {
            return Role::Reporter;
        };
        let rank = |worker: WorkerId| {
            (u128::from_be_bytes(worker.0) ^ u128::from_be_bytes(id.0)).wrapping_mul(SPREAD)
        };
        let is_late = catalog.late.contains_key(&id);
        // A worker without lanes is about to end, or does not reach the store.
        let works = |worker: &&WorkerRecord| worker.lanes > 0 && (!is_late || worker.id != reporter);
        let is_first = || {
            catalog.workers.contains_key(&me)
                && catalog.workers.values().filter(works).all(|other| rank(other.id) <= rank(me))
        };
        if is_first() || !catalog.was_seen_within(id, ANY_AFTER) {
            Role::Reporter
        } else if reporter == me {
            Role::Predecessor
        } else {
            Role::Observer
        }
    }

    /// Returns whether the state of the queue is to be requested. `has_replaced` says that replaced queues at its address
    /// are read, which are gone once they are trimmed.
    pub(in crate::monitor) fn inspection(
        &self,
        role: Role,
        version: u64,
        has_replaced: bool,
        now: Instant,
    ) -> Inspection {
        let is_past = |at: Instant, time| now.saturating_duration_since(at) >= time;
        // A predecessor reports less often, so that the other worker's report is soon the latest: of two reports, the one
        // that was made at a later time counts.
        let report_every = match role {
            Role::Predecessor => 2 * REPORT_EVERY,
            Role::Reporter | Role::Observer => REPORT_EVERY,
        };
        let report = role != Role::Observer && self.reported_at.is_none_or(|at| is_past(at, report_every));
        let is_due = match self.inspected {
            None => true,
            Some(last) if role != Role::Observer => last.version != version || !last.active,
            Some(last) => has_replaced && is_past(last.at, REPORT_EVERY),
        };
        Inspection { role, is_due, report }
    }

    /// Records that the queue was inspected, with a catalog of this version.
    pub(in crate::monitor) fn record_inspection(&mut self, status: &QueueStatus, version: u64, now: Instant) {
        self.inspected = Some(Inspected { at: now, version, active: status.active });
    }
}
