//! The database server, and the connections of a process to it.

mod session;

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::{Instant, sleep};
use vote_core::{
    DurabilityProblem, Partition, Poll, PollSlug, Position, QueueId, Session, Store, StoreReader, Timestamp,
    VoterKey,
    count::{Ballot, Decision, QuarantineKey, QuarantineRow, QueueRecord, RegisteredPoll, SealRecord},
    queue::Layout,
    store::{Catalog, MemoryStore, Snapshot, StoreError, WorkerRecord, memory::MemoryStoreImage},
};

use crate::{network::Link, process::Process, random::Random, server::at_once};
use session::ClientSession;

/// Timeout of a call, the same as for Postgres.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// Time after which the server ends an idle session, or a statement that makes no progress.
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);
/// Number of images that are kept, which limits how far back the server can be set.
const KEPT_IMAGES: usize = 16;

/// The database server.
pub(crate) struct Database {
    pub(crate) store: MemoryStore,
    pub(crate) process: Arc<Process>,
    state: Mutex<State>,
}

/// The state of the server and its sessions.
struct State {
    up: bool,
    /// Number of starts and failovers so far. Sessions of an earlier run are broken.
    run: u64,
    images: VecDeque<(Instant, MemoryStoreImage)>,
    sessions: Vec<Weak<Backend>>,
}

/// The server's end of a session, which the server may close.
struct Backend {
    session: Mutex<Option<Box<dyn Session>>>,
    owner: Arc<Process>,
    link: Arc<Link>,
    run: u64,
    active_at: Mutex<Instant>,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("database")
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session of {}", self.owner.name)
    }
}

fn unavailable<T>() -> Result<T, StoreError> {
    Err(StoreError::Unavailable("no answer".into()))
}

