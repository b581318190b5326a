//! The HTTP/1.1 server: bounded in connections, in time and in memory, and it finishes what it began.
//!
//! # What bounds a client
//! - The head of a request is there [`header_timeout`](Limits::header_timeout) after its first byte, however slowly
//!   the rest trickles in; the first head of a connection, that long after the connection was accepted. (A head that
//!   begins while the previous request is being answered counts as idle until its next byte.)
//! - Between two requests a connection may be idle for [`idle_timeout`](Limits::idle_timeout).
//! - A client that takes no byte of a response for [`write_timeout`](Limits::write_timeout) is cut off, so a stream of
//!   events has to send something now and then, or nobody notices that a client is gone.
//! - The body of a request and the time to answer it are the matter of [`layers`](crate::layers) and
//!   [`read_body`](crate::body::read_body).
//!
//! hyper has one timeout for both, since its header timeout begins when the previous response ends (read in hyper
//! 1.12, `h1/conn.rs`). Here it bounds idleness, and heads are timed around it.
//!
//! # The end
//! When `shutdown` is triggered, connections that the kernel has completed are still accepted, then the listener
//! closes. Each connection answers the request it has and closes; idle ones close at once, while new ones, whose first
//! request may be on its way, are given a second. What is not done after [`drain`](Limits::drain) is dropped. An
//! endless response has to watch the [`Shutdown`] itself.

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
use hyper_util::rt::{TokioIo, TokioTimer};
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

/// What a client may take. The defaults suit browsers behind a load balancer, and without one.
#[derive(Debug, Clone)]
pub struct Limits {
    /// From the first byte of a request's head to its last. 10 s.
    pub header_timeout: Duration,
    /// How long a connection may be idle between requests; longer than that of the load balancer in front, or it
    /// sends requests into connections that are just being closed. 60 s.
    pub idle_timeout: Duration,
    /// How long a client may take nothing of a response that is there. 30 s.
    pub write_timeout: Duration,
    /// The most bytes of a request's head; more is answered with 431. Also bounds the buffers of a connection. No less
    /// than 8 KiB, which is hyper's minimum. 16 KiB.
    pub max_head_bytes: usize,
    /// The most header fields; more is answered with 431. 64.
    pub max_headers: usize,
    /// How long requests may take to finish after a shutdown was requested. 10 s.
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

/// How long a connection is given for a request that is on its way once the server is to stop.
const LAST_CHANCE: Duration = Duration::from_secs(1);
/// How long a client is listened to after its last answer, so that it gets to read it.
const LINGER: Duration = Duration::from_secs(1);
/// The pause after an accept failed for want of file descriptors or memory. Without one the loop would spin, since
/// the connection stays in the queue.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `shutdown` is triggered and all is finished, or the drain time is over.
///
/// `service` is cloned for each request. Errors of single connections are no errors here; they are logged at level
/// debug. Running out of file descriptors is survived, and logged once a second.
///
/// # Errors
/// When the listener itself is of no use.
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
    let mut server = Server { http: http(&limits), service, limits, connections, shutdown: shutdown.child() };
    let mut tasks = JoinSet::new();
    server.accept(&listener, &mut tasks).await?;
    if let Err(e) = server.accept_completed(listener, &mut tasks) {
        tracing::debug!("the last connections: {e}");
    }

    let open = tasks.len();
    let finished = async { while tasks.join_next().await.map(log_panic).is_some() {} };
    if timeout(server.limits.drain, finished).await.is_err() {
        tracing::warn!("{} of {open} connections were not done in time and are dropped", tasks.len());
        tasks.shutdown().await;
    }
    Ok(())
}

fn http(limits: &Limits) -> http1::Builder {
    let mut http = http1::Builder::new();
    let max_head = limits.max_head_bytes.max(8192);
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.idle_timeout.max(limits.header_timeout))
        .max_buf_size(max_head)
        .max_header_size(max_head)
        .max_headers(limits.max_headers);
    http
}

