//! Links between a process and a server. Faults block them, slow them down and make them lossy.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep, sleep_until};

use crate::random::Random;

/// A link between one process and one server.
///
/// Requests arrive in the order in which they were sent, as on one connection. Replies may overtake each other, as the
/// tasks that wait for them on several threads do.
#[derive(Debug)]
pub(crate) struct Link {
    random: Random,
    state: Mutex<LinkState>,
}

/// The disturbances of a link.
#[derive(Debug, Clone, Copy, Default)]
struct LinkState {
    blocked: bool,
    /// Probability that a message gets lost, in 1/1000.
    lossy: u64,
    /// Time that is added to the latency: to that of a request in full, to that of a reply a random part.
    slow: Duration,
    /// Time when the last request arrives.
    last_arrival: Option<Instant>,
}

/// The message does not arrive.
#[derive(Debug)]
pub(crate) struct Lost;

impl Link {
    /// Returns an undisturbed link.
    pub(crate) fn new(random: Random) -> Self {
        Self { random, state: Mutex::default() }
    }

    fn with<T>(&self, f: impl FnOnce(&mut LinkState) -> T) -> T {
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until a request arrives, or fails with [`Lost`] at that time.
    pub(crate) async fn request(&self) -> Result<(), Lost> {
        let latency = self.random.latency();
        let at = self.with(|state| {
            let at =
                (Instant::now() + latency + state.slow).max(state.last_arrival.unwrap_or_else(Instant::now));
            state.last_arrival = Some(at);
            at
        });
        sleep_until(at).await;
        self.arrives()
    }

    /// Waits until a reply arrives, or fails with [`Lost`] at that time.
    pub(crate) async fn reply(&self) -> Result<(), Lost> {
        let slow = self.with(|state| state.slow);
        sleep(self.random.latency() + self.random.up_to(slow)).await;
        self.arrives()
    }

    /// Fails if a message that would arrive now gets lost.
    fn arrives(&self) -> Result<(), Lost> {
        let state = self.with(|state| *state);
        if state.blocked || (state.lossy > 0 && self.random.chance(state.lossy)) {
            return Err(Lost);
        }
        Ok(())
    }

    /// Loses all messages, or ends that.
    pub(crate) fn block(&self, blocked: bool) {
        self.with(|state| state.blocked = blocked);
    }

    /// Loses each message with a probability of `per_mille` / 1000.
    pub(crate) fn lose(&self, per_mille: u64) {
        self.with(|state| state.lossy = per_mille);
    }

    /// Adds up to `by` to the latency of each message.
    pub(crate) fn slow_down(&self, by: Duration) {
        self.with(|state| state.slow = by);
    }

    /// Returns the probability that a message gets lost now, in 1/1000.
    pub(crate) fn loss(&self) -> u64 {
        self.with(|state| state.lossy)
    }

    /// Whether every message arrives, without an added latency.
    pub(crate) fn is_clear(&self) -> bool {
        self.with(|state| !state.blocked && state.lossy == 0 && state.slow.is_zero())
    }
}
