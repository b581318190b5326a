//! Links between a process and a server, which faults block, slow down and make lossy.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep, sleep_until};

use crate::random::Random;

/// A link between one process and one server. Requests arrive in the order in which they were sent, as on one
/// connection; replies may overtake each other, as tasks that wait for them on several threads do.
#[derive(Debug)]
pub(crate) struct Link {
    random: Random,
    weather: Mutex<Weather>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Weather {
    blocked: bool,
    /// Messages of a thousand that get lost.
    lossy: u64,
    slow: Duration,
    /// When the last request arrives.
    last_arrival: Option<Instant>,
}

/// A message that does not arrive.
#[derive(Debug)]
pub(crate) struct Lost;

impl Link {
    pub(crate) fn new(random: Random) -> Self {
        Self { random, weather: Mutex::default() }
    }

    fn with<T>(&self, f: impl FnOnce(&mut Weather) -> T) -> T {
        f(&mut self.weather.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Carries a request.
    pub(crate) async fn request(&self) -> Result<(), Lost> {
        let latency = self.random.latency();
        let at = self.with(|weather| {
            let at = (Instant::now() + latency + weather.slow)
                .max(weather.last_arrival.unwrap_or_else(Instant::now));
            weather.last_arrival = Some(at);
            at
        });
        sleep_until(at).await;
        self.arrives()
    }

    /// Carries a reply.
    pub(crate) async fn reply(&self) -> Result<(), Lost> {
        let slow = self.with(|weather| weather.slow);
        sleep(self.random.latency() + self.random.up_to(slow)).await;
        self.arrives()
    }

    fn arrives(&self) -> Result<(), Lost> {
        let weather = self.with(|weather| *weather);
        if weather.blocked || (weather.lossy > 0 && self.random.chance(weather.lossy)) {
            return Err(Lost);
        }
        Ok(())
    }

    pub(crate) fn block(&self, blocked: bool) {
        self.with(|weather| weather.blocked = blocked);
    }

    pub(crate) fn lose(&self, per_mille: u64) {
        self.with(|weather| weather.lossy = per_mille);
    }

    pub(crate) fn slow_down(&self, by: Duration) {
        self.with(|weather| weather.slow = by);
    }

    /// Messages of a thousand that get lost now.
    pub(crate) fn loss(&self) -> u64 {
        self.with(|weather| weather.lossy)
    }

    /// Whether every message arrives, and soon.
    pub(crate) fn is_clear(&self) -> bool {
        self.with(|weather| !weather.blocked && weather.lossy == 0 && weather.slow.is_zero())
    }
}
