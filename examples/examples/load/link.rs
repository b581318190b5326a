//! One keep-alive connection to a host, opened when it is needed and again when it broke.
//!
//! The connection is driven by the task that waits for the answer, not by one of its own: a request then costs one
//! wake-up, and nothing is left behind when a request is given up.

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, Connection, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

use crate::address::Host;

/// The most bytes of an answer that are read.
const MAX_BODY: usize = 1 << 20;

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum NoAnswer {
    /// The request did not leave this process: nobody can have acted on it.
    NotSent(String),
    /// It may have been acted on.
    Lost(String),
}

impl NoAnswer {
    pub(crate) fn into_why(self) -> String {
        match self {
            Self::NotSent(why) | Self::Lost(why) => why,
        }
    }
}

/// The head of an answer; its body is in [`Link::body`].
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
}

/// A connection, or the means to open one.
#[derive(Debug)]
pub(crate) struct Link {
    host: Arc<Host>,
    patience: Duration,
    open: Option<Open>,
    body: Vec<u8>,
}

#[derive(Debug)]
struct Open {
    sender: SendRequest<Full<Bytes>>,
    driver: Driver,
}

type Http1 = Connection<TokioIo<TcpStream>, Full<Bytes>>;

/// Moves bytes while somebody waits for what they bring.
#[derive(Debug)]
struct Driver {
    /// Dropped when it ends: only then does whoever still waits for it hear of that.
    connection: Option<Pin<Box<Http1>>>,
}

impl Driver {
    /// The output of `future`, which the connection is to complete.
    async fn drive<F: Future>(&mut self, future: F) -> F::Output {
        let mut future = pin!(future);
        poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(output);
            }
            if self.connection.as_mut().is_some_and(|connection| connection.as_mut().poll(cx).is_ready()) {
                self.connection = None;
            }
            // What has just arrived would otherwise cost another wake-up.
            future.as_mut().poll(cx)
        })
        .await
    }
}

impl Link {
    /// Opens nothing yet. `patience` is for the connecting and for each answer.
    pub(crate) fn new(host: Arc<Host>, patience: Duration) -> Self {
        Self { host, patience, open: None, body: Vec::new() }
    }

    pub(crate) fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// The body of the last answer, cut where it broke off.
    pub(crate) fn body(&self) -> &[u8] {
        &self.body
    }

    /// Makes sure that there is a connection.
    ///
    /// # Errors
    /// Says why there can't be one.
    pub(crate) async fn connect(&mut self) -> Result<(), String> {
        if let Some(open) = &mut self.open {
            // Also notices that the server has closed it in the meantime.
            let ready = timeout(self.patience, open.driver.drive(open.sender.ready())).await;
            if matches!(ready, Ok(Ok(()))) {
                return Ok(());
            }
            self.open = None;
        }
        let connecting = async {
            let stream = TcpStream::connect(&self.host.addresses[..]).await?;
            stream.set_nodelay(true)?;
            let (sender, connection) =
                http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
            Ok(Open { sender, driver: Driver { connection: Some(Box::pin(connection)) } })
        };
        match timeout(self.patience, connecting).await {
            Ok(Ok(open)) => self.open = Some(open),
            Ok(Err(e)) => return Err(io::Error::to_string(&e)),
            Err(_) => return Err(format!("no connection within {} s", self.patience.as_secs_f32())),
        }
        Ok(())
    }

    /// Sends a request, which needs a Host header, and reads the answer.
    ///
    /// # Errors
    /// Tells whether the request can have been acted on. The next request opens a new connection.
    pub(crate) async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, NoAnswer> {
        self.body.clear();
        self.connect().await.map_err(NoAnswer::NotSent)?;
        // Held by this future, so that dropping it closes the connection: a late answer must not meet the next request.
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
            let whole = open.driver.drive(read(body, &mut self.body)).await;
            Ok((Answer { status: head.status, headers: head.headers }, whole))
        };
        match timeout(self.patience, exchange).await {
            Ok(Ok((answer, whole))) => {
                // The head alone tells what came of the vote; what broke off is only the connection.
                self.open = whole.then_some(open);
                Ok(answer)
            }
            Ok(Err(e)) => Err(e),
            Err(_) => Err(NoAnswer::Lost(format!("no answer within {} s", self.patience.as_secs_f32()))),
        }
    }
}

/// Reads a body; says whether it is whole.
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

/// An error with its causes.
fn describe(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
