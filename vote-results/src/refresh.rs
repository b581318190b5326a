//! The only periodic reader of the store: reads what is shown each second and shares it with all requests if it changed.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use vote_core::{
    Clock, PollSlug, Polls, TRACES, Timestamp,
    count::{Balances, Summary},
    store::StoreError,
};
use vote_service::{Readiness, Shutdown};

use crate::{
    Parts,
    events::Views,
    figures::PublicFigures,
    health::NOT_READ,
    metrics,
    pipeline::Pipeline,
    reader::Reader,
    state::{Reading, Stale, State, View},
};

/// Interval between reads of the store. At one second, results look live.
pub const REFRESH_INTERVAL: Duration = Duration::from_secs(1);
/// Timeout of one read. Longer than the 5 s that stores wait for a connection, since their error says more.
pub const READ_TIMEOUT: Duration = Duration::from_secs(6);
/// Maximum age of the last read at which the service is still ready.
pub const MAX_AGE: Duration = Duration::from_secs(10);
/// Age of the last change on a standby above which its figures are shown as out of date. Workers change something each
/// second, so a change that old means that the standby lags behind, or that no worker is running.
const MAX_LAG: Duration = Duration::from_secs(10);
/// Difference to the store's clock above which a warning is logged.
const CLOCK_WARNING: Duration = Duration::from_secs(2);

/// Reads the store and publishes the resulting [`State`]. Dropping it ends the [event streams](crate::events).
#[derive(Debug)]
pub struct Refresher {
    reader: Reader,
    polls: Arc<Polls>,
    clock: Arc<dyn Clock>,
    state: watch::Sender<Arc<State>>,
    /// The view of each poll once more, for those who wait for its changes.
    views: BTreeMap<PollSlug, watch::Sender<Option<Arc<View>>>>,
    read_at: ReadAt,
    clock_differs: AtomicBool,
}

/// Time of the last successful read. Kept apart from the state, which is published only when it changes.
type ReadAt = Arc<Mutex<Option<(Instant, Timestamp)>>>;

/// The latest state that a refresher published. All clones see the same.
#[derive(Debug, Clone)]
pub struct Latest {
    state: watch::Receiver<Arc<State>>,
    views: Arc<BTreeMap<PollSlug, Views>>,
    read_at: ReadAt,
}

impl Refresher {
    /// Creates a refresher that has not read the store yet.
    #[must_use]
    pub fn new(parts: &Parts) -> Self {
        Self {
            reader: Reader::new(Arc::clone(&parts.store)),
            polls: Arc::clone(&parts.polls),
            clock: Arc::clone(&parts.clock),
            state: watch::Sender::new(Arc::default()),
            views: parts.polls.iter().map(|poll| (poll.slug, watch::Sender::default())).collect(),
            read_at: Arc::default(),
            clock_differs: AtomicBool::new(false),
        }
    }

    /// Returns a handle to the latest state, now and in the future.
    #[must_use]
    pub fn latest(&self) -> Latest {
        let views = self.views.iter().map(|(poll, views)| (*poll, views.subscribe())).collect();
        Latest { state: self.state.subscribe(), views: Arc::new(views), read_at: Arc::clone(&self.read_at) }
    }

