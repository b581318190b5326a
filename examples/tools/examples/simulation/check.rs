//! The checks of a history.
//!
//! While it runs, they compare audit, closing and finality with what really happened, and require that votes which
//! workers reach are counted. At the end, they check every vote.

mod moment;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;
use vote_core::{
    OptionSlug, Partition, PollSlug, QueueId,
    count::{
        Ballot, QueueState, RegisteredPoll,
        audit::{self, Verdict},
    },
};
use vote_results::receipts::ReceiptStatus;

use crate::{
    operator,
    truth::Truth,
    voters::{Acknowledged, Journal},
    world::{FRONTENDS, SERVERS, WORKERS, World},
};
use moment::{Moment, is_forgotten, is_read_to_its_seals, is_retired, receipt_status};

/// An audit that holds must account for votes that were acknowledged at least this long before.
const KNOWN_AFTER: Duration = Duration::from_secs(15);
/// A vote that workers reach is counted within this time: a lane waits 20 s for an answer that was lost; by then,
/// another worker may own its partition and be frozen, so that its session ends only after 10 s; and partitions change
/// owners within 5 s.
const COUNTED_WITHIN: Duration = Duration::from_secs(35);
/// A worker that reaches a server and its copy reports that within this time.
const COMPARED_WITHIN: Duration = Duration::from_secs(5);
/// A closed poll whose queues are drained is final within this time.
const FINAL_WITHIN: Duration = Duration::from_secs(10);
/// Time within which an undisturbed worker gives a sign of life.
const BEATEN_WITHIN: Duration = Duration::from_secs(2);
/// A clock that loses more microseconds than this between two checks was set back.
const STEP: i64 = 1_000_000;
/// Difference of clocks that does no harm, in microseconds.
const CLOCK_TOLERANCE: i64 = 30_000_000;
/// A worker that reaches a queue that lost data reports it as diverged within this time.
const NAMED_WITHIN: Duration = Duration::from_secs(10);
/// One check of this many compares all votes, the others only those that were not counted before.
const CHECK_ALL_EVERY: u32 = 20;
/// Time for which a partition may be without an owner: while it changes owners; while a lane that lost its session is
/// on probation for 5 s, and until the other worker learns it, which takes 3 s if a sign of life gets lost; and if, besides, the other worker does not reach every queue and leaves its partitions to the first.
const UNOWNED_FOR: [Duration; 3] = [Duration::from_secs(2), Duration::from_secs(8), Duration::from_secs(20)];

/// The checks of a history.
#[derive(Debug)]
pub(crate) struct Checks {
    /// The problems found, the first one of each kind.
    pub(crate) problems: Vec<String>,
    kinds: BTreeSet<&'static str>,
    /// Times since when partitions have no owner.
    unowned_since: BTreeMap<Partition, Instant>,
    /// Number of votes, in the order of their answers, before the first that was not counted at the last check.
    counted: usize,
    /// Number of checks.
    checks: u32,
    /// Time of the last check of owners.
    owners_checked_at: Instant,
    /// Times since when each worker (first) works undisturbed and reaches each server (second).
    clear_since: BTreeMap<(usize, usize), Instant>,
    /// Error of the database's clock at the last check, in microseconds.
    database_error: i64,
    /// Time when that clock was set back, until a worker has given a sign of life since, by which the database notices.
    set_back_at: Option<Instant>,
    /// The tally of each final poll when it was first seen final.
    finals: BTreeMap<PollSlug, Vec<(OptionSlug, u64)>>,
    /// Times since when counts of queues that lost data contradict each other.
    contradicts_since: BTreeMap<QueueId, Instant>,
    /// Times since when each closed poll could be final.
    could_be_final: BTreeMap<PollSlug, Instant>,
    /// Highest number of microseconds by which the clocks of the database and of a worker were both ahead.
    ahead: i64,
    /// Number of polls that became final while faults were injected.
    pub(crate) finals_under_faults: u64,
    /// Number of audits.
    pub(crate) audits: u64,
}

