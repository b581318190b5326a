//! Checks that the pipeline makes progress where faults do not prevent it.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;
use vote_core::{
    Partition, PollSlug,
    count::{QueueState, audit},
};

use super::{
    Problems,
    moment::{Moment, is_read_to_its_seals},
};
use crate::{
    truth::Truth,
    world::{FRONTENDS, SERVERS, WORKERS, World},
};

/// A vote that workers reach is counted within this time: a lane waits 20 s for an answer that was lost; by then,
/// another worker may own its partition and be frozen, so that its session ends only after 10 s; and partitions change
/// owners within 5 s.
const COUNTED_WITHIN: Duration = Duration::from_secs(35);
/// A worker that reaches a server and its copy reports that within this time.
const COMPARED_WITHIN: Duration = Duration::from_secs(5);
/// A closed poll whose queues are drained is final within this time.
const FINAL_WITHIN: Duration = Duration::from_secs(10);
/// An open poll is recorded within this time in each queue that a worker reaches.
const RECORDED_WITHIN: Duration = Duration::from_secs(15);
/// Time for which a partition may be without an owner: while it changes owners; while a lane that lost its session is
/// on probation for 5 s, and until the other worker learns it, which takes 3 s if a sign of life gets lost; and if, besides, the other worker does not reach every queue and leaves its partitions to the first.
const UNOWNED_FOR: [Duration; 3] = [Duration::from_secs(2), Duration::from_secs(8), Duration::from_secs(20)];

