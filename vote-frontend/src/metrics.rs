//! The frontend's metrics: names and units.

use metrics::{Unit, counter, describe_counter, describe_histogram, histogram};
use vote_core::writer::Flush;

/// Says what the metrics mean, for `/metrics`. Call it after the recorder is installed.
pub fn describe() {
    describe_counter!(
        "vote_frontend_accepted_total",
        Unit::Count,
        "Votes acknowledged: on disk in the queue"
    );
    describe_counter!("vote_frontend_refused_total", Unit::Count, "Votes not acknowledged, by reason");
    describe_counter!(
        "vote_frontend_flush_errors_total",
        Unit::Count,
        "Flushes that the queue did not acknowledge"
    );
    describe_histogram!("vote_frontend_flush_seconds", Unit::Seconds, "From sending a flush to its answer");
    describe_histogram!("vote_frontend_flush_votes", Unit::Count, "Votes in a flush");
    describe_histogram!("vote_frontend_flush_frames", Unit::Count, "Frames in a flush");
}

pub(crate) fn accepted() {
    counter!("vote_frontend_accepted_total").increment(1);
}

pub(crate) fn refused(reason: &'static str) {
    counter!("vote_frontend_refused_total", "reason" => reason).increment(1);
}

pub(crate) fn flushed(flush: Flush) {
    histogram!("vote_frontend_flush_seconds").record(flush.took);
    histogram!("vote_frontend_flush_votes").record(flush.votes as f64);
    histogram!("vote_frontend_flush_frames").record(flush.frames as f64);
    if !flush.ok {
        counter!("vote_frontend_flush_errors_total").increment(1);
    }
}
