//! Admission: whether a frontend accepts votes, and why not. It watches the frontend's own queue.
//!
//! A frontend accepts votes only while its queue is reachable, has the [layout](Layout) of this deployment, is
//! durable, and is active, that is, recorded in the store. [`Admission`] creates the queue if there is none, inspects
//! it every few seconds and whenever an append fails, and reports which queue accepts votes, or why none does.
//!
//! The same is decided for each poll. The store's definition is the only one; a frontend learns from its queue whether
//! it equals the one in its own file, and when the poll closes.
//!
//! Admission also detects that a queue lost acknowledged votes. Where no worker has read those votes yet,
//! only the frontend can know. It then creates a new queue on the server, and the workers find that the old one
//! diverged.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use crate::{
    Clock, Poll, PollDigest, PollSlug, Polls, Queue, QueueId, Timestamp,
    poll::Phase,
    queue::{Appended, Frame, Layout, QueueClock, QueueError, Usage},
};

mod bounds;
mod closed;
mod polls;

use bounds::LowerBounds;
pub use closed::ClosedReason;
pub use polls::PollAdmission;
use polls::SeenPolls;

/// Maximum duration of a status request whose clock reading is used.
const MAX_CLOCK_READ: Duration = Duration::from_secs(1);

/// Whether a frontend accepts votes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdmissionState {
    /// Votes are accepted, by this queue.
    Open(QueueId),
    /// No votes are accepted, for this reason.
    Closed(ClosedReason),
}

/// Options of [`Admission::start`].
#[derive(Debug, Clone)]
pub struct AdmissionOptions {
    /// Layout that votes are encoded for.
    pub layout: Layout,
    /// Polls that votes are accepted for. Votes for any other poll are refused.
    pub polls: Arc<Polls>,
    /// Whether to accept votes even if the queue may lose them when power fails. For a laptop.
    pub allow_volatile: bool,
    /// Time between two inspections of a queue that accepts votes. While it accepts none, inspections are ten times as
    /// frequent.
    pub interval: Duration,
}

/// Handle to the task that watches a queue. The task ends when the last handle is dropped.
#[derive(Debug, Clone)]
pub struct Admission {
    state: watch::Receiver<AdmissionState>,
    inspect_now: Arc<Notify>,
    layout: Layout,
    digests: Arc<BTreeMap<PollSlug, PollDigest>>,
    seen: Arc<Mutex<Seen>>,
}

