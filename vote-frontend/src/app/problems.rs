//! Problems that the routes respond with.

use http::{HeaderValue, Response, StatusCode, header};
use vote_service::{Body, Problem, respond};

/// Seconds that a client is asked to wait before it retries.
const RETRY_AFTER: u32 = 1;
/// Seconds to wait while the queue does not have a poll as it is defined here: a worker needs some to record it.
const POLL_RETRY_AFTER: u32 = 5;

/// Returns the error for a poll that the queue does not know yet.
pub(super) fn not_ready() -> Problem {
    unavailable("poll-not-ready", "This poll does not accept votes yet. Please try again in a moment.")
        .retry_after(POLL_RETRY_AFTER)
}

/// Returns the error for a poll of which the queue has another definition.
pub(super) fn differs() -> Problem {
    unavailable("poll-differs", "This poll does not accept votes here at the moment. Please try again later.")
        .retry_after(POLL_RETRY_AFTER)
}

pub(super) fn not_stored() -> Problem {
    unavailable("not-stored", "Your vote was not stored. Please try again.")
}

pub(super) fn unavailable(code: &'static str, detail: &'static str) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, "Temporarily unavailable", detail)
        .retry_after(RETRY_AFTER)
}

pub(super) fn not_found() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "not-found",
        "Not found",
        "Please check that you copied the whole address.",
    )
}

pub(super) fn not_allowed(json: bool, allow: &'static str) -> Response<Body> {
    let detail = format!("This address accepts {allow} only.");
    let status = StatusCode::METHOD_NOT_ALLOWED;
    let problem = Problem::new(status, "method-not-allowed", "Method not allowed", detail);
    let mut response = respond::problem(json, problem);
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    response
}
