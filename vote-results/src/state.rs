//! What the poller hands to all requests: read once, written out once, shared.

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use vote_core::Timestamp;

use crate::{caching::Cached, csv, pipeline::Pipeline, snapshot::Snapshot};

/// What is known. Starts with nothing read, and with the reason why not once that is known.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// What was read last; none before the first time.
    pub reading: Option<Arc<Reading>>,
    /// Set while the store does not answer: then `reading` is what it said before.
    pub stale: Option<Stale>,
}

/// Why the store was not read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stale {
    /// Since when.
    #[serde(serialize_with = "as_text")]
    pub since: Timestamp,
    /// The last reason, in words.
    pub reason: String,
}

fn as_text<S: serde::Serializer>(value: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// Everything read from the store at one moment.
#[derive(Debug, Clone)]
pub struct Reading {
    /// The polls of the file, in its order.
    pub polls: Vec<Arc<View>>,
    /// Queues and what is accounted for.
    pub pipeline: Pipeline,
}

/// A poll's snapshot, in every form that is sent. As long as it says the same, it is the same allocation.
#[derive(Debug)]
pub struct View {
    /// What it says.
    pub snapshot: Snapshot,
    /// `results.json`.
    pub json: Cached,
    /// `results.csv`; none if withheld.
    pub csv: Option<Cached>,
    /// The event of the event stream.
    pub event: Bytes,
}

impl State {
    /// The poll of that name, if the file has it and it was read.
    #[must_use]
    pub fn view(&self, poll: &str) -> Option<&Arc<View>> {
        self.reading.as_ref()?.polls.iter().find(|view| view.snapshot.poll.as_str() == poll)
    }
}

impl View {
    /// Writes a snapshot out.
    #[must_use]
    #[allow(clippy::expect_used, clippy::missing_panics_doc)]
    pub fn new(snapshot: Snapshot) -> Self {
        // It fails for maps whose keys are no text, and for types that say so; there are none in a snapshot.
        let json = serde_json::to_vec(&snapshot).expect("a snapshot can be written as JSON");
        // JSON has no line ends of its own, so it is one line of data.
        let event = [&b"event: results\ndata: "[..], &json, b"\n\n"].concat();
        let csv = csv::csv(&snapshot).map(Cached::new);
        Self { json: Cached::new(json), csv, event: Bytes::from(event), snapshot }
    }
}

#[cfg(test)]
mod tests {
    use vote_core::Polls;

    use super::*;
    use crate::snapshot::Status;

    #[test]
    fn an_event_is_the_json_on_one_line() {
        let mut poll = Polls::example().get("pets").unwrap().clone();
        poll.title = "Two\nlines\r\ndata: x".to_owned();
        let view = View::new(Snapshot::new(&poll, &[], Status::Provisional, Timestamp::MIN));
        let event = std::str::from_utf8(&view.event).unwrap();
        let data = event.strip_prefix("event: results\ndata: ").unwrap().strip_suffix("\n\n").unwrap();
        assert!(!data.contains(['\n', '\r']), "{data}");
        assert_eq!(data.as_bytes(), view.json.bytes());
    }
}
