//! Waiting for something that another process does.

use std::time::{Duration, Instant};

/// Short enough not to slow a test, long enough not to take a core from the server that is waited for.
const INTERVAL: Duration = Duration::from_millis(5);

/// Asks until there is an answer, at least once and for at most `timeout`.
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