struct Server<S> {
    http: http1::Builder,
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
    /// Accepts connections until the shutdown. By `&mut`, so that a service need not be `Sync`.
    async fn accept(&mut self, listener: &TcpListener, tasks: &mut JoinSet<()>) -> io::Result<()> {
        let (mut accept_log, mut full_log) = (Seldom::new(1), Seldom::new(60));
        loop {
            if self.connections.is_full() && full_log.is_due() {
                tracing::warn!(
                    "{} connections, the limit, are open: others have to wait",
                    self.connections.max()
                );
            }
            let accepted = tokio::select! {
                () = self.shutdown.requested() => return Ok(()),
                Some(ended) = tasks.join_next() => { log_panic(ended); continue }
                accepted = async { self.connections.vacancy().await; listener.accept().await } => accepted,
            };
            match accepted {
                // The place is only taken now: a thread that waits for connections must not hold one back from others,
                // even if one of them takes the last place meanwhile.
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

    /// Accepts what the kernel has completed: closing the listener would reset it.
    fn accept_completed(&self, listener: TcpListener, tasks: &mut JoinSet<()>) -> io::Result<()> {
        // tokio only asks the kernel when it was told that there is something, which may be news yet to come.
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
        // Answers are small and complete: waiting for more to send only delays them.
        if let Err(e) = stream.set_nodelay(true) {
            tracing::debug!("TCP_NODELAY: {e}");
        }
        let phase = Phase::new();
        let io = TokioIo::new(Watched::new(stream, Arc::clone(&phase), &self.limits));
        let service = WatchedService::new(self.service.clone(), Arc::clone(&phase));
        let connection = self.http.serve_connection(io, service);
        let shutdown = self.shutdown.clone();
        tasks.spawn(async move {
            let _place = place;
            if let Err(e) = drive(connection, &phase, &shutdown).await {
                tracing::debug!("connection: {e}");
            }
        });
    }
}

/// Sees a connection through to its end.
async fn drive<S>(
    mut connection: http1::Connection<TokioIo<Watched<TcpStream>>, WatchedService<S>>,
    phase: &Phase,
    shutdown: &Shutdown,
) -> hyper::Result<()>
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let mut end = poll_fn(|cx| connection.poll_without_shutdown(cx));
    let mut result = tokio::select! {
        result = &mut end => Some(result),
        () = shutdown.requested() => last_chance(&mut end, phase).await,
    };
    if result.is_none() {
        Pin::new(&mut connection).graceful_shutdown();
        result = Some(poll_fn(|cx| connection.poll_without_shutdown(cx)).await);
    }
    let result = result.unwrap_or(Ok(()));
    let answered = result.as_ref().map_or_else(hyper::Error::is_parse, |()| true);
    if answered && !shutdown.is_requested() {
        linger(connection.into_parts().io.into_inner().into_inner()).await;
    }
    result
}

/// Closes without losing the answer: what the client still sends, for example a body that nobody read, is thrown away.
/// To close on it would reset the connection, and some clients then discard the answer they have.
async fn linger(mut stream: TcpStream) {
    // On the heap: a connection must not be that much larger all its life for what it rarely needs.
    let mut scratch = vec![0; 4096];
    let rest = async {
        stream.shutdown().await?;
        while stream.read(&mut scratch).await? > 0 {}
        io::Result::Ok(())
    };
    // Whatever comes of it, the connection is dropped.
    let _ = timeout(LINGER, rest).await;
}

/// Waits until a request that may be on its way is there: asked to shut down, hyper closes a connection that has not
/// got a whole head. None if the connection did not end meanwhile.
async fn last_chance<C: Future + Unpin>(end: &mut C, phase: &Phase) -> Option<C::Output> {
    let begun = poll_fn(|cx| match Pin::new(&mut *end).poll(cx) {
        Poll::Ready(result) => Poll::Ready(Some(result)),
        Poll::Pending if phase.awaits_head() => Poll::Pending,
        Poll::Pending => Poll::Ready(None),
    });
    timeout(LAST_CHANCE, begun).await.ok().flatten()
}

fn log_panic(ended: Result<(), JoinError>) {
    if let Err(e) = ended {
        tracing::error!("a connection ended by a bug: {e}");
    }
}

/// Something that is worth saying, but not each time.
struct Seldom {
    every: Duration,
    last: Option<Instant>,
}

impl Seldom {
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
