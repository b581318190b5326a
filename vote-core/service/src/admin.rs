//! What operators and orchestrators ask a running process, on a port of its own.
//!
//! | route | answer |
//! |---|---|
//! | `GET /healthz` | 200 as long as the process runs |
//! | `GET /readyz` | 200, with what it can't do if there is something; or 503 with the reasons why it should get no requests now |
//! | `GET /metrics` | metrics for Prometheus |

use std::{
    convert::Infallible,
    fmt,
    future::{Ready, ready},
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use tokio::{net::TcpListener, time::interval};
use tower::Service;

use crate::{
    Shutdown,
    body::Body,
    metrics::{self, Exported, READY},
    respond,
    serve::{Connections, Limits, serve},
};

/// The format of `/metrics`, which newer scrapers insist on being told.
const PROMETHEUS_TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
/// How often histograms are tidied; without it, they grow while nobody scrapes.
const UPKEEP: Duration = Duration::from_secs(5);
/// What [`healthcheck`] allows, well under the usual interval of health checks.
const HEALTHCHECK_TIMEOUT: Duration = Duration::from_secs(2);

type ReadyCheck = dyn Fn() -> Result<(), String> + Send + Sync;
type Remarks = dyn Fn() -> Option<String> + Send + Sync;

/// The service of the admin port.
#[derive(Clone)]
pub struct Admin {
    ready: Arc<ReadyCheck>,
    remarks: Arc<Remarks>,
    metrics: Exported,
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").finish_non_exhaustive()
    }
}

impl Admin {
    /// `ready` says whether the service can do its work now, or why not. It is called on each request, so it should
    /// look at what is known and not ask others.
    pub fn new(ready: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self { ready: Arc::new(ready), remarks: Arc::new(|| None), metrics: metrics::exported() }
    }

    /// Adds what a service that is ready can't do all the same, for whoever reads the answer. Called like the check.
    #[must_use]
    pub fn with_remarks(self, remarks: impl Fn() -> Option<String> + Send + Sync + 'static) -> Self {
        Self { remarks: Arc::new(remarks), ..self }
    }

    fn answer<B>(&self, request: &Request<B>) -> Response<Body> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = respond::text(StatusCode::METHOD_NOT_ALLOWED, "GET only\n");
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match request.uri().path() {
            "/healthz" => respond::text(StatusCode::OK, "ok\n"),
            "/readyz" => match (self.ready)() {
                Ok(()) => match (self.remarks)() {
                    None => respond::text(StatusCode::OK, "ready\n"),
                    Some(remarks) => respond::text(StatusCode::OK, format!("ready, but {remarks}\n")),
                },
                Err(reasons) => {
                    respond::text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reasons}\n"))
                }
            },
            "/metrics" => {
                ::metrics::gauge!(READY.name).set(f64::from(u8::from((self.ready)().is_ok())));
                let mut response = respond::text(StatusCode::OK, self.metrics.render());
                response.headers_mut().insert(header::CONTENT_TYPE, PROMETHEUS_TEXT);
                response
            }
            _ => respond::text(StatusCode::NOT_FOUND, "here are /healthz, /readyz and /metrics\n"),
        }
    }
}

impl<B> Service<Request<B>> for Admin {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        ready(Ok(self.answer(&request)))
    }
}

/// Serves the admin port until `shutdown` is triggered, and keeps the metrics tidy meanwhile.
///
/// Give it a shutdown of its own, triggered when the service has drained, and it answers until the very end: a load
/// balancer then learns from `/readyz` that the process is going, and a health check does not fail in between.
///
/// # Errors
/// When the listener is of no use.
pub async fn serve_admin(
    listener: TcpListener,
    ready: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    shutdown: Shutdown,
) -> io::Result<()> {
    serve_as(listener, Admin::new(ready), shutdown).await
}

/// As [`serve_admin`], of a service that was made before.
///
/// # Errors
/// When the listener is of no use.
pub async fn serve_as(listener: TcpListener, admin: Admin, shutdown: Shutdown) -> io::Result<()> {
    let metrics = admin.metrics.clone();
    let limits = Limits { drain: Duration::from_secs(1), ..Limits::default() };
    let upkeep = async {
        let mut tick = interval(UPKEEP);
        loop {
            tick.tick().await;
            metrics.run_upkeep();
        }
    };
    tokio::select! {
        result = serve(listener, admin, limits, Connections::uncounted(64), shutdown) => result,
        () = upkeep => Ok(()),
    }
}

/// Asks the admin port of a process on this machine whether it is healthy, for at most 2 s. Blocks.
///
/// An address that stands for all of the machine's, `0.0.0.0` or `[::]`, is asked on the loopback one.
///
/// # Errors
/// With what came instead.
pub fn healthcheck(addr: SocketAddr) -> Result<(), String> {
    let addr = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => (Ipv4Addr::LOCALHOST, addr.port()).into(),
        IpAddr::V6(ip) if ip.is_unspecified() => (Ipv6Addr::LOCALHOST, addr.port()).into(),
        _ => addr,
    };
    let status = ask(addr).map_err(|e| format!("{addr} does not answer: {e}"))?;
    if status.starts_with("HTTP/1.1 200 ") { Ok(()) } else { Err(format!("{addr} answers {status:?}")) }
}

/// The status line of the answer.
fn ask(addr: SocketAddr) -> io::Result<String> {
    let deadline = Instant::now() + HEALTHCHECK_TIMEOUT;
    // A timeout of zero is an error of its own kind; the least there is will do.
    let left = || deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    let mut stream = TcpStream::connect_timeout(&addr, left())?;
    stream.set_write_timeout(Some(left()))?;
    write!(stream, "GET /healthz HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n\r\n")?;
    let mut answer = [0; 256];
    let mut len = 0;
    while len < answer.len() && !answer[..len].contains(&b'\r') && Instant::now() < deadline {
        stream.set_read_timeout(Some(left()))?;
        match stream.read(&mut answer[len..])? {
            0 => break,
            n => len += n,
        }
    }
    let line = answer[..len].split(|b| *b == b'\r').next().unwrap_or_default();
    Ok(String::from_utf8_lossy(line).into_owned())
}
