//! The database server, and a process's connections to it.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::{Instant, sleep};
use vote_core::{
    Lane, OptionSlug, Partition, Poll, PollSlug, Position, QueueId, Store, StoreReader, Timestamp, VoterKey,
    queue::Layout,
    store::{
        Acquired, Ballot, Catalog, CommitPlan, Decision, Lookup, MemoryStore, QuarantineKey, QuarantineRow,
        QuarantinedFrame, QueueRecord, RegisteredPoll, SealRecord, Snapshot, StoreError, WorkerRecord,
        memory::MemoryStoreImage,
    },
};

use crate::{network::Link, process::Process, random::Random, server::at_once};

/// How long a caller waits for an answer, as with Postgres.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// When the server ends a session that shows no sign of life, or a statement that makes no progress.
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);
/// How far back the server can be set.
const KEPT_IMAGES: usize = 16;

/// The database server.
pub(crate) struct Database {
    pub(crate) store: MemoryStore,
    pub(crate) process: Arc<Process>,
    state: Mutex<State>,
}

struct State {
    up: bool,
    /// Sessions of an earlier run are broken.
    run: u64,
    images: VecDeque<(Instant, MemoryStoreImage)>,
    sessions: Vec<Weak<Session>>,
}

/// A lane's session, which the server may end by itself.
struct Session {
    lane: Mutex<Option<Box<dyn Lane>>>,
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

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session of {}", self.owner.name)
    }
}

fn unavailable<T>() -> Result<T, StoreError> {
    Err(StoreError::Unavailable("no answer".into()))
}

