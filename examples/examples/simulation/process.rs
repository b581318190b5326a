//! A simulated process: whether it runs, and what its clock says.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};
use vote_core::{Clock, Timestamp};

/// When every history begins: one day after the first moment that a [`Timestamp`] can hold.
const EPOCH_MICROS: i64 = 86_400_000_000;

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Running,
    /// Its calls neither begin nor return.
    Frozen,
    /// As frozen, for good.
    Dead,
}

/// A process of the simulation: a worker, a frontend, the database server.
pub(crate) struct Process {
    pub(crate) name: String,
    state: watch::Sender<State>,
    start: Instant,
    skew: Mutex<Skew>,
}

/// How a clock differs from the true time.
#[derive(Debug, Clone, Copy)]
struct Skew {
    /// Microseconds ahead at `since`.
    offset: i64,
    /// Microseconds gained a second.
    drift: i64,
    since: Duration,
}

impl Skew {
    fn at(&self, elapsed: Duration) -> i64 {
        let run = elapsed.saturating_sub(self.since).as_micros() as i64;
        self.offset + run * self.drift / 1_000_000
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Process {
    /// A process with the right time, in a history that began at `start`.
    pub(crate) fn new(name: String, start: Instant) -> Self {
        let skew = Skew { offset: 0, drift: 0, since: Duration::ZERO };
        Self { name, state: watch::channel(State::Running).0, start, skew: Mutex::new(skew) }
    }

    /// Waits until the process runs; forever once it is dead.
    pub(crate) async fn running(&self) {
        let mut state = self.state.subscribe();
        // The sender lives as long as this process.
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

    /// Freezes, wakes or kills the process. One that is dead stays so.
    pub(crate) fn set(&self, to: State) {
        self.state.send_if_modified(|state| {
            let changed = *state != State::Dead && *state != to;
            if changed {
                *state = to;
            }
            changed
        });
    }

    /// Sets how far the clock is ahead, and how much it gains a second, in microseconds.
    pub(crate) fn set_clock(&self, offset: i64, drift: i64) {
        let skew = Skew { offset, drift, since: self.start.elapsed() };
        *self.skew.lock().unwrap_or_else(PoisonError::into_inner) = skew;
    }

    /// Microseconds that the clock is ahead of the true time.
    pub(crate) fn clock_error(&self) -> i64 {
        self.skew.lock().unwrap_or_else(PoisonError::into_inner).at(self.start.elapsed())
    }
}

impl Clock for Process {
    fn now(&self) -> Timestamp {
        true_time(self.start).saturating_add(self.clock_error())
    }
}

/// The time of a right clock in a history that began at `start`.
pub(crate) fn true_time(start: Instant) -> Timestamp {
    Timestamp::MIN.saturating_add(EPOCH_MICROS + start.elapsed().as_micros() as i64)
}
