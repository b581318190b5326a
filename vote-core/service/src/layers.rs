//! The layers in front of an application. They ensure that nothing a client or the application does results in a
//! dropped connection or an empty error.
//!
//! From the outside in: security headers → errors rendered for the client → rejection of cross-site POST requests →
//! load shedding above a number of requests in flight → a time limit → panics caught → the application.

use std::{
    any::Any,
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use tokio::sync::Semaphore;
use tower::{
    Service, ServiceBuilder, limit::ConcurrencyLimitLayer, load_shed::LoadShedLayer, timeout::TimeoutLayer,
};
use tower_http::{
    catch_panic::CatchPanicLayer,
    csrf::{CsrfLayer, ProtectionError, ProtectionErrorKind},
};

use crate::{
    Problem,
    body::{Body, BoxError},
    metrics,
    respond::{self, Wants},
    threads,
};

/// Headers of every response, unless the application sets its own. A page may have inline styles, may load scripts and
/// images from its own site only, and can't be framed.
pub const SECURITY_HEADERS: [(HeaderName, HeaderValue); 4] = [
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; img-src 'self' data:; \
             connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
        ),
    ),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
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

/// Future of a guarded service.
pub type BoxFuture = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

/// Puts the guards in front of an application.
///
/// A cross-site POST request is recognized by its `Sec-Fetch-Site` or, without that header, by comparing `Origin` with
/// `Host`: a proxy in front must forward these headers unchanged. An application that is not ready counts as
/// overloaded.
pub fn guard<S, B>(
    app: S,
    guards: &Guards,
) -> impl Service<Request<B>, Response = Response<Body>, Error = Infallible, Future = BoxFuture>
+ Clone
+ Send
+ 'static
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Send + 'static,
{
    metrics::describe_http();
    let inner = ServiceBuilder::new()
        .layer(CsrfLayer::new().with_rejection_response(|e: ProtectionError| unrendered(cross_site(&e))))
        .layer(LoadShedLayer::new())
        .layer(ConcurrencyLimitLayer::new(guards.in_flight))
        .layer(TimeoutLayer::new(guards.request_timeout))
        .layer(CatchPanicLayer::custom(|panic: Box<dyn Any + Send>| {
            unrendered::<Empty<Bytes>>(panicked(&*panic))
        }))
        .service(app);
    Explain { inner }
}

/// Returns an empty response that carries `problem`. The inner layers don't know in which form the client reads errors,
/// so [`Explain`] renders the problem.
fn unrendered<B: Default>(problem: Problem) -> Response<B> {
    let mut response = Response::new(B::default());
    response.extensions_mut().insert(problem);
    response
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

fn failed(error: &BoxError) -> Problem {
    if error.is::<tower::timeout::error::Elapsed>() {
        ::metrics::counter!(metrics::TIMEOUTS.name).increment(1);
        let detail =
            "Your request took too long. It may or may not have been processed; it is safe to send it again.";
        return Problem::new(StatusCode::SERVICE_UNAVAILABLE, "timeout", "Temporarily unavailable", detail)
            .retry_after(RETRY_AFTER);
    }
    ::metrics::counter!(metrics::SHED.name).increment(1);
    let detail = "This service is very busy right now. Nothing was stored. Please try again in a moment.";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", "Temporarily unavailable", detail)
        .retry_after(RETRY_AFTER)
}

/// Renders errors in the form that the client reads, and adds the security headers.
#[derive(Debug, Clone)]
struct Explain<S> {
    inner: S,
}

impl<S, B, R> Service<Request<B>> for Explain<S>
where
    S: Service<Request<B>, Response = Response<R>, Error = BoxError>,
    S::Future: Send + 'static,
    R: http_body::Body<Data = Bytes, Error = BoxError> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // The load shedder inside is always ready, and the application can't fail.
        self.inner.poll_ready(cx).map(|_| Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> BoxFuture {
        let wants = Wants::of(request.headers());
        let answer = self.inner.call(request);
        Box::pin(async move {
            let mut response = match answer.await {
                Ok(mut response) => match response.extensions_mut().remove::<Problem>() {
                    Some(problem) => respond::problem(wants.json(), problem),
                    None => response.map(BodyExt::boxed_unsync),
                },
                Err(e) => respond::problem(wants.json(), failed(&e)),
            };
            for (name, value) in SECURITY_HEADERS {
                response.headers_mut().entry(name).or_insert(value);
            }
            Ok(response)
        })
    }
}
