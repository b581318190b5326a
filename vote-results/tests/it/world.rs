//! A small deployment for tests: a queue, a store, and the results service on them. A test triggers the work of the
//! worker explicitly.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use tower::ServiceExt;
use vote_core::{
    Clock, Partition, Polls, Position, Queue, QueueId, Secret, Store, StoreReader, Timestamp, Vote,
    conformance::{frames, layout},
    count::{Batch, CommitPlan, Delivery, QueueRecord, QueueState},
    queue::{Appended, Frame, MemoryQueue, PollRecord},
    store::{Acquired, Lookup, MemoryStore, Session, StoreError, StoreReaderLayer},
};
use vote_results::{Health, Parts, Refresher, Results};
use vote_service::{Body, Receipt, ReceiptKey};

pub(crate) use vote_core::conformance::vote;

/// The receipt key, in hex.
pub(crate) const KEY: &str = "abababababababababababababababababababababababababababababababab";

pub(crate) struct World {
    pub(crate) polls: Arc<Polls>,
    pub(crate) store: Arc<TestStore>,
    pub(crate) queue: Arc<MemoryQueue>,
    pub(crate) id: QueueId,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) key: ReceiptKey,
    pub(crate) refresher: Refresher,
    pub(crate) app: Results,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// Returns the example file of polls with these lines added.
pub(crate) fn pets_toml(lines: &str) -> String {
    format!(
        "[[poll]]\nslug = \"pets\"\ntitle = \"Cats or dogs?\"\n{lines}\n\
         options = [{{ slug = \"cats\", label = \"Cats\" }}, {{ slug = \"dogs\", label = \"Dogs\" }}]\n"
    )
}

/// Returns the polls of [`pets_toml`].
pub(crate) fn pets_with(lines: &str) -> Polls {
    Polls::from_toml("polls.toml", &pets_toml(lines)).unwrap()
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::of(Polls::example()).await
    }

    pub(crate) async fn of(polls: Polls) -> Self {
        Self::registered(polls.clone(), Some(&polls)).await
    }

    pub(crate) async fn with(polls: Polls, store: Arc<dyn Store>) -> Self {
        Self::start(polls.clone(), Some(&polls), store, TestClock::new()).await
    }

    /// Starts a service with one file of polls, and a store in which a worker registered those of another file or none.
    /// Both have the same clock.
    pub(crate) async fn registered(file: Polls, registered: Option<&Polls>) -> Self {
        let clock = TestClock::new();
        let store = MemoryStore::with_clock(Arc::clone(&clock) as Arc<dyn Clock>);
        Self::start(file, registered, Arc::new(store), clock).await
    }

    async fn start(
        polls: Polls,
        registered: Option<&Polls>,
        store: Arc<dyn Store>,
        clock: Arc<TestClock>,
    ) -> Self {
        store.prepare(layout()).await.unwrap();
        for poll in registered.into_iter().flatten() {
            store.register_poll(poll).await.unwrap();
        }
        let queue = Arc::new(MemoryQueue::new());
        let id = queue.create(layout(), None).await.unwrap();
        queue.activate(id).await.unwrap();
        let store =
            Arc::new(TestStore { inner: store, down: Mutex::default(), after_position: Mutex::default() });
        Self::on(Arc::new(polls), store, queue, id, clock)
    }

    fn on(
        polls: Arc<Polls>,
        store: Arc<TestStore>,
        queue: Arc<MemoryQueue>,
        id: QueueId,
        clock: Arc<TestClock>,
    ) -> Self {
        let key: ReceiptKey = Secret::from_hex(KEY).unwrap().into();
        let parts = Parts {
            store: Arc::clone(&store) as Arc<dyn StoreReader>,
            polls: Arc::clone(&polls),
            receipt_key: key.clone(),
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            frontend_url: Some("https://vote.example".to_owned()),
            health: Health::default(),
        };
        let refresher = Refresher::new(&parts);
        let app = Results::new(parts, refresher.latest());
        Self { polls, store, queue, id, clock, key, refresher, app }
    }

    /// Starts another service on the same store, whose clock is ahead by a minute, and lets it read the store.
    pub(crate) async fn replica(&self) -> Self {
        self.replica_on(Arc::clone(&self.store.inner)).await
    }

    /// As [`replica`](Self::replica), on a store that has the same content.
    pub(crate) async fn replica_on(&self, store: Arc<dyn Store>) -> Self {
        let clock = TestClock::new();
        clock.advance(60);
        let store =
            Arc::new(TestStore { inner: store, down: Mutex::default(), after_position: Mutex::default() });
        let replica = Self::on(Arc::clone(&self.polls), store, Arc::clone(&self.queue), self.id, clock);
        replica.refresher.refresh().await;
        replica
    }

    /// Accepts a vote, as a frontend does.
    pub(crate) async fn accept(&self, vote: Vote) -> Receipt {
        let frame = frames(&[vote]).remove(0);
        let position = self.append(&frame).await;
        let Vote { poll, voter, option, cast_at } = vote;
        Receipt { poll, queue: self.id, partition: frame.partition, position, voter, cast_at, option }
    }

    pub(crate) async fn append(&self, frame: &Frame) -> Position {
        let record =
            PollRecord { poll: frame.poll, digest: frame.digest, closes_at: None, undone_withdrawal: None };
        self.queue.record_polls(self.id, &[record]).await.unwrap();
        match self.queue.append(self.id, std::slice::from_ref(frame)).await.unwrap()[..] {
            [Appended::Stored(position)] => position,
            ref other => panic!("{other:?}"),
        }
    }

    /// Counts all accepted votes, as a worker does.
    pub(crate) async fn count(&self) {
        let plans = self.plans().await;
        self.store.commit(&plans).await;
    }

    /// Returns what a worker would commit now.
    pub(crate) async fn plans(&self) -> Vec<CommitPlan> {
        let registered = self.store.inner.polls().await.unwrap();
        let mut session = self.store.inner.open_session().await.unwrap();
        let mut plans = Vec::new();
        for partition in layout().partitions.iter() {
            let acquired = acquire(&mut *session, partition).await;
            let from = acquired.checkpoints.get(&self.id).cloned().unwrap_or_default();
            let read = self.queue.read(self.id, partition, from.position, usize::MAX).await.unwrap();
            if read.entries.is_empty() {
                continue;
            }
            let deliveries = vec![Delivery::new(self.id, &from, read)];
            let batch = Batch::decode(partition, layout().partitions, &registered, deliveries, Vec::new());
            let mut effective = BTreeMap::new();
            for (poll, voters) in batch.voters() {
                let found = session.lookup(partition, poll, &voters, Lookup::Exhaustive).await.unwrap();
                effective.insert(poll, found);
            }
            plans.push(batch.plan(acquired.version, &effective));
        }
        plans
    }

    /// Reports the queue, as a worker does.
    pub(crate) async fn report(&self, accepted: u64, queued: u64, state: QueueState) {
        let votes = |n| [("pets".to_owned(), n)].into();
        let record = QueueRecord::new(self.id, self.queue.address(), self.clock.now());
        let record = QueueRecord { accepted: votes(accepted), queued: votes(queued), state, ..record };
        self.store.inner.report(&[record]).await.unwrap();
    }

    /// Accepts votes, counts them, and lets the results service read the store.
    pub(crate) async fn counted(&self, votes: impl IntoIterator<Item = Vote>) {
        for vote in votes {
            self.accept(vote).await;
        }
        self.count().await;
        self.refresher.refresh().await;
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[]).await
    }

    pub(crate) async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.app.clone().oneshot(request.body(()).unwrap()).await.unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes().to_vec();
        Answer { status: head.status, headers: head.headers, body: String::from_utf8(body).unwrap() }
    }

    /// Opens an event stream.
    pub(crate) async fn events(&self, path: &str) -> Body {
        let request = Request::builder().uri(path).body(()).unwrap();
        let response = self.app.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        response.into_body()
    }
}

