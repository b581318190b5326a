//! What is checked: all the time, that audit, closing and finality say nothing wrong, and that what can be reached is
//! counted; at the end, every vote.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;
use vote_core::{
    Keep, OptionSlug, PollSlug, QueueId, StoreReader, VoterKey, audit,
    audit::Verdict,
    dedup,
    store::{Ballot, Books, QueueRecord, QueueState, RegisteredPoll},
};
use vote_results::receipts::{self, Fate, QueueFate};
use vote_service::Receipt;

use crate::{
    server::at_once,
    truth::Truth,
    voters::{Acknowledged, Journal},
    world::World,
};

/// What an audit that holds must know of: votes acknowledged that long before.
const KNOWN_AFTER: Duration = Duration::from_secs(15);
/// A vote that can be reached is counted within this time.
const COUNTED_WITHIN: Duration = Duration::from_secs(30);
/// All partitions are owned within this time: after a start, a stop or a kill, and after a freeze.
const OWNED_WITHIN: Duration = Duration::from_secs(25);
/// A closed poll whose queues are drained is final within this time.
const FINAL_WITHIN: Duration = Duration::from_secs(10);
/// Clocks may differ by this much without harm.
const CLOCK_TOLERANCE: i64 = 30_000_000;
/// A lane that starts again may leave its partitions alone for this long.
const UNOWNED_FOR: Duration = Duration::from_secs(5);

/// The checks of a history.
#[derive(Debug)]
pub(crate) struct Checks {
    pub(crate) problems: Vec<String>,
    kinds: BTreeSet<&'static str>,
    unowned_since: Option<Instant>,
    /// Since when each worker works undisturbed and reaches each server.
    clear_since: BTreeMap<(usize, usize), Instant>,
    /// The tally of each poll when it became final.
    finals: BTreeMap<PollSlug, Vec<(OptionSlug, u64)>>,
    /// Since when each closed poll could be final.
    could_be_final: BTreeMap<PollSlug, Instant>,
    /// The furthest that the database's clock and a worker's were ahead together, in microseconds.
    ahead: i64,
    pub(crate) finals_under_faults: u64,
    pub(crate) audits: u64,
}

/// The store, as the checks see it: without a network, of one moment.
struct Moment {
    books: Books,
    counted: BTreeMap<PollSlug, BTreeMap<VoterKey, Ballot>>,
}

impl Moment {
    fn of(world: &World) -> Result<Self, String> {
        let mut snapshot = at_once(world.database.store.snapshot()).map_err(|e| e.to_string())?;
        let books = at_once(snapshot.books(true)).map_err(|e| e.to_string())?;
        let mut counted = BTreeMap::new();
        for poll in &books.polls {
            let ballots =
                at_once(snapshot.ballots(poll.slug, None, usize::MAX)).map_err(|e| e.to_string())?;
            counted.insert(poll.slug, ballots.into_iter().map(|ballot| (ballot.voter, ballot)).collect());
        }
        Ok(Self { books, counted })
    }

    /// Whether a vote is counted, or another one of its voter by the rule of the poll.
    fn counts(&self, world: &World, vote: &Acknowledged) -> bool {
        let vote = vote.vote;
        let ours = Ballot { voter: vote.voter, option: vote.option, cast_at: vote.cast_at };
        let keep = world.polls.get(vote.poll.as_str()).map_or(Keep::First, |poll| poll.keep);
        let theirs = self.counted.get(&vote.poll).and_then(|ballots| ballots.get(&vote.voter));
        theirs.is_some_and(|theirs| dedup::stands(keep, *theirs, ours) == *theirs)
    }

    fn server_of(world: &World, queue: &QueueRecord) -> Option<usize> {
        world.servers.iter().position(|server| server.name == queue.address)
    }
}

impl Checks {
    pub(crate) fn new() -> Self {
        Self {
            problems: Vec::new(),
            kinds: BTreeSet::new(),
            unowned_since: None,
            clear_since: BTreeMap::new(),
            finals: BTreeMap::new(),
            could_be_final: BTreeMap::new(),
            ahead: 0,
            finals_under_faults: 0,
            audits: 0,
        }
    }

    /// Notes a problem, the first of each kind.
    fn found(&mut self, world: &World, kind: &'static str, problem: impl FnOnce() -> String) {
        if self.kinds.insert(kind) {
            let at = world.start.elapsed().as_secs_f64();
            self.problems.push(format!("at {at:.1} s: {kind}: {}", problem()));
        }
    }

    /// Checks one moment.
    pub(crate) fn check(
        &mut self,
        world: &World,
        truth: &mut Truth,
        journal: &Journal,
    ) -> Result<(), String> {
        let moment = Moment::of(world)?;
        let is_closed = |poll: &&RegisteredPoll| poll.closed_at.is_some();
        moment.books.polls.iter().filter(is_closed).for_each(|poll| truth.became_closed(poll.slug));
        self.note_clear_paths(world);
        self.check_audit(world, truth, journal, &moment);
        self.check_closing(world, truth, &moment);
        self.check_finals(world, truth, &moment);
        self.check_progress(world, truth, journal, &moment);
        if let Some(ended) = world.ended_by_itself() {
            self.found(world, "a process ended by itself", || ended);
        }
        Ok(())
    }

