//! CPU time, which other load on the machine changes less than it changes the time on the clock.

use std::fs;

use vote_testkit::Postgres;

/// Returns the milliseconds of CPU so far of this process, which has one thread, and of the server's processes.
pub(crate) fn cpu(postgres: &Postgres) -> [f64; 2] {
    let of = |process: &str| {
        let text = fs::read_to_string(format!("/proc/{process}/schedstat")).unwrap_or_default();
        text.split(' ').next().and_then(|nanos| nanos.parse::<f64>().ok()).unwrap_or(0.0) / 1e6
    };
    let pid = postgres.pid();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    [of("thread-self"), children.split_whitespace().map(of).sum()]
}
