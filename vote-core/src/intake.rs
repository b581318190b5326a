//! Whether votes may be taken: keeps watch over a frontend's own queue.
//!
//! The queue must be there, be a box of this deployment, be durable, and be known to the store. [`Intake`] makes the
//! box, looks every few seconds and whenever an append fails, and says which box takes votes or why none does.
//!
//! The same goes for each poll: the store's definition is the only one, and a frontend learns from its queue whether it
//! is the same as in its own file, and when the poll closes.
//!
//! The intake also notices when a queue lost what it had acknowledged, which nobody else can know of what no worker has seen
//! yet: then it gives the server a new box, and the workers find the old one cut.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{Notify, watch};

use crate::{
    Poll, PollDigest, PollSlug, Polls, Queue, QueueId, Timestamp,
    poll::Phase,
    queue::{Appended, Frame, LAYOUT_VERSION, Layout, QueueError, Room},
};

mod evidence;
mod polls;

use evidence::Evidence;
pub use polls::PollAdmission;
use polls::SeenPolls;

/// Whether votes may be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IntakeState {
    /// By this box.
    Open(QueueId),
    /// For this reason, in words for an operator.
    Shut(String),
}

/// What [`Intake::start`] needs to know beside the queue.
#[derive(Debug, Clone)]
pub struct IntakeOptions {
    /// What the votes will be encoded for.
    pub layout: Layout,
    /// The polls that votes will be made for. None is taken for another poll.
    pub polls: Arc<Polls>,
    /// Take votes even if the queue may lose them when power fails. For a laptop.
    pub allow_volatile: bool,
    /// How often to look when all is well; ten times as often when not.
    pub interval: Duration,
}

/// A handle to the task that watches a queue. The task ends when the last handle is dropped.
#[derive(Debug, Clone)]
pub struct Intake {
    state: watch::Receiver<IntakeState>,
    look: Arc<Notify>,
    layout: Layout,
    digests: Arc<BTreeMap<PollSlug, PollDigest>>,
    seen: Arc<Mutex<Seen>>,
}

/// What is known of the box that takes votes.
#[derive(Debug, Default)]
struct Seen {
    /// What it knows of polls.
    polls: SeenPolls,
    /// What the queue must hold at least.
    evidence: Evidence,
    /// How full the queue is.
    room: Option<Room>,
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    // Nothing here panics between two changes that belong together.
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Intake {
    /// Starts to watch. Must be called within a tokio runtime.
    #[must_use]
    pub fn start(queue: Arc<dyn Queue>, options: IntakeOptions) -> Self {
        let (send, state) = watch::channel(IntakeState::Shut("the queue was not looked at yet".to_owned()));
        let look = Arc::new(Notify::new());
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let digests: BTreeMap<_, _> = options.polls.iter().map(|poll| (poll.slug, poll.digest())).collect();
        let digests = Arc::new(digests);
        let intake = Self {
            state,
            look: Arc::clone(&look),
            layout: options.layout,
            digests: Arc::clone(&digests),
            seen: Arc::clone(&seen),
        };
        tokio::spawn(async move {
            let mut announced = BTreeMap::new();
            loop {
                let now = inspect(&*queue, &options, &seen).await;
                polls::announce(&queue.address(), &lock(&seen).polls.admissions(&digests), &mut announced);
                let open = matches!(now, IntakeState::Open(_));
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
                    () = look.notified() => {}
                    () = tokio::time::sleep(pause) => {}
                }
            }
        });
        intake
    }

    /// As last seen; shut once the task that watches the queue has ended, which only a bug makes it do.
    #[must_use]
    pub fn state(&self) -> IntakeState {
        if self.state.has_changed().is_err() {
            return IntakeState::Shut(
                "the task that watches the queue ended by itself, which is a bug".to_owned(),
            );
        }
        self.state.borrow().clone()
    }

    /// Waits until the task that watches the queue has ended by itself, so that whoever runs it can end as well.
    pub async fn ended(&self) {
        // An error says that the task dropped its end; the condition never holds.
        let _ = self.state.clone().wait_for(|_| false).await;
    }

    /// What votes are to be encoded for.
    #[must_use]
    pub const fn layout(&self) -> Layout {
        self.layout
    }

    /// Whether votes are taken for a poll, as last seen; none before the queue was looked at, and for a poll that is not
    /// among the [options](IntakeOptions::polls).
    #[must_use]
    pub fn admission(&self, poll: PollSlug) -> Option<PollAdmission> {
        lock(&self.seen).polls.admission(poll, *self.digests.get(&poll)?)
    }

    /// When a poll closes: what was last seen recorded in the queue, and before that what the file says.
    #[must_use]
    pub fn closes_at(&self, poll: &Poll) -> Option<Timestamp> {
        lock(&self.seen).polls.closes_at(poll.slug).unwrap_or(poll.closes_at)
    }

