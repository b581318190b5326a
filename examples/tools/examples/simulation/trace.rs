//! Logs of the services with the simulated time, since the real time means nothing in a history.

use std::{cell::Cell, fmt};

use tokio::time::Instant;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::{format::Writer, time::FormatTime};

thread_local! {
    /// Start of the history that runs on this thread.
    static START: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Formats the simulated time since the start of the history.
struct SimulatedTime;

impl FormatTime for SimulatedTime {
    fn format_time(&self, w: &mut Writer<'_>) -> fmt::Result {
        let elapsed = START.get().map(|start| start.elapsed().as_secs_f64());
        write!(w, "{:>9.4} s", elapsed.unwrap_or_default())
    }
}

/// Prints all logs to standard error from now on.
pub(crate) fn init() {
    let lines = tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false);
    lines.with_max_level(LevelFilter::DEBUG).with_timer(SimulatedTime).init();
}

/// Sets the start of the history that runs on this thread.
pub(crate) fn begin(start: Instant) {
    START.set(Some(start));
}