impl Checks {
    /// Creates the checks of a new history.
    pub(crate) fn new() -> Self {
        Self {
            problems: Vec::new(),
            kinds: BTreeSet::new(),
            unowned_since: BTreeMap::new(),
            counted: 0,
            checks: 0,
            owners_checked_at: Instant::now(),
            clear_since: BTreeMap::new(),
            database_error: 0,
            set_back_at: None,
            finals: BTreeMap::new(),
            contradicts_since: BTreeMap::new(),
            could_be_final: BTreeMap::new(),
            ahead: 0,
            finals_under_faults: 0,
            audits: 0,
        }
    }

    /// Records a problem if it is the first of its kind.
    fn found(&mut self, world: &World, kind: &'static str, problem: impl FnOnce() -> String) {
        if self.kinds.insert(kind) {
            let at = world.start.elapsed().as_secs_f64();
            self.problems.push(format!("at {at:.1} s: {kind}: {}", problem()));
        }
    }

    /// Checks the present state.
    pub(crate) fn check(
        &mut self,
        world: &World,
        truth: &mut Truth,
        journal: &Journal,
    ) -> Result<(), String> {
        // A counted vote stays counted unless the database loses it. That is checked less often, since it takes long.
        self.checks += 1;
        let trusted = if self.checks.is_multiple_of(CHECK_ALL_EVERY) { 0 } else { self.counted };
        let moment = Moment::of(world, journal, trusted)?;
        let first_uncounted = moment.uncounted.first().map(|vote| vote.at);
        self.counted =
            first_uncounted.map_or(journal.acknowledged.len(), |at| journal.acknowledged_before(at).len());
        let is_closed = |poll: &&RegisteredPoll| poll.closed_at.is_some();
        moment.accounts.polls.iter().filter(is_closed).for_each(|poll| truth.became_closed(poll.slug));
        self.note_clear_paths(world, truth);
        self.note_set_back(world);
        if world.database.is_up() {
            self.check_audit(world, truth, journal, &moment);
        }
        self.check_closing(world, truth, &moment);
        self.check_closing_times(world, &moment);
        self.check_finals(world, truth, &moment);
        self.check_progress(world, truth, &moment);
        if let Some(ended) = world.ended_by_itself() {
            self.found(world, "a process ended by itself", || ended);
        }
        Ok(())
    }

    /// Checks that the audit reports no loss or error that does not exist, and holds only if no vote is missing.
    fn check_audit(&mut self, world: &World, truth: &Truth, journal: &Journal, moment: &Moment) {
        self.audits += 1;
        let audit = audit::audit(&moment.accounts, None);
        for queue in moment.accounts.queues.iter().filter(|queue| queue.state == QueueState::Diverged) {
            let server = Moment::server_of(world, queue);
            let may_have_diverged = server.is_some_and(|server| truth.may_have_diverged(server));
            if !may_have_diverged && !truth.may_be_active_again(queue.id) {
                self.found(world, "reported as diverged, but lost nothing", || {
                    format!("{} {}", queue.id, queue.reason)
                });
            }
        }
        // Queues that are reported as diverged were checked above. A loss of data may first appear as counts that
        // contradict each other, until a worker reports it. Any other problem contradicts the conservation invariant.
        let mut contradicts = BTreeSet::new();
        for problem in &audit.problems {
            match moment.accounts.queues.iter().find(|queue| problem.queue() == Some(queue.id)) {
                Some(queue) if queue.state == QueueState::Diverged => {}
                Some(queue)
                    if Moment::server_of(world, queue).is_some_and(|s| truth.may_have_diverged(s)) =>
                {
                    contradicts.insert(queue.id);
                }
                _ => self.found(world, "the audit is wrong", || problem.to_string()),
            }
        }
        self.contradicts_since.retain(|queue, _| contradicts.contains(queue));
        for queue in contradicts {
            let since = self.contradicts_since.entry(queue).or_insert_with(Instant::now).elapsed();
            let server = world.servers.iter().position(|server| server.holds(queue));
            if since > NAMED_WITHIN && server.is_some_and(|server| self.clear_for(server) > NAMED_WITHIN) {
                self.found(world, "lost data, but is not reported as diverged", || queue.to_string());
            }
        }
        if audit.verdict == Verdict::Holds && self.set_back_at.is_none() {
            let is_excused = |vote: &Acknowledged| {
                truth.may_be_lost_unseen(vote)
                    || (truth.may_be_lost(vote) && journal.may_be_made_up_for(vote))
                    || truth.may_be_late(vote)
                    || is_retired(moment, vote)
                    || (truth.failed_over() && is_forgotten(moment, vote))
                    // The operator rejected such votes.
                    || truth.is_of_forgotten_definition(vote)
            };
            let is_missing = |vote: &&Acknowledged| vote.at.elapsed() > KNOWN_AFTER && !is_excused(vote);
            if let Some(vote) = moment.uncounted.iter().find(is_missing) {
                self.found(world, "the audit holds, but a vote is missing", || format!("{vote:?}"));
            }
        }
    }

