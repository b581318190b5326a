//! The frontend's metrics: names, units and meaning in one table.

use metrics::{counter, gauge, histogram};
use vote_core::{PollSlug, queue::Room, writer::Flush};
use vote_service::metrics::Metric;

/// Why votes are refused: the codes of the problems that voters are told.
const REASONS: &[&str] = &[
    "body-too-large",
    "body-too-slow",
    "body-unreadable",
    "malformed-body",
    "no-cookie",
    "no-random-numbers",
    "not-stored",
    "overloaded",
    "poll-closed",
    "poll-differs",
    "poll-not-open",
    "poll-not-ready",
    "unknown-option",
    "unknown-outcome",
    "unknown-poll",
    "unsupported-content-type",
];

const ACCEPTED: Metric =
    Metric::counter("vote_frontend_accepted_total", "Votes acknowledged: on disk in the queue");
const REFUSED: Metric =
    Metric::counter("vote_frontend_refused_total", "Votes not acknowledged, by reason").by("reason", REASONS);
const TAKING_VOTES: Metric = Metric::gauge(
    "vote_frontend_taking_votes",
    "Whether votes are taken: the queue is there, durable and registered, and has one of the open polls, 1 or 0",
);
const POLL_UNAVAILABLE: Metric = Metric::gauge(
    "vote_frontend_poll_unavailable",
    "Whether votes for a poll are refused since the queue does not know it, or has another definition of it, 1 or 0",
);
const QUEUE_USED: Metric = Metric::gauge(
    "vote_frontend_queue_used_bytes",
    "Memory of the queue that counts against its limit: when it is full, votes are refused",
);
const QUEUE_LIMIT: Metric =
    Metric::gauge("vote_frontend_queue_limit_bytes", "How much there may be; infinite where nothing is set");
const FLUSH_ERRORS: Metric =
    Metric::counter("vote_frontend_flush_errors_total", "Flushes that the queue did not acknowledge");
const FLUSH_SECONDS: Metric =
    Metric::histogram("vote_frontend_flush_seconds", "From sending a flush to its answer");
const FLUSH_VOTES: Metric = Metric::histogram("vote_frontend_flush_votes", "Votes in a flush");
const FLUSH_FRAMES: Metric = Metric::histogram("vote_frontend_flush_frames", "Frames in a flush");

const TABLE: &[Metric] = &[
    ACCEPTED,
    REFUSED,
    TAKING_VOTES,
    POLL_UNAVAILABLE,
    QUEUE_USED,
    QUEUE_LIMIT,
    FLUSH_ERRORS,
    FLUSH_SECONDS,
    FLUSH_VOTES,
    FLUSH_FRAMES,
];

/// Says what the metrics mean, for `/metrics`, and starts those that count. Call it after the recorder is installed.
pub fn describe() {
    vote_service::metrics::describe(TABLE);
    taking_votes(false);
}

pub(crate) fn accepted() {
    counter!(ACCEPTED.name).increment(1);
}

pub(crate) fn refused(reason: &'static str) {
    debug_assert!(REASONS.contains(&reason), "{reason} is missing in the list of reasons");
    counter!(REFUSED.name, "reason" => reason).increment(1);
}

pub(crate) fn taking_votes(taking: bool) {
    gauge!(TAKING_VOTES.name).set(f64::from(u8::from(taking)));
}

pub(crate) fn poll_unavailable(poll: PollSlug, unavailable: bool) {
    gauge!(POLL_UNAVAILABLE.name, "poll" => poll.to_string()).set(f64::from(u8::from(unavailable)));
}

pub(crate) fn room(room: Room) {
    gauge!(QUEUE_USED.name).set(room.used as f64);
    gauge!(QUEUE_LIMIT.name).set(room.limit.map_or(f64::INFINITY, |limit| limit as f64));
}

pub(crate) fn flushed(flush: Flush) {
    histogram!(FLUSH_SECONDS.name).record(flush.took);
    histogram!(FLUSH_VOTES.name).record(flush.votes as f64);
    histogram!(FLUSH_FRAMES.name).record(flush.frames as f64);
    if !flush.ok {
        counter!(FLUSH_ERRORS.name).increment(1);
    }
}
