//! Keeps watch over one queue: registers it, sees what is new in it, reports it to the store.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, watch};
use vote_core::{
    Clock, Partition, Queue, QueueId, Store, dedup,
    queue::{Counters, LAYOUT_VERSION, Layout, QueueError, QueueStatus},
    store::{QueueRecord, QueueState, StoreError},
};
use vote_service::Shutdown;

/// How often a queue is asked what is new. One small script for all partitions.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often a queue that does not answer is asked.
const RETRY_EVERY: Duration = Duration::from_millis(500);
/// How often the store is told.
const REPORT_EVERY: Duration = Duration::from_secs(2);
/// How long a queue may be unreachable from here before it is asked whether others reach it.
const PATIENCE: Duration = Duration::from_secs(10);

/// What all monitors share.
#[derive(Debug, Clone)]
pub(crate) struct MonitorParts {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) layout: Layout,
    pub(crate) clock: Arc<dyn Clock>,
    /// Which monitor reads a box: one that is reached by two addresses must be read by one of them only.
    pub(crate) claims: Claims,
}

/// Boxes and the addresses by which they are read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Claims(Arc<Mutex<HashMap<QueueId, (u64, String)>>>);

impl Claims {
    /// `Err` with the other address if the box is read by another monitor.
    fn claim(&self, id: QueueId, monitor: u64, address: &str) -> Result<(), String> {
        let mut claims = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (owner, at) = claims.entry(id).or_insert_with(|| (monitor, address.to_owned()));
        if *owner == monitor { Ok(()) } else { Err(at.clone()) }
    }

    /// Whether the box is read by another monitor.
    fn is_elsewhere(&self, id: QueueId, monitor: u64) -> bool {
        let claims = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        claims.get(&id).is_some_and(|(owner, _)| *owner != monitor)
    }

    fn give_up(&self, monitor: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, (owner, _)| *owner != monitor);
    }
}

/// What a lane needs to know of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum View {
    /// To be read. Votes accepted by partition tell whether there is something new.
    Open { id: QueueId, accepted: Arc<BTreeMap<Partition, u64>> },
    /// Not to be read now; `only_here` if other workers do reach it.
    Shut { only_here: bool },
}

/// A queue that is watched. The task ends when the last clone is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Monitored {
    pub(crate) queue: Arc<dyn Queue>,
    view: watch::Receiver<View>,
    cuts: mpsc::Sender<(QueueId, String)>,
}

impl Monitored {
    pub(crate) fn start(queue: Arc<dyn Queue>, parts: MonitorParts, shutdown: Shutdown) -> Self {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let (send, view) = watch::channel(View::Shut { only_here: false });
        let (cuts, reported_cuts) = mpsc::channel(16);
        let monitor = Monitor {
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
            address: queue.address(),
            queue: Arc::clone(&queue),
            parts,
            problem: None,
            shut_since: Instant::now(),
            reported_at: None,
            last: None,
            accepted: BTreeMap::new(),
            last_record: None,
            cut: None,
        };
        tokio::spawn(monitor.run(send, reported_cuts, shutdown));
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
    parts: MonitorParts,
    problem: Option<String>,
    shut_since: Instant,
    reported_at: Option<Instant>,
    /// The box last seen.
    last: Option<QueueId>,
    /// What it counted when it was last looked at.
    accepted: BTreeMap<Partition, Counters>,
    /// What the store was told last.
    last_record: Option<QueueRecord>,
    /// The box here that lost data, and how that was noticed, until it is replaced.
    cut: Option<(QueueId, String)>,
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
                Err(reason) => self.shut(&reason).await,
            };
            let pause = if matches!(now, View::Open { .. }) { LOOK_EVERY } else { RETRY_EVERY };
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
        let mut status = self.status().await?;
        self.compatible(&status)?;
        if self.last != Some(status.id) {
            // The box before is no longer here, whoever has it now.
            self.parts.claims.give_up(self.number);
            self.reported_at = None;
            let known = self.parts.store.queues().await?;
            let known = known.into_iter().find(|record| record.id == status.id);
            // Looked at again: what others reported is of a moment before this, so a lower count is a loss.
            let id = status.id;
            status = self.status().await?;
            if status.id != id {
                return Err(Shut::Because("its box was replaced just now".to_owned()));
            }
            match &known {
                // Another worker, or this one before it was started again, found it cut and did not get further.
                Some(record) if record.state == QueueState::Cut => {
                    self.cut = Some((status.id, "noticed earlier".to_owned()));
                }
                Some(record) if record.accepted > accepted_by(&status) => {
                    self.cut =
                        Some((status.id, "it counts fewer votes than it was last reported with".to_owned()));
                }
                _ => {}
            }
            (self.last, self.last_record, self.accepted) = (Some(status.id), known, BTreeMap::new());
        }
        if went_back(&self.accepted, &status.accepted) {
            self.cut = Some((status.id, "it counts fewer votes than a moment ago".to_owned()));
        }
        self.accepted.clone_from(&status.accepted);
        if let Some((id, reason)) = self.cut.take_if(|(id, _)| *id == status.id) {
            let replaced = self.replace(id, &reason).await;
            if replaced.is_err() {
                self.cut = Some((id, reason));
            }
            replaced?;
            return Err(Shut::Because("its box lost data and was replaced".to_owned()));
        }
        self.parts.claims.claim(status.id, self.number, &self.address).map_err(|other| {
            Shut::Because(format!("it is the same queue as at {other}, where it is read already"))
        })?;
        if !status.registered {
            // In this order, or there would be a box that takes votes and that nobody knows of.
            self.report(&status).await?;
            self.queue.register(status.id).await?;
            tracing::info!(address = %self.address, queue = %status.id, "registered a queue");
        } else if self.reported_at.is_none_or(|at| at.elapsed() >= REPORT_EVERY) {
            self.report(&status).await?;
        }
        let accepted =
            status.accepted.iter().map(|(partition, polls)| (*partition, polls.values().sum())).collect();
        Ok(View::Open { id: status.id, accepted: Arc::new(accepted) })
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

