//! The frontend's metrics: names, units and help texts in one table.

use std::collections::BTreeSet;

use metrics::{counter, gauge, histogram};
use vote_core::{PollSlug, admission::ClosedReason, queue::Usage, writer::Flush};
use vote_service::metrics::Metric;

/// Reasons for refused votes: the codes of the problems in the responses to voters.
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
    Metric::counter("vote_frontend_accepted_total", "Votes acknowledged, each on disk in the queue");
const REFUSED: Metric =
    Metric::counter("vote_frontend_refused_total", "Votes not acknowledged, by reason").by("reason", REASONS);
const TAKING_VOTES: Metric = Metric::gauge(
    "vote_frontend_taking_votes",
    "1 if votes are accepted: the queue is reachable, durable and active, and knows at least one of the open polls, if \
     there are any; else 0",
);
const ADMISSION_CLOSED: Metric = Metric::gauge(
    "vote_frontend_admission_closed",
    "1 if no votes are accepted for the reason that the label names, on one thread or more; else 0",
);
const POLL_UNAVAILABLE: Metric = Metric::gauge(
    "vote_frontend_poll_unavailable",
    "1 if votes for the poll are refused because the queue does not know it or has another definition of it; else 0",
);
const CLOCK_DIFFERENCE: Metric = Metric::gauge(
    "vote_frontend_clock_difference_seconds",
    "How far this frontend's clock is ahead of the store's, computed from what workers record in the queue",
);
const QUEUE_USED: Metric = Metric::gauge(
    "vote_frontend_queue_used_bytes",
    "Memory of the queue that counts towards its limit; at the limit, votes are refused",
);
const QUEUE_LIMIT: Metric =
    Metric::gauge("vote_frontend_queue_limit_bytes", "Memory limit of the queue; infinite if none is set");
const FLUSH_ERRORS: Metric =
    Metric::counter("vote_frontend_flush_errors_total", "Flushes that the queue did not acknowledge");
const FLUSH_SECONDS: Metric =
    Metric::histogram("vote_frontend_flush_seconds", "Time from sending a flush to its reply");
const FLUSH_VOTES: Metric = Metric::histogram("vote_frontend_flush_votes", "Votes in a flush");
const FLUSH_FRAMES: Metric = Metric::histogram("vote_frontend_flush_frames", "Frames in a flush");

const TABLE: &[Metric] = &[
    ACCEPTED,
    REFUSED,
    TAKING_VOTES,
    ADMISSION_CLOSED,
    POLL_UNAVAILABLE,
    CLOCK_DIFFERENCE,
    QUEUE_USED,
    QUEUE_LIMIT,
    FLUSH_ERRORS,
    FLUSH_SECONDS,
    FLUSH_VOTES,
    FLUSH_FRAMES,
];

/// Registers the metrics with their help texts, and sets counters to 0. Call it after the recorder is installed.
pub fn describe() {
    vote_service::metrics::describe(TABLE);
    taking_votes(false);
}

pub(crate) fn accepted() {
    counter!(ACCEPTED.name).increment(1);
}

pub(crate) fn refused(reason: &'static str) {
    debug_assert!(REASONS.contains(&reason), "reason {reason} is missing from REASONS");
    counter!(REFUSED.name, "reason" => reason).increment(1);
}

pub(crate) fn taking_votes(taking: bool) {
    gauge!(TAKING_VOTES.name).set(f64::from(u8::from(taking)));
}

pub(crate) fn admission_closed(reasons: &BTreeSet<&'static str>) {
    for reason in ClosedReason::CODES {
        gauge!(ADMISSION_CLOSED.name, "reason" => reason).set(f64::from(u8::from(reasons.contains(reason))));
    }
}

pub(crate) fn poll_unavailable(poll: PollSlug, unavailable: bool) {
    gauge!(POLL_UNAVAILABLE.name, "poll" => poll.to_string()).set(f64::from(u8::from(unavailable)));
}

pub(crate) fn clock_difference(ahead: i64) {
    gauge!(CLOCK_DIFFERENCE.name).set(ahead as f64 / 1e6);
}

pub(crate) fn usage(usage: Usage) {
    gauge!(QUEUE_USED.name).set(usage.used as f64);
    gauge!(QUEUE_LIMIT.name).set(usage.limit.map_or(f64::INFINITY, |limit| limit as f64));
}

pub(crate) fn flushed(flush: Flush) {
    histogram!(FLUSH_SECONDS.name).record(flush.took);
    histogram!(FLUSH_VOTES.name).record(flush.votes as f64);
    histogram!(FLUSH_FRAMES.name).record(flush.frames as f64);
    if !flush.ok {
        counter!(FLUSH_ERRORS.name).increment(1);
    }
}
