//! A bare hyper server: reads the body of each request and gives the same answer to all. What HTTP costs whatever the
//! application does.

use std::{convert::Infallible, fs, net::Ipv4Addr, process::ExitCode};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, runtime::Runtime};

use crate::args::Bare;

/// Serves on one thread until killed.
pub(crate) fn serve(runtime: &Runtime, args: &Bare) -> ExitCode {
    let answer = parse(&fs::read(&args.answer).unwrap());
    let local = tokio::task::LocalSet::new();
    local.block_on(runtime, async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, args.port)).await.unwrap();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let answer = answer.clone();
            tokio::task::spawn_local(async move {
                let service = service_fn(move |request: Request<Incoming>| {
                    let answer = answer.clone();
                    async move {
                        let read = request.into_body().collect().await;
                        drop(read);
                        Ok::<_, Infallible>(answer)
                    }
                });
                // A client that disconnects is no error of the server.
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    })
}

/// Parses an answer as a client received it. Headers that hyper writes itself are left out.
fn parse(bytes: &[u8]) -> Response<Full<Bytes>> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let head = std::str::from_utf8(&bytes[..end]).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse::<StatusCode>().unwrap();
    let mut headers = HeaderMap::new();
    for (name, value) in lines.map(|line| line.split_once(": ").unwrap()) {
        if !["date", "content-length"].contains(&name) {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap());
        }
    }
    let mut response = Response::new(Full::new(Bytes::copy_from_slice(&bytes[end + 4..])));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
