//! Voters, and what they know of their votes.

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
    Clock, PollSlug, Vote, VoterKey,
    writer::{CastError, Stored},
};

use crate::{
    process::Process,
    random::Random,
    world::{FRONTENDS, World},
};

/// Voters at a time.
const CROWD: u64 = 12;
/// Voters that each of these plays, one after the other.
const EACH: u64 = 150;
/// How long a voter waits for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// An acknowledged vote.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Acknowledged {
    pub(crate) vote: Vote,
    pub(crate) stored: Stored,
    pub(crate) at: Instant,
    /// The server that holds it.
    pub(crate) server: usize,
}

/// What voters know.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    pub(crate) acknowledged: Vec<Acknowledged>,
    /// Votes whose outcome nobody told: they may be counted.
    pub(crate) unknown: Vec<Vote>,
    pub(crate) sent: u64,
    pub(crate) refused: u64,
}

/// The voters of a history.
pub(crate) struct Voters {
    journal: Arc<Mutex<Journal>>,
    leave: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

impl Voters {
    pub(crate) fn start(world: &Arc<World>, seed: u64) -> Self {
        let mut voters = Self { journal: Arc::default(), leave: Arc::default(), tasks: JoinSet::new() };
        for n in 0..CROWD {
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

    pub(crate) fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends the voters home, and waits until the last one has an answer or has given up.
    pub(crate) async fn leave(&mut self) {
        self.leave.store(true, Ordering::Relaxed);
        while self.tasks.join_next().await.is_some() {}
    }
}

struct Voter {
    number: u64,
    world: Arc<World>,
    random: Random,
    journal: Arc<Mutex<Journal>>,
}

impl Voter {
    async fn vote_until(self, leave: Arc<AtomicBool>) {
        let polls: Vec<_> = self.world.polls.iter().cloned().collect();
        // The latest time of each voter's cookie: a browser never goes back in time.
        let mut latest: BTreeMap<(PollSlug, u64), i64> = BTreeMap::new();
        while !leave.load(Ordering::Relaxed) {
            sleep(self.random.up_to(Duration::from_millis(250))).await;
            let poll = &polls[self.random.below(polls.len() as u64) as usize];
            let voter = self.number * EACH + self.random.below(EACH);
            let option = &poll.options[self.random.below(poll.options.len() as u64) as usize];
            for _ in 0..3 {
                let frontend = self.random.below(FRONTENDS as u64) as usize;
                let (writer, process) = {
                    let frontends = self.world.frontends();
                    (frontends[frontend].writer.clone(), Arc::clone(&frontends[frontend].process))
                };
                if poll.closes_at.is_some_and(|at| process.now() >= at) {
                    break;
                }
                let latest = latest.entry((poll.slug, voter)).or_default();
                *latest = cast_at(&process).max(*latest + 1);
                let Ok(cast_at) = vote_core::Timestamp::from_micros(*latest) else { break };
                let vote = Vote { poll: poll.slug, voter: key(voter), option: option.slug, cast_at };
                self.journal().sent += 1;
                match timeout(PATIENCE, writer.cast(vote)).await {
                    Ok(Ok(stored)) => {
                        let at = Instant::now();
                        let acknowledged = Acknowledged { vote, stored, at, server: frontend };
                        self.journal().acknowledged.push(acknowledged);
                        break;
                    }
                    Err(_) | Ok(Err(CastError::Unknown(_))) => self.journal().unknown.push(vote),
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

fn cast_at(process: &Process) -> i64 {
    process.now().as_micros()
}

/// The key of a voter: an odd factor spreads small numbers over all partitions.
fn key(voter: u64) -> VoterKey {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&(voter + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
    VoterKey(key)
}
