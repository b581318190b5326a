//! The outcome of a run.

use std::time::Duration;

use serde::Serialize;
use vote_tools::command::rounded;

/// What was measured.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) streams: u32,
    pub(crate) services: usize,
    pub(crate) open_seconds: f64,
    /// For each vote, the time until all streams had received it, in milliseconds.
    pub(crate) received_ms: Vec<f64>,
    /// CPU time of all services for all events.
    pub(crate) event_cpu: Duration,
    /// CPU time of all services in one second without votes.
    pub(crate) idle_cpu: Duration,
    /// Bytes of memory of all services for all streams.
    pub(crate) memory: u64,
}

#[derive(Serialize)]
struct Json {
    streams: u32,
    services: usize,
    open_seconds: f64,
    received_ms: Vec<f64>,
    received_ms_median: f64,
    cpu_us_per_event: f64,
    idle_cpu_us_per_second: f64,
    memory_bytes_per_stream: u64,
}

impl Report {
    pub(crate) fn to_json(&self) -> String {
        let streams = f64::from(self.streams);
        let mut sorted = self.received_ms.clone();
        sorted.sort_by(f64::total_cmp);
        let events = streams * sorted.len() as f64;
        let json = Json {
            streams: self.streams,
            services: self.services,
            open_seconds: rounded(self.open_seconds),
            received_ms: self.received_ms.iter().map(|ms| rounded(*ms)).collect(),
            received_ms_median: rounded(sorted.get(sorted.len() / 2).copied().unwrap_or_default()),
            cpu_us_per_event: rounded(self.event_cpu.as_secs_f64() * 1e6 / events),
            idle_cpu_us_per_second: rounded(self.idle_cpu.as_secs_f64() * 1e6 / streams),
            memory_bytes_per_stream: self.memory / u64::from(self.streams),
        };
        serde_json::to_string(&json).unwrap_or_else(|e| unreachable!("numbers are JSON: {e}"))
    }
}
