//! The guards in front of an application: every refusal is a response that explains what was wrong.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tower::{ServiceExt, service_fn};
use vote_service::{Body, Guards, Limits, Problem, body, layers, respond};

use crate::support::{App, Server, endless, header, hello, ms, status};

const JSON: &str = "accept: application/json\r\n";

fn get(headers: &str) -> String {
    format!("GET / HTTP/1.1\r\nhost: poll.example\r\n{headers}\r\n")
}

fn post(headers: &str, content: &str) -> String {
    let length = content.len();
    format!("POST / HTTP/1.1\r\nhost: poll.example\r\ncontent-length: {length}\r\n{headers}\r\n{content}")
}

async fn guarded(app: impl App, guards: Guards) -> Server {
    Server::start(layers::guard(app, &guards), Limits::default()).await
}

#[tokio::test]
async fn a_page_has_the_security_headers() {
    let server = guarded(hello(ms(0)), Guards::default()).await;
    let answer = server.ask(&get("")).await;
    for (name, value) in layers::PAGE_HEADERS.into_iter().chain([layers::NOSNIFF]) {
        assert_eq!(header(&answer, name.as_str()), value.to_str().ok());
    }
}

#[tokio::test]
async fn json_has_no_headers_that_only_pages_need() {
    let app = service_fn(async |_| Ok(respond::json(StatusCode::OK, &1)));
    let answer = guarded(app, Guards::default()).await.ask(&get("")).await;
    assert_eq!(header(&answer, "x-content-type-options"), Some("nosniff"));
    for (name, _) in layers::PAGE_HEADERS {
        assert_eq!(header(&answer, name.as_str()), None);
    }
}

#[tokio::test]
async fn a_service_that_is_not_ready_counts_as_overloaded() {
    let app = tower::limit::ConcurrencyLimit::new(hello(ms(500)), 1);
    let server = guarded(app, Guards::default()).await;
    let mut first = server.client().await;
    first.send(&get("")).await;
    tokio::time::sleep(ms(100)).await;
    assert_eq!(status(&server.ask(&get(JSON)).await), 503);
    assert_eq!(status(&first.answer().await), 200);
}

#[tokio::test]
async fn an_application_may_override_security_headers() {
    let app = service_fn(async |_| {
        let mut response = respond::text(StatusCode::OK, "framed");
        response.headers_mut().insert("content-security-policy", "default-src *".parse().unwrap());
        Ok(response)
    });
    let server = guarded(app, Guards::default()).await;
    assert_eq!(header(&server.ask(&get("")).await, "content-security-policy"), Some("default-src *"));
}

#[tokio::test]
async fn a_post_from_another_site_is_refused_with_an_explanation() {
    let server = guarded(hello(ms(0)), Guards::default()).await;
    for headers in ["sec-fetch-site: cross-site\r\n", "origin: https://evil.example\r\n", "origin: null\r\n"]
    {
        let json = server.ask(&post(&format!("{headers}{JSON}"), "{}")).await;
        assert_eq!(status(&json), 403, "{json}");
        assert!(json.contains("\"error\":\"cross-site\",\"message\":\""), "{json}");
        let page = server.ask(&post(headers, "")).await;
        assert_eq!((status(&page), header(&page, "content-type")), (403, Some("text/html; charset=utf-8")));
        assert!(page.contains("<h1>Request from another site refused"), "{page}");
    }
}

#[tokio::test]
async fn posts_from_the_same_site_and_from_programs_are_accepted() {
    let server = guarded(hello(ms(0)), Guards::default()).await;
    for headers in ["sec-fetch-site: same-origin\r\n", "origin: https://poll.example\r\n", ""] {
        assert_eq!(status(&server.ask(&post(headers, "x=y")).await), 200, "{headers}");
    }
}

#[tokio::test]
async fn requests_over_the_limit_are_answered_with_503_and_retry_after() {
    let server = guarded(hello(ms(500)), Guards::new(1)).await;
    let mut first = server.client().await;
    first.send(&get("")).await;
    tokio::time::sleep(ms(100)).await;

    let mut second = server.client().await;
    second.send(&get(JSON)).await;
    let answer = second.answer().await;
    assert_eq!((status(&answer), header(&answer, "retry-after")), (503, Some("2")));
    assert!(answer.contains("\"error\":\"overloaded\""), "{answer}");
    let page = server.ask(&get("")).await;
    assert!(status(&page) == 503 && page.contains("very busy right now"), "{page}");

    // Both connections are still open.
    assert_eq!(status(&first.answer().await), 200);
    second.send(&get("")).await;
    assert_eq!(status(&second.answer().await), 200);
}

