//! Simulated voters, and a journal of what they know of their votes.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use vote_core::{
    Clock, Partitions, PollSlug, Vote, VoterKey,
    writer::{CastError, Stored},
};

use crate::{
    process::Process,
    random::Random,
    world::{FRONTENDS, Frontend, World},
};

/// Number of tasks that vote at the same time.
const TASKS: u64 = 12;
/// Number of voters that each task plays.
const VOTERS_PER_TASK: u64 = 150;
/// Time that a voter waits for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// An acknowledged vote.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Acknowledged {
    pub(crate) vote: Vote,
    pub(crate) stored: Stored,
    /// Time when the voter sent it.
    pub(crate) sent: Instant,
    /// Time when the answer arrived. The vote was stored between the two.
    pub(crate) at: Instant,
    /// The server that stored it.
    pub(crate) server: usize,
}

/// A vote without an answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unanswered {
    pub(crate) vote: Vote,
    /// The server that may have stored it.
    pub(crate) server: usize,
}

/// What the voters know of their votes.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    /// Acknowledged votes, in the order of their answers.
    pub(crate) acknowledged: Vec<Acknowledged>,
    /// Votes without an answer, which may be counted or not.
    pub(crate) unknown: Vec<Unanswered>,
    /// Number of votes sent.
    pub(crate) sent: u64,
    /// Number of votes answered as not stored.
    pub(crate) refused: u64,
}

impl Journal {
    /// Whether a server may hold a vote that its frontend does not know to be stored, of the same poll and partition.
    /// If the server loses `vote`, its counts are then no lower than what the frontend saw acknowledged.
    pub(crate) fn may_be_made_up_for(&self, vote: &Acknowledged) -> bool {
        let partitions = Partitions::default();
        self.unknown.iter().any(|other| {
            (other.server, other.vote.poll) == (vote.server, vote.vote.poll)
                && partitions.of(other.vote.voter) == vote.stored.partition
        })
    }

    /// Returns the votes that were acknowledged before `at`.
    pub(crate) fn acknowledged_before(&self, at: Instant) -> &[Acknowledged] {
        &self.acknowledged[..self.acknowledged.partition_point(|vote| vote.at < at)]
    }
}

/// The voters of a history.
pub(crate) struct Voters {
    journal: Arc<Mutex<Journal>>,
    leave: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

impl Voters {
    /// Starts the voters.
    pub(crate) fn start(world: &Arc<World>, seed: u64) -> Self {
        let mut voters = Self { journal: Arc::default(), leave: Arc::default(), tasks: JoinSet::new() };
        for n in 0..TASKS {
            let voter = Voter {
                number: n,
                world: Arc::clone(world),
                random: Random::of(seed, &format!("voter {n}")),
                journal: Arc::clone(&voters.journal),
            };
            let leave = Arc::clone(&voters.leave);
            voters.tasks.spawn(voter.vote_until(leave));
        }
        voters
    }

    /// Locks the journal.
    pub(crate) fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the voters to stop. Each one still waits for its current answer.
    pub(crate) fn leave(&self) {
        self.leave.store(true, Ordering::Relaxed);
    }

    /// Whether all voters have stopped.
    pub(crate) fn are_gone(&mut self) -> bool {
        while self.tasks.try_join_next().is_some() {}
        self.tasks.is_empty()
    }
}

/// A task that plays several voters.
struct Voter {
    number: u64,
    world: Arc<World>,
    random: Random,
    journal: Arc<Mutex<Journal>>,
}

impl Voter {
    /// Casts votes until `leave` is set, each up to three times if it is not acknowledged.
    async fn vote_until(self, leave: Arc<AtomicBool>) {
        let polls: Vec<_> = self.world.files.full.iter().map(|poll| poll.slug).collect();
        // The time of the latest vote in each voter's cookie. Those of a voter only increase.
        let mut latest: BTreeMap<(PollSlug, u64), i64> = BTreeMap::new();
        while !leave.load(Ordering::Relaxed) {
            sleep(self.random.up_to(Duration::from_millis(250))).await;
            let poll = polls[self.random.below(polls.len() as u64) as usize];
            let voter = self.number * VOTERS_PER_TASK + self.random.below(VOTERS_PER_TASK);
            let choice = self.random.below(u64::MAX) as usize;
            for _ in 0..3 {
                let frontend = self.random.below(FRONTENDS as u64) as usize;
                let (writer, process, option) = {
                    let Frontend { writer, process, polls, admission, .. } =
                        &self.world.frontends()[frontend];
                    // The frontend offers the polls of its own file, each until its closing time.
                    let Some(poll) = polls.get(poll.as_str()) else { break };
                    if admission.closes_at(poll).is_some_and(|at| process.now() >= at) {
                        break;
                    }
                    let option = poll.options[choice % poll.options.len()].slug;
                    (writer.clone(), Arc::clone(process), option)
                };
                let latest = latest.entry((poll, voter)).or_default();
                *latest = cast_at(&process).max(*latest + 1);
                let Ok(cast_at) = vote_core::Timestamp::from_micros(*latest) else { break };
                let (vote, sent) = (Vote { poll, voter: key(voter), option, cast_at }, Instant::now());
                self.journal().sent += 1;
                match timeout(ANSWER_TIMEOUT, writer.cast(vote)).await {
                    Ok(Ok(stored)) => {
                        let at = Instant::now();
                        let acknowledged = Acknowledged { vote, stored, sent, at, server: frontend };
                        self.journal().acknowledged.push(acknowledged);
                        break;
                    }
                    Err(_) | Ok(Err(CastError::Unknown(_))) => {
                        self.journal().unknown.push(Unanswered { vote, server: frontend });
                    }
                    Ok(Err(CastError::Sealed)) => break,
                    Ok(Err(_)) => self.journal().refused += 1,
                }
                sleep(Duration::from_millis(200 + self.random.below(800))).await;
            }
        }
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the time that a frontend gives to a vote, by its own clock.
fn cast_at(process: &Process) -> i64 {
    process.now().as_micros()
}

/// Returns the key of a voter. The odd factor spreads small numbers over all partitions.
fn key(voter: u64) -> VoterKey {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&(voter + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
    VoterKey(key)
}