/// What was last seen of the queue.
#[derive(Debug, Default)]
struct Seen {
    /// States of the polls in the queue.
    polls: SeenPolls,
    /// Lower bounds of what the queue has accepted.
    bounds: LowerBounds,
    /// Memory used by the queue, and its limit.
    usage: Option<Usage>,
    /// Clock of the queue, and when it was read.
    clock: Option<(Instant, QueueClock)>,
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    // A poisoned lock can be used: nothing here panics between two changes that belong together.
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Admission {
    /// Starts to watch a queue. Must be called within a tokio runtime.
    #[must_use]
    pub fn start(queue: Arc<dyn Queue>, options: AdmissionOptions) -> Self {
        let (send, state) = watch::channel(AdmissionState::Closed(ClosedReason::NotInspected));
        let inspect_now = Arc::new(Notify::new());
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let digests: BTreeMap<_, _> = options.polls.iter().map(|poll| (poll.slug, poll.digest())).collect();
        let digests = Arc::new(digests);
        let admission = Self {
            state,
            inspect_now: Arc::clone(&inspect_now),
            layout: options.layout,
            digests: Arc::clone(&digests),
            seen: Arc::clone(&seen),
        };
        tokio::spawn(async move {
            let mut announced = BTreeMap::new();
            loop {
                let now = inspect(&*queue, &options, &seen).await;
                polls::announce(
                    &queue.address(),
                    &lock(&seen).polls.poll_admissions(&digests),
                    &mut announced,
                );
                let open = matches!(now, AdmissionState::Open(_));
                send.send_if_modified(|state| {
                    let changed = *state != now;
                    if changed {
                        announce(&queue.address(), &now);
                        *state = now;
                    }
                    changed
                });
                let pause = if open { options.interval } else { options.interval / 10 };
                tokio::select! {
                    () = send.closed() => return,
                    () = inspect_now.notified() => {}
                    () = tokio::time::sleep(pause) => {}
                }
            }
        });
        admission
    }

    /// Returns the state as of the last inspection.
    ///
    /// It is closed once the task that watches the queue has ended by itself, which is a bug.
    #[must_use]
    pub fn state(&self) -> AdmissionState {
        if self.state.has_changed().is_err() {
            return AdmissionState::Closed(ClosedReason::WatcherEnded);
        }
        self.state.borrow().clone()
    }

    /// Waits until the task that watches the queue has ended by itself, which is a bug, so that the caller can end too.
    pub async fn ended(&self) {
        // The condition never holds, so this returns only with the error that the task dropped its end.
        let _ = self.state.clone().wait_for(|_| false).await;
    }

    /// Returns the layout that votes are encoded for.
    #[must_use]
    pub const fn layout(&self) -> Layout {
        self.layout
    }

    /// Returns whether votes are accepted for a poll, as of the last inspection.
    ///
    /// `None` before the first inspection, and for a poll that is not among the [options](AdmissionOptions::polls).
    #[must_use]
    pub fn poll_admission(&self, poll: PollSlug) -> Option<PollAdmission> {
        lock(&self.seen).polls.poll_admission(poll, *self.digests.get(&poll)?)
    }

    /// Returns the closing time of a poll: the one last seen recorded in the queue, or else the one in the file.
    #[must_use]
    pub fn closes_at(&self, poll: &Poll) -> Option<Timestamp> {
        lock(&self.seen).polls.closes_at(poll.slug).unwrap_or(poll.closes_at)
    }

    /// Returns the phase of a poll at `now`, by its opening time and its [closing time](Self::closes_at).
    ///
    /// A poll that the queue has sealed is closed whatever the time.
    #[must_use]
    pub fn phase(&self, poll: &Poll, now: Timestamp) -> Phase {
        if self.poll_admission(poll.slug) == Some(PollAdmission::Sealed) {
            return Phase::Closed;
        }
        poll.phase_until(self.closes_at(poll), now)
    }

    /// Returns the digest that frames of a poll carry; `None` if the poll is not among the
    /// [options](AdmissionOptions::polls).
    pub(crate) fn digest(&self, poll: PollSlug) -> Option<PollDigest> {
        self.digests.get(&poll).copied()
    }

    /// Returns the memory used by the queue and its limit, as last measured; `None` if the queue does not report it.
    #[must_use]
    pub fn usage(&self) -> Option<Usage> {
        lock(&self.seen).usage
    }

    /// Returns by how many microseconds `clock` is ahead of the store's clock; `None` until a worker has recorded in
    /// the queue how far the queue's clock is ahead.
    ///
    /// Informational: a frontend whose clock is wrong still accepts votes, but stamps them with a wrong time, and opens
    /// and closes polls at the wrong moment.
    #[must_use]
    pub fn clock_ahead_by(&self, clock: &dyn Clock) -> Option<i64> {
        let (read, queue) = lock(&self.seen).clock?;
        let since = i64::try_from(read.elapsed().as_micros()).ok()?;
        let ahead_of_queue = clock.now().as_micros() - queue.now.as_micros() - since;
        Some(ahead_of_queue.saturating_add(queue.ahead?))
    }

    /// Records that the queue refused a frame of a poll.
    pub(crate) fn refused(&self, poll: PollSlug, why: Appended) {
        lock(&self.seen).polls.refused(poll, why);
    }

    /// Records that the queue acknowledged a frame, so that a later loss of it is detected.
    pub(crate) fn acknowledged(&self, id: QueueId, frame: &Frame) {
        lock(&self.seen).bounds.acknowledged(id, frame);
    }

    /// Requests an immediate inspection of the queue, as after a failed append.
    pub fn check_now(&self) {
        self.inspect_now.notify_one();
    }

    /// Waits until votes are accepted, and returns the queue that accepts them; `None` if the task that watches the
    /// queue has ended.
    pub async fn opened(&mut self) -> Option<QueueId> {
        let state = self.state.wait_for(|state| matches!(state, AdmissionState::Open(_))).await.ok()?;
        match &*state {
            AdmissionState::Open(id) => Some(*id),
            AdmissionState::Closed(_) => None,
        }
    }
}

fn announce(address: &str, now: &AdmissionState) {
    match now {
        AdmissionState::Open(id) => tracing::info!(%address, queue = %id, "accepting votes"),
        AdmissionState::Closed(reason) => {
            tracing::warn!(%address, code = reason.code(), "not accepting votes: {reason}")
        }
    }
}

/// Inspects the queue, and creates one if there is none.
async fn inspect(queue: &dyn Queue, options: &AdmissionOptions, seen: &Mutex<Seen>) -> AdmissionState {
    match try_inspect(queue, options, seen).await {
        Ok(id) => AdmissionState::Open(id),
        Err(reason) => AdmissionState::Closed(reason),
    }
}

async fn try_inspect(
    queue: &dyn Queue,
    options: &AdmissionOptions,
    seen: &Mutex<Seen>,
) -> Result<QueueId, ClosedReason> {
    let problems = queue.durability_problems().await?;
    if !problems.is_empty() && !options.allow_volatile {
        return Err(ClosedReason::Volatile { problems });
    }
    // Copied before the request: the status need not count what is acknowledged while it is under way.
    let bounds = lock(seen).bounds.clone();
    let asked = Instant::now();
    let status = match queue.status().await? {
        Some(status) => status,
        None => {
            queue.create(options.layout, None).await?;
            queue.status().await?.ok_or(ClosedReason::Replaced)?
        }
    };
    if status.is_replica {
        // What it lacks, its master may have.
        return Err(ClosedReason::Replica);
    }
    if let Some(partition) = bounds.lost(&status) {
        tracing::error!(
            address = queue.address(), queue = %status.id,
            "the queue lost acknowledged votes of partition {partition}: replacing it with a new queue; \
             the audit reports the old one"
        );
        queue.create(options.layout, Some(status.id)).await?;
        return Err(ClosedReason::LostVotes { queue: status.id, partition });
    }
    {
        let mut seen = lock(seen);
        let took = asked.elapsed();
        // A slower answer says too little about the clock.
        if took <= MAX_CLOCK_READ {
            seen.clock = Some((asked + took / 2, status.clock));
        }
        seen.polls.reported(&status.polls);
        seen.bounds.reported(&status);
    }
    // Usage is informational: a failed measurement does not close admission.
    if let Ok(usage) = queue.usage().await {
        lock(seen).usage = usage;
    }
    match status.mismatch(options.layout) {
        Some(mismatch) => Err(ClosedReason::Mismatch(mismatch)),
        None if !status.active => Err(ClosedReason::NotActivated { queue: status.id }),
        None => Ok(status.id),
    }
}

impl From<QueueError> for ClosedReason {
    fn from(error: QueueError) -> Self {
        Self::Queue(error)
    }
}