    /// Whether a poll takes votes at `now`, by the times that are known here and by whether its queue has sealed it.
    #[must_use]
    pub fn phase(&self, poll: &Poll, now: Timestamp) -> Phase {
        if self.admission(poll.slug) == Some(PollAdmission::Sealed) {
            return Phase::Closed;
        }
        poll.phase_until(self.closes_at(poll), now)
    }

    /// The digest that frames of a poll carry; none for a poll that is not among the [options](IntakeOptions::polls).
    pub(crate) fn digest(&self, poll: PollSlug) -> Option<PollDigest> {
        self.digests.get(&poll).copied()
    }

    /// How full the queue is, as last seen; nothing where it does not tell.
    #[must_use]
    pub fn room(&self) -> Option<Room> {
        lock(&self.seen).room
    }

    /// Notes that the box refused a frame of that poll.
    pub(crate) fn refused(&self, poll: PollSlug, why: Appended) {
        lock(&self.seen).polls.refused(poll, why);
    }

    /// Notes that a frame was acknowledged, so that it is missed if it is ever gone.
    pub(crate) fn acknowledged(&self, id: QueueId, frame: &Frame) {
        lock(&self.seen).evidence.acknowledged(id, frame);
    }

    /// Asks for a look at once, since an append failed.
    pub fn look_again(&self) {
        self.look.notify_one();
    }

    /// Waits until votes may be taken.
    pub async fn opened(&mut self) -> Option<QueueId> {
        let state = self.state.wait_for(|state| matches!(state, IntakeState::Open(_))).await.ok()?;
        match &*state {
            IntakeState::Open(id) => Some(*id),
            IntakeState::Shut(_) => None,
        }
    }
}

fn announce(address: &str, now: &IntakeState) {
    match now {
        IntakeState::Open(id) => tracing::info!(%address, queue = %id, "taking votes"),
        IntakeState::Shut(reason) => tracing::warn!(%address, "taking no votes: {reason}"),
    }
}

async fn inspect(queue: &dyn Queue, options: &IntakeOptions, seen: &Mutex<Seen>) -> IntakeState {
    match try_inspect(queue, options, seen).await {
        Ok(state) => state,
        Err(e) => IntakeState::Shut(e.to_string()),
    }
}

async fn try_inspect(
    queue: &dyn Queue,
    options: &IntakeOptions,
    seen: &Mutex<Seen>,
) -> Result<IntakeState, QueueError> {
    let problems = queue.check().await?;
    if !problems.is_empty() && !options.allow_volatile {
        return Ok(IntakeState::Shut(format!("the queue may lose votes: {}", problems.join("; "))));
    }
    // From before it is asked: what is acknowledged meanwhile, its answer need not hold.
    let evidence = lock(seen).evidence.clone();
    let status = match queue.status().await? {
        Some(status) => status,
        None => {
            queue.create(options.layout, None).await?;
            match queue.status().await? {
                Some(status) => status,
                None => return Ok(IntakeState::Shut("the queue forgot the box just made".to_owned())),
            }
        }
    };
    if let Some(partition) = evidence.lost(&status) {
        tracing::error!(
            address = queue.address(), queue = %status.id,
            "the queue lost votes of partition {partition} that were acknowledged: it gets a box with a new identity, \
             and the audit names the old one"
        );
        queue.create(options.layout, Some(status.id)).await?;
        return Ok(IntakeState::Shut("the queue lost votes that were acknowledged".to_owned()));
    }
    {
        let mut seen = lock(seen);
        seen.polls.reported(&status.polls);
        seen.evidence.reported(&status);
    }
    // It is only measured: not to know it is no reason to take no votes.
    if let Ok(room) = queue.room().await {
        lock(seen).room = room;
    }
    Ok(if status.version != LAYOUT_VERSION {
        IntakeState::Shut(format!(
            "the queue has layout version {}, this build writes version {LAYOUT_VERSION}",
            status.version
        ))
    } else if status.layout.partitions != options.layout.partitions {
        IntakeState::Shut(format!(
            "the queue has {} partitions, VOTE_PARTITIONS says {}: give the frontend the number of the store, and a \
             queue that has another one an empty database",
            status.layout.partitions, options.layout.partitions
        ))
    } else if status.layout.fingerprint != options.layout.fingerprint {
        IntakeState::Shut(format!(
            "the queue was filled with another pepper (fingerprint {}, VOTE_PEPPER has {})",
            status.layout.fingerprint, options.layout.fingerprint
        ))
    } else if !status.registered {
        IntakeState::Shut(format!("no worker has registered the queue {} yet; is one running?", status.id))
    } else {
        IntakeState::Open(status.id)
    })
}
