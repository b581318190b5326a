//! Rate limit: decides when the next vote, or the next visit, is due.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

/// Rate limit that all tasks of a run share. Without a rate, everything is due at once.
#[derive(Debug)]
pub struct Pace {
    start: Instant,
    rate: Option<f64>,
    taken: AtomicU64,
}

impl Pace {
    /// Starts the clock. `rate` is in turns per second.
    #[must_use]
    pub fn new(rate: Option<f64>) -> Self {
        Self { start: Instant::now(), rate, taken: AtomicU64::new(0) }
    }

    /// Takes a turn, and returns when it is due.
    pub fn due(&self) -> Instant {
        let Some(rate) = self.rate else { return self.start };
        let due = self.taken.fetch_add(1, Ordering::Relaxed) as f64 / rate;
        // Capped at a year, since a duration must not overflow.
        self.start + Duration::from_secs_f64(due.min(31_536_000.0))
    }

    /// Takes a turn, and waits until it is due. Overdue turns are taken as fast as the callers can.
    pub async fn turn(&self) {
        if self.rate.is_some() {
            sleep_until(self.due()).await;
        }
    }

    /// Skips the turns between `due` and now, so that they are not caught up with in a burst.
    pub fn skip_overdue(&self, due: Instant) {
        let Some(rate) = self.rate else { return };
        let late = Instant::now().saturating_duration_since(due).as_secs_f64();
        self.taken.fetch_add((late * rate) as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn votes_are_spread_evenly_over_time() {
        let (pace, start) = (Pace::new(Some(100.0)), Instant::now());
        for _ in 0..11 {
            pace.turn().await;
        }
        assert!(start.elapsed() >= Duration::from_millis(99), "{:?}", start.elapsed());
    }

    #[tokio::test]
    async fn without_a_rate_no_vote_waits() {
        let (pace, start) = (Pace::new(None), Instant::now());
        for _ in 0..1000 {
            pace.turn().await;
        }
        assert!(start.elapsed() < Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn skipped_turns_are_not_caught_up_with() {
        let pace = Pace::new(Some(10.0));
        let due = pace.due();
        tokio::time::sleep(Duration::from_secs(5)).await;
        pace.skip_overdue(due);
        assert!(pace.due() > Instant::now());
    }
}
