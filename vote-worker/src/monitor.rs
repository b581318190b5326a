//! Keeps watch over one queue: registers it, records polls in it, seals it, sees what is new in it, reports it to the store, and notices when
//! it lost data.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use vote_core::{
    Clock, Partition, PollSlug, Position, Queue, QueueId, Store, Timestamp, dedup,
    queue::{Counters, LAYOUT_VERSION, Layout, QueueError, QueueStatus},
    store::{SealRecord, StoreError},
};
use vote_service::Shutdown;

use crate::{registry::Registry, tasks::Tasks};

mod claims;
mod loss;
mod polls;
mod report;

pub(crate) use claims::Claims;
use claims::{Claim, Taken};

/// How often a queue is asked what is new. One small script for all partitions.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often a queue that does not answer is asked.
const RETRY_EVERY: Duration = Duration::from_millis(500);
/// How often the store is told.
const REPORT_EVERY: Duration = Duration::from_secs(2);
/// How long another box must have been at a fixed address before the one that was there is given up.
const PATIENCE: Duration = Duration::from_secs(10);

/// What all monitors share.
#[derive(Debug, Clone)]
pub(crate) struct MonitorParts {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) layout: Layout,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) registry: Registry,
    /// Which monitor reads a box.
    pub(crate) claims: Claims,
    pub(crate) tasks: Tasks,
}

/// What a lane needs to know of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum View {
    /// To be read. Votes accepted by partition tell whether there is something new.
    Open { id: QueueId, accepted: Arc<BTreeMap<Partition, u64>>, remains: Arc<[Leftover]> },
    /// Not to be read now.
    Shut,
}

/// Remains that are to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leftover {
    pub(crate) id: QueueId,
    of: QueueId,
    /// Where each partition ended when it was first seen here; it can only be trimmed since.
    pub(crate) ends: Vec<Position>,
}

/// A queue that is watched. The task ends when the last clone is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Monitored {
    pub(crate) queue: Arc<dyn Queue>,
    view: watch::Receiver<View>,
    cuts: mpsc::Sender<(QueueId, String)>,
}

impl Monitored {
    /// Starts to watch. `fixed` says that the address always leads to the same server, as far as anybody knows.
    pub(crate) fn start(queue: Arc<dyn Queue>, fixed: bool, parts: MonitorParts, shutdown: Shutdown) -> Self {
        let tasks = parts.tasks.clone();
        use std::sync::atomic::{AtomicU64, Ordering};
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let (send, view) = watch::channel(View::Shut);
        let (cuts, reported_cuts) = mpsc::channel(16);
        let monitor = Monitor {
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
            address: queue.address(),
            queue: Arc::clone(&queue),
            fixed,
            parts,
            problem: None,
            reported_at: None,
            last: None,
            accepted: BTreeMap::new(),
            positions: BTreeMap::new(),
            remains: Arc::default(),
            unsealable: BTreeSet::new(),
            compared: polls::Compared::default(),
            cut: None,
            conflict: None,
            missing: BTreeMap::new(),
        };
        tasks
            .spawn(format!("the monitor of {}", monitor.address), monitor.run(send, reported_cuts, shutdown));
        Self { queue, view, cuts }
    }

    pub(crate) fn view(&self) -> View {
        self.view.borrow().clone()
    }

    /// A lane found that the box lost or rolled back data.
    pub(crate) fn is_cut(&self, id: QueueId, reason: String) {
        // If the channel is full the lane finds it again.
        drop(self.cuts.try_send((id, reason)));
    }
}