impl Backend {
    /// Ends the session.
    fn end(&self) {
        drop(self.session.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl Database {
    /// Creates an empty database whose clock is that of `process`.
    pub(crate) fn new(process: Arc<Process>) -> Self {
        let store = MemoryStore::with_clock(Arc::clone(&process) as _);
        let state = State { up: true, run: 1, images: VecDeque::new(), sessions: Vec::new() };
        Self { store, process, state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the server is up.
    pub(crate) fn is_up(&self) -> bool {
        self.lock().up
    }

    /// Returns the current run, or `None` while the server is down.
    fn run(&self) -> Option<u64> {
        let state = self.lock();
        state.up.then_some(state.run)
    }

    /// Stops the server, which ends all sessions.
    pub(crate) fn stop(&self) {
        let mut state = self.lock();
        state.up = false;
        state.run += 1;
        Self::end_all(state);
    }

    /// Ends all sessions of lanes, as an administrator can do.
    pub(crate) fn end_sessions(&self) {
        Self::end_all(self.lock());
    }

    /// Starts the server with what it holds.
    pub(crate) fn start(&self) {
        self.lock().up = true;
    }

    fn end_all(mut state: MutexGuard<'_, State>) {
        let sessions = std::mem::take(&mut state.sessions);
        drop(state);
        sessions.iter().filter_map(Weak::upgrade).for_each(|session| session.end());
    }

    /// Ends idle sessions, and sessions of dead processes whose kernel can close the connection at once.
    pub(crate) fn tend_sessions(&self) {
        let mut state = self.lock();
        state.sessions.retain(|session| session.strong_count() > 0);
        let sessions: Vec<_> = state.sessions.iter().filter_map(Weak::upgrade).collect();
        drop(state);
        for session in sessions {
            let idle = session.active_at.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
            let closed = session.owner.is_dead() && session.link.is_clear();
            if closed || idle > SESSION_TIMEOUT {
                session.end();
            }
        }
    }

    /// Keeps an image of what is committed now, to which the server can be set back.
    pub(crate) fn keep_image(&self) {
        let image = self.store.image();
        let mut state = self.lock();
        state.images.push_back((Instant::now(), image));
        if state.images.len() > KEPT_IMAGES {
            state.images.pop_front();
        }
    }

    /// Sets another database to the oldest image that is kept: the state of the standby that lags most.
    pub(crate) fn replicate_to(&self, standby: &Self) {
        if let Some((_, image)) = self.lock().images.front() {
            standby.store.restore(image);
        }
    }

    /// Fails over to a standby that lags by some images.
    ///
    /// Returns what is missing then.
    pub(crate) fn fail_over(&self, images_ago: usize) -> Missing {
        let mut state = self.lock();
        let place = state.images.len().saturating_sub(1 + images_ago);
        let Some((at, image)) = state.images.get(place).cloned() else {
            return Missing { after: Instant::now(), definitions: Vec::new(), finals: Vec::new() };
        };
        state.images.truncate(place + 1);
        state.run += 1;
        Self::end_all(state);
        let before = at_once(self.store.polls()).unwrap_or_default();
        self.store.restore(&image);
        let polls = at_once(self.store.polls()).unwrap_or_default();
        let has = |before: &RegisteredPoll, what: &dyn Fn(&RegisteredPoll) -> bool| {
            polls.iter().any(|now| now.slug == before.slug && what(now))
        };
        let definitions = before.iter().filter(|poll| !has(poll, &|now| now.digest() == poll.digest()));
        let finals = before.iter().filter(|poll| poll.final_at.is_some());
        let finals = finals.filter(|poll| !has(poll, &|now| now.final_at.is_some()));
        Missing {
            after: at,
            definitions: definitions.map(|poll| poll.slug).collect(),
            finals: finals.map(|poll| poll.slug).collect(),
        }
    }
}

/// What the database lacks after it failed over to a standby that lagged.
#[derive(Debug)]
pub(crate) struct Missing {
    /// Commits after this time are missing.
    pub(crate) after: Instant,
    /// Polls whose registered definition is missing.
    pub(crate) definitions: Vec<PollSlug>,
    /// Polls that were final and no longer are.
    pub(crate) finals: Vec<PollSlug>,
}

/// The connections of a process to the database.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) database: Arc<Database>,
    pub(crate) link: Arc<Link>,
    pub(crate) process: Arc<Process>,
    pub(crate) random: Random,
}

impl Client {
    /// Makes a call while the process runs.
    async fn call<'a, T>(
        &'a self,
        call: impl FnOnce(&'a MemoryStore) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.process.running().await;
        let answer = self.exchange(call).await;
        self.process.running().await;
        answer
    }

    /// Sends a call and waits for its answer.
    async fn exchange<'a, T>(
        &'a self,
        call: impl FnOnce(&'a MemoryStore) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if self.link.request().await.is_err() {
            return self.no_answer().await;
        }
        let Some(run) = self.database.run() else { return unavailable() };
        let answer = call(&self.database.store);
        if self.link.reply().await.is_err() {
            return self.no_answer().await;
        }
        if self.database.run() == Some(run) { answer } else { unavailable() }
    }

    /// Fails like a call without an answer: after the timeout, or earlier if the caller notices that the connection is
    /// broken.
    async fn no_answer<T>(&self) -> Result<T, StoreError> {
        let reset = self.link.loss() > 0 && self.random.chance(700);
        sleep(if reset { self.random.up_to(Duration::from_secs(5)) } else { CALL_TIMEOUT }).await;
        unavailable()
    }
}

/// Implements [`StoreReader`] by calls over the network.
macro_rules! reading {
    ($($name:ident($($argument:ident: $type:ty),*) -> $answer:ty;)+) => {
        #[async_trait]
        impl StoreReader for Client {
            $(async fn $name(&self, $($argument: $type),*) -> Result<$answer, StoreError> {
                self.call(|store| at_once(store.$name($($argument),*))).await
            })+
        }
    };
}

reading! {
    layout() -> Option<Layout>;
    polls() -> Vec<RegisteredPoll>;
    ballot(poll: PollSlug, voter: VoterKey) -> Option<Ballot>;
    position(queue: QueueId, partition: Partition) -> Position;
    quarantined(queue: QueueId, partition: Partition, position: Position) -> Option<QuarantineRow>;
    positions(queues: &[QueueId]) -> BTreeMap<(QueueId, Partition), Position>;
    positions_in(partitions: &[Partition]) -> BTreeMap<(QueueId, Partition), Position>;
    queue(queue: QueueId) -> Option<QueueRecord>;
    queues() -> Vec<QueueRecord>;
    quarantine(after: Option<QuarantineKey>, limit: usize) -> Vec<QuarantineRow>;
    snapshot() -> Box<dyn Snapshot>;
}

/// Implements [`Store`] by calls over the network.
macro_rules! writing {
    ($($name:ident($($argument:ident: $type:ty),*) -> $answer:ty;)+) => {
        #[async_trait]
        impl Store for Client {
            $(async fn $name(&self, $($argument: $type),*) -> Result<$answer, StoreError> {
                self.call(|store| at_once(store.$name($($argument),*))).await
            })+

            async fn durability_problems(&self) -> Result<Vec<DurabilityProblem>, StoreError> {
                self.call(|_| Ok(Vec::new())).await
            }

            async fn open_session(&self) -> Result<Box<dyn Session>, StoreError> {
                let (client, run) = (self.clone(), self.database.run());
                let session = self.call(|store| at_once(store.open_session())).await?;
                let Some(run) = run.filter(|run| self.database.run() == Some(*run)) else { return unavailable() };
                Ok(Box::new(ClientSession::new(client, session, run)))
            }
        }
    };
}

writing! {
    prepare(layout: Layout) -> ();
    register_poll(poll: &Poll) -> RegisteredPoll;
    catalog(known: Option<&Catalog>) -> Catalog;
    close_poll(poll: PollSlug) -> Option<RegisteredPoll>;
    close_due_polls(grace: Duration, now: Timestamp) -> Vec<PollSlug>;
    reschedule_poll(poll: PollSlug, closes_at: Option<Timestamp>, reason: &str) -> Option<RegisteredPoll>;
    withdraw_poll(poll: PollSlug, reason: &str) -> Option<RegisteredPoll>;
    undo_withdrawal(poll: PollSlug, withdrawn_at: Timestamp) -> ();
    record_dropped(queue: QueueId, poll: PollSlug, withdrawn_at: Timestamp) -> ();
    record_seal(seal: &SealRecord) -> SealRecord;
    finalize_poll(poll: PollSlug) -> bool;
    heartbeat(worker: &WorkerRecord) -> ();
    report(queues: &[QueueRecord]) -> ();
    retire(queue: QueueId, reason: &str) -> bool;
    decide(frames: &[QuarantineKey], decision: &Decision) -> u64;
}
