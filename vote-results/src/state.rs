//! The state that the refresher shares with all requests: read once, serialized once.

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use vote_core::Timestamp;

use crate::{caching::Cached, csv, figures::PublicFigures, pipeline::Pipeline, snapshot::Snapshot};

/// Everything that the requests can show. The default is the state before the first read.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// The last successful read of the store; none before the first one.
    pub reading: Option<Arc<Reading>>,
    /// Set while the store can't be read, and `reading` is then the last one before that; or while it is a standby that
    /// lags behind.
    pub stale: Option<Stale>,
}

/// An outage of the store: since when the figures could not be updated, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stale {
    /// Time of the first failed read, by this service's clock; or of the last change that has reached a standby, by the
    /// clock of its primary.
    #[serde(serialize_with = "as_text")]
    pub since: Timestamp,
    /// The error of the latest failed read, or what to check.
    pub reason: String,
}

fn as_text<S: serde::Serializer>(value: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// Everything that may be shown of one read of the store. Made only of [`PublicFigures`].
#[derive(Debug, Clone)]
pub struct Reading {
    polls: Vec<Arc<View>>,
    pipeline: Pipeline,
}

impl Reading {
    /// Serializes the figures into every form that is sent. A poll whose outcome equals that in `before` keeps its view.
    #[must_use]
    pub fn new(figures: PublicFigures, before: Option<&Self>) -> Self {
        let (outcomes, pipeline) = figures.into_parts();
        let view = |snapshot: Snapshot| match before.and_then(|before| before.view(snapshot.poll.as_str())) {
            Some(view) if view.snapshot == snapshot => Arc::clone(view),
            _ => Arc::new(View::new(snapshot)),
        };
        Self { polls: outcomes.into_iter().map(view).collect(), pipeline }
    }

    /// The polls of the file, in its order.
    #[must_use]
    pub fn polls(&self) -> &[Arc<View>] {
        &self.polls
    }

    /// The state of all queues, and the accounts of all polls.
    #[must_use]
    pub const fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }

    /// Whether both show the same, regardless of when they were read.
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

/// A poll's snapshot in every form that is sent. It stays the same allocation until the snapshot changes.
#[derive(Debug)]
pub struct View {
    /// The outcome of the poll.
    pub snapshot: Snapshot,
    /// The body of `results.json`.
    pub json: Cached,
    /// The body of `results.csv`; none if the figures are withheld.
    pub csv: Option<Cached>,
    /// The event to send on event streams.
    pub event: Bytes,
}

impl State {
    /// Returns the view of a poll, if the file has the poll and the store has been read.
    #[must_use]
    pub fn view(&self, poll: &str) -> Option<&Arc<View>> {
        self.reading.as_ref()?.view(poll)
    }
}

impl View {
    /// Serializes a snapshot into every form.
    #[must_use]
    #[allow(clippy::expect_used)]
    pub(crate) fn new(snapshot: Snapshot) -> Self {
        // Serialization fails only for maps with keys that are not strings and for types that return errors; a snapshot
        // has neither.
        let json = serde_json::to_vec(&snapshot).expect("a snapshot serializes to JSON");
        // Compact JSON contains no line breaks, so it fits on one `data:` line.
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
        let view = View::new(Snapshot::new(&poll, None));
        let event = std::str::from_utf8(&view.event).unwrap();
        let data = event.strip_prefix("event: results\ndata: ").unwrap().strip_suffix("\n\n").unwrap();
        assert!(!data.contains(['\n', '\r']), "{data}");
        assert_eq!(data.as_bytes(), view.json.bytes());
    }
}