struct Monitor {
    number: u64,
    address: String,
    queue: Arc<dyn Queue>,
    fixed: bool,
    parts: MonitorParts,
    problem: Option<String>,
    reported_at: Option<Instant>,
    /// The box last seen, and its server.
    last: Option<(QueueId, String)>,
    /// What it counted when it was last looked at.
    accepted: BTreeMap<Partition, Counters>,
    /// How far it was read when the store was last asked.
    positions: BTreeMap<Partition, Position>,
    /// What is left here of boxes that were replaced.
    remains: Arc<[Leftover]>,
    /// Polls for which the box can't be sealed, since it is of a kind that can't.
    unsealable: BTreeSet<PollSlug>,
    /// What the queue knew of polls when it was compared with the store.
    compared: polls::Compared,
    /// The box here that lost data, and how that was noticed, until it is replaced.
    cut: Option<(QueueId, String)>,
    /// The box here that another server had, and when this one first said that it has it.
    conflict: Option<(QueueId, Instant)>,
    /// Boxes last reported from this address that are not here: what was reported, and since when it is.
    missing: BTreeMap<QueueId, (Timestamp, Instant)>,
}

/// When a look began.
#[derive(Clone, Copy)]
struct Asked {
    /// The store's clock, read before the look: a report that is late can't pass for the latest.
    at: Timestamp,
    since: Instant,
}

/// Why a queue is not read now.
enum Shut {
    Queue(QueueError),
    Store(StoreError),
    Because(String),
}

impl std::fmt::Display for Shut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Queue(e) => e.fmt(f),
            Self::Store(e) => e.fmt(f),
            Self::Because(reason) => reason.fmt(f),
        }
    }
}

impl From<QueueError> for Shut {
    fn from(error: QueueError) -> Self {
        Self::Queue(error)
    }
}

impl From<StoreError> for Shut {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Monitor {
    async fn run(
        mut self,
        view: watch::Sender<View>,
        mut cuts: mpsc::Receiver<(QueueId, String)>,
        shutdown: Shutdown,
    ) {
        loop {
            let now = match self.look().await {
                Ok(now) => {
                    self.recovered();
                    now
                }
                Err(reason) => self.shut(&reason),
            };
            let open = matches!(now, View::Open { .. });
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
                Some(cut) = cuts.recv() => self.cut = Some(cut),
                () = tokio::time::sleep(pause) => {}
            }
        }
        self.parts.claims.give_up(self.number);
    }

    async fn look(&mut self) -> Result<View, Shut> {
        let asked = Asked { at: self.parts.registry.catalog().taken_at, since: Instant::now() };
        let mut status = self.status().await?;
        let answered = Instant::now();
        self.compatible(&status)?;
        let seen = (status.id, status.server.clone());
        if self.last.as_ref() != Some(&seen) {
            status = self.meet(status).await?;
            self.last = Some(seen);
        }
        if went_back(&self.accepted, &status.accepted) {
            self.cut = Some((status.id, "it counts fewer votes than a moment ago".to_owned()));
        }
        self.accepted.clone_from(&status.accepted);
        let due = self.reported_at.is_none_or(|at| at.elapsed() >= REPORT_EVERY);
        if due {
            self.see_others(&status).await?;
        }
        // What was said of a box that is not here any more was done by others.
        if let Some((id, reason)) = self.cut.take().filter(|(id, _)| *id == status.id) {
            let replaced = self.replace(&status, &reason).await;
            if replaced.is_err() {
                self.cut = Some((id, reason));
            }
            replaced?;
            return Err(Shut::Because("its box lost data and was replaced".to_owned()));
        }
        let claim = Claim { monitor: self.number, address: &self.address, server: &status.server };
        // One about another box says nothing of this one.
        self.conflict.take_if(|(id, _)| *id != status.id);
        match self.parts.claims.claim(status.id, claim, asked.since, self.conflict.map(|(_, since)| since)) {
            Ok(()) => self.conflict = None,
            Err(Taken::Here(other)) => {
                self.conflict = None;
                return Err(Shut::Because(format!(
                    "it is the same queue as at {other}, where it is read already"
                )));
            }
            Err(Taken::Unclear(other)) => {
                self.conflict.get_or_insert((status.id, answered));
                return Err(Shut::Because(format!(
                    "another server at {other} had the same box a moment ago: waiting whether it still has"
                )));
            }
            Err(Taken::Copy(other)) => {
                // Both took votes under one identity. Which is the copy nobody can know: both get a new one.
                let reason = format!("the server at {other} has a copy of it");
                self.cut = Some((status.id, reason.clone()));
                return Err(Shut::Because(reason));
            }
        }
        self.see_remains(&status).await?;
        self.report_remains().await?;
        if !status.registered {
            // In this order, or there would be a box that takes votes and that nobody knows of, or one that takes
            // votes for a poll whose count is final, or for none.
            self.report(&status, asked.at).await?;
            self.parts.registry.refresh().await?;
            self.seal(&status).await?;
            self.record_polls(&status).await?;
            self.queue.register(status.id).await?;
            tracing::info!(address = %self.address, queue = %status.id, "registered a queue");
        } else {
            // It is read all the same: a seal that fails is tried again.
            if let Err(e) = self.seal(&status).await {
                tracing::debug!(address = %self.address, "the queue can't be sealed now: {e}");
            }
            if let Err(e) = self.record_polls(&status).await {
                tracing::debug!(address = %self.address, "polls can't be recorded now: {e}");
            }
            if due {
                self.report(&status, asked.at).await?;
            }
        }
        let accepted =
            status.accepted.iter().map(|(partition, polls)| (*partition, polls.values().sum())).collect();
        Ok(View::Open { id: status.id, accepted: Arc::new(accepted), remains: Arc::clone(&self.remains) })
    }