    /// Reads the store every [`REFRESH_INTERVAL`] until shutdown.
    pub async fn run(self, shutdown: Shutdown) {
        let mut ticks = interval(REFRESH_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let forever = async {
            loop {
                ticks.tick().await;
                self.refresh().await;
            }
        };
        tokio::select! {
            () = shutdown.requested() => {}
            () = forever => {}
        }
    }

    /// Reads the store once. If that fails, the previous state stays and is marked as stale.
    #[tracing::instrument(target = TRACES, level = "trace", name = "read", skip_all)]
    pub async fn refresh(&self) {
        let (started, asked_at) = (Instant::now(), self.clock.now());
        let read = timeout(READ_TIMEOUT, self.reader.read()).await.unwrap_or_else(|_| {
            let text = format!("no reply within {} s", READ_TIMEOUT.as_secs());
            Err(StoreError::Unavailable(text.into()))
        });
        metrics::read(started.elapsed());
        let now = self.clock.now();
        match read {
            Ok((summary, balances)) => {
                *self.read_at.lock().unwrap_or_else(PoisonError::into_inner) = Some((started, now));
                metrics::summary(&summary, now);
                metrics::balances(&balances, &summary);
                self.compare_clocks(asked_at, summary.taken_at);
                self.publish(&summary, &balances);
            }
            Err(e) => {
                metrics::store_error();
                self.mark_stale(e.to_string(), now);
            }
        }
    }

    /// Publishes the difference to the store's clock, and logs when it becomes too large. The pages show times by this
    /// service's clock; the results themselves do not depend on it.
    fn compare_clocks(&self, ours: Timestamp, of_store: Timestamp) {
        let seconds = (ours.as_micros() - of_store.as_micros()) as f64 / 1e6;
        metrics::clock_difference(seconds);
        let differs = seconds.abs() > CLOCK_WARNING.as_secs_f64();
        if self.clock_differs.swap(differs, Ordering::Relaxed) != differs {
            if differs {
                tracing::warn!(
                    "this service's clock differs from the store's by {seconds:.1} s: check the time synchronization \
                     of both"
                );
            } else {
                tracing::info!("this service's clock agrees with the store's");
            }
        }
    }

    fn publish(&self, summary: &Summary, balances: &Balances) {
        let before = Arc::clone(&self.state.borrow());
        let figures = PublicFigures::new(&self.polls, summary, balances);
        let reading = Arc::new(Reading::new(figures, before.reading.as_deref()));
        warn_of_new_problems(before.reading.as_deref(), reading.pipeline());
        let stale = lag(summary);
        match (&before.stale, &stale) {
            (None, Some(stale)) => tracing::warn!("{}", stale.reason),
            (Some(stale), None) => {
                tracing::info!("the figures are up to date again, after an outage since {}", stale.since);
            }
            _ => {}
        }
        let same = before.reading.as_ref().is_some_and(|before| before.says_the_same(&reading));
        if before.stale != stale || !same {
            self.state.send_replace(Arc::new(State { reading: Some(Arc::clone(&reading)), stale }));
        }
        for view in reading.polls() {
            let Some(views) = self.views.get(&view.snapshot.poll) else { continue };
            let is_new = views.borrow().as_ref().is_none_or(|known| !Arc::ptr_eq(known, view));
            if is_new {
                metrics::outcome(&view.snapshot);
                views.send_replace(Some(Arc::clone(view)));
            }
        }
    }

    fn mark_stale(&self, reason: String, now: Timestamp) {
        let before = Arc::clone(&self.state.borrow());
        let since = match &before.stale {
            Some(stale) if stale.reason == reason => return,
            Some(stale) => stale.since,
            None => {
                tracing::warn!("can't read the store, retrying every second: {reason}");
                now
            }
        };
        let stale = Some(Stale { since, reason });
        self.state.send_replace(Arc::new(State { reading: before.reading.clone(), stale }));
    }
}

/// Returns since when a standby has received no change, if that is too long ago. The figures that it has are shown, but
/// as out of date.
fn lag(summary: &Summary) -> Option<Stale> {
    let since = summary.replayed_at.unwrap_or(summary.taken_at);
    let lag = summary.taken_at.as_micros().saturating_sub(since.as_micros());
    metrics::standby_lag(lag as f64 / 1e6);
    (lag > MAX_LAG.as_micros() as i64).then(|| Stale {
        since,
        reason: format!(
            "no change has reached this standby of the store for more than {} s: check its replication, and that a \
             worker is running",
            MAX_LAG.as_secs()
        ),
    })
}

fn warn_of_new_problems(before: Option<&Reading>, now: &Pipeline) {
    let known = |poll: &str| before?.pipeline().polls.iter().find(|line| line.poll == poll)?.problem.as_ref();
    for line in &now.polls {
        if let Some(problem) = line.problem.as_ref().filter(|problem| known(&line.poll) != Some(*problem)) {
            tracing::warn!(poll = line.poll, "{problem}");
        }
    }
}

impl Latest {
    /// Returns the latest state.
    #[must_use]
    pub fn state(&self) -> Arc<State> {
        Arc::clone(&self.state.borrow())
    }

    /// Returns the time of the last successful read, whether or not anything had changed.
    #[must_use]
    pub fn read_at(&self) -> Option<Timestamp> {
        self.last_read().map(|(_, at)| at)
    }

    /// Returns the views of a poll, now and in the future, if it is in the file of the refresher.
    pub(crate) fn views(&self, poll: PollSlug) -> Option<Views> {
        self.views.get(&poll).cloned()
    }

    fn last_read(&self) -> Option<(Instant, Timestamp)> {
        *self.read_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Current results can be shown: the store was read at most [`MAX_AGE`] ago.
impl Readiness for Latest {
    fn ready(&self) -> Result<(), String> {
        // Independent of the age: a process that is shutting down should get no more requests.
        if self.state.has_changed().is_err() {
            return Err("shutting down".to_owned());
        }
        let state = self.state();
        let reason = state.stale.as_ref().map_or("the store does not answer", |stale| stale.reason.as_str());
        match self.last_read() {
            None if state.stale.is_none() => Err(NOT_READ.to_owned()),
            None => Err(format!("{NOT_READ}: {reason}")),
            Some((read, _)) if read.elapsed() > MAX_AGE => {
                Err(format!("the store was last read {} s ago: {reason}", read.elapsed().as_secs()))
            }
            Some(_) => Ok(()),
        }
    }
}