    async fn report(&mut self, status: &QueueStatus) -> Result<(), StoreError> {
        let accepted = accepted_by(status);
        // One entry a partition stays as the anchor of the next read.
        let backlog = status.entries.iter().map(|entries| entries.saturating_sub(1)).sum();
        crate::metrics::queue_entries(&self.address, backlog);
        let record = QueueRecord {
            id: status.id,
            address: self.address.clone(),
            seen_at: self.parts.clock.now(),
            accepted,
            backlog,
            state: QueueState::Active,
        };
        self.parts.store.report(std::slice::from_ref(&record)).await?;
        self.reported_at = Some(Instant::now());
        self.last_record = Some(record);
        Ok(())
    }

    fn recovered(&mut self) {
        if self.problem.take().is_some() {
            tracing::info!(address = %self.address, "the queue is read again");
        }
        self.shut_since = Instant::now();
    }

    async fn shut(&mut self, reason: &Shut) -> View {
        let text = reason.to_string();
        if self.problem.as_ref() != Some(&text) {
            tracing::warn!(address = %self.address, "the queue is not read: {text}");
            self.problem = Some(text);
        }
        // So that another address of the same box may take over.
        self.parts.claims.give_up(self.number);
        // Where the box moved to another address it is read there.
        let elsewhere = self.last.is_some_and(|id| self.parts.claims.is_elsewhere(id, self.number));
        let unreachable = !elsewhere && matches!(reason, Shut::Queue(e) if e.is_retryable());
        View::Shut {
            only_here: unreachable && self.shut_since.elapsed() >= PATIENCE && self.seen_by_others().await,
        }
    }

    /// Whether another worker reported the box not long ago.
    async fn seen_by_others(&self) -> bool {
        let Ok(records) = self.parts.store.queues().await else { return false };
        let recently = self.parts.clock.now().saturating_add(-(PATIENCE.as_micros() as i64) / 2);
        self.last.is_some_and(|id| records.iter().any(|record| record.id == id && record.seen_at >= recently))
    }

    /// Sees to it that nothing more is booked under the box's identity, and gives its server a new one, so that it can
    /// take votes again. The old log stays where it is.
    async fn replace(&mut self, id: QueueId, reason: &str) -> Result<(), Shut> {
        tracing::error!(
            address = %self.address, queue = %id,
            "the queue lost or rolled back data: {reason}. Nothing more is booked under its identity, and it gets a new \
             one. What it lost can't be known; the status page shows it as cut"
        );
        let seen_at = self.parts.clock.now();
        let record = match self.last_record.clone().filter(|record| record.id == id) {
            Some(record) => QueueRecord { seen_at, state: QueueState::Cut, ..record },
            None => QueueRecord {
                id,
                address: self.address.clone(),
                seen_at,
                accepted: 0,
                backlog: 0,
                state: QueueState::Cut,
            },
        };
        self.parts.store.report(&[record]).await?;
        self.queue.create(self.parts.layout, Some(id)).await?;
        Ok(())
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
