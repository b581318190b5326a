//! Waiting for another process.

use std::time::{Duration, Instant};

/// Pause between polls: short enough not to slow down a test, long enough not to take a core from the awaited server.
const INTERVAL: Duration = Duration::from_millis(5);

/// Calls `ask` until it returns an answer, at least once and for at most `timeout`.
pub(crate) fn poll<T>(timeout: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(INTERVAL);
    }
}
