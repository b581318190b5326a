//! Tracks what each connection is waiting for, and limits how long it may wait.
//!
//! hyper does not report this, but it can be observed from outside: bytes come in through [`Watched`], hyper passes a
//! complete head to [`WatchedService`], it drops the [`WatchedBody`] once the response is in its buffer, and flushes
//! [`Watched`] once it has written that.

use std::{
    convert::Infallible,
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU32, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep},
};
use tower::{Service, ServiceExt};

use super::Limits;
use crate::{Body, BoxError};

/// Nothing has been received yet.
const FRESH: u8 = 0;
/// Part of a head has been received.
const HEAD: u8 = 1;
/// A request is being answered.
const BUSY: u8 = 2;
/// A response is being written, and nothing has been received since.
const ANSWERED: u8 = 3;
/// A response has been written, and nothing has been received since.
const IDLE: u8 = 4;

/// What a connection is doing. All users of a phase run in the same task, so relaxed loads and stores suffice.
#[derive(Debug)]
pub(super) struct Phase {
    now: AtomicU8,
    /// How often the connection became idle.
    pauses: AtomicU32,
}

impl Phase {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { now: AtomicU8::new(FRESH), pauses: AtomicU32::new(0) })
    }

    /// Returns once the connection has been idle for between `time` and twice `time`. It checks at intervals, so that no
    /// request has to read a clock.
    pub(super) async fn idle(&self, time: Duration) {
        loop {
            let before = (self.get(), self.pauses.load(Ordering::Relaxed));
            sleep(time).await;
            if before == (IDLE, self.pauses.load(Ordering::Relaxed)) && self.get() == IDLE {
                return;
            }
        }
    }

    /// True while the first request, or the rest of a partly received one, is awaited.
    pub(super) fn awaits_head(&self) -> bool {
        matches!(self.get(), FRESH | HEAD)
    }

    fn get(&self) -> u8 {
        self.now.load(Ordering::Relaxed)
    }

    fn set(&self, phase: u8) {
        self.now.store(phase, Ordering::Relaxed);
    }
}

/// Stream whose reads and writes fail if the client takes too long.
#[derive(Debug)]
pub(super) struct Watched<T> {
    inner: T,
    phase: Arc<Phase>,
    header_timeout: Duration,
    read: Alarm,
    write_timeout: Duration,
    write: Alarm,
}

impl<T> Watched<T> {
    pub(super) fn new(inner: T, phase: Arc<Phase>, limits: &Limits) -> Self {
        Self {
            inner,
            phase,
            header_timeout: limits.header_timeout,
            read: Alarm::default(),
            write_timeout: limits.write_timeout,
            write: Alarm::default(),
        }
    }

    pub(super) fn into_inner(self) -> T {
        self.inner
    }
}

impl Watched<TcpStream> {
    /// Waits until the client has sent something, or the connection has failed.
    pub(super) async fn readable(&self) -> io::Result<()> {
        self.inner.readable().await
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let result = Pin::new(&mut this.inner).poll_read(cx, buf);
        if result.is_pending() {
            return match this.phase.get() {
                FRESH | HEAD => this
                    .read
                    .poll(cx, this.header_timeout)
                    .map(|()| Err(late("the client took too long to send the head of a request"))),
                // Other code limits idle time, and the time to read a body and to answer.
                _ => Poll::Pending,
            };
        }
        if buf.filled().len() > before {
            match this.phase.get() {
                // The timer of the first head has been running since the connection was accepted.
                FRESH => this.phase.set(HEAD),
                ANSWERED | IDLE => {
                    this.phase.set(HEAD);
                    this.read.stop();
                }
                _ => {}
            }
        }
        result
    }
}

impl<T: AsyncWrite + Unpin> Watched<T> {
    fn watch_write<R>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if result.is_ready() {
            self.write.stop();
            return result;
        }
        self.write
            .poll(cx, self.write_timeout)
            .map(|()| Err(late("the client took too long to read a response")))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.inner).poll_write(cx, buf);
        this.watch_write(cx, result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.inner).poll_write_vectored(cx, bufs);
        this.watch_write(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.inner).poll_flush(cx);
        if result.is_ready() && this.phase.get() == ANSWERED {
            this.phase.set(IDLE);
            this.phase.pauses.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

fn late(message: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, message)
}

/// Timer that is created when first needed and then reused: most requests arrive in one piece and need none.
#[derive(Debug, Default)]
struct Alarm {
    timer: Option<Pin<Box<Sleep>>>,
    running: bool,
}

impl Alarm {
    /// Becomes ready when `timeout` has passed since the first poll after the last stop.
    fn poll(&mut self, cx: &mut Context<'_>, timeout: Duration) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| {
            self.running = true;
            Box::pin(sleep(timeout))
        });
        if !self.running {
            self.running = true;
            timer.as_mut().reset(Instant::now() + timeout);
        }
        timer.as_mut().poll(cx)
    }

    fn stop(&mut self) {
        self.running = false;
    }
}

/// Service that records when a head is complete and, through [`WatchedBody`], when the response is written.
#[derive(Debug)]
pub(super) struct WatchedService<S> {
    /// Boxed, so that a connection is `Unpin` whatever the service is.
    inner: Box<S>,
    phase: Arc<Phase>,
}

impl<S> WatchedService<S> {
    pub(super) fn new(inner: S, phase: Arc<Phase>) -> Self {
        Self { inner: Box::new(inner), phase }
    }
}

impl<S> hyper::service::Service<Request<Incoming>> for WatchedService<S>
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<WatchedBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.phase.set(BUSY);
        let phase = Arc::clone(&self.phase);
        let answer = S::clone(&self.inner).oneshot(request);
        Box::pin(
            async move { answer.await.map(|response| response.map(|inner| WatchedBody { inner, phase })) },
        )
    }
}

/// Response body that records when hyper has the whole response.
#[derive(Debug)]
pub(super) struct WatchedBody {
    inner: Body,
    phase: Arc<Phase>,
}

impl Drop for WatchedBody {
    fn drop(&mut self) {
        self.phase.set(ANSWERED);
    }
}

impl http_body::Body for WatchedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