    /// A box that was not seen before, or whose server was started again: it is compared with what was reported of it.
    async fn meet(&mut self, status: QueueStatus) -> Result<QueueStatus, Shut> {
        // The box before is no longer here, whoever has it now.
        self.parts.claims.give_up(self.number);
        self.reported_at = None;
        self.positions.clear();
        self.unsealable.clear();
        let known = self.parts.registry.refresh().await?.queues.get(&status.id).cloned();
        // Looked at again: what others reported is of a moment before this, so less than that is a loss.
        let id = status.id;
        let status = self.status().await?;
        if status.id != id {
            return Err(Shut::Because("its box was replaced just now".to_owned()));
        }
        if let Some(known) = known
            && let Some(reason) = self.loss_since_the_last_report(&status, &known).await?
        {
            self.cut = Some((id, reason));
        }
        self.accepted.clear();
        Ok(status)
    }

    /// What others noted in the store: another worker may have found the box cut, or somebody wrote it off; and a box
    /// that was here before and is nowhere now.
    async fn see_others(&mut self, status: &QueueStatus) -> Result<(), Shut> {
        let catalog = self.parts.registry.catalog();
        if let Some(record) = catalog.queues.get(&status.id).filter(|record| record.state.is_over())
            && self.cut.as_ref().is_none_or(|(id, _)| *id != status.id)
        {
            self.cut = Some((status.id, record.reason.clone()));
        }
        for record in self.vanished(status) {
            self.report_cut(record, &format!("its server came back with another box, {}", status.id)).await?;
        }
        Ok(())
    }

