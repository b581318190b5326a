//! Watches one queue: activates it, records polls in it, seals it, checks what is new in it, reports it to the store,
//! and detects when it has lost data.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, watch};
use vote_core::{
    Clock, Partition, Position, Queue, QueueId, Store, Timestamp,
    queue::{Layout, QueueError, QueueStatus},
    store::StoreError,
};
use vote_service::Shutdown;

use crate::{problem_log::ProblemLog, registry::Registry, tasks::Tasks};

mod claims;
mod clock;
mod decision;
mod loss;
mod polls;
mod replaced;
mod report;
mod seal;

use claims::Claim;
pub(crate) use claims::Claims;
use decision::{Evidence, Memory, NextStep, Obstacle, Place};

/// Interval at which a queue that is read is asked what is new: one small script for all partitions.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Interval at which a queue that is not read is asked.
const RETRY_EVERY: Duration = Duration::from_millis(500);

/// What all monitors share.
#[derive(Debug, Clone)]
pub(crate) struct MonitorParts {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) layout: Layout,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) registry: Registry,
    /// Which monitor reads which queue.
    pub(crate) claims: Claims,
    pub(crate) tasks: Tasks,
}

/// State of a watched queue, for the lanes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum QueueView {
    /// The queue is to be read. The votes accepted by partition tell whether there is something new.
    Open { id: QueueId, accepted: Arc<BTreeMap<Partition, u64>>, replaced: Arc<[ReplacedView]> },
    /// The queue is not to be read now.
    Unreadable,
}

/// A replaced queue that is to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReplacedView {
    pub(crate) id: QueueId,
    of: QueueId,
    /// Where each partition ended when this monitor first saw the queue. Since then it can only be trimmed.
    pub(crate) ends: Vec<Position>,
}

/// Handle to a watched queue. The monitor ends when the last clone is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Monitored {
    pub(crate) queue: Arc<dyn Queue>,
    view: watch::Receiver<QueueView>,
    divergences: mpsc::Sender<(QueueId, String)>,
}

impl Monitored {
    /// Starts to watch a queue. `fixed` says that its address is one of a fixed list, and so leads to one server.
    pub(crate) fn start(queue: Arc<dyn Queue>, fixed: bool, parts: MonitorParts, shutdown: Shutdown) -> Self {
        let tasks = parts.tasks.clone();
        use std::sync::atomic::{AtomicU64, Ordering};
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let (send, view) = watch::channel(QueueView::Unreadable);
        let (divergences, reported) = mpsc::channel(16);
        let monitor = Monitor {
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
            address: queue.address(),
            queue: Arc::clone(&queue),
            fixed,
            parts,
            problem: None,
            problems: ProblemLog::default(),
            memory: Memory::default(),
            positions: BTreeMap::new(),
            replaced: Arc::default(),
            compared: polls::Compared::default(),
        };
        tasks.spawn(format!("the monitor of {}", monitor.address), monitor.run(send, reported, shutdown));
        Self { queue, view, divergences }
    }

    /// Returns the current state of the queue.
    pub(crate) fn view(&self) -> QueueView {
        self.view.borrow().clone()
    }

    /// Returns a handle that has seen no state yet.
    pub(crate) fn unseen(&self) -> Self {
        let mut unseen = self.clone();
        unseen.view.mark_changed();
        unseen
    }

    /// Returns the current state of the queue if it changed since this handle last returned it.
    pub(crate) fn changed_view(&mut self) -> Option<QueueView> {
        // Once the monitor has ended, the state no longer changes.
        self.view.has_changed().unwrap_or(false).then(|| self.view.borrow_and_update().clone())
    }

    /// Reports to the monitor that a lane found the queue diverged: it lost data or was rolled back.
    pub(crate) fn report_diverged(&self, id: QueueId, reason: String) {
        // If the channel is full, a lane finds out again.
        drop(self.divergences.try_send((id, reason)));
    }
}

struct Monitor {
    number: u64,
    address: String,
    queue: Arc<dyn Queue>,
    fixed: bool,
    parts: MonitorParts,
    problem: Option<String>,
    /// Outcomes of work that is repeated at each look.
    problems: ProblemLog,
    memory: Memory,
    /// How far the queue was committed when the store was last asked.
    positions: BTreeMap<Partition, Position>,
    /// Replaced queues at this address.
    replaced: Arc<[ReplacedView]>,
    /// Polls of the queue when they were last compared with the store's.
    compared: polls::Compared,
}

/// Start of a look at the queue.
#[derive(Clone, Copy)]
struct Asked {
    /// The store's time, taken before the look, so that a late report can't pass for the latest.
    store_time: Timestamp,
    started: Instant,
    local_time: Timestamp,
}

/// Reason why a queue is not read now.
enum Unreadable {
    Queue(QueueError),
    Store(StoreError),
    Because(Obstacle),
}

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Queue(e) => e.fmt(f),
            Self::Store(e) => e.fmt(f),
            Self::Because(obstacle) => obstacle.fmt(f),
        }
    }
}

impl From<QueueError> for Unreadable {
    fn from(error: QueueError) -> Self {
        Self::Queue(error)
    }
}

