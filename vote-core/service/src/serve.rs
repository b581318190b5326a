//! The HTTP/1.1 server: limits connections, time and memory, and finishes the requests it has begun.
//!
//! # Limits of a client
//! - The head of a request must be complete [`header_timeout`](Limits::header_timeout) after its first byte, however
//!   slowly the rest trickles in; the first head of a connection, that long after the connection was accepted. (If a
//!   head begins while the previous request is being answered, its next byte must come within 5 s of the response.)
//! - Between two requests a connection may be idle for [`idle_timeout`](Limits::idle_timeout).
//! - A client that accepts no byte of a response for [`write_timeout`](Limits::write_timeout) is disconnected. A stream
//!   of events has to send something now and then; otherwise a vanished client goes unnoticed.
//! - [`layers`](crate::layers) and [`read_body`](crate::body::read_body) limit the body of a request and the time to
//!   answer it.
//!
//! hyper has one timeout for heads and idle time, since its header timeout begins when the previous response ends (read
//! in hyper 1.12, `h1/conn.rs`). So the code around hyper limits both.
//!
//! # Memory of a client
//! hyper holds two buffers of 8 KiB or more for each connection (`h1/io.rs`). A connection that has been idle for a few
//! seconds gives them back: it is taken away from hyper, and given to it again when the client sends something.
//!
//! # Shutdown
//! When `shutdown` is triggered, the server still accepts the connections that the kernel has completed, then closes
//! the listener. Each connection answers its current request and closes. Idle connections close at once; new ones,
//! whose first request may be in flight, are given a second. Connections that are not done after
//! [`drain`](Limits::drain) are dropped. An endless response has to watch the [`Shutdown`] itself.

use std::{
    convert::Infallible,
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::{JoinError, JoinSet},
    time::{sleep, timeout},
};
use tower::Service;

use crate::{Body, Shutdown};

mod connections;
mod watch;

pub use connections::Connections;
use connections::Place;
use watch::{Phase, Watched, WatchedService};

/// Limits of a client's time and memory. The defaults suit browsers, with or without a load balancer in between.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Time from the first byte of a request's head to its last. Default: 10 s.
    pub header_timeout: Duration,
    /// Time that a connection may be idle between requests; it is closed up to 5 s later. Must exceed the idle timeout of
    /// the load balancer in front, which otherwise sends requests on connections that are just being closed. Default:
    /// 60 s.
    pub idle_timeout: Duration,
    /// Time for which a client may accept no byte of a response that is ready. Default: 30 s.
    pub write_timeout: Duration,
    /// Maximum bytes of a request's head; a larger one is answered with 431. Also limits the buffers of a connection.
    /// Raised to 8 KiB, hyper's minimum, if less. Default: 16 KiB.
    pub max_head_bytes: usize,
    /// Maximum number of header fields; more are answered with 431. Default: 64.
    pub max_headers: usize,
    /// Time that requests may take to finish after a shutdown is requested. Default: 10 s.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(30),
            max_head_bytes: 16 * 1024,
            max_headers: 64,
            drain: Duration::from_secs(10),
        }
    }
}

/// Time for which a connection must be idle before hyper's buffers are given back; it may take twice as long. Half of the
/// idle timeout if that is less.
const PARK_AFTER: Duration = Duration::from_secs(5);
/// Time that a connection has to receive a request that may be in flight when a shutdown is requested.
const LAST_CHANCE: Duration = Duration::from_secs(1);
/// Time that the server keeps reading from a client after its last response, so that the client can read it.
const LINGER: Duration = Duration::from_secs(1);
/// Pause after an accept that failed for lack of file descriptors or memory. Without it the loop would spin, since the
/// connection stays in the kernel's queue.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `shutdown` is triggered and all requests are finished, or the drain time is over.
///
/// Clones `service` for each request. Errors of single connections do not end the server; they are logged at level
/// debug. The server also survives running out of file descriptors, which it logs at most once a second.
///
/// # Errors
/// Fails if the listener itself is unusable.
pub async fn serve<S>(
    listener: TcpListener,
    service: S,
    limits: Limits,
    connections: Connections,
    shutdown: Shutdown,
) -> io::Result<()>
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let mut server =
        Server { http: Arc::new(http(&limits)), service, limits, connections, shutdown: shutdown.child() };
    let mut tasks = JoinSet::new();
    server.accept(&listener, &mut tasks).await?;
    if let Err(e) = server.accept_completed(listener, &mut tasks) {
        tracing::debug!("accepting the last connections failed: {e}");
    }

    let open = tasks.len();
    let finished = async { while tasks.join_next().await.map(log_panic).is_some() {} };
    if timeout(server.limits.drain, finished).await.is_err() {
        tracing::warn!("{} of {open} connections did not finish in time and are dropped", tasks.len());
        tasks.shutdown().await;
    }
    Ok(())
}