impl Session {
    fn end(&self) {
        drop(self.lane.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl Database {
    pub(crate) fn new(process: Arc<Process>) -> Self {
        let store = MemoryStore::with_clock(Arc::clone(&process) as _);
        let state = State { up: true, run: 1, images: VecDeque::new(), sessions: Vec::new() };
        Self { store, process, state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_up(&self) -> bool {
        self.lock().up
    }

    /// The run that a session belongs to; none while the server is down.
    fn run(&self) -> Option<u64> {
        let state = self.lock();
        state.up.then_some(state.run)
    }

    pub(crate) fn stop(&self) {
        let mut state = self.lock();
        state.up = false;
        state.run += 1;
        Self::end_all(state);
    }

    /// Ends all sessions of lanes, as an administrator can.
    pub(crate) fn end_sessions(&self) {
        Self::end_all(self.lock());
    }

    pub(crate) fn start(&self) {
        self.lock().up = true;
    }

    fn end_all(mut state: MutexGuard<'_, State>) {
        let sessions = std::mem::take(&mut state.sessions);
        drop(state);
        sessions.iter().filter_map(Weak::upgrade).for_each(|session| session.end());
    }

    /// Ends sessions that show no sign of life, and those of dead processes, whose kernel closes the connection at
    /// once if it can.
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

    /// Keeps what is committed now, to be set back to.
    pub(crate) fn keep_image(&self) {
        let image = self.store.image();
        let mut state = self.lock();
        state.images.push_back((Instant::now(), image));
        if state.images.len() > KEPT_IMAGES {
            state.images.pop_front();
        }
    }

    /// Brings another one to where the standby that lags most is.
    pub(crate) fn replicate_to(&self, standby: &Self) {
        if let Some((_, image)) = self.lock().images.front() {
            standby.store.restore(image);
        }
    }

    /// Goes over to a standby that lags by some images; says since when its commits are missing.
    pub(crate) fn fail_over(&self, images_ago: usize) -> Instant {
        let mut state = self.lock();
        let place = state.images.len().saturating_sub(1 + images_ago);
        let Some((at, image)) = state.images.get(place).cloned() else { return Instant::now() };
        state.images.truncate(place + 1);
        state.run += 1;
        Self::end_all(state);
        self.store.restore(&image);
        at
    }
}

/// A process's connections to the database.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) database: Arc<Database>,
    pub(crate) link: Arc<Link>,
    pub(crate) process: Arc<Process>,
    pub(crate) random: Random,
}

impl Client {
    async fn call<'a, T>(
        &'a self,
        call: impl FnOnce(&'a MemoryStore) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.process.running().await;
        let answer = self.exchange(call).await;
        self.process.running().await;
        answer
    }

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

    /// A lost message: the caller waits for as long as it takes, or learns soon that the connection is gone.
    async fn no_answer<T>(&self) -> Result<T, StoreError> {
        let reset = self.link.loss() > 0 && self.random.chance(700);
        sleep(if reset { self.random.up_to(Duration::from_secs(5)) } else { CALL_TIMEOUT }).await;
        unavailable()
    }
}

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
    tally(poll: PollSlug) -> Vec<(OptionSlug, u64)>;
    ballot(poll: PollSlug, voter: VoterKey) -> Option<Ballot>;
    position(queue: QueueId, partition: Partition) -> Position;
    quarantined(queue: QueueId, partition: Partition, position: Position) -> Option<QuarantineRow>;
    positions(queue: QueueId) -> BTreeMap<Partition, Position>;
    all_positions() -> BTreeMap<(QueueId, Partition), Position>;
    queues() -> Vec<QueueRecord>;
    quarantine(after: Option<QuarantineKey>, limit: usize) -> Vec<QuarantineRow>;
    snapshot() -> Box<dyn Snapshot>;
}

macro_rules! writing {
    ($($name:ident($($argument:ident: $type:ty),*) -> $answer:ty;)+) => {
        #[async_trait]
        impl Store for Client {
            $(async fn $name(&self, $($argument: $type),*) -> Result<$answer, StoreError> {
                self.call(|store| at_once(store.$name($($argument),*))).await
            })+

            async fn check(&self) -> Result<Vec<String>, StoreError> {
                self.call(|_| Ok(Vec::new())).await
            }

            async fn open_lane(&self) -> Result<Box<dyn Lane>, StoreError> {
                let (client, run) = (self.clone(), self.database.run());
                let lane = self.call(|store| at_once(store.open_lane())).await?;
                let Some(run) = run.filter(|run| self.database.run() == Some(*run)) else { return unavailable() };
                Ok(Box::new(ClientLane::new(client, lane, run)))
            }
        }
    };
}

writing! {
    prepare(layout: Layout) -> ();
    register_poll(poll: &Poll) -> RegisteredPoll;
    catalog() -> Catalog;
    close_poll(poll: PollSlug) -> Option<RegisteredPoll>;
    close_due_polls(grace: Duration, now: Timestamp) -> Vec<PollSlug>;
    reschedule_poll(poll: PollSlug, closes_at: Option<Timestamp>, reason: &str) -> Option<RegisteredPoll>;
    note_seal(seal: &SealRecord) -> SealRecord;
    finish_poll(poll: PollSlug) -> bool;
    beat(worker: &WorkerRecord) -> ();
    report(queues: &[QueueRecord]) -> ();
    retire(queue: QueueId, reason: &str) -> bool;
    decide(frames: &[QuarantineKey], decision: &Decision) -> u64;
}

/// A lane over a session that can be lost.
#[derive(Debug)]
struct ClientLane {
    client: Client,
    session: Arc<Session>,
    /// A commit is still on its way: the server goes on with it when the client is gone.
    committing: bool,
}

impl Drop for ClientLane {
    fn drop(&mut self) {
        if !self.committing {
            self.session.end();
        }
    }
}

impl ClientLane {
    fn new(client: Client, lane: Box<dyn Lane>, run: u64) -> Self {
        let session = Arc::new(Session {
            lane: Mutex::new(Some(lane)),
            owner: Arc::clone(&client.process),
            link: Arc::clone(&client.link),
            run,
            active_at: Mutex::new(Instant::now()),
        });
        client.database.lock().sessions.push(Arc::downgrade(&session));
        Self { client, session, committing: false }
    }

    async fn call<T>(
        &mut self,
        call: impl FnOnce(&mut dyn Lane) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.client.process.running().await;
        let answer = self.exchange(call).await;
        self.client.process.running().await;
        answer
    }

    async fn exchange<T>(
        &mut self,
        call: impl FnOnce(&mut dyn Lane) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if self.client.link.request().await.is_err() {
            return self.client.no_answer().await;
        }
        let answer = self.execute(call)?;
        if self.client.link.reply().await.is_err() {
            return self.client.no_answer().await;
        }
        let alive = self.session.lane.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        if alive && self.client.database.run() == Some(self.session.run) { answer } else { unavailable() }
    }

    fn execute<T>(
        &self,
        call: impl FnOnce(&mut dyn Lane) -> Result<T, StoreError>,
    ) -> Result<Result<T, StoreError>, StoreError> {
        if self.client.database.run() != Some(self.session.run) {
            return unavailable();
        }
        let mut lane = self.session.lane.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(lane) = lane.as_mut() else { return unavailable() };
        *self.session.active_at.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        Ok(call(&mut **lane))
    }

    /// A commit that the client gives up and that comes through later, if its session lives that long.
    async fn commit_late(&mut self, plan: &CommitPlan) -> Result<(), StoreError> {
        self.committing = true;
        let (plan, session) = (plan.clone(), Arc::clone(&self.session));
        let database = Arc::clone(&self.client.database);
        let late = self.client.random.up_to(SESSION_TIMEOUT);
        tokio::spawn(async move {
            sleep(late).await;
            let mut lane = session.lane.lock().unwrap_or_else(PoisonError::into_inner);
            if database.run() == Some(session.run)
                && let Some(lane) = lane.as_mut()
            {
                drop(at_once(lane.commit(&plan)));
            }
            // The client that it belonged to is gone.
            lane.take();
        });
        sleep(self.client.random.up_to(CALL_TIMEOUT)).await;
        unavailable()
    }
}

#[async_trait]
impl Lane for ClientLane {
    async fn unowned(&mut self) -> Result<Vec<Partition>, StoreError> {
        self.call(|lane| at_once(lane.unowned())).await
    }

    async fn complete(
        &mut self,
        partition: Partition,
        version: u64,
        poll: PollSlug,
    ) -> Result<Vec<String>, StoreError> {
        self.call(|lane| at_once(lane.complete(partition, version, poll))).await
    }

    async fn acquire(&mut self, partition: Partition) -> Result<Option<Acquired>, StoreError> {
        self.call(|lane| at_once(lane.acquire(partition))).await
    }

    async fn release(&mut self, partition: Partition) -> Result<(), StoreError> {
        self.call(|lane| at_once(lane.release(partition))).await
    }

    async fn lookup(
        &mut self,
        partition: Partition,
        poll: PollSlug,
        voters: &[VoterKey],
        lookup: Lookup,
    ) -> Result<Vec<Ballot>, StoreError> {
        self.call(|lane| at_once(lane.lookup(partition, poll, voters, lookup))).await
    }

    async fn replays(
        &mut self,
        partition: Partition,
        limit: usize,
    ) -> Result<Vec<QuarantinedFrame>, StoreError> {
        self.call(|lane| at_once(lane.replays(partition, limit))).await
    }

    async fn commit(&mut self, plan: &CommitPlan) -> Result<(), StoreError> {
        let loss = self.client.link.loss();
        if loss > 0 && self.client.random.chance(loss / 4) {
            self.client.process.running().await;
            let answer = self.commit_late(plan).await;
            self.client.process.running().await;
            return answer;
        }
        self.call(|lane| at_once(lane.commit(plan))).await
    }
}
