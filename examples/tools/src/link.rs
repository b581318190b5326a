//! A keep-alive connection to a host, opened when it is needed and reopened after it broke.
//!
//! The task that waits for the answer also drives the connection, without a task of its own: a request then costs one
//! wake-up, and an abandoned request leaves nothing running.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header::HOST};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, Connection, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

/// Maximum number of bytes of an answer's body that are read.
const MAX_BODY: usize = 1 << 20;

/// Reason for which a request has no answer.
#[derive(Debug)]
pub enum NoAnswer {
    /// The request did not leave this process: no server can have acted on it.
    NotSent(String),
    /// The request may have been sent, and a server may have acted on it.
    Lost(String),
}

impl NoAnswer {
    /// Returns the reason as a text.
    #[must_use]
    pub fn into_why(self) -> String {
        match self {
            Self::NotSent(why) | Self::Lost(why) => why,
        }
    }
}

/// Status and headers of an answer; its body is in [`Link::body`].
#[derive(Debug)]
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Whether the body was received to its end.
    pub is_complete: bool,
}

/// Connection to a host, which is opened on demand.
#[derive(Debug)]
pub struct Link {
    host: HeaderValue,
    addresses: Vec<SocketAddr>,
    /// Time limit for connecting, and for each answer.
    request_timeout: Duration,
    open: Option<Open>,
    body: Vec<u8>,
}

#[derive(Debug)]
struct Open {
    sender: SendRequest<Full<Bytes>>,
    driver: Driver,
}

type Http1 = Connection<TokioIo<TcpStream>, Full<Bytes>>;

/// Drives the I/O of a connection while a future that depends on it is awaited.
#[derive(Debug)]
struct Driver {
    /// Dropped when the connection ends: only then do the futures that depend on it complete, with an error.
    connection: Option<Pin<Box<Http1>>>,
}

impl Driver {
    /// Awaits `future`, and drives the connection that completes it.
    async fn drive<F: Future>(&mut self, future: F) -> F::Output {
        let mut future = pin!(future);
        poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(output);
            }
            if self.connection.as_mut().is_some_and(|connection| connection.as_mut().poll(cx).is_ready()) {
                self.connection = None;
            }
            // Without this poll, bytes that have just arrived would cost another wake-up.
            future.as_mut().poll(cx)
        })
        .await
    }
}

impl Link {
    /// Creates a link without opening a connection.
    ///
    /// `host` is the value of the Host header. The first of the `addresses` that accepts a connection is used.
    /// `request_timeout` limits connecting, and each answer.
    #[must_use]
    pub fn new(host: HeaderValue, addresses: Vec<SocketAddr>, request_timeout: Duration) -> Self {
        Self { host, addresses, request_timeout, open: None, body: Vec::new() }
    }

    /// Returns the body of the last answer, or the part that was received before the connection broke.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Opens a connection unless one is open and usable.
    ///
    /// # Errors
    /// Fails with the reason if no connection can be opened within the time limit.
    pub async fn connect(&mut self) -> Result<(), String> {
        if let Some(open) = &mut self.open {
            // This also detects that the server has closed the connection in the meantime.
            let ready = timeout(self.request_timeout, open.driver.drive(open.sender.ready())).await;
            if matches!(ready, Ok(Ok(()))) {
                return Ok(());
            }
            self.open = None;
        }
        let connecting = async {
            let stream = TcpStream::connect(&self.addresses[..]).await?;
            stream.set_nodelay(true)?;
            let (sender, connection) =
                http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
            Ok(Open { sender, driver: Driver { connection: Some(Box::pin(connection)) } })
        };
        match timeout(self.request_timeout, connecting).await {
            Ok(Ok(open)) => self.open = Some(open),
            Ok(Err(e)) => return Err(io::Error::to_string(&e)),
            Err(_) => return Err(format!("no connection within {} s", self.request_timeout.as_secs_f32())),
        }
        Ok(())
    }

    /// Sends a request, whose Host header it sets, and reads the answer.
    ///
    /// # Errors
    /// Fails if there is no answer; the variant tells whether the server can have acted on the request. The next
    /// request opens a new connection.
    pub async fn send(&mut self, mut request: Request<Full<Bytes>>) -> Result<Answer, NoAnswer> {
        request.headers_mut().insert(HOST, self.host.clone());
        self.body.clear();
        self.connect().await.map_err(NoAnswer::NotSent)?;
        // This future owns the connection, so that dropping it closes the connection: a late answer must not be taken
        // for the answer of the next request.
        let Some(mut open) = self.open.take() else {
            return Err(NoAnswer::NotSent("no connection".to_owned()));
        };
        let exchange = async {
            let sent = open.driver.drive(open.sender.try_send_request(request)).await;
            let answer = sent.map_err(|mut e| match e.take_message() {
                Some(_) => NoAnswer::NotSent(describe(e.error())),
                None => NoAnswer::Lost(describe(e.error())),
            })?;
            let (head, body) = answer.into_parts();
            let is_complete = open.driver.drive(read(body, &mut self.body)).await;
            Ok(Answer { status: head.status, headers: head.headers, is_complete })
        };
        match timeout(self.request_timeout, exchange).await {
            Ok(Ok(answer)) => {
                self.open = answer.is_complete.then_some(open);
                Ok(answer)
            }
            Ok(Err(e)) => Err(e),
            Err(_) => {
                Err(NoAnswer::Lost(format!("no answer within {} s", self.request_timeout.as_secs_f32())))
            }
        }
    }
}

/// Reads a body, and returns whether it is complete.
async fn read(mut body: Incoming, into: &mut Vec<u8>) -> bool {
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return false };
        if let Some(data) = frame.data_ref() {
            if into.len() + data.len() > MAX_BODY {
                return false;
            }
            into.extend_from_slice(data);
        }
    }
    true
}

/// Formats an error with its cause.
fn describe(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