/// Returns the next chunk of an event stream.
pub(crate) async fn next(events: &mut Body) -> Option<String> {
    let bytes = events.frame().await?.unwrap().into_data().unwrap();
    Some(String::from_utf8(bytes.to_vec()).unwrap())
}

/// Acquires a partition. A server may need a moment to free those of a session that was dropped.
async fn acquire(session: &mut dyn Session, partition: Partition) -> Acquired {
    for _ in 0..100 {
        if let Some(acquired) = session.acquire(partition).await.unwrap() {
            return acquired;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("partition {partition} is not free");
}

/// A clock that moves only when advanced.
#[derive(Debug)]
pub(crate) struct TestClock(AtomicI64);

impl TestClock {
    fn new() -> Arc<Self> {
        Arc::new(Self(AtomicI64::new(1_800_000_000_000_000)))
    }

    pub(crate) fn advance(&self, seconds: i64) {
        self.0.fetch_add(seconds * 1_000_000, Ordering::Relaxed);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::Relaxed)).unwrap()
    }
}

/// A store that can fail, and that can commit plans right after a position was read.
#[derive(Debug)]
pub(crate) struct TestStore {
    pub(crate) inner: Arc<dyn Store>,
    down: Mutex<Option<String>>,
    after_position: Mutex<Vec<CommitPlan>>,
}

impl TestStore {
    pub(crate) fn fail(&self, reason: &str) {
        *self.down.lock().unwrap() = Some(reason.to_owned());
    }

    pub(crate) fn recover(&self) {
        *self.down.lock().unwrap() = None;
    }

    pub(crate) fn commit_after_next_position(&self, plans: Vec<CommitPlan>) {
        *self.after_position.lock().unwrap() = plans;
    }

    pub(crate) async fn commit(&self, plans: &[CommitPlan]) {
        let mut session = self.inner.open_session().await.unwrap();
        for plan in plans {
            acquire(&mut *session, plan.partition).await;
            session.commit(plan).await.unwrap();
        }
    }
}

#[async_trait]
impl StoreReaderLayer for TestStore {
    type Inner = dyn Store;

    async fn inner(&self) -> Result<&Self::Inner, StoreError> {
        match &*self.down.lock().unwrap() {
            Some(reason) => Err(StoreError::Unavailable(reason.clone().into())),
            None => Ok(&*self.inner),
        }
    }

    async fn position(&self, queue: QueueId, partition: Partition) -> Result<Position, StoreError> {
        let position = self.inner().await?.position(queue, partition).await?;
        let plans = std::mem::take(&mut *self.after_position.lock().unwrap());
        self.commit(&plans).await;
        Ok(position)
    }
}
