//! CPU time, which other load on the machine changes less than it changes the time on the clock. From the scheduler, since
//! the clock ticks of `/proc/PID/stat` are too coarse for a single statement.

use std::{fs, time::Duration};

/// Returns the CPU time so far of the calling thread.
pub fn thread_cpu() -> Duration {
    used("thread-self")
}

/// Returns the CPU time so far of the main thread of `/proc/{process}`; zero if there is no such process.
pub(crate) fn used(process: &str) -> Duration {
    let text = fs::read_to_string(format!("/proc/{process}/schedstat")).unwrap_or_default();
    let nanos = text.split(' ').next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}