fn http(limits: &Limits) -> http1::Builder {
    let mut http = http1::Builder::new();
    let max_head = limits.max_head_bytes.max(8192);
    // Responses are small, so copying a body behind its head costs less than writing two buffers.
    http.header_read_timeout(None)
        .writev(false)
        .max_buf_size(max_head)
        .max_header_size(max_head)
        .max_headers(limits.max_headers);
    http
}

struct Server<S> {
    http: Arc<http1::Builder>,
    service: S,
    limits: Limits,
    connections: Connections,
    shutdown: Shutdown,
}

impl<S> Server<S>
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    /// Accepts connections until the shutdown. Takes `&mut self`, so that the service need not be `Sync`.
    async fn accept(&mut self, listener: &TcpListener, tasks: &mut JoinSet<()>) -> io::Result<()> {
        let (mut accept_log, mut full_log) = (LogThrottle::new(1), LogThrottle::new(60));
        loop {
            if self.connections.is_full() && full_log.is_due() {
                tracing::warn!(
                    "the limit of {} open connections is reached: further ones have to wait",
                    self.connections.max()
                );
            }
            let accepted = tokio::select! {
                () = self.shutdown.requested() => return Ok(()),
                Some(ended) = tasks.join_next() => { log_panic(ended); continue }
                accepted = async { self.connections.vacancy().await; listener.accept().await } => accepted,
            };
            match accepted {
                // Taken only now: a thread that waits for connections must not keep a place from other threads, even if
                // one of them takes the last place meanwhile.
                Ok((stream, _)) => tokio::select! {
                    () = self.shutdown.requested() => return Ok(()),
                    place = self.connections.enter() => self.spawn(stream, place, tasks),
                },
                Err(e) => {
                    if accept_log.is_due() {
                        tracing::warn!("a connection can't be accepted: {e}");
                    }
                    match e.kind() {
                        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset => {}
                        io::ErrorKind::InvalidInput => return Err(e),
                        _ => sleep(ACCEPT_PAUSE).await,
                    }
                }
            }
        }
    }

    /// Accepts the connections that the kernel has completed: closing the listener would reset them.
    fn accept_completed(&self, listener: TcpListener, tasks: &mut JoinSet<()>) -> io::Result<()> {
        // Without tokio, which asks the kernel only after a readiness event; that event may not have arrived yet.
        let listener = listener.into_std()?;
        while let Some(place) = self.connections.try_enter() {
            let stream = match listener.accept() {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                accepted => accepted?.0,
            };
            stream.set_nonblocking(true)?;
            self.spawn(TcpStream::from_std(stream)?, place, tasks);
        }
        Ok(())
    }

    fn spawn(&self, stream: TcpStream, place: Place, tasks: &mut JoinSet<()>) {
        // Responses are small and written in one piece: waiting for more data would only delay them.
        if let Err(e) = stream.set_nodelay(true) {
            tracing::debug!("TCP_NODELAY: {e}");
        }
        let phase = Phase::new();
        let served = Served {
            io: TokioIo::new(Watched::new(stream, Arc::clone(&phase), &self.limits)),
            service: WatchedService::new(self.service.clone(), Arc::clone(&phase)),
        };
        let (http, shutdown, idle_timeout) =
            (Arc::clone(&self.http), self.shutdown.clone(), self.limits.idle_timeout);
        tasks.spawn(async move {
            let _place = place;
            if let Err(e) = drive(&http, served, &phase, idle_timeout, &shutdown).await {
                tracing::debug!("connection: {e}");
            }
        });
    }
}

