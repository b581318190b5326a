//! The elements of `status.json`. Withheld figures are `null`.

use serde::{Serialize, Serializer};

use super::{PollLine, QueueLine};

/// The fields of an element of `queues`, in order.
#[derive(Serialize)]
struct QueueJson<'a> {
    queue: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    original_id: Option<String>,
    address: &'a str,
    seen_at: String,
    accepted: Option<u64>,
    queued: Option<u64>,
    drained: Option<bool>,
    state: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
}

impl Serialize for QueueLine {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let figures = self.figures.shown();
        QueueJson {
            queue: self.queue.to_string(),
            original_id: self.original_id.map(|queue| queue.to_string()),
            address: &self.address,
            seen_at: self.seen_at.to_string(),
            accepted: figures.map(|figures| figures.accepted),
            queued: figures.map(|figures| figures.queued),
            drained: figures.map(|figures| figures.queued == 0),
            state: self.state.as_str(),
            reason: figures.map_or("", |figures| &figures.reason),
        }
        .serialize(serializer)
    }
}

/// The fields of an element of `polls`, in order.
#[derive(Serialize)]
struct PollJson<'a> {
    poll: &'a str,
    title: Option<&'a str>,
    registered: bool,
    problem: Option<&'a str>,
    withheld: bool,
    conserved: bool,
    accepted: Option<u64>,
    new_voters: Option<u64>,
    superseded: Option<u64>,
    quarantined: Option<i64>,
    residual: Option<i64>,
}

impl Serialize for PollLine {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let figures = self.figures.shown();
        PollJson {
            poll: &self.poll,
            title: self.title.as_deref(),
            registered: self.registered,
            problem: self.problem.as_deref(),
            withheld: self.is_withheld(),
            conserved: self.conserved,
            accepted: figures.map(|figures| figures.accepted),
            new_voters: figures.map(|figures| figures.new_voters),
            superseded: figures.map(|figures| figures.superseded),
            quarantined: figures.map(|figures| figures.quarantined),
            residual: figures.map(|figures| figures.residual),
        }
        .serialize(serializer)
    }
}
