//! The service's metrics: names, units and help texts in one table.

use std::time::Duration;

use ::metrics::{counter, gauge, histogram};
use vote_core::{
    Timestamp,
    count::{Balances, QueueState, Summary, audit::Residual},
};
use vote_service::metrics::Metric;

use crate::snapshot::{Outcome, Snapshot};

const POLL_SECONDS: Metric =
    Metric::histogram("vote_results_read_seconds", "Time to read what is shown from the store");
const READ_AT: Metric = Metric::gauge(
    "vote_results_read_timestamp_seconds",
    "Time of the last successful read of the store, in seconds since 1970; 0 before the first one",
);
const STORE_ERRORS: Metric = Metric::counter("vote_results_store_errors_total", "Failed reads of the store");
const EVENT_STREAMS: Metric = Metric::gauge("vote_results_event_streams", "Open event streams");
const VOTES: Metric = Metric::gauge(
    "vote_results_votes",
    "Effective ballots by poll and option; not exported while the poll's figures are withheld",
);
const UNACCOUNTED: Metric = Metric::counter(
    "vote_results_unaccounted_receipts_total",
    "Looked-up receipts whose vote was read but is neither counted nor quarantined",
);
const RESIDUAL: Metric = Metric::gauge(
    "vote_results_conservation_residual_votes",
    "Votes violating an accounting invariant, by poll and invariant: accepted votes against new voters, superseded and \
     quarantined votes; new voters against the tally; quarantined votes in the ledger against those in quarantine; 0 \
     unless votes were lost or counted twice",
);
const QUEUES: Metric = Metric::gauge("vote_results_queues", "Queues that workers ever reported, by state");
const NOT_HEARD_FROM: Metric = Metric::gauge(
    "vote_results_queues_not_heard_from",
    "Queues that may still hold votes to be read and that no worker reported for 10 s",
);
const QUEUED: Metric = Metric::gauge(
    "vote_results_queued_votes",
    "Votes queued and not committed yet, as last reported by workers; a lower bound for very long backlogs",
);
const QUARANTINED: Metric = Metric::gauge("vote_results_quarantined_votes", "Votes in quarantine");
const PENDING: Metric = Metric::gauge(
    "vote_results_quarantine_pending_frames",
    "Frames with quarantined votes that no operator has decided on",
);
const CLOCK_DIFFERENCE: Metric = Metric::gauge(
    "vote_results_clock_difference_seconds",
    "How far this service's clock is ahead of the store's; negative if it is behind",
);
const STANDBY_LAG: Metric = Metric::gauge(
    "vote_results_standby_lag_seconds",
    "How long ago the last change reached the standby that is read, by its clock and that of its primary; 0 if the \
     store is no standby",
);
const CLOSED: Metric = Metric::gauge("vote_results_poll_closed", "1 if the poll is closed, else 0, by poll");
const FINAL: Metric = Metric::gauge("vote_results_poll_final", "1 if the poll is final, else 0, by poll");

const TABLE: &[Metric] = &[
    POLL_SECONDS,
    READ_AT,
    STORE_ERRORS,
    EVENT_STREAMS,
    VOTES,
    UNACCOUNTED,
    RESIDUAL,
    QUEUES,
    NOT_HEARD_FROM,
    QUEUED,
    QUARANTINED,
    PENDING,
    CLOCK_DIFFERENCE,
    STANDBY_LAG,
    CLOSED,
    FINAL,
];

/// Label value that stands for all unregistered polls together. Their names come from queues only, and a damaged frame
/// can contain any name; each would create a time series that never ends.
const UNREGISTERED: &str = "(unregistered)";

/// Registers the metrics with their help texts, and starts counters at 0. Call it after the recorder is installed.
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

/// Exports the outcome of a poll. A withheld outcome holds no numbers, so none is exported.
pub(crate) fn outcome(snapshot: &Snapshot) {
    if let Outcome::Shown { options, .. } = &snapshot.outcome {
        for option in options {
            let labels = [("poll", snapshot.poll.to_string()), ("option", option.option.to_string())];
            // Exact up to 2⁵³ votes.
            gauge!(VOTES.name, &labels).set(option.votes as f64);
        }
    }
}

/// Records how long ago the last change reached the standby, in seconds.
pub(crate) fn standby_lag(seconds: f64) {
    gauge!(STANDBY_LAG.name).set(seconds);
}

/// Records how far this service's clock is ahead of the store's, in seconds.
pub(crate) fn clock_difference(seconds: f64) {
    gauge!(CLOCK_DIFFERENCE.name).set(seconds);
}

/// Exports the state of queues and polls, from a summary read at `now`.
pub(crate) fn summary(summary: &Summary, now: Timestamp) {
    gauge!(READ_AT.name).set(now.as_micros() as f64 / 1e6);
    for state in QueueState::ALL {
        let of_state =
            summary.queues.iter().filter(|queue| queue.original_id.is_none() && queue.state == state);
        gauge!(QUEUES.name, "state" => state.as_str()).set(of_state.count() as f64);
    }
    let missed = summary.queues.iter().filter(|queue| queue.is_not_heard_from);
    gauge!(NOT_HEARD_FROM.name).set(missed.count() as f64);
    let active = summary.queues.iter().filter(|queue| queue.state == QueueState::Active);
    let queued = active.fold(0, |sum: u64, queue| sum.saturating_add(queue.queued));
    gauge!(QUEUED.name).set(queued as f64);
    for known in &summary.polls {
        let is = |at: Option<Timestamp>| f64::from(u8::from(at.is_some()));
        let slug = known.poll.slug.to_string();
        gauge!(CLOSED.name, "poll" => slug.clone()).set(is(known.poll.closed_at));
        gauge!(FINAL.name, "poll" => slug).set(is(known.poll.final_at));
    }
}

/// Exports the quarantine and the residuals. `summary` tells which polls are registered.
pub(crate) fn balances(balances: &Balances, summary: &Summary) {
    gauge!(QUARANTINED.name).set(balances.quarantined as f64);
    gauge!(PENDING.name).set(balances.pending as f64);
    let mut unregistered = Residual::default();
    for (poll, balance) in &balances.polls {
        if summary.poll(poll).is_some() {
            export_residual(poll, balance.residual);
        } else {
            unregistered = unregistered + balance.residual;
        }
    }
    export_residual(UNREGISTERED, unregistered);
}

fn export_residual(poll: &str, residual: Residual) {
    let Residual { accepted, tally, quarantined } = residual;
    for (invariant, votes) in [("accepted", accepted), ("tally", tally), ("quarantined", quarantined)] {
        gauge!(RESIDUAL.name, "poll" => poll.to_owned(), "invariant" => invariant).set(votes as f64);
    }
}
