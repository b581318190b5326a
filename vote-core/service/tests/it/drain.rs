//! Shutdown: requests that have begun are finished, within limits.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Instant,
};

use tokio::{net::TcpListener, time::sleep};
use vote_service::{Connections, Limits, Shutdown, serve};

use crate::support::{GET, Server, endless, header, hello, ms, status};

#[tokio::test]
async fn a_slow_request_is_finished_and_the_connection_closed() {
    let server = Server::start(hello(ms(400)), Limits::default()).await;
    let mut client = server.client().await;
    client.send(GET).await;
    sleep(ms(100)).await;
    server.shutdown.trigger();
    let answer = client.answer().await;
    assert_eq!(status(&answer), 200);
    assert_eq!(header(&answer, "connection"), Some("close"));
    client.closed().await;
    server.ended().await;
}

#[tokio::test]
async fn no_connection_is_accepted_during_a_shutdown() {
    let server = Server::start(hello(ms(400)), Limits::default()).await;
    let mut client = server.client().await;
    client.send(GET).await;
    sleep(ms(100)).await;
    server.shutdown.trigger();
    sleep(ms(100)).await;
    assert!(tokio::net::TcpStream::connect(server.addr).await.is_err());
}

#[tokio::test]
async fn idle_connections_do_not_delay_a_shutdown() {
    let server = Server::start(hello(ms(0)), Limits::default()).await;
    let mut client = server.client().await;
    client.send(GET).await;
    client.answer().await;
    let started = Instant::now();
    server.shutdown.trigger();
    server.ended().await;
    assert!(started.elapsed() < ms(500), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_new_connection_that_sends_nothing_delays_a_shutdown_by_a_second_at_most() {
    let server = Server::start(hello(ms(0)), Limits::default()).await;
    let _client = server.client().await;
    sleep(ms(50)).await;
    let started = Instant::now();
    server.shutdown.trigger();
    server.ended().await;
    assert!(started.elapsed() < ms(2000), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_request_that_the_kernel_has_already_received_is_answered() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.write_all(GET.as_bytes()).unwrap();
    let shutdown = Shutdown::new();
    shutdown.trigger();
    serve::serve(listener, hello(ms(0)), Limits::default(), Connections::new(10), shutdown).await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(status(&answer), 200);
}

#[tokio::test]
async fn an_endless_response_is_dropped_after_the_drain_time() {
    let (service, mut bodies) = endless(b"data: tick\n\n", ms(20));
    let server = Server::start(service, Limits { drain: ms(300), ..Limits::default() }).await;
    let mut client = server.client().await;
    client.send(GET).await;
    let body = bodies.recv().await.unwrap();
    let started = Instant::now();
    server.shutdown.trigger();
    server.ended().await;
    let took = started.elapsed();
    assert!(took >= ms(290) && took < ms(1500), "{took:?}");
    assert!(body.await.is_err());
}
