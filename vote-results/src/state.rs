//! What the poller hands to all requests: read once, written out once, shared.

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use vote_core::Timestamp;

use crate::{caching::Cached, csv, figures::PublicFigures, pipeline::Pipeline, snapshot::Snapshot};

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

/// Everything that may be shown of what was read from the store at one moment. Made of [`PublicFigures`] and nothing
/// else.
#[derive(Debug, Clone)]
pub struct Reading {
    polls: Vec<Arc<View>>,
    pipeline: Pipeline,
}

impl Reading {
    /// These figures, in every form that is sent. A poll of which they say the same as those `before` keeps its view,
    /// and with it the time of its last change: that of a withheld poll does not move when votes come.
    #[must_use]
    pub fn new(figures: PublicFigures, before: Option<&Self>) -> Self {
        let (outcomes, pipeline) = figures.into_parts();
        let view = |snapshot: Snapshot| match before.and_then(|before| before.view(snapshot.poll.as_str())) {
            Some(view) if view.snapshot.says_the_same(&snapshot) => Arc::clone(view),
            _ => Arc::new(View::new(snapshot)),
        };
        Self { polls: outcomes.into_iter().map(view).collect(), pipeline }
    }

    /// The polls of the file, in its order.
    #[must_use]
    pub fn polls(&self) -> &[Arc<View>] {
        &self.polls
    }

    /// Queues and what is accounted for.
    #[must_use]
    pub const fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }

    /// Whether it says the same as another, whenever that was.
    #[must_use]
    pub fn says_the_same(&self, other: &Self) -> bool {
        let same_views = self.polls.len() == other.polls.len()
            && self.polls.iter().zip(&other.polls).all(|(ours, theirs)| Arc::ptr_eq(ours, theirs));
        same_views && self.pipeline == other.pipeline
    }

    fn view(&self, poll: &str) -> Option<&Arc<View>> {
        self.polls.iter().find(|view| view.snapshot.poll.as_str() == poll)
    }
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
        self.reading.as_ref()?.view(poll)
    }
}

impl View {
    /// Writes a snapshot out.
    #[must_use]
    #[allow(clippy::expect_used)]
    pub(crate) fn new(snapshot: Snapshot) -> Self {
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

    #[test]
    fn an_event_is_the_json_on_one_line() {
        let mut poll = Polls::example().get("pets").unwrap().clone();
        poll.title = "Two\nlines\r\ndata: x".to_owned();
        let view = View::new(Snapshot::new(&poll, None, &[], Timestamp::MIN));
        let event = std::str::from_utf8(&view.event).unwrap();
        let data = event.strip_prefix("event: results\ndata: ").unwrap().strip_suffix("\n\n").unwrap();
        assert!(!data.contains(['\n', '\r']), "{data}");
        assert_eq!(data.as_bytes(), view.json.bytes());
    }
}