    fn check_audit(&mut self, world: &World, truth: &Truth, journal: &Journal, moment: &Moment) {
        self.audits += 1;
        let audit = audit::audit(&moment.books, None);
        for queue in moment.books.queues.iter().filter(|queue| queue.state == QueueState::Cut) {
            let server = Moment::server_of(world, queue);
            if !server.is_some_and(|server| truth.may_have_diverged(server)) {
                self.found(world, "called diverged, and lost nothing", || {
                    format!("{} {}", queue.id, queue.reason)
                });
            }
        }
        // A queue that is named as diverged was looked at above; anything else contradicts the invariant.
        let diverged: BTreeSet<String> = moment
            .books
            .queues
            .iter()
            .filter(|queue| queue.state == QueueState::Cut)
            .map(|queue| format!("queue {} at", queue.id))
            .collect();
        for problem in
            audit.problems.iter().filter(|text| !diverged.iter().any(|queue| text.starts_with(queue)))
        {
            self.found(world, "the audit is wrong", || problem.clone());
        }
        if audit.verdict == Verdict::Holds {
            let old = journal.acknowledged.iter().filter(|vote| vote.at.elapsed() > KNOWN_AFTER);
            let missing = |vote: &&Acknowledged| {
                let is_excused = truth.may_be_lost_unseen(vote)
                    || truth.may_be_late(vote)
                    || is_given_up(moment, vote)
                    || (truth.may_be_lost(vote) && is_forgotten(moment, vote));
                !is_excused && !moment.counts(world, vote)
            };
            if let Some(vote) = old.clone().find(missing) {
                self.found(world, "the audit holds, and a vote is missing", || format!("{vote:?}"));
            }
        }
    }

    fn check_closing(&mut self, world: &World, truth: &Truth, moment: &Moment) {
        let database = world.database.process.clock_error();
        let together = world.workers().iter().map(|worker| worker.process.clock_error().min(database)).max();
        self.ahead = self.ahead.max(together.unwrap_or_default());
        for poll in moment.books.polls.iter().filter(|poll| poll.closed_at.is_some()) {
            let due = world.polls.get(poll.slug.as_str()).and_then(|poll| poll.closes_at);
            let latest = world.now().saturating_add(self.ahead.max(0) + CLOCK_TOLERANCE);
            if !truth.is_closed_by_hand(poll.slug) && due.is_none_or(|due| due > latest) {
                self.found(world, "closed early", || format!("{}, due at {due:?}", poll.slug));
            }
        }
    }

    fn check_finals(&mut self, world: &World, truth: &Truth, moment: &Moment) {
        for poll in moment.books.polls.iter().filter(|poll| poll.final_at.is_some()) {
            let tally = at_once(world.database.store.tally(poll.slug)).unwrap_or_default();
            match self.finals.get(&poll.slug) {
                None => {
                    self.finals_under_faults += u64::from(world.start.elapsed() < crate::history::DURATION);
                    self.finals.insert(poll.slug, tally);
                }
                Some(before) if *before != tally && !truth.may_have_lost() => {
                    let before = format!("{before:?}");
                    self.found(world, "a final tally changed", || {
                        format!("{}: {before}, {tally:?}", poll.slug)
                    });
                }
                Some(_) => {}
            }
        }
    }