impl From<StoreError> for Unreadable {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Obstacle> for Unreadable {
    fn from(obstacle: Obstacle) -> Self {
        Self::Because(obstacle)
    }
}

impl Monitor {
    async fn run(
        mut self,
        view: watch::Sender<QueueView>,
        mut divergences: mpsc::Receiver<(QueueId, String)>,
        shutdown: Shutdown,
    ) {
        loop {
            let now = match self.look().await {
                Ok(now) => {
                    self.recovered();
                    now
                }
                Err(reason) => self.set_unreadable(&reason),
            };
            let open = matches!(now, QueueView::Open { .. });
            crate::metrics::queue_up(&self.address, open);
            let pause = if open { LOOK_EVERY } else { RETRY_EVERY };
            view.send_if_modified(|current| {
                let changed = *current != now;
                *current = now;
                changed
            });
            tokio::select! {
                () = shutdown.requested() => break,
                () = view.closed() => break,
                Some((id, how)) = divergences.recv() => self.memory.record_divergence(id, Evidence::Read(how)),
                () = tokio::time::sleep(pause) => {}
            }
        }
        self.parts.claims.release(self.number);
    }

    /// Asks the queue for its status once, and does everything that follows from it.
    async fn look(&mut self) -> Result<QueueView, Unreadable> {
        let store_time = self.parts.registry.catalog().taken_at;
        let asked = Asked { store_time, started: now(), local_time: self.parts.clock.now() };
        let mut status = self.status().await?;
        let answered = now();
        decision::compatible(&status, self.parts.layout)?;
        let is_new = self.memory.is_new(&status);
        if is_new {
            status = self.check_new(status).await?;
        }
        let (place, catalog) =
            (Place { address: &self.address, fixed: self.fixed }, self.parts.registry.catalog());
        let observed = self.memory.observe(&status, place, &catalog, now());
        for record in observed.vanished {
            self.report_divergence(record, &Evidence::Vanished { found: status.id }).await?;
        }
        if let Some(evidence) = self.memory.divergence(status.id) {
            self.replace(&status, &evidence).await?;
            self.memory.record_replacement();
            return Err(Obstacle::Replaced.into());
        }
        self.claim(&status, asked.started, answered)?;
        self.update_replaced(&status).await?;
        self.report_replaced().await?;
        match decision::next_step(&status, observed.due, is_new) {
            NextStep::Activate => self.activate(&status, asked.store_time).await?,
            NextStep::Read { report, compare_clocks } => {
                self.seal_and_record_polls(&status).await;
                if report {
                    self.report(&status, asked.store_time).await?;
                }
                if compare_clocks {
                    let compared =
                        self.compare_clocks(&status, asked.local_time, answered - asked.started).await;
                    self.problems.log(&self.address, "record the clock's difference in the queue", compared);
                }
            }
        }
        let accepted =
            status.accepted.iter().map(|(partition, polls)| (*partition, polls.values().sum())).collect();
        Ok(QueueView::Open {
            id: status.id,
            accepted: Arc::new(accepted),
            replaced: Arc::clone(&self.replaced),
        })
    }

    /// Claims the queue for this monitor.
    fn claim(&mut self, status: &QueueStatus, asked: Instant, answered: Instant) -> Result<(), Obstacle> {
        let claim = Claim { monitor: self.number, address: &self.address, server: &status.server };
        let conflict = self.memory.conflict_since(status.id);
        let result = self.parts.claims.claim(status.id, claim, asked, conflict);
        self.memory.apply_claim(status.id, result, answered)
    }

    /// Prepares a queue that accepts no votes yet, and activates it.
    async fn activate(&mut self, status: &QueueStatus, asked_at: Timestamp) -> Result<(), Unreadable> {
        // In this order: otherwise the queue could accept votes before the store knows it or for a poll whose count is
        // final, or it would know no poll at all.
        self.report(status, asked_at).await?;
        self.parts.registry.refresh().await?;
        self.seal(status).await?;
        self.record_polls(status).await?;
        self.queue.activate(status.id).await?;
        tracing::info!(address = %self.address, queue = %status.id, "activated the queue");
        Ok(())
    }

    /// Seals the queue and records polls in it. If one of these fails, the queue is read all the same, and the call is
    /// repeated at the next look.
    async fn seal_and_record_polls(&mut self, status: &QueueStatus) {
        let sealed = self.seal(status).await;
        self.problems.log(&self.address, "seal the queue", sealed);
        let recorded = self.record_polls(status).await;
        self.problems.log(&self.address, "record polls in the queue", recorded);
    }

    /// Asks the queue for its status; fails if there is no queue yet.
    async fn status(&self) -> Result<QueueStatus, Unreadable> {
        let status = self.queue.status().await?;
        Ok(status.ok_or(Obstacle::NotCreated)?)
    }

    /// Logs that the queue is read again, if it was not.
    fn recovered(&mut self) {
        if self.problem.take().is_some() {
            tracing::info!(address = %self.address, "the queue is readable again");
        }
    }

    /// Logs why the queue is not read, if that has changed, and releases its claim.
    fn set_unreadable(&mut self, reason: &Unreadable) -> QueueView {
        let text = reason.to_string();
        if self.problem.as_ref() != Some(&text) {
            tracing::warn!(address = %self.address, "the queue is not read: {text}");
            self.problem = Some(text);
        }
        // So that a monitor at another address of the same queue can take over.
        self.parts.claims.release(self.number);
        QueueView::Unreadable
    }
}

/// Returns the time for measuring intervals. It is tokio's, which a simulation can set.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
