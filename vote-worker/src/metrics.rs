//! The worker's metrics: names, units and help texts in one table.

use std::time::Duration;

use metrics::{counter, gauge, histogram};
use vote_core::{
    Timestamp,
    count::{CommitPlan, QuarantinedFrame},
    queue::Backlog,
};
use vote_service::metrics::{Metric, QUEUE};

const VOTES: Metric = Metric::counter("vote_worker_votes_total", "Votes committed, including duplicates");
const NEW_VOTERS: Metric =
    Metric::counter("vote_worker_new_voters_total", "Votes committed that added a voter");
const SUPERSEDED: Metric =
    Metric::counter("vote_worker_superseded_total", "Votes committed of voters who had voted already");
const QUARANTINED: Metric =
    Metric::counter("vote_worker_quarantined_total", "Votes that could not be counted and were quarantined");
const STORE_ERRORS: Metric = Metric::counter(
    "vote_worker_store_errors_total",
    "Errors of the store, each of which ended the session of a lane",
);
const COMMIT_SECONDS: Metric =
    Metric::histogram("vote_worker_commit_seconds", "Time from the look-up to the commit of a batch");
const COMMIT_VOTES: Metric = Metric::histogram("vote_worker_commit_votes", "Votes in a batch");
const LIVE_LANES: Metric = Metric::gauge(
    "vote_worker_live_lanes",
    "Lanes of all workers that share the partitions with this worker",
);
const CLOCK_DIFFERENCE: Metric = Metric::gauge(
    "vote_worker_clock_difference_seconds",
    "How far this worker's clock is ahead of the store's; negative if it is behind",
);
const PARTITIONS: Metric = Metric::gauge("vote_worker_partitions", "Partitions of the store");
const PARTITIONS_OWNED: Metric =
    Metric::gauge("vote_worker_partitions_owned", "Partitions that the lane owns");
const TRIM_WAITS: Metric = Metric::gauge(
    "vote_worker_trim_waits_seconds",
    "Longest time for which a queue could not be trimmed further because a witness does not show what is committed",
);
const WITNESS_UP: Metric =
    Metric::gauge("vote_worker_witness_up", "1 if the witness answered within the last 6 s, else 0");
const QUEUE_UP: Metric =
    Metric::gauge("vote_worker_queue_up", "1 if this worker reads the queue now, else 0");
const QUEUE_ENTRIES: Metric = Metric::gauge(
    "vote_worker_queue_entries",
    "Entries in the queue that are not committed or not trimmed yet, as of its last report",
);
const QUEUE_VOTES: Metric = Metric::gauge(
    "vote_worker_queue_votes",
    "Votes in the queue that are not committed yet, counted from its entries; a lower bound if there are thousands of \
     entries",
);
const QUEUE_OLDEST: Metric = Metric::gauge(
    "vote_worker_queue_oldest_seconds",
    "Age of the oldest vote in the queue that is not committed yet; 0 if there is none, NaN if the queue records no \
     times",
);
const QUEUE_CLOCK: Metric = Metric::gauge(
    "vote_worker_queue_clock_difference_seconds",
    "How far the clock of the queue's server, which its frontend shares, is ahead of the store's",
);
const QUEUE_POLLS_DIFFERING: Metric = Metric::gauge(
    "vote_worker_queue_polls_differing",
    "Polls for which the queue accepts votes by another definition than the store has",
);

const TABLE: &[Metric] = &[
    VOTES,
    NEW_VOTERS,
    SUPERSEDED,
    QUARANTINED,
    STORE_ERRORS,
    COMMIT_SECONDS,
    COMMIT_VOTES,
    LIVE_LANES,
    CLOCK_DIFFERENCE,
    PARTITIONS,
    PARTITIONS_OWNED,
    TRIM_WAITS,
    WITNESS_UP,
    QUEUE_UP,
    QUEUE_ENTRIES,
    QUEUE_VOTES,
    QUEUE_OLDEST,
    QUEUE_CLOCK,
    QUEUE_POLLS_DIFFERING,
];

/// Registers the metrics with their help texts, and sets counters to 0. Call it after the recorder is installed.
pub fn describe() {
    vote_service::metrics::describe(TABLE);
}

pub(crate) fn committed(plan: &CommitPlan, votes: u64, took: Duration) {
    let sum = |f: fn(&vote_core::count::LedgerEntry) -> u64| plan.ledger.iter().map(f).sum::<u64>();
    let quarantined: u64 = plan.quarantine.iter().map(QuarantinedFrame::votes).sum();
    counter!(VOTES.name).increment(votes);
    counter!(NEW_VOTERS.name).increment(sum(|entry| entry.new_voters));
    counter!(SUPERSEDED.name).increment(sum(|entry| entry.superseded));
    counter!(QUARANTINED.name).increment(quarantined);
    histogram!(COMMIT_SECONDS.name).record(took);
    histogram!(COMMIT_VOTES.name).record(votes as f64);
}

