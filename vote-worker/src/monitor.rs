//! Watches one queue: activates it, records polls in it, seals it, checks what is new in it, reports it to the store,
//! and detects when it has lost data.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, watch};
use vote_core::{
    Clock, Partition, Position, Queue, QueueId, Store, Timestamp, WorkerId,
    queue::{Layout, Look, QueueStatus},
    store::Catalog,
};
use vote_service::Shutdown;

use crate::{
    ownership::Ownership,
    positions::{Committed, Positions},
    problem_log::ProblemLog,
    registry::Registry,
    reports::Reports,
    tasks::Tasks,
    timeout::with_timeout,
};

mod claims;
mod clock;
mod decision;
mod loss;
mod pace;
mod polls;
mod replaced;
mod report;
mod seal;
mod unreadable;

use claims::Claim;
pub(crate) use claims::Claims;
use decision::{Evidence, Inspection, Memory, NextStep, Obstacle, Place};
pub(crate) use pace::look_every;
use unreadable::Unreadable;

/// What all monitors share.
#[derive(Debug, Clone)]
pub(crate) struct MonitorParts {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) layout: Layout,
    /// This worker.
    pub(crate) me: WorkerId,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) registry: Registry,
    pub(crate) positions: Positions,
    pub(crate) reports: Reports,
    pub(crate) ownership: Ownership,
    /// Which monitor reads which queue.
    pub(crate) claims: Claims,
    pub(crate) tasks: Tasks,
    /// Number of monitors.
    pub(crate) watched: Arc<AtomicUsize>,
}

/// State of a watched queue, for the lanes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum QueueView {
    /// The queue is to be read, from this server only. The votes accepted in each partition that this worker owns tell
    /// whether there is something new.
    Open {
        id: QueueId,
        server: Arc<str>,
        accepted: Arc<BTreeMap<Partition, u64>>,
        replaced: Arc<[ReplacedView]>,
    },
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
        parts.watched.fetch_add(1, Ordering::Relaxed);
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
            positions: Committed::new(),
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
    positions: Committed,
    /// Replaced queues at this address.
    replaced: Arc<[ReplacedView]>,
    /// Polls of the queue when they were last compared with the store's.
    compared: polls::Compared,
}

/// Start of a request to the queue.
#[derive(Clone, Copy)]
struct Asked {
    /// The store's time, taken before the request, so that a late report can't pass for the latest.
    store_time: Timestamp,
    started: Instant,
    local_time: Timestamp,
}