    /// Checks that no poll is closed before its time.
    fn check_closing(&mut self, world: &World, truth: &Truth, moment: &Moment) {
        let database = world.database.process.clock_error();
        let together = world.workers().iter().map(|worker| worker.process.clock_error().min(database)).max();
        self.ahead = self.ahead.max(together.unwrap_or_default());
        for poll in moment.accounts.polls.iter().filter(|poll| poll.closed_at.is_some()) {
            let due = poll.closes_at;
            let latest = world.now().saturating_add(self.ahead.max(0) + CLOCK_TOLERANCE);
            if !truth.is_closed_by_hand(poll.slug) && due.is_none_or(|due| due > latest) {
                self.found(world, "closed early", || format!("{}, due at {due:?}", poll.slug));
            }
        }
    }

    /// Checks that closing times are those of the file, or those to which the operator moved them.
    fn check_closing_times(&mut self, world: &World, moment: &Moment) {
        for poll in &moment.accounts.polls {
            let expected = match poll.reschedules.last() {
                Some(last) if last.reason == operator::RESCHEDULED => last.to,
                _ => world.files.full.get(poll.slug.as_str()).and_then(|poll| poll.closes_at),
            };
            if poll.closes_at != expected {
                self.found(world, "a closing time moved without the operator", || format!("{poll:?}"));
            }
        }
    }

    /// Checks that final tallies do not change.
    fn check_finals(&mut self, world: &World, truth: &Truth, moment: &Moment) {
        for poll in moment.accounts.polls.iter().filter(|poll| poll.final_at.is_some()) {
            let tally = moment.accounts.tally_of(poll.slug);
            match self.finals.get(&poll.slug) {
                None => {
                    self.finals_under_faults += u64::from(world.start.elapsed() < crate::history::DURATION);
                    self.finals.insert(poll.slug, tally);
                }
                Some(before) if *before != tally && !truth.may_take_back_finality() => {
                    let before = format!("{before:?}");
                    self.found(world, "a final tally changed", || {
                        format!("{}: {before}, {tally:?}", poll.slug)
                    });
                }
                Some(_) => {}
            }
        }
    }

