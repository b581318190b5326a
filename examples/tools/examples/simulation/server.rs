//! A server with a queue, and the connection of a process to it.

use std::{
    collections::VecDeque,
    fmt,
    future::Future,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    sync::{oneshot, watch},
    time::{Instant, timeout},
};
use vote_core::{
    DurabilityProblem, Partition, PollDigest, PollSlug, Position, Queue, QueueId, Timestamp,
    queue::{
        AppendError, Appended, Backlog, Frame, Layout, Look, MemoryQueue, PollRecord, QueueClock, QueueError,
        QueueStatus, Read, Seal, Usage, memory::MemoryQueueImage,
    },
};

use crate::{
    network::Link,
    process::{Process, true_time},
    random::Random,
};

/// Timeout of a call, the same as for Redis.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(2);
/// Number of images that are kept, which limits how far back a server can be set.
const KEPT_IMAGES: usize = 16;

/// Returns the result of a call to something in memory, which never waits.
pub(crate) fn at_once<T>(call: impl Future<Output = T>) -> T {
    match pin!(call).as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => unreachable!("a call in memory returns at once"),
    }
}

/// A server with one queue.
pub(crate) struct Server {
    pub(crate) name: String,
    queue: MemoryQueue,
    state: watch::Sender<Running>,
    images: Mutex<VecDeque<(Instant, MemoryQueueImage)>>,
}

/// Whether a server runs and answers.
#[derive(Debug, Clone, Copy)]
struct Running {
    /// Number of starts so far.
    run: u64,
    up: bool,
    frozen: bool,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Server {
    /// Creates a server without a queue. `ids` provides the ids of its queues.
    pub(crate) fn new(name: String, ids: &Random) -> Self {
        let ids = ids.clone();
        let queue = MemoryQueue::with_ids(Box::new(move || QueueId(ids.identity())));
        let state = watch::channel(Running { run: 1, up: true, frozen: false }).0;
        Self { name, queue, state, images: Mutex::default() }
    }

    /// Whether the server answers.
    pub(crate) fn answers(&self) -> bool {
        let state = self.state.borrow();
        state.up && !state.frozen
    }

    /// Whether the server holds this queue.
    pub(crate) fn holds(&self, queue: QueueId) -> bool {
        at_once(self.queue.status()).ok().flatten().is_some_and(|status| status.id == queue)
    }

    /// Whether the queue of the server knows a poll: accepts votes for a definition of it, or has sealed it.
    pub(crate) fn knows(&self, poll: PollSlug) -> bool {
        at_once(self.queue.status()).ok().flatten().is_some_and(|status| status.polls.contains_key(&poll))
    }

    /// Returns the identity of the server process, which is another one after each start.
    fn identity(&self) -> String {
        format!("{} {}", self.name, self.state.borrow().run)
    }

    /// Freezes or wakes the server.
    pub(crate) fn freeze(&self, frozen: bool) {
        self.state.send_modify(|state| state.frozen = frozen);
    }

    /// Stops the server, which breaks all connections.
    pub(crate) fn stop(&self) {
        self.state.send_modify(|state| state.up = false);
    }

    /// Starts the server with what it holds.
    pub(crate) fn start(&self) {
        self.state.send_modify(|state| (state.run, state.up) = (state.run + 1, true));
    }

    /// Keeps an image of what the server holds now, to which it can be set back.
    pub(crate) fn keep_image(&self) {
        let mut images = self.images.lock().unwrap_or_else(PoisonError::into_inner);
        images.push_back((Instant::now(), self.queue.image()));
        if images.len() > KEPT_IMAGES {
            images.pop_front();
        }
    }

    /// Starts the server from an earlier image, and returns the time of that image.
    pub(crate) fn roll_back(&self, images_ago: usize) -> Instant {
        let mut images = self.images.lock().unwrap_or_else(PoisonError::into_inner);
        let place = images.len().saturating_sub(1 + images_ago);
        let Some((at, image)) = images.get(place).cloned() else { return Instant::now() };
        self.queue.restore(&image);
        // For this server, what came after that image never happened.
        images.truncate(place + 1);
        self.start();
        at
    }

    /// Starts the server empty.
    pub(crate) fn replace(&self) {
        self.queue.restore(&MemoryQueue::new().image());
        self.images.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.start();
    }

    /// Starts the server with a copy of what another server holds.
    pub(crate) fn copy_from(&self, other: &Self) {
        self.queue.restore(&other.queue.image());
        self.images.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.start();
    }
}

/// The connection of a process to a server.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) server: Arc<Server>,
    pub(crate) link: Arc<Link>,
    pub(crate) process: Arc<Process>,
}

/// There was no answer, so the call may have been executed or not.
struct Unknown;