/// What hyper serves a connection with.
struct Served<S> {
    io: TokioIo<Watched<TcpStream>>,
    service: WatchedService<S>,
}

type Connection<S> = http1::Connection<TokioIo<Watched<TcpStream>>, WatchedService<S>>;

/// Drives a connection to its end.
async fn drive<S>(
    http: &http1::Builder,
    mut served: Served<S>,
    phase: &Phase,
    idle_timeout: Duration,
    shutdown: &Shutdown,
) -> hyper::Result<()>
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let park_after = PARK_AFTER.min(idle_timeout / 2);
    loop {
        // On the heap, so that the task is small while the connection is parked.
        let mut connection = Box::new(http.serve_connection(served.io, served.service));
        if let Some(result) = serve_until_idle(&mut connection, phase, park_after, shutdown).await {
            let answered = result.as_ref().map_or_else(hyper::Error::is_parse, |()| true);
            if answered && !shutdown.is_requested() {
                linger(connection.into_parts().io.into_inner().into_inner()).await;
            }
            return result;
        }
        let http1::Parts { io, service, read_buf, .. } = connection.into_parts();
        if !read_buf.is_empty() {
            // The client began a head before the last response, and has not continued it since.
            return Ok(());
        }
        // Even empty, it keeps its buffer.
        drop(read_buf);
        tokio::select! {
            () = shutdown.requested() => return Ok(()),
            readable = timeout(idle_timeout - park_after, io.inner().readable()) => match readable {
                // If the connection failed, hyper finds that, too.
                Ok(_) => served = Served { io, service },
                Err(_) => return Ok(()),
            },
        }
    }
}

/// Serves a connection to its end, or until it has been idle for some time; then returns `None`.
async fn serve_until_idle<S>(
    connection: &mut Connection<S>,
    phase: &Phase,
    idle: Duration,
    shutdown: &Shutdown,
) -> Option<hyper::Result<()>>
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let mut end = poll_fn(|cx| connection.poll_without_shutdown(cx));
    let result = tokio::select! {
        result = &mut end => Some(result),
        () = phase.idle(idle) => return None,
        () = shutdown.requested() => last_chance(&mut end, phase).await,
    };
    if result.is_some() {
        return result;
    }
    Pin::new(&mut *connection).graceful_shutdown();
    Some(poll_fn(|cx| connection.poll_without_shutdown(cx)).await)
}

/// Closes without losing the response: discards what the client still sends, for example the rest of a refused body.
/// Closing while data arrives would reset the connection, and some clients then discard the response they have
/// received.
async fn linger(mut stream: TcpStream) {
    // On the heap, so that a rarely needed buffer does not enlarge the future of every connection.
    let mut scratch = vec![0; 4096];
    let rest = async {
        stream.shutdown().await?;
        while stream.read(&mut scratch).await? > 0 {}
        io::Result::Ok(())
    };
    // The connection is dropped whatever the result.
    let _ = timeout(LINGER, rest).await;
}

/// Waits for a request that may be in flight: once asked to shut down, hyper closes a connection that has not received
/// a complete head. Returns `None` unless the connection ended meanwhile.
async fn last_chance<C: Future + Unpin>(end: &mut C, phase: &Phase) -> Option<C::Output> {
    let head_or_end = poll_fn(|cx| match Pin::new(&mut *end).poll(cx) {
        Poll::Ready(result) => Poll::Ready(Some(result)),
        Poll::Pending if phase.awaits_head() => Poll::Pending,
        Poll::Pending => Poll::Ready(None),
    });
    timeout(LAST_CHANCE, head_or_end).await.ok().flatten()
}

fn log_panic(ended: Result<(), JoinError>) {
    if let Err(e) = ended {
        tracing::error!("a connection ended because of a bug: {e}");
    }
}

/// Limits how often a message is logged.
struct LogThrottle {
    every: Duration,
    last: Option<Instant>,
}

impl LogThrottle {
    fn new(seconds: u64) -> Self {
        Self { every: Duration::from_secs(seconds), last: None }
    }

    fn is_due(&mut self) -> bool {
        let due = self.last.is_none_or(|last| last.elapsed() >= self.every);
        if due {
            self.last = Some(Instant::now());
        }
        due
    }
}