/// What the pipeline could do since when, and what it has not done yet.
#[derive(Debug)]
pub(super) struct Progress {
    /// Times since when each worker (first) works undisturbed and reaches each server (second).
    clear_since: BTreeMap<(usize, usize), Instant>,
    /// Times since when partitions have no owner.
    unowned_since: BTreeMap<Partition, Instant>,
    /// Time of the last check of owners.
    owners_checked_at: Instant,
    /// Times since when each closed poll could be final.
    could_be_final: BTreeMap<PollSlug, Instant>,
    /// Times since when each open poll (second) is not recorded in the queue of each server (first).
    unrecorded_since: BTreeMap<(usize, PollSlug), Instant>,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self {
            clear_since: BTreeMap::new(),
            unowned_since: BTreeMap::new(),
            owners_checked_at: Instant::now(),
            could_be_final: BTreeMap::new(),
            unrecorded_since: BTreeMap::new(),
        }
    }

    /// Records which workers reach which servers undisturbed, and that those which reach a server and its copy can
    /// compare them. `finals` are the polls that are final.
    pub(super) fn note_clear_paths<'a>(
        &mut self,
        world: &World,
        truth: &mut Truth,
        finals: impl Iterator<Item = &'a PollSlug> + Clone,
    ) {
        let (now, workers) = (Instant::now(), world.workers());
        for (n, worker) in workers.iter().enumerate() {
            for (s, server) in world.servers.iter().enumerate() {
                let is_clear =
                    world.is_undisturbed(worker) && worker.queue_links[s].is_clear() && server.answers();
                if is_clear {
                    let since = self.clear_since.entry((n, s)).or_insert(now);
                    *since = (*since).max(worker.started);
                } else {
                    self.clear_since.remove(&(n, s));
                }
            }
            let compared_from = now - COMPARED_WITHIN;
            let reaches =
                |s: usize| self.clear_since.get(&(n, s)).is_some_and(|since| *since <= compared_from);
            for server in (0..FRONTENDS).filter(|server| reaches(*server) && reaches(SERVERS - 1)) {
                truth.could_compare(server, compared_from, finals.clone());
            }
        }
    }

    /// Returns the longest time for which a worker has worked undisturbed and reached a server.
    pub(super) fn clear_for(&self, server: usize) -> Duration {
        let since =
            self.clear_since.iter().filter(|((_, s), _)| *s == server).map(|(_, since)| since.elapsed());
        since.max().unwrap_or_default()
    }

    /// Returns whether a worker has worked undisturbed, and reached a server, for this time.
    pub(super) fn has_beaten(&self, within: Duration) -> bool {
        self.clear_since.values().any(|since| since.elapsed() >= within)
    }

    /// Checks that the pipeline makes progress where faults do not prevent it.
    pub(super) fn check(&mut self, world: &World, truth: &Truth, moment: &Moment, problems: &mut Problems) {
        let late = moment.uncounted.iter().rev().find(|vote| {
            vote.at.elapsed() >= COUNTED_WITHIN
                && self.clear_for(vote.server) >= COUNTED_WITHIN
                && !truth.may_be_lost(vote)
                && !truth.may_be_late(vote)
        });
        if let Some(vote) = late {
            problems.add(world, "not counted in time, although a worker reaches it", || format!("{vote:?}"));
        }
        self.check_owners(world, truth, problems);
        self.check_finality(world, truth, moment, problems);
        self.check_records(world, truth, moment, problems);
    }

    /// Checks that every queue that a worker reaches accepts votes for every open poll. A queue that lost data may not
    /// be read; and a database that failed over may have lost the withdrawal for which a queue dropped a poll.
    fn check_records(&mut self, world: &World, truth: &Truth, moment: &Moment, problems: &mut Problems) {
        for poll in &moment.accounts.polls {
            let is_open = poll.closed_at.is_none() && poll.withdrawal.is_none();
            for server in 0..FRONTENDS {
                let may_be_missing = !is_open || truth.may_have_diverged(server) || truth.failed_over();
                if may_be_missing || world.servers[server].knows(poll.slug) {
                    self.unrecorded_since.remove(&(server, poll.slug));
                    continue;
                }
                let since =
                    self.unrecorded_since.entry((server, poll.slug)).or_insert_with(Instant::now).elapsed();
                if since.min(self.clear_for(server)) > RECORDED_WITHIN {
                    problems.add(
                        world,
                        "not recorded in a queue in time, although a worker reaches it",
                        || format!("{}, server {server}", poll.slug),
                    );
                }
            }
        }
    }

    /// Checks that every partition has an owner.
    fn check_owners(&mut self, world: &World, truth: &Truth, problems: &mut Problems) {
        let unowned = world.database.store.unowned();
        let undisturbed = world.workers().iter().filter(|worker| world.is_undisturbed(worker)).count();
        let reaches = |n: usize, s: usize| {
            self.clear_since.get(&(n, s)).is_some_and(|since| since.elapsed() >= UNOWNED_FOR[1])
        };
        let reach_all = (0..WORKERS).filter(|n| (0..SERVERS).all(|s| reaches(*n, s))).count();
        let grace = match (undisturbed, reach_all) {
            (WORKERS, _) => UNOWNED_FOR[0],
            (_, 1..) => UNOWNED_FOR[1],
            _ => UNOWNED_FOR[2],
        };
        // Between two checks a partition may have had an owner.
        let grace = grace + self.owners_checked_at.elapsed();
        self.owners_checked_at = Instant::now();
        let must_be_owned = truth.must_be_owned() && undisturbed > 0;
        self.unowned_since.retain(|partition, _| must_be_owned && unowned.contains(partition));
        for partition in unowned.into_iter().filter(|_| must_be_owned) {
            let since = self.unowned_since.entry(partition).or_insert_with(Instant::now).elapsed();
            if since > grace {
                problems.add(world, "a partition had no owner for too long", || partition.to_string());
            }
        }
    }

    /// Checks that drained closed polls become final.
    fn check_finality(&mut self, world: &World, truth: &Truth, moment: &Moment, problems: &mut Problems) {
        let all_clear = (0..world.servers.len()).all(|server| self.clear_for(server) >= FINAL_WITHIN);
        // An operator has to retire these first.
        let diverged = moment.accounts.queues.iter().any(|queue| queue.state == QueueState::Diverged)
            || !audit::not_heard_from(&moment.accounts).is_empty();
        for poll in &moment.accounts.polls {
            let counted = || moment.uncounted.iter().all(|vote| vote.vote.poll != poll.slug);
            let could_be = poll.closed_at.is_some()
                && poll.final_at.is_none()
                && all_clear
                && !diverged
                && truth.must_be_owned()
                && counted()
                && is_read_to_its_seals(&moment.accounts, poll.slug);
            if !could_be {
                self.could_be_final.remove(&poll.slug);
                continue;
            }
            let since = self.could_be_final.entry(poll.slug).or_insert_with(Instant::now).elapsed();
            if since > FINAL_WITHIN {
                let why = audit::obstacles(&moment.accounts, poll.slug);
                problems.add(world, "drained, but not final in time", || format!("{}: {why:?}", poll.slug));
            }
        }
    }
}
