//! A server on a free port, and a client that reads single bytes.

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};
use tower::Service;
use vote_service::{Body, Connections, Limits, Shutdown, respond, serve};

/// Longer than any operation here should take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
pub(crate) const GET: &str = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";

pub(crate) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// An application that can be served.
pub(crate) trait App:
    Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future: Send>
    + Clone
    + Send
    + 'static
{
}

impl<S> App for S where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + 'static
{
}

pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    pub(crate) shutdown: Shutdown,
    pub(crate) task: JoinHandle<std::io::Result<()>>,
}

impl Server {
    pub(crate) async fn start(service: impl App, limits: Limits) -> Self {
        Self::start_with(service, limits, Connections::new(100)).await
    }

    pub(crate) async fn start_with(service: impl App, limits: Limits, connections: Connections) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let shutdown = Shutdown::new();
        let task = tokio::spawn(serve::serve(listener, service, limits, connections, shutdown.clone()));
        Self { addr, shutdown, task }
    }

    pub(crate) async fn client(&self) -> Client {
        Client(TcpStream::connect(self.addr).await.unwrap())
    }

    /// Sends one request on a connection of its own and returns the answer.
    pub(crate) async fn ask(&self, request: &str) -> String {
        let mut client = self.client().await;
        client.send(request).await;
        client.answer().await
    }

    /// Waits until the server has returned.
    pub(crate) async fn ended(self) {
        timeout(PATIENCE, self.task).await.unwrap().unwrap().unwrap();
    }
}

pub(crate) struct Client(pub(crate) TcpStream);

impl Client {
    pub(crate) async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    /// Returns the next answer: the head, and the body that content-length announces.
    pub(crate) async fn answer(&mut self) -> String {
        self.try_answer(PATIENCE).await.expect("the server answers in time")
    }

    /// Returns the next answer; `None` if the connection ends, or if there is no complete answer within `patience`.
    pub(crate) async fn try_answer(&mut self, patience: Duration) -> Option<String> {
        timeout(patience, self.read_answer()).await.ok().flatten()
    }

    async fn read_answer(&mut self) -> Option<String> {
        let mut bytes = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = header(head, "content-length").and_then(|n| n.parse().ok()).unwrap_or(0);
                if body.len() >= length {
                    return Some(text);
                }
            }
            bytes.push(self.0.read_u8().await.ok()?);
        }
    }

    /// Waits until the server closes the connection, and returns how long that took.
    pub(crate) async fn closed(&mut self) -> Duration {
        let start = tokio::time::Instant::now();
        let mut rest = Vec::new();
        let _ = timeout(PATIENCE, self.0.read_to_end(&mut rest)).await.expect("the server closes in time");
        start.elapsed()
    }
}

/// Returns a header of an answer, by its lower-case name.
pub(crate) fn header<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let head = answer.split("\r\n\r\n").next()?;
    head.lines().filter_map(|line| line.split_once(": ")).find(|(n, _)| *n == name).map(|(_, value)| value)
}

pub(crate) fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

/// Returns an application that answers "hello" after a delay.
pub(crate) fn hello(after: Duration) -> impl App {
    tower::service_fn(move |_| async move {
        tokio::time::sleep(after).await;
        Ok(respond::text(StatusCode::OK, "hello"))
    })
}

/// A body that sends `chunk` again and again. Dropping the body drops `_gone`.
pub(crate) struct Endless {
    pub(crate) chunk: bytes::Bytes,
    pub(crate) every: tokio::time::Interval,
    pub(crate) _gone: tokio::sync::oneshot::Sender<()>,
}

impl http_body::Body for Endless {
    type Data = bytes::Bytes;
    type Error = vote_service::BoxError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, Self::Error>>> {
        self.every.poll_tick(cx).map(|_| Some(Ok(http_body::Frame::data(self.chunk.clone()))))
    }
}

/// Receives, for each body that is created, a receiver that fails when that body is dropped.
pub(crate) type Bodies = tokio::sync::mpsc::UnboundedReceiver<tokio::sync::oneshot::Receiver<()>>;

/// Returns an application that answers each request with an endless body, and notifications when a body is dropped.
pub(crate) fn endless(chunk: &'static [u8], every: Duration) -> (impl App, Bodies) {
    let (bodies, started) = tokio::sync::mpsc::unbounded_channel();
    let service = tower::service_fn(move |_| {
        let (gone, dropped) = tokio::sync::oneshot::channel();
        bodies.send(dropped).unwrap();
        let body = Endless { chunk: chunk.into(), every: tokio::time::interval(every), _gone: gone };
        std::future::ready(Ok(Response::new(vote_service::body::stream(body))))
    });
    (service, started)
}
