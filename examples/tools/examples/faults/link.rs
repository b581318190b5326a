//! A keep-alive connection to a frontend, opened when it is needed and reopened after it broke.

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

/// How long a voter waits for a connection, and for an answer. A flush may take 2 s and waits for the previous one.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum number of bytes of an answer's body that are read.
const MAX_BODY: usize = 1 << 16;

/// Reason for which a request has no answer.
#[derive(Debug)]
pub(crate) enum NoAnswer {
    /// The request did not leave this process: no frontend can have acted on it.
    NotSent,
    /// The request may have been sent, and a frontend may have acted on it.
    Lost(String),
}

/// Answer to a vote.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) cookie: Option<HeaderValue>,
    pub(crate) body: Bytes,
}

/// Connection to a frontend, which is opened on demand.
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
        // A late answer must not be taken for the answer of the next request.
        self.driver.abort();
    }
}

impl Link {
    /// Creates a link without opening a connection.
    ///
    /// # Errors
    /// Fails if the address is not a valid header value, which can't happen.
    pub(crate) fn new(address: SocketAddr) -> Result<Self, String> {
        let host = HeaderValue::from_str(&address.to_string()).map_err(|e| e.to_string())?;
        Ok(Self { address, host, open: None })
    }

    /// Posts a vote, and reads the answer.
    ///
    /// # Errors
    /// Fails if there is no answer; the variant tells whether the frontend can have accepted the vote.
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
        let Ok(Ok(mut open)) = timeout(ANSWER_TIMEOUT, self.connection()).await else {
            return Err(NoAnswer::NotSent);
        };
        match timeout(ANSWER_TIMEOUT, exchange(&mut open.sender, request)).await {
            Ok(Ok(answer)) => {
                self.open = Some(open);
                Ok(answer)
            }
            Ok(Err(e)) => Err(e),
            Err(_) => Err(NoAnswer::Lost("no answer in time".to_owned())),
        }
    }

    /// Takes the connection out of the link, and opens one if needed. Dropping it closes it.
    async fn connection(&mut self) -> io::Result<Open> {
        if let Some(mut open) = self.open.take()
            && open.sender.ready().await.is_ok()
        {
            return Ok(open);
        }
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        // Errors of the connection show in the requests.
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
    // The status alone tells that a vote is stored; the reason of a refusal is in the body.
    let body = match body {
        Ok(body) => body.to_bytes(),
        Err(_) if head.status == StatusCode::ACCEPTED => Bytes::new(),
        Err(e) => return Err(NoAnswer::Lost(e.to_string())),
    };
    Ok(Answer { status: head.status, cookie: head.headers.get(SET_COOKIE).cloned(), body })
}
