//! A simulated process: whether it runs, and its clock.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};
use vote_core::{Clock, Timestamp};

/// Time at which every history begins: one day after the earliest [`Timestamp`], in microseconds.
const EPOCH_MICROS: i64 = 86_400_000_000;

/// Whether a process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Running,
    /// Its calls neither start nor return.
    Frozen,
    /// Like frozen, but for ever.
    Dead,
}

/// A simulated process: a worker, a frontend, the results service or a database server.
pub(crate) struct Process {
    pub(crate) name: String,
    state: watch::Sender<State>,
    start: Instant,
    skew: Mutex<Skew>,
}

/// The difference of a clock from the true time.
#[derive(Debug, Clone, Copy)]
struct Skew {
    /// Microseconds by which the clock is ahead at `since`.
    offset: i64,
    /// Microseconds that the clock gains per second.
    drift: i64,
    /// Time since the start of the history.
    since: Duration,
}

impl Skew {
    /// Returns the microseconds by which the clock is ahead, a given time after the start of the history.
    fn at(&self, elapsed: Duration) -> i64 {
        let drifting_for = elapsed.saturating_sub(self.since).as_micros() as i64;
        self.offset + drifting_for * self.drift / 1_000_000
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Process {
    /// Returns a running process with a correct clock, in a history that began at `start`.
    pub(crate) fn new(name: String, start: Instant) -> Self {
        let skew = Skew { offset: 0, drift: 0, since: Duration::ZERO };
        Self { name, state: watch::channel(State::Running).0, start, skew: Mutex::new(skew) }
    }

    /// Returns the start of the history.
    pub(crate) fn start(&self) -> Instant {
        self.start
    }

    /// Waits while the process is frozen, and for ever if it is dead.
    pub(crate) async fn running(&self) {
        let mut state = self.state.subscribe();
        // This process holds the sender, so it can't be dropped meanwhile.
        if state.wait_for(|state| *state == State::Running).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    pub(crate) fn is_running(&self) -> bool {
        *self.state.borrow() == State::Running
    }

    pub(crate) fn is_dead(&self) -> bool {
        *self.state.borrow() == State::Dead
    }

    /// Freezes, wakes or kills the process. A dead process stays dead.
    pub(crate) fn set(&self, to: State) {
        self.state.send_if_modified(|state| {
            let changed = *state != State::Dead && *state != to;
            if changed {
                *state = to;
            }
            changed
        });
    }

    /// Sets by how much the clock is ahead, and how much it gains per second, in microseconds.
    pub(crate) fn set_clock(&self, offset: i64, drift: i64) {
        let skew = Skew { offset, drift, since: self.start.elapsed() };
        *self.skew.lock().unwrap_or_else(PoisonError::into_inner) = skew;
    }

    /// Returns the microseconds by which the clock is ahead of the true time.
    pub(crate) fn clock_error(&self) -> i64 {
        self.skew.lock().unwrap_or_else(PoisonError::into_inner).at(self.start.elapsed())
    }
}

impl Clock for Process {
    fn now(&self) -> Timestamp {
        true_time(self.start).saturating_add(self.clock_error())
    }
}

/// Returns the true time, in a history that began at `start`.
pub(crate) fn true_time(start: Instant) -> Timestamp {
    true_time_after(start.elapsed())
}

/// Returns the true time a given time after the start of a history.
pub(crate) fn true_time_after(elapsed: Duration) -> Timestamp {
    Timestamp::MIN.saturating_add(EPOCH_MICROS + elapsed.as_micros() as i64)
}
