//! The layers in front of an application. They ensure that nothing a client or the application does results in a
//! dropped connection or an empty error.
//!
//! From the outside in: security headers (fewer with JSON) → errors rendered for the client → load shedding above a
//! number of requests in flight → a time limit → panics caught → rejection of cross-site POST requests → the
//! application.
//!
//! All but the rejection are one service, since each layer of a stack wraps the body of every response and its future
//! once more.

use std::{any::Any, convert::Infallible, time::Duration};

use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};
use tokio::sync::Semaphore;
use tower::{Layer, Service};
use tower_http::csrf::{CsrfLayer, ProtectionError, ProtectionErrorKind};

use crate::{
    Problem,
    body::{self, Body},
    metrics,
    respond::JSON,
    threads,
};

mod guarded;

use guarded::Guard;

/// Header of every response, unless the application sets its own: browsers must not guess the content type.
pub const NOSNIFF: (HeaderName, HeaderValue) =
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));

/// Headers of every response that is not JSON, unless the application sets its own. A page may have inline styles, may
/// load scripts and images from its own site only, and can't be framed. They govern documents, which JSON is not, and
/// would be half of the response to a vote.
pub const PAGE_HEADERS: [(HeaderName, HeaderValue); 3] = [
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; img-src 'self' data:; \
             connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
        ),
    ),
    (header::REFERRER_POLICY, HeaderValue::from_static("same-origin")),
    (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
];

/// Seconds that a client is asked to wait when the service is overloaded: immediate retries would make it worse.
const RETRY_AFTER: u32 = 2;

/// Limits that [`guard`] enforces.
#[derive(Debug, Clone)]
pub struct Guards {
    in_flight: usize,
    request_timeout: Duration,
}

impl Guards {
    /// Allows at most `in_flight` requests at a time. Any further request is answered at once with 503 and Retry-After,
    /// since letting it wait would only delay all others. A request is in flight until the head of its response is
    /// ready: a stream of events that continues does not count.
    ///
    /// The limit applies to one call of [`guard`] and all clones of the service it returns. A server with one thread
    /// per core calls [`guard`] once per thread: a shared limit would be a lock that all cores contend for on each
    /// request.
    #[must_use]
    pub fn new(in_flight: usize) -> Self {
        let in_flight = in_flight.min(Semaphore::MAX_PERMITS);
        Self { in_flight, request_timeout: Duration::from_secs(10) }
    }

    /// Sets the time allowed from the head of a request to the head of its response, including reading the request's
    /// body; 10 s by default. The time to stream the body of the response is not limited.
    #[must_use]
    pub fn request_timeout(self, timeout: Duration) -> Self {
        Self { request_timeout: timeout, ..self }
    }
}

impl Default for Guards {
    /// Allows 8192 requests in flight, as many votes as one flush may hold.
    fn default() -> Self {
        Self::new(8192)
    }
}

/// Puts the guards in front of an application.
///
/// A cross-site POST request is recognized by its `Sec-Fetch-Site` or, without that header, by comparing `Origin` with
/// `Host`: a proxy in front must forward these headers unchanged. An application that is not ready counts as
/// overloaded.
pub fn guard<S, B>(
    app: S,
    guards: &Guards,
) -> impl Service<Request<B>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone + Send + 'static
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Send + 'static,
{
    metrics::describe_http();
    let same_site = CsrfLayer::new().with_rejection_response(|e: ProtectionError| {
        let mut response = Response::new(body::empty());
        // Rendered outside, where it is known in which form the client reads errors.
        response.extensions_mut().insert(cross_site(&e));
        response
    });
    Guard::new(same_site.layer(app), guards)
}

fn cross_site(error: &ProtectionError) -> Problem {
    ::metrics::counter!(metrics::CROSS_SITE.name).increment(1);
    let detail = match error.kind() {
        ProtectionErrorKind::CrossOriginRequest => {
            "This request was sent by a page of another site. Please vote on the poll's own page."
        }
        _ => {
            "The Origin of this request is not the site it was sent to. Please vote on the poll's own page. If you \
             did, a proxy in between changed Origin or Host."
        }
    };
    Problem::new(StatusCode::FORBIDDEN, "cross-site", "Request from another site refused", detail)
}

fn panicked(panic: &(dyn Any + Send)) -> Problem {
    ::metrics::counter!(metrics::PANICS.name).increment(1);
    tracing::error!("a request panicked: {}", threads::panic_message(panic));
    Problem::internal()
}

fn too_slow() -> Problem {
    ::metrics::counter!(metrics::TIMEOUTS.name).increment(1);
    let detail =
        "Your request took too long. It may or may not have been processed; it is safe to send it again.";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "timeout", "Temporarily unavailable", detail)
        .retry_after(RETRY_AFTER)
}

fn overloaded() -> Problem {
    ::metrics::counter!(metrics::SHED.name).increment(1);
    let detail = "This service is very busy right now. Nothing was stored. Please try again in a moment.";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", "Temporarily unavailable", detail)
        .retry_after(RETRY_AFTER)
}

fn add_security_headers(response: &mut Response<Body>) {
    let headers = response.headers_mut();
    let is_json = headers.get(header::CONTENT_TYPE) == Some(&JSON);
    let of_pages = if is_json { None } else { Some(PAGE_HEADERS) };
    for (name, value) in of_pages.into_iter().flatten().chain([NOSNIFF]) {
        headers.entry(name).or_insert(value);
    }
}
