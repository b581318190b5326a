//! The admin port, which operators and orchestrators ask about a running process.
//!
//! | route | answer |
//! |---|---|
//! | `GET /healthz` | 200 as long as the process runs |
//! | `GET /readyz` | 200, with remarks if something does not work; 503, with reasons, while it should get no requests |
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
    readiness::Readiness,
    respond,
    serve::{Connections, Limits, serve},
};

/// Content type of `/metrics`, which newer scrapers require.
const PROMETHEUS_TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
/// Interval at which histograms are compacted; otherwise they grow as long as nothing scrapes them.
const UPKEEP: Duration = Duration::from_secs(5);
/// Time limit of [`healthcheck`], well under the usual interval of health checks.
const HEALTHCHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// HTTP service of the admin port.
#[derive(Clone)]
pub struct Admin {
    readiness: Arc<dyn Readiness>,
    metrics: Exported,
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").finish_non_exhaustive()
    }
}

impl Admin {
    /// Creates the service, which asks `readiness` for each request to `/readyz` and `/metrics`.
    pub fn new(readiness: impl Readiness) -> Self {
        Self { readiness: Arc::new(readiness), metrics: metrics::exported() }
    }

    fn answer<B>(&self, request: &Request<B>) -> Response<Body> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = respond::text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed: use GET\n");
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match request.uri().path() {
            "/healthz" => respond::text(StatusCode::OK, "ok\n"),
            "/readyz" => match self.readiness.ready() {
                Ok(()) => match self.readiness.remarks() {
                    None => respond::text(StatusCode::OK, "ready\n"),
                    Some(remarks) => respond::text(StatusCode::OK, format!("ready, but {remarks}\n")),
                },
                Err(reasons) => {
                    respond::text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reasons}\n"))
                }
            },
            "/metrics" => {
                ::metrics::gauge!(READY.name).set(f64::from(u8::from(self.readiness.ready().is_ok())));
                let mut response = respond::text(StatusCode::OK, self.metrics.render());
                response.headers_mut().insert(header::CONTENT_TYPE, PROMETHEUS_TEXT);
                response
            }
            _ => respond::text(StatusCode::NOT_FOUND, "not found: try /healthz, /readyz or /metrics\n"),
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

/// Serves the admin port until `shutdown` is triggered, and compacts histograms meanwhile.
///
/// Pass a shutdown of its own that is triggered once the service has drained, so that the port answers until the end: a
/// load balancer then learns from `/readyz` that the process is stopping, and no health check fails in between.
///
/// # Errors
/// Fails if the listener is unusable.
pub async fn serve_admin(
    listener: TcpListener,
    readiness: impl Readiness,
    shutdown: Shutdown,
) -> io::Result<()> {
    let admin = Admin::new(readiness);
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

/// Asks the admin port of a process on this machine whether it is healthy. Blocks for at most 2 s.
///
/// An unspecified address, `0.0.0.0` or `[::]`, is replaced by the loopback address.
///
/// # Errors
/// Fails with the status line of any answer other than 200, or with the reason why there was none.
pub fn healthcheck(addr: SocketAddr) -> Result<(), String> {
    let addr = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => (Ipv4Addr::LOCALHOST, addr.port()).into(),
        IpAddr::V6(ip) if ip.is_unspecified() => (Ipv6Addr::LOCALHOST, addr.port()).into(),
        _ => addr,
    };
    let status = ask(addr).map_err(|e| format!("{addr} does not answer: {e}"))?;
    if status.starts_with("HTTP/1.1 200 ") {
        Ok(())
    } else {
        Err(format!("{addr} answered {status:?}, not 200"))
    }
}

/// Requests `/healthz` and returns the status line of the answer.
fn ask(addr: SocketAddr) -> io::Result<String> {
    let deadline = Instant::now() + HEALTHCHECK_TIMEOUT;
    // A zero timeout is rejected as invalid input, so never pass less than 1 ms.
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