pub(crate) fn partitions(partitions: u16) {
    gauge!(PARTITIONS.name).set(f64::from(partitions));
}

pub(crate) fn owned(lane: usize, partitions: usize) {
    gauge!(PARTITIONS_OWNED.name, "lane" => lane.to_string()).set(partitions as f64);
}

pub(crate) fn trim_waits(lane: usize, waits: Duration) {
    gauge!(TRIM_WAITS.name, "lane" => lane.to_string()).set(waits.as_secs_f64());
}

pub(crate) fn witness_up(name: &str, is_up: bool) {
    gauge!(WITNESS_UP.name, "witness" => name.to_owned()).set(f64::from(u8::from(is_up)));
}

pub(crate) fn live_lanes(lanes: u32) {
    gauge!(LIVE_LANES.name).set(f64::from(lanes));
}

/// Sets by how many microseconds this worker's clock is ahead of the store's.
pub(crate) fn clock_difference(ahead: i64) {
    gauge!(CLOCK_DIFFERENCE.name).set(ahead as f64 / 1e6);
}

pub(crate) fn queue_up(address: &str, up: bool) {
    gauge!(QUEUE_UP.name, QUEUE => address.to_owned()).set(f64::from(u8::from(up)));
}

/// Sets what a queue holds: its entries, and the votes in them that are not committed.
pub(crate) fn queue_holds(address: &str, entries: u64, backlog: &[Backlog], now: Timestamp) {
    let votes: u64 = backlog.iter().flat_map(|backlog| backlog.votes.values()).sum();
    gauge!(QUEUE_ENTRIES.name, QUEUE => address.to_owned()).set(entries as f64);
    gauge!(QUEUE_VOTES.name, QUEUE => address.to_owned()).set(votes as f64);
    gauge!(QUEUE_OLDEST.name, QUEUE => address.to_owned()).set(oldest_seconds(backlog, now));
}

/// Sets that another worker measures what a queue holds, so that its figures are not counted twice.
pub(crate) fn queue_is_reported_by_another(address: &str) {
    for metric in [QUEUE_ENTRIES, QUEUE_VOTES, QUEUE_OLDEST] {
        gauge!(metric.name, QUEUE => address.to_owned()).set(0.0);
    }
}

pub(crate) fn queue_clock(address: &str, ahead: i64) {
    gauge!(QUEUE_CLOCK.name, QUEUE => address.to_owned()).set(ahead as f64 / 1e6);
}

pub(crate) fn queue_polls_differing(address: &str, polls: usize) {
    gauge!(QUEUE_POLLS_DIFFERING.name, QUEUE => address.to_owned()).set(polls as f64);
}

pub(crate) fn store_error() {
    counter!(STORE_ERRORS.name).increment(1);
}

/// Returns the age of the oldest vote. Queue and worker have different clocks: a vote from the future has age 0.
fn oldest_seconds(backlog: &[Backlog], now: Timestamp) -> f64 {
    let oldest = backlog.iter().filter_map(|backlog| backlog.oldest).min();
    let has_votes = |backlog: &Backlog| !backlog.votes.is_empty();
    match oldest {
        Some(oldest) => (now.as_micros() - oldest.as_micros()).max(0) as f64 / 1e6,
        None if backlog.iter().any(has_votes) => f64::NAN,
        None => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn appended(seconds: i64) -> Backlog {
        let oldest = Some(Timestamp::MIN.saturating_add(seconds * 1_000_000));
        Backlog { votes: [("pets".to_owned(), 1)].into(), oldest, ..Backlog::default() }
    }

    fn now() -> Timestamp {
        Timestamp::MIN.saturating_add(10_000_000)
    }

    #[test]
    fn the_oldest_vote_of_all_partitions_counts() {
        assert_eq!(oldest_seconds(&[appended(9), appended(4), Backlog::default()], now()), 6.0);
    }

    #[test]
    fn without_backlog_the_age_is_0() {
        assert_eq!(oldest_seconds(&[Backlog::default(), Backlog::default()], now()), 0.0);
    }

    #[test]
    fn a_clock_that_is_ahead_gives_no_negative_age() {
        assert_eq!(oldest_seconds(&[appended(11)], now()), 0.0);
    }

    #[test]
    fn votes_of_a_queue_without_times_have_no_age() {
        assert!(oldest_seconds(&[Backlog { oldest: None, ..appended(0) }], now()).is_nan());
    }
}