#[tokio::test]
async fn a_bug_in_the_application_is_answered_with_500() {
    let app = service_fn(async |request: Request<Incoming>| -> Result<Response<Body>, Infallible> {
        panic!("asked for {}", request.uri());
    });
    let server = guarded(app, Guards::default()).await;
    let mut client = server.client().await;
    client.send(&get(JSON)).await;
    let json = client.answer().await;
    assert!(status(&json) == 500 && json.contains("\"error\":\"internal\""), "{json}");
    assert!(!json.contains("asked for"), "the message of a panic belongs in the log only");
    client.send(&get("")).await;
    let page = client.answer().await;
    assert!(status(&page) == 500 && page.contains("<h1>Something went wrong"), "{page}");
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_answered_with_503() {
    let server = guarded(hello(ms(60_000)), Guards::default().request_timeout(ms(200))).await;
    let answer = server.ask(&get(JSON)).await;
    assert_eq!((status(&answer), header(&answer, "retry-after")), (503, Some("2")));
    assert!(answer.contains("\"error\":\"timeout\""), "{answer}");
}

#[tokio::test]
async fn a_stream_of_events_outlives_the_request_timeout_and_does_not_count_as_in_flight() {
    let (app, mut bodies) = endless(b"data: tick\n\n", ms(50));
    let server = guarded(app, Guards::new(1).request_timeout(ms(200))).await;
    let mut client = server.client().await;
    client.send(&get("")).await;
    let mut body = bodies.recv().await.unwrap();
    tokio::time::sleep(ms(600)).await;
    assert!(body.try_recv() == Err(tokio::sync::oneshot::error::TryRecvError::Empty), "the stream continues");
    assert_eq!(status(&server.ask(&get("")).await), 200);
}

fn echo(limit: usize) -> impl App {
    service_fn(move |request: Request<Incoming>| async move {
        let wants_json = respond::wants_json(request.headers());
        Ok(match body::read_body(request.into_body(), limit).await {
            Ok(bytes) => respond::text(StatusCode::OK, bytes),
            Err(e) => respond::problem(wants_json, Problem::from(e)),
        })
    })
}

#[tokio::test]
async fn a_body_over_the_limit_is_answered_with_413() {
    let server = guarded(echo(1000), Guards::default()).await;
    let fits = server.ask(&post("", &"x".repeat(1000))).await;
    assert!(status(&fits) == 200 && fits.ends_with(&"x".repeat(1000)));

    let mut client = server.client().await;
    client.send(&post(JSON, &"x".repeat(100_000))).await;
    let announced = client.answer().await;
    assert!(status(&announced) == 413 && announced.contains("\"error\":\"body-too-large\""), "{announced}");

    let chunk = format!("3e8\r\n{}\r\n", "x".repeat(1000));
    let head = "POST / HTTP/1.1\r\nhost: poll.example\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunked = server.ask(&format!("{head}{}0\r\n\r\n", chunk.repeat(3))).await;
    assert_eq!(status(&chunked), 413);
}

#[tokio::test]
async fn a_client_that_is_still_sending_can_read_the_answer() {
    let server = guarded(echo(10), Guards::default()).await;
    let mut client = server.client().await;
    client.send("POST / HTTP/1.1\r\nhost: poll.example\r\ncontent-length: 100000\r\n\r\n").await;
    for _ in 0..10 {
        tokio::time::sleep(ms(10)).await;
        client.send(&"x".repeat(1000)).await;
    }
    assert_eq!(status(&client.answer().await), 413);
    let mut rest = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut client.0, &mut rest)
        .await
        .expect("the connection is not reset");
}

#[tokio::test]
async fn guards_accept_any_body_type_so_that_other_servers_can_mount_them() {
    let app = service_fn(async |request: Request<Full<Bytes>>| {
        let bytes = body::read_body(request.into_body(), 10).await.unwrap();
        Ok::<_, Infallible>(respond::text(StatusCode::OK, bytes))
    });
    let response =
        layers::guard(app, &Guards::default()).oneshot(Request::new(Full::from("hello"))).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
}