impl Monitor {
    async fn run(
        mut self,
        view: watch::Sender<QueueView>,
        mut divergences: mpsc::Receiver<(QueueId, String)>,
        shutdown: Shutdown,
    ) {
        loop {
            let other_partitions = self.parts.ownership.changed();
            let now = match self.look().await {
                Ok(now) => {
                    self.recovered();
                    now
                }
                Err(reason) => self.set_unreadable(&reason),
            };
            let open = matches!(now, QueueView::Open { .. });
            crate::metrics::queue_up(&self.address, open);
            let workers = self.parts.registry.catalog().workers.len();
            let pause = pace::pause(&now, self.parts.watched.load(Ordering::Relaxed), workers);
            view.send_if_modified(|current| {
                let changed = *current != now;
                *current = now;
                changed
            });
            tokio::select! {
                () = shutdown.requested() => break,
                () = view.closed() => break,
                Some((id, how)) = divergences.recv() => self.memory.record_divergence(id, Evidence::Read(how)),
                () = other_partitions => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        self.parts.claims.release(self.number);
        self.parts.watched.fetch_sub(1, Ordering::Relaxed);
    }

    /// Asks the queue what is new once, and does everything that follows from it.
    async fn look(&mut self) -> Result<QueueView, Unreadable> {
        let partitions = self.parts.ownership.partitions();
        let asked = self.ask();
        let look = self.queue.look(&partitions).await?.ok_or(Obstacle::NotCreated)?;
        let answered = now();
        if look.is_replica {
            // What it shows lags behind its master. If it is promoted, it is checked like a restarted server.
            self.memory.forget();
            return Err(Obstacle::Replica.into());
        }
        self.memory.meet(&look, self.parts.registry.store_time());
        let is_new = self.memory.is_new(look.id, &look.server);
        let status = if is_new { Some(self.meet().await?) } else { None };
        let catalog = self.parts.registry.catalog();
        self.memory.observe_look(&look, &partitions, &catalog);
        self.replace_if_diverged(look.id).await?;
        self.claim(&look, asked.started, answered)?;
        self.confirm_server(&look, &catalog).await?;
        let role = self.memory.role(look.id, &catalog, self.parts.me);
        let inspection = self.memory.inspection(role, catalog.version, !self.replaced.is_empty(), now());
        if status.is_some() || inspection.is_due || inspection.report {
            let (asked, status) = match status {
                Some(status) => (asked, status),
                None => (self.ask(), self.status().await?),
            };
            let took = now() - asked.started;
            if status.id != look.id {
                return Err(Obstacle::ReplacedMeanwhile.into());
            }
            self.inspect(&status, inspection, (asked, took), is_new).await?;
        }
        Ok(QueueView::Open {
            id: look.id,
            server: look.server.into(),
            accepted: Arc::new(partitions.into_iter().zip(look.accepted).collect()),
            replaced: Arc::clone(&self.replaced),
        })
    }

    /// Returns the time at which a request begins.
    fn ask(&self) -> Asked {
        let store_time = self.parts.registry.catalog().taken_at;
        Asked { store_time, started: now(), local_time: self.parts.clock.now() }
    }

    /// Checks a queue that was not seen before, or whose server was restarted; returns its status.
    async fn meet(&mut self) -> Result<QueueStatus, Unreadable> {
        let status = self.status().await?;
        decision::compatible(&status, self.parts.layout)?;
        self.check_new(status).await
    }

    /// Does what follows from the state of the queue. `asked` is when its request began, and `took` how long it took. Only
    /// one worker at a time reports a queue, seals it, and records polls in it.
    async fn inspect(
        &mut self,
        status: &QueueStatus,
        inspection: Inspection,
        (asked, took): (Asked, Duration),
        is_new: bool,
    ) -> Result<(), Unreadable> {
        let place = Place { address: &self.address, fixed: self.fixed };
        let catalog = self.parts.registry.catalog();
        for queue in self.memory.observe(status, inspection.report, place, &catalog, now()) {
            self.report_divergence(queue, &Evidence::Vanished { found: status.id }).await?;
        }
        self.replace_if_diverged(status.id).await?;
        self.update_replaced(status).await?;
        self.report_replaced().await?;
        match decision::next_step(status, inspection, is_new) {
            NextStep::Nothing => crate::metrics::queue_is_reported_by_another(&self.address),
            NextStep::Activate => self.activate(status, asked.store_time).await?,
            NextStep::Keep { report, compare_clocks } => {
                self.seal_and_record_polls(status).await;
                if report {
                    self.report(status, asked.store_time).await?;
                }
                if compare_clocks {
                    let compared = self.compare_clocks(status, asked.local_time, took).await;
                    self.problems.log(&self.address, "record the clock's difference in the queue", compared);
                }
            }
        }
        self.memory.record_inspection(status, catalog.version, now());
        Ok(())
    }

    /// Replaces the queue if there is evidence that it diverged; fails if it was replaced.
    async fn replace_if_diverged(&mut self, id: QueueId) -> Result<(), Unreadable> {
        let Some(evidence) = self.memory.divergence(id) else { return Ok(()) };
        self.replace(id, &evidence).await?;
        self.memory.record_replacement();
        Err(Obstacle::Replaced.into())
    }

    /// Claims the queue for this monitor.
    fn claim(&mut self, look: &Look, asked: Instant, answered: Instant) -> Result<(), Obstacle> {
        let claim = Claim { monitor: self.number, address: &self.address, server: &look.server };
        let conflict = self.memory.conflict_since(look.id);
        let result = self.parts.claims.claim(look.id, claim, asked, conflict);
        self.memory.apply_claim(look.id, result, answered)
    }

    /// Fails while the store has another server on record for the queue: that server was restarted, and its reporter
    /// checks it; or both have the queue, and one of them is a copy.
    async fn confirm_server(&mut self, look: &Look, catalog: &Catalog) -> Result<(), Unreadable> {
        if self.memory.is_server_confirmed(look, catalog, now()) {
            return Ok(());
        }
        // Not the catalog, which does not have the time of each report.
        let record = with_timeout(self.parts.store.queue(look.id)).await?;
        let at = self.parts.registry.store_time();
        let role = self.memory.role(look.id, catalog, self.parts.me);
        let result = self.memory.compare_servers(look, record.as_ref(), role, at);
        if result.is_err() {
            self.parts.registry.refresh().await?;
        }
        Ok(result?)
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