    /// Seals the box for every poll that takes no more votes, where it is not sealed or the store does not know what it
    /// held then: a server and a store may both come back to a state that forgot it.
    async fn seal(&mut self, status: &QueueStatus) -> Result<(), Shut> {
        let catalog = self.parts.registry.catalog();
        for poll in catalog.polls.iter().filter(|poll| poll.closed_at.is_some()) {
            let is_recorded = poll.final_at.is_some() || catalog.sealed.contains(&(status.id, poll.slug));
            let is_done = is_recorded && status.is_sealed(poll.slug);
            if is_done || self.unsealable.contains(&poll.slug) {
                continue;
            }
            match self.queue.seal(status.id, poll.slug).await {
                Ok(seal) => self.record_seal(SealRecord { queue: status.id, poll: poll.slug, seal }).await?,
                Err(QueueError::CannotSeal) => {
                    self.unsealable.insert(poll.slug);
                    tracing::warn!(
                        address = %self.address, poll = %poll.slug,
                        "queues of this kind can't be sealed: the poll is closed by time only, and can't be final before \
                         this queue is retired"
                    );
                }
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// Records a seal. One that says less than one before shows that the box lost votes.
    async fn record_seal(&mut self, said: SealRecord) -> Result<(), Shut> {
        let recorded = self.parts.store.note_seal(&said).await?;
        let mut counts = said.seal.accepted.iter().zip(&recorded.seal.accepted).zip(0..);
        if let Some(((now, before), partition)) = counts.find(|((now, before), _)| now < before) {
            let (poll, partition) = (said.poll, Partition(partition));
            let reason = format!(
                "partition {partition} counts {now} votes of poll {poll}, and counted {before} when it was sealed"
            );
            self.cut = Some((said.queue, reason));
        }
        Ok(())
    }

    /// Finds out where remains end that were not here before, and forgets those that are gone.
    async fn see_remains(&mut self, status: &QueueStatus) -> Result<(), Shut> {
        if self.remains.iter().map(|known| known.id).eq(status.remains.iter().map(|remains| remains.id)) {
            return Ok(());
        }
        let start = vec![Position::START; usize::from(status.layout.partitions.count())];
        let mut found = Vec::with_capacity(status.remains.len());
        for remains in &status.remains {
            found.push(match self.remains.iter().find(|known| known.id == remains.id) {
                Some(known) => known.clone(),
                None => {
                    let unread = self.queue.unread(remains.id, &start, 1).await?;
                    let ends = unread.iter().map(|unread| unread.end).collect();
                    Leftover { id: remains.id, of: remains.of, ends }
                }
            });
        }
        self.remains = found.into();
        Ok(())
    }

    async fn status(&self) -> Result<QueueStatus, Shut> {
        let status = self.queue.status().await?;
        status.ok_or_else(|| Shut::Because("no frontend has made a box there yet".to_owned()))
    }

    fn compatible(&self, status: &QueueStatus) -> Result<(), Shut> {
        let ours = self.parts.layout;
        let problem = if status.version != LAYOUT_VERSION {
            format!("it has layout version {}, this worker reads version {LAYOUT_VERSION}", status.version)
        } else if status.layout.partitions != ours.partitions {
            format!(
                "it has {} partitions, the store has {}: start its frontend with VOTE_PARTITIONS={} and an empty queue",
                status.layout.partitions, ours.partitions, ours.partitions
            )
        } else if status.layout.fingerprint != ours.fingerprint {
            format!(
                "its frontend has another VOTE_PEPPER (fingerprint {}, here {})",
                status.layout.fingerprint, ours.fingerprint
            )
        } else {
            return Ok(());
        };
        Err(Shut::Because(problem))
    }

    fn recovered(&mut self) {
        if self.problem.take().is_some() {
            tracing::info!(address = %self.address, "the queue is read again");
        }
    }

    fn shut(&mut self, reason: &Shut) -> View {
        let text = reason.to_string();
        if self.problem.as_ref() != Some(&text) {
            tracing::warn!(address = %self.address, "the queue is not read: {text}");
            self.problem = Some(text);
        }
        // So that another address of the same box may take over.
        self.parts.claims.give_up(self.number);
        View::Shut
    }
}

/// Votes that a box ever accepted.
fn accepted_by(status: &QueueStatus) -> u64 {
    status.accepted.values().flat_map(BTreeMap::values).sum()
}

/// Whether a box counts fewer votes than before in any partition, which it can't do by itself.
fn went_back(before: &BTreeMap<Partition, Counters>, now: &BTreeMap<Partition, Counters>) -> bool {
    let none = Counters::new();
    before.iter().any(|(partition, before)| dedup::went_back(before, now.get(partition).unwrap_or(&none)))
}
