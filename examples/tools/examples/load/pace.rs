//! Rate limit: decides when the next vote is due.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

/// Rate limit that all connections share. Without a rate, every vote is due at once.
#[derive(Debug)]
pub(crate) struct Pace {
    start: Instant,
    rate: Option<f64>,
    taken: AtomicU64,
}

impl Pace {
    /// Starts the clock. `rate` is in votes per second.
    pub(crate) fn new(rate: Option<f64>) -> Self {
        Self { start: Instant::now(), rate, taken: AtomicU64::new(0) }
    }

    /// Waits until one more vote is due. Overdue votes are cast as fast as the connections can carry them.
    pub(crate) async fn turn(&self) {
        let Some(rate) = self.rate else { return };
        let due = self.taken.fetch_add(1, Ordering::Relaxed) as f64 / rate;
        // Capped at a year, since a duration must not overflow.
        sleep_until(self.start + Duration::from_secs_f64(due.min(31_536_000.0))).await;
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
}