    /// Records which workers reach which servers undisturbed.
    fn note_clear_paths(&mut self, world: &World, truth: &mut Truth) {
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
                truth.could_compare(server, compared_from, self.finals.keys());
            }
        }
    }

    /// Notes when the database's clock was set back, and when the database must know it.
    fn note_set_back(&mut self, world: &World) {
        let error = world.database.process.clock_error();
        if error + STEP < self.database_error {
            self.set_back_at = Some(Instant::now());
        }
        self.database_error = error;
        let lives = |since: &Instant| since.elapsed() >= BEATEN_WITHIN;
        if self.clear_since.values().any(lives) {
            self.set_back_at.take_if(|at| lives(at));
        }
    }

    /// Returns the longest time for which a worker has worked undisturbed and reached a server.
    fn clear_for(&self, server: usize) -> Duration {
        let since =
            self.clear_since.iter().filter(|((_, s), _)| *s == server).map(|(_, since)| since.elapsed());
        since.max().unwrap_or_default()
    }

    /// Checks that the pipeline makes progress where faults do not prevent it.
    fn check_progress(&mut self, world: &World, truth: &Truth, moment: &Moment) {
        let clear: Vec<Duration> = (0..world.servers.len()).map(|server| self.clear_for(server)).collect();
        let late = moment.uncounted.iter().rev().find(|vote| {
            vote.at.elapsed() >= COUNTED_WITHIN
                && clear[vote.server] >= COUNTED_WITHIN
                && !truth.may_be_lost(vote)
                && !truth.may_be_late(vote)
        });
        if let Some(vote) = late {
            self.found(world, "not counted in time, although a worker reaches it", || format!("{vote:?}"));
        }
        self.check_owners(world, truth);
        self.check_finality_is_reached(world, truth, moment, &clear);
    }

    /// Checks that every partition has an owner.
    fn check_owners(&mut self, world: &World, truth: &Truth) {
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
                self.found(world, "a partition had no owner for too long", || partition.to_string());
            }
        }
    }

    /// Checks that drained closed polls become final.
    fn check_finality_is_reached(
        &mut self,
        world: &World,
        truth: &Truth,
        moment: &Moment,
        clear: &[Duration],
    ) {
        let all_clear = clear.iter().all(|clear| *clear >= FINAL_WITHIN);
        // An operator has to retire these first.
        let diverged = moment.accounts.queues.iter().any(|queue| queue.state == QueueState::Diverged)
            || !audit::not_heard_of(&moment.accounts).is_empty();
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
                self.found(world, "drained, but not final in time", || format!("{}: {why:?}", poll.slug));
            }
        }
    }

    /// Checks every vote at the end of a history.
    pub(crate) async fn check_all(
        &mut self,
        world: &World,
        truth: &Truth,
        journal: &Journal,
    ) -> Result<(), String> {
        let moment = Moment::of(world, journal, 0)?;
        for vote in &journal.acknowledged {
            if !moment.counts(vote) && !truth.may_be_lost(vote) && !truth.may_be_late(vote) {
                self.found(world, "lost", || format!("{vote:?}"));
            }
            let status = receipt_status(world, &moment, vote).await?;
            let is_counted = matches!(status, ReceiptStatus::Counted | ReceiptStatus::Superseded);
            if is_counted != moment.counts(vote) {
                self.found(world, "the receipt is wrong", || format!("{status:?}: {vote:?}"));
            }
            let may_be_late = matches!(status, ReceiptStatus::Quarantined { .. }) && truth.may_be_late(vote);
            if !is_counted && !truth.may_be_lost(vote) && !may_be_late {
                self.found(world, "the receipt reports a vote as lost that can't be", || {
                    format!("{status:?}: {vote:?}")
                });
            }
        }
        let sent = journal
            .acknowledged
            .iter()
            .map(|vote| &vote.vote)
            .chain(journal.unknown.iter().map(|other| &other.vote));
        let sent: BTreeSet<_> = sent.map(|vote| (vote.poll, vote.voter, vote.option, vote.cast_at)).collect();
        for counted in &moment.counted {
            let was_sent = |b: &&Ballot| sent.contains(&(counted.poll, b.voter, b.option, b.cast_at));
            if let Some(ballot) = counted.ballots.iter().find(|ballot| !was_sent(ballot)) {
                self.found(world, "counted, but never cast", || format!("{ballot:?}"));
            }
        }
        let audit = audit::audit(&moment.accounts, None);
        if audit.verdict != Verdict::Holds {
            self.found(world, "all queues are drained, but the audit does not hold", || {
                format!("{}: {:?} {:?}", audit.verdict, audit.problems, audit.outstanding)
            });
        }
        Ok(())
    }
}
