//! The worker's metrics: names and units.

use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use vote_core::store::CommitPlan;

/// Says what the metrics mean, for `/metrics`. Call it after the recorder is installed.
pub fn describe() {
    describe_counter!("vote_worker_votes_total", Unit::Count, "Votes committed, duplicates among them");
    describe_counter!("vote_worker_new_voters_total", Unit::Count, "Votes committed that added a voter");
    describe_counter!(
        "vote_worker_superseded_total",
        Unit::Count,
        "Votes committed of voters that had one already"
    );
    describe_counter!("vote_worker_quarantined_total", Unit::Count, "Votes of frames that were set aside");
    describe_counter!(
        "vote_worker_store_errors_total",
        Unit::Count,
        "Errors of the store, each of which ended a lane"
    );
    describe_histogram!(
        "vote_worker_commit_seconds",
        Unit::Seconds,
        "From the look-up to the commit of a batch"
    );
    describe_histogram!("vote_worker_commit_votes", Unit::Count, "Votes in a batch");
    describe_gauge!(
        "vote_worker_queue_entries",
        Unit::Count,
        "Entries a queue holds that are not committed or not trimmed yet, as of its last report"
    );
    describe_gauge!("vote_worker_live_lanes", Unit::Count, "Lanes of all workers on the store");
    describe_gauge!("vote_worker_partitions_owned", Unit::Count, "Partitions that a lane owns");
}

pub(crate) fn committed(plan: &CommitPlan, votes: u64, took: Duration) {
    let sum = |f: fn(&vote_core::store::LedgerEntry) -> u64| plan.ledger.iter().map(f).sum::<u64>();
    let set_aside: u64 = plan.quarantine.iter().map(|frame| frame.votes).sum();
    counter!("vote_worker_votes_total").increment(votes);
    counter!("vote_worker_new_voters_total").increment(sum(|entry| entry.new_voters));
    counter!("vote_worker_superseded_total").increment(sum(|entry| entry.superseded));
    counter!("vote_worker_quarantined_total").increment(set_aside);
    histogram!("vote_worker_commit_seconds").record(took);
    histogram!("vote_worker_commit_votes").record(votes as f64);
}

pub(crate) fn owned(lane: usize, partitions: usize) {
    gauge!("vote_worker_partitions_owned", "lane" => lane.to_string()).set(partitions as f64);
}

pub(crate) fn live_lanes(lanes: u32) {
    gauge!("vote_worker_live_lanes").set(f64::from(lanes));
}

pub(crate) fn queue_entries(address: &str, entries: u64) {
    gauge!("vote_worker_queue_entries", "queue" => address.to_owned()).set(entries as f64);
}

pub(crate) fn store_error() {
    counter!("vote_worker_store_errors_total").increment(1);
}