impl Connection {
    /// Makes a call within the timeout, while the process runs.
    async fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&MemoryQueue) -> T + Send + 'static,
    ) -> Result<T, Unknown> {
        self.process.running().await;
        let answer = timeout(COMMAND_TIMEOUT, self.exchange(call)).await;
        self.process.running().await;
        answer.unwrap_or(Err(Unknown))
    }

    /// Sends a call and waits for its answer.
    async fn exchange<T: Send + 'static>(
        &self,
        call: impl FnOnce(&MemoryQueue) -> T + Send + 'static,
    ) -> Result<T, Unknown> {
        self.link.request().await.map_err(|_| Unknown)?;
        let mut state = self.server.state.subscribe();
        let run = state.borrow().run;
        if !state.borrow().up {
            return Err(Unknown);
        }
        let (send, answer) = oneshot::channel();
        let server = Arc::clone(&self.server);
        // A call that arrived is executed when the server wakes, even if the caller no longer waits.
        let execute = async move {
            let Ok(now) = state.wait_for(|state| !state.frozen || state.run != run).await.map(|state| *state)
            else {
                return;
            };
            if now.up && now.run == run {
                drop(send.send(call(&server.queue)));
            }
        };
        if self.server.answers() {
            execute.await;
        } else {
            tokio::spawn(execute);
        }
        let answer = answer.await.map_err(|_| Unknown)?;
        self.link.reply().await.map_err(|_| Unknown)?;
        let now = *self.server.state.borrow();
        // If the server ended meanwhile, the connection is broken.
        if now.up && now.run == run { Ok(answer) } else { Err(Unknown) }
    }

    /// Makes a call that fails as unavailable if there is no answer.
    async fn ask<T: Send + 'static>(
        &self,
        call: impl FnOnce(&MemoryQueue) -> Result<T, QueueError> + Send + 'static,
    ) -> Result<T, QueueError> {
        let lost = || QueueError::Unavailable("no answer".to_owned());
        self.call(call).await.unwrap_or_else(|Unknown| Err(lost()))
    }
}

#[async_trait]
impl Queue for Connection {
    fn address(&self) -> String {
        self.server.name.clone()
    }

    async fn create(&self, layout: Layout, replacing: Option<QueueId>) -> Result<QueueId, QueueError> {
        self.ask(move |queue| at_once(queue.create(layout, replacing))).await
    }

    async fn look(&self, partitions: &[Partition]) -> Result<Option<Look>, QueueError> {
        let (server, partitions) = (Arc::clone(&self.server), partitions.to_vec());
        self.ask(move |queue| {
            let look = at_once(queue.look(&partitions))?;
            Ok(look.map(|look| Look { server: server.identity(), ..look }))
        })
        .await
    }

    async fn status(&self) -> Result<Option<QueueStatus>, QueueError> {
        let (server, start) = (Arc::clone(&self.server), self.process.start());
        self.ask(move |queue| {
            let run = server.identity();
            at_once(queue.status()).map(|status| {
                status.map(|status| {
                    // Nothing is decided by a server's clock, so it is always correct here.
                    let clock = QueueClock { now: true_time(start), ..status.clock };
                    QueueStatus { server: run, clock, ..status }
                })
            })
        })
        .await
    }

    async fn activate(&self, id: QueueId) -> Result<(), QueueError> {
        self.ask(move |queue| at_once(queue.activate(id))).await
    }

    async fn record_polls(&self, id: QueueId, polls: &[PollRecord]) -> Result<Vec<PollSlug>, QueueError> {
        let polls = polls.to_vec();
        self.ask(move |queue| at_once(queue.record_polls(id, &polls))).await
    }

    async fn drop_poll(
        &self,
        id: QueueId,
        poll: PollSlug,
        digest: PollDigest,
        withdrawn_at: Timestamp,
    ) -> Result<bool, QueueError> {
        self.ask(move |queue| at_once(queue.drop_poll(id, poll, digest, withdrawn_at))).await
    }

    async fn record_clock(&self, id: QueueId, ahead: i64) -> Result<(), QueueError> {
        self.ask(move |queue| at_once(queue.record_clock(id, ahead))).await
    }

    async fn append(&self, id: QueueId, frames: &[Frame]) -> Result<Vec<Appended>, AppendError> {
        let frames = frames.to_vec();
        let answer = self.call(move |queue| at_once(queue.append(id, &frames))).await;
        answer.unwrap_or_else(|Unknown| Err(AppendError::Unknown("no answer".to_owned())))
    }

    async fn read(
        &self,
        id: QueueId,
        partition: Partition,
        after: Position,
        limit: usize,
    ) -> Result<Read, QueueError> {
        let server = Arc::clone(&self.server);
        self.ask(move |queue| {
            let read = at_once(queue.read(id, partition, after, limit))?;
            Ok(Read { server: server.identity(), ..read })
        })
        .await
    }

    async fn trim(&self, id: QueueId, partition: Partition, upto: Position) -> Result<(), QueueError> {
        self.ask(move |queue| at_once(queue.trim(id, partition, upto))).await
    }

    async fn seal(&self, id: QueueId, poll: PollSlug) -> Result<Seal, QueueError> {
        self.ask(move |queue| at_once(queue.seal(id, poll))).await
    }

    async fn backlog(
        &self,
        id: QueueId,
        after: &[Position],
        limit: usize,
    ) -> Result<Vec<Backlog>, QueueError> {
        let after = after.to_vec();
        self.ask(move |queue| at_once(queue.backlog(id, &after, limit))).await
    }

    async fn durability_problems(&self) -> Result<Vec<DurabilityProblem>, QueueError> {
        // A simulated disk loses what it has confirmed only by a fault.
        self.ask(|_| Ok(Vec::new())).await
    }

    async fn usage(&self) -> Result<Option<Usage>, QueueError> {
        Ok(None)
    }
}
