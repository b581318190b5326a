//! The names of the service's metrics, in one place.

/// How long it took to read everything from the store.
pub const POLL_SECONDS: &str = "vote_results_poll_seconds";
/// Reads of the store that failed.
pub const STORE_ERRORS: &str = "vote_results_store_errors_total";
/// Open event streams.
pub const EVENT_STREAMS: &str = "vote_results_event_streams";
/// The standing votes of an option, by `poll` and `option`; not of polls that withhold their numbers.
pub const VOTES: &str = "vote_results_votes";

/// Says what they are, for `/metrics`, and starts those that count at zero: an alert on the first error needs to see
/// the number rise.
pub fn describe() {
    metrics::describe_histogram!(POLL_SECONDS, "Time to read everything from the store");
    metrics::describe_counter!(STORE_ERRORS, "Reads of the store that failed");
    metrics::describe_gauge!(EVENT_STREAMS, "Open event streams");
    metrics::describe_gauge!(VOTES, "Standing votes by poll and option");
    metrics::counter!(STORE_ERRORS).increment(0);
    metrics::gauge!(EVENT_STREAMS).increment(0.0);
}
