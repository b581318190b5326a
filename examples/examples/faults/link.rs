//! One keep-alive connection to a frontend, opened when it is needed and again when it broke.

use std::{io, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, StatusCode,
    header::{CONTENT_TYPE, COOKIE, HOST, SET_COOKIE},
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinHandle, time::timeout};

/// How long a voter waits for an answer. A flush may take 2 s and waits for the one before.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most bytes of an answer that are read.
const MAX_BODY: usize = 1 << 16;

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum NoAnswer {
    /// The request did not leave this process: nobody can have acted on it.
    NotSent,
    /// It may have been acted on.
    Lost(String),
}

/// An answer to a vote.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) cookie: Option<HeaderValue>,
    pub(crate) body: Bytes,
}

/// A connection, or the means to open one.
#[derive(Debug)]
pub(crate) struct Link {
    address: SocketAddr,
    host: HeaderValue,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

impl Drop for Open {
    fn drop(&mut self) {
        // A late answer must not meet the next request.
        self.driver.abort();
    }
}

impl Link {
    /// # Errors
    /// When the address is no header, which none is.
    pub(crate) fn new(address: SocketAddr) -> Result<Self, String> {
        let host = HeaderValue::from_str(&address.to_string()).map_err(|e| e.to_string())?;
        Ok(Self { address, host, open: None })
    }

    /// Posts a vote.
    ///
    /// # Errors
    /// Tells whether the vote can have been taken.
    pub(crate) async fn vote(
        &mut self,
        path: &str,
        cookie: &HeaderValue,
        body: Bytes,
    ) -> Result<Answer, NoAnswer> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = path.parse().map_err(|_| NoAnswer::NotSent)?;
        let headers = request.headers_mut();
        headers.insert(HOST, self.host.clone());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(COOKIE, cookie.clone());
        let Ok(Ok(mut open)) = timeout(PATIENCE, self.connection()).await else {
            return Err(NoAnswer::NotSent);
        };
        match timeout(PATIENCE, exchange(&mut open.sender, request)).await {
            Ok(Ok(answer)) => {
                self.open = Some(open);
                Ok(answer)
            }
            Ok(Err(e)) => Err(e),
            Err(_) => Err(NoAnswer::Lost("no answer in time".to_owned())),
        }
    }

    /// The connection, taken out: whoever drops it, closes it.
    async fn connection(&mut self) -> io::Result<Open> {
        if let Some(mut open) = self.open.take()
            && open.sender.ready().await.is_ok()
        {
            return Ok(open);
        }
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        // Its errors show in the requests.
        let driver = tokio::spawn(async move { drop(connection.await) });
        Ok(Open { sender, driver })
    }
}

async fn exchange(
    sender: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<Answer, NoAnswer> {
    let sent = sender.try_send_request(request).await;
    let answer = sent.map_err(|mut e| match e.take_message() {
        Some(_) => NoAnswer::NotSent,
        None => NoAnswer::Lost(e.error().to_string()),
    })?;
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, MAX_BODY).collect().await;
    // The head alone says whether the vote is stored; of a refusal the body says what is meant.
    let body = match body {
        Ok(body) => body.to_bytes(),
        Err(_) if head.status == StatusCode::ACCEPTED => Bytes::new(),
        Err(e) => return Err(NoAnswer::Lost(e.to_string())),
    };
    Ok(Answer { status: head.status, cookie: head.headers.get(SET_COOKIE).cloned(), body })
}
