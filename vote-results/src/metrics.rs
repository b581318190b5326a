//! The service's metrics: names, units and meaning in one table.

use std::time::Duration;

use ::metrics::{counter, gauge, histogram};
use vote_core::{
    Timestamp,
    audit::{self, Residual},
    store::{Books, QueueState},
};
use vote_service::metrics::Metric;

use crate::snapshot::{Outcome, Snapshot};

const POLL_SECONDS: Metric =
    Metric::histogram("vote_results_poll_seconds", "Time to read everything from the store");
const READ_AT: Metric = Metric::gauge(
    "vote_results_read_timestamp_seconds",
    "When the store was last read, in seconds since 1970; 0 if not yet",
);
const STORE_ERRORS: Metric =
    Metric::counter("vote_results_store_errors_total", "Reads of the store that failed");
const EVENT_STREAMS: Metric = Metric::gauge("vote_results_event_streams", "Open event streams");
const VOTES: Metric = Metric::gauge(
    "vote_results_votes",
    "Standing votes by poll and option; not of polls that withhold their numbers",
);
const UNACCOUNTED: Metric = Metric::counter(
    "vote_results_unaccounted_receipts_total",
    "Receipts looked up whose vote was read and is not accounted for",
);
const RESIDUAL: Metric = Metric::gauge(
    "vote_results_conservation_residual_votes",
    "Votes that the books leave over, by poll and law: accepted votes against what became of them, new voters against \
     the tally, quarantined votes against those in quarantine; always 0 when all is well",
);
const QUEUES: Metric = Metric::gauge("vote_results_queues", "Queues ever reported, by state");
const NOT_HEARD_OF: Metric = Metric::gauge(
    "vote_results_queues_not_heard_of",
    "Queues from which votes may still come and that no worker reported for 10 s",
);
const QUEUED: Metric = Metric::gauge(
    "vote_results_queued_votes",
    "Votes queued and not committed, as workers last reported; at least that many, where they are very many",
);
const QUARANTINED: Metric = Metric::gauge("vote_results_quarantined_votes", "Votes in quarantine");
const PENDING: Metric = Metric::gauge(
    "vote_results_quarantine_pending_frames",
    "Frames with quarantined votes about which nobody has decided",
);
const CLOCK_DIFFERENCE: Metric = Metric::gauge(
    "vote_results_clock_difference_seconds",
    "How far this service's clock is ahead of the store's; below 0, behind",
);
const CLOSED: Metric = Metric::gauge("vote_results_poll_closed", "Whether a poll is closed, 1 or 0, by poll");
const FINAL: Metric = Metric::gauge("vote_results_poll_final", "Whether a poll is final, 1 or 0, by poll");

const TABLE: &[Metric] = &[
    POLL_SECONDS,
    READ_AT,
    STORE_ERRORS,
    EVENT_STREAMS,
    VOTES,
    UNACCOUNTED,
    RESIDUAL,
    QUEUES,
    NOT_HEARD_OF,
    QUEUED,
    QUARANTINED,
    PENDING,
    CLOCK_DIFFERENCE,
    CLOSED,
    FINAL,
];

/// What stands for all polls that are not registered. Only queues know them, and damage can make any name, each of which
/// would be a series for ever.
const UNREGISTERED: &str = "(unregistered)";

/// Says what they are, for `/metrics`, and starts those that count.
pub fn describe() {
    vote_service::metrics::describe(TABLE);
    gauge!(EVENT_STREAMS.name).increment(0.0);
    gauge!(READ_AT.name).set(0.0);
}

pub(crate) fn read(took: Duration) {
    histogram!(POLL_SECONDS.name).record(took);
}

pub(crate) fn store_error() {
    counter!(STORE_ERRORS.name).increment(1);
}

pub(crate) fn unaccounted_receipt() {
    counter!(UNACCOUNTED.name).increment(1);
}

pub(crate) fn stream_opened() {
    gauge!(EVENT_STREAMS.name).increment(1);
}

pub(crate) fn stream_closed() {
    gauge!(EVENT_STREAMS.name).decrement(1);
}

/// Only numbers that may be shown are in the outcome, so nothing that is withheld becomes a metric.
pub(crate) fn outcome(snapshot: &Snapshot) {
    if let Outcome::Shown { options, .. } = &snapshot.outcome {
        for option in options {
            let labels = [("poll", snapshot.poll.to_string()), ("option", option.option.to_string())];
            // Exact up to 2⁵³ votes.
            gauge!(VOTES.name, &labels).set(option.votes as f64);
        }
    }
}

/// How far this service's clock is ahead of the store's, in seconds.
pub(crate) fn clock_difference(seconds: f64) {
    gauge!(CLOCK_DIFFERENCE.name).set(seconds);
}

/// What the books say of the pipeline, read now.
pub(crate) fn books(books: &Books, now: Timestamp) {
    gauge!(READ_AT.name).set(now.as_micros() as f64 / 1e6);
    for state in QueueState::ALL {
        let of_state = books.queues.iter().filter(|queue| queue.remains_of.is_none() && queue.state == state);
        gauge!(QUEUES.name, "state" => state.as_str()).set(of_state.count() as f64);
    }
    gauge!(NOT_HEARD_OF.name).set(audit::not_heard_of(books).len() as f64);
    let active = books.queues.iter().filter(|queue| queue.state == QueueState::Active);
    gauge!(QUEUED.name).set(active.flat_map(|queue| queue.queued.values()).sum::<u64>() as f64);
    gauge!(QUARANTINED.name).set(books.quarantine.iter().map(|total| total.votes).sum::<u64>() as f64);
    gauge!(PENDING.name).set(books.quarantine.iter().map(|total| total.pending).sum::<u64>() as f64);
    for poll in &books.polls {
        let is = |at: Option<Timestamp>| f64::from(u8::from(at.is_some()));
        gauge!(CLOSED.name, "poll" => poll.slug.to_string()).set(is(poll.closed_at));
        gauge!(FINAL.name, "poll" => poll.slug.to_string()).set(is(poll.final_at));
    }
    let mut of_others = Residual::default();
    for (poll, residual) in audit::residuals(books) {
        if books.polls.iter().any(|known| known.slug.as_str() == poll) {
            left_over(&poll, residual);
        } else {
            of_others = of_others + residual;
        }
    }
    left_over(UNREGISTERED, of_others);
}

fn left_over(poll: &str, residual: Residual) {
    let Residual { accepted, tally, quarantined } = residual;
    for (law, votes) in [("accepted", accepted), ("tally", tally), ("quarantined", quarantined)] {
        gauge!(RESIDUAL.name, "poll" => poll.to_owned(), "law" => law).set(votes as f64);
    }
}