    fn note_clear_paths(&mut self, world: &World) {
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
        }
    }

    /// For how long some worker has worked undisturbed and reached a server.
    fn clear_for(&self, server: usize) -> Duration {
        let since =
            self.clear_since.iter().filter(|((_, s), _)| *s == server).map(|(_, since)| since.elapsed());
        since.max().unwrap_or_default()
    }

    fn check_progress(&mut self, world: &World, truth: &Truth, journal: &Journal, moment: &Moment) {
        let clear: Vec<Duration> = (0..world.servers.len()).map(|server| self.clear_for(server)).collect();
        let late = journal.acknowledged.iter().rev().find(|vote| {
            vote.at.elapsed() >= COUNTED_WITHIN
                && clear[vote.server] >= COUNTED_WITHIN
                && !truth.may_be_lost(vote)
                && !truth.may_be_late(vote)
                && !moment.counts(world, vote)
        });
        if let Some(vote) = late.copied() {
            self.found(world, "not counted in time, though it can be reached", || format!("{vote:?}"));
        }
        self.check_owners(world, truth);
        self.check_finality_is_reached(world, truth, journal, moment, &clear);
    }

    fn check_owners(&mut self, world: &World, truth: &Truth) {
        let unowned = world.database.store.unowned();
        let settled = truth.owners_changed().elapsed() >= OWNED_WITHIN;
        if unowned.is_empty()
            || !settled
            || !world.workers().iter().any(|worker| world.is_undisturbed(worker))
        {
            self.unowned_since = None;
        } else if self.unowned_since.get_or_insert_with(Instant::now).elapsed() > UNOWNED_FOR {
            self.found(world, "partitions without an owner", || format!("{unowned:?}"));
        }
    }

    fn check_finality_is_reached(
        &mut self,
        world: &World,
        truth: &Truth,
        journal: &Journal,
        moment: &Moment,
        clear: &[Duration],
    ) {
        let all_clear = clear.iter().all(|clear| *clear >= FINAL_WITHIN);
        let diverged = moment.books.queues.iter().any(|queue| queue.state == QueueState::Cut);
        for poll in &moment.books.polls {
            let counted = || {
                let mut of_poll = journal.acknowledged.iter().filter(|vote| vote.vote.poll == poll.slug);
                of_poll.all(|vote| moment.counts(world, vote))
            };
            let could_be = poll.closed_at.is_some()
                && poll.final_at.is_none()
                && all_clear
                && !diverged
                && truth.owners_changed().elapsed() >= OWNED_WITHIN
                && counted();
            if !could_be {
                self.could_be_final.remove(&poll.slug);
                continue;
            }
            let since = self.could_be_final.entry(poll.slug).or_insert_with(Instant::now).elapsed();
            if since > FINAL_WITHIN {
                let why = audit::obstacles(&moment.books, poll.slug);
                self.found(world, "drained, and not final in time", || format!("{}: {why:?}", poll.slug));
            }
        }
    }

    /// Checks every vote, when all is over.
    pub(crate) async fn check_all(
        &mut self,
        world: &World,
        truth: &Truth,
        journal: &Journal,
    ) -> Result<(), String> {
        let moment = Moment::of(world)?;
        for vote in &journal.acknowledged {
            if !moment.counts(world, vote) && !truth.may_be_lost(vote) && !truth.may_be_late(vote) {
                self.found(world, "lost", || format!("{vote:?}"));
            }
            let fate = fate(world, &moment, vote).await?;
            let is_counted = matches!(fate, Fate::Counted | Fate::Superseded);
            if is_counted != moment.counts(world, vote) {
                self.found(world, "the receipt is wrong", || format!("{fate:?}: {vote:?}"));
            }
            let may_be_late = matches!(fate, Fate::Quarantined { .. }) && truth.may_be_late(vote);
            if !is_counted && !truth.may_be_lost(vote) && !may_be_late {
                self.found(world, "the receipt of a vote that can't be lost", || format!("{fate:?}"));
            }
        }
        let sent = journal.acknowledged.iter().map(|vote| &vote.vote).chain(&journal.unknown);
        let sent: BTreeSet<_> = sent.map(|vote| (vote.poll, vote.voter, vote.option, vote.cast_at)).collect();
        for (poll, ballots) in &moment.counted {
            let nobodys = ballots.values().find(|b| !sent.contains(&(*poll, b.voter, b.option, b.cast_at)));
            if let Some(ballot) = nobodys {
                self.found(world, "counted, and nobody cast it", || format!("{ballot:?}"));
            }
        }
        let audit = audit::audit(&moment.books, None);
        if audit.verdict != Verdict::Holds {
            self.found(world, "all is drained, and the audit does not hold", || {
                format!("{}: {:?} {:?}", audit.verdict, audit.problems, audit.outstanding)
            });
        }
        Ok(())
    }
}

/// Whether the queue of a vote was retired by the operator, who then knows that votes are missing.
fn is_given_up(moment: &Moment, vote: &Acknowledged) -> bool {
    let queue = moment.books.queues.iter().find(|queue| queue.id == vote.stored.queue);
    queue.is_some_and(|queue| queue.state == QueueState::Retired)
}

/// Whether the store does not know the queue of a vote: it went back to a moment before it was recorded, without a witness
/// or a delay of trimming. The handbook says to compare the queues with the nodes then.
fn is_forgotten(moment: &Moment, vote: &Acknowledged) -> bool {
    !moment.books.queues.iter().any(|queue| queue.id == vote.stored.queue)
}

/// What the results service says of a receipt.
async fn fate(world: &World, moment: &Moment, vote: &Acknowledged) -> Result<Fate, String> {
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
    let record = |id: QueueId| moment.books.queues.iter().find(move |queue| queue.id == id);
    let remains = moment.books.queues.iter().filter(|queue| queue.remains_of == Some(stored.queue));
    let of_queue = QueueFate {
        is_over: record(stored.queue).is_some_and(|queue| queue.state.is_over()),
        remains: remains.map(|queue| queue.id).collect(),
    };
    receipts::fate(&world.results, &world.polls, &receipt, &of_queue).await.map_err(|e| e.to_string())
}
