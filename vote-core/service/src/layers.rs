//! What stands in front of an application: nothing a client does, and nothing the application does, ends in a dropped
//! connection or an empty error.
//!
//! From the outside in: security headers → errors put into words → refusal of cross-site posts → load shedding above
//! a number of requests in flight → a limit on time → panics caught → the application.

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

/// Sent with every response unless the application sets its own. A page may hold one inline `<style>`, load scripts
/// and images from here, and be framed by nobody.
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

/// What a client is asked to wait, in seconds, when there is too much to do. Whoever sends it again at once makes it
/// worse.
const RETRY_AFTER: u32 = 2;

/// The limits of [`guard`].
#[derive(Debug, Clone)]
pub struct Guards {
    in_flight: usize,
    request_timeout: Duration,
}

impl Guards {
    /// At most `in_flight` requests at a time; one more is answered with 503 and Retry-After at once, since to let it
    /// wait would only make all others late. A request is in flight until the head of its response is there: a stream
    /// of events that goes on does not count.
    ///
    /// The number holds for one call of [`guard`] and all clones of what it returns. A server with a thread per core
    /// guards once a thread: a number shared by all would be a lock that all cores meet at, for each request.
    #[must_use]
    pub fn new(in_flight: usize) -> Self {
        let in_flight = in_flight.min(Semaphore::MAX_PERMITS);
        Self { in_flight, request_timeout: Duration::from_secs(10) }
    }

    /// How long it may take from the head of a request to the head of its response, reading the request's body
    /// included; 10 s unless set. Streaming the body of the response takes as long as it takes.
    #[must_use]
    pub fn request_timeout(self, timeout: Duration) -> Self {
        Self { request_timeout: timeout, ..self }
    }
}

impl Default for Guards {
    /// 8192 requests in flight, as many as one flush of votes may hold.
    fn default() -> Self {
        Self::new(8192)
    }
}

/// The future of a guarded service.
pub type BoxFuture = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

/// Puts the guards in front of an application.
///
/// Cross-site posts are told by `Sec-Fetch-Site`, or where a client sends none by comparing `Origin` with `Host`: a
/// proxy in front must pass both on as they are. An application that is not ready counts as overloaded.
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
        .layer(CsrfLayer::new().with_rejection_response(|e: ProtectionError| noted(cross_site(&e))))
        .layer(LoadShedLayer::new())
        .layer(ConcurrencyLimitLayer::new(guards.in_flight))
        .layer(TimeoutLayer::new(guards.request_timeout))
        .layer(CatchPanicLayer::custom(|panic: Box<dyn Any + Send>| noted::<Empty<Bytes>>(panicked(&*panic))))
        .service(app);
    Explain { inner }
}

/// The layers inside don't see in which form the caller reads errors: they note the problem, and [`Explain`] words it.
fn noted<B: Default>(problem: Problem) -> Response<B> {
    let mut response = Response::new(B::default());
    response.extensions_mut().insert(problem);
    response
}

fn cross_site(error: &ProtectionError) -> Problem {
    ::metrics::counter!(metrics::CROSS_SITE.name).increment(1);
    let detail = match error.kind() {
        ProtectionErrorKind::CrossOriginRequest => {
            "This request was sent by a page of another site. Please vote on the page of the poll itself."
        }
        _ => {
            "The Origin of this request is not the site it was sent to. Please vote on the page of the poll itself; \
             if you did, a proxy in between changed Origin or Host."
        }
    };
    Problem::new(StatusCode::FORBIDDEN, "cross-site", "Refused, since it came from another site", detail)
}

fn panicked(panic: &(dyn Any + Send)) -> Problem {
    ::metrics::counter!(metrics::PANICS.name).increment(1);
    tracing::error!("a request panicked: {}", threads::panic_message(panic));
    Problem::internal()
}

fn failed(error: &BoxError) -> Problem {
    if error.is::<tower::timeout::error::Elapsed>() {
        ::metrics::counter!(metrics::TIMEOUTS.name).increment(1);
        let detail = "The answer took too long. What you sent may or may not have arrived; it is safe to send it again.";
        return Problem::new(StatusCode::SERVICE_UNAVAILABLE, "timeout", "Please try again", detail)
            .retry_after(RETRY_AFTER);
    }
    ::metrics::counter!(metrics::SHED.name).increment(1);
    let detail = "Very many people are here right now. Nothing was stored; please try again in a moment.";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", "Please try again", detail)
        .retry_after(RETRY_AFTER)
}

/// Words errors in the form the caller reads, and adds the security headers.
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
