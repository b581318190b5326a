//! Event streams, over a real connection where needed.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::StatusCode;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};
use vote_core::{Clock, StoreReader};
use vote_results::{Health, Options, Parts};
use vote_service::Shutdown;

use crate::world::{World, next, vote};

#[tokio::test]
async fn a_commit_sends_an_event() {
    let world = World::new().await;
    world.counted([vote(1, 0, 1)]).await;
    let mut events = world.events("/polls/pets/events").await;
    assert!(next(&mut events).await.unwrap().starts_with("retry: "));
    let first = next(&mut events).await.unwrap();
    assert_eq!(first.lines().next(), Some("event: results"));

    world.counted([vote(2, 1, 2)]).await;

    let json = world.get("/polls/pets/results.json").await.body;
    assert_eq!(next(&mut events).await.unwrap(), format!("event: results\ndata: {json}\n\n"));
}

#[tokio::test(start_paused = true)]
async fn a_state_change_outside_the_poll_sends_no_event() {
    let world = World::new().await;
    world.counted([vote(1, 0, 1)]).await;
    let mut events = world.events("/polls/pets/events").await;
    for _ in 0..2 {
        next(&mut events).await.unwrap();
    }

    // A new report of a queue publishes a new state.
    world.report(1, 0, vote_core::count::QueueState::Active).await;
    world.refresher.refresh().await;

    assert_eq!(next(&mut events).await.unwrap(), ": still here\n\n");
}

#[tokio::test]
async fn a_stream_above_the_maximum_is_refused_with_retry_after() {
    let world = World::new().await;
    world.refresher.refresh().await;
    let app = world.app.clone().max_event_streams(1);
    let world = World { app, ..world };
    let _first = world.events("/polls/pets/events").await;

    let answer = world.get("/polls/pets/events").await;

    assert_eq!((answer.status, answer.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, "30"));
}

#[tokio::test]
async fn head_takes_no_stream_permit() {
    let world = World::new().await;
    world.refresher.refresh().await;
    let app = world.app.clone().max_event_streams(0);
    let world = World { app, ..world };

    let answer = world.send("HEAD", "/polls/pets/events", &[]).await;

    assert_eq!((answer.status, answer.header("content-type")), (StatusCode::OK, "text/event-stream"));
}

/// Runs the complete service on a port of its own.
async fn run(world: &World) -> (SocketAddr, Shutdown, JoinHandle<std::io::Result<()>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let parts = Parts {
        store: Arc::clone(&world.store) as Arc<dyn StoreReader>,
        polls: Arc::clone(&world.polls),
        receipt_key: world.key.clone(),
        clock: Arc::clone(&world.clock) as Arc<dyn Clock>,
        frontend_url: None,
        health: Health::default(),
    };
    let shutdown = Shutdown::new();
    let service = tokio::spawn(vote_results::run(listener, parts, Options::default(), shutdown.clone()));
    (address, shutdown, service)
}

async fn connect(address: SocketAddr) -> Lines<BufReader<TcpStream>> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /polls/pets/events HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    BufReader::new(stream).lines()
}

/// Reads up to a line that contains `part`. Returns false if the stream ends first.
async fn reads(lines: &mut Lines<BufReader<TcpStream>>, part: &str) -> bool {
    let found = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains(part) {
                return true;
            }
        }
        false
    };
    timeout(Duration::from_secs(10), found).await.expect("within 10 s")
}

#[tokio::test]
async fn a_commit_is_pushed_to_an_open_connection() {
    let world = World::new().await;
    world.counted([vote(1, 0, 1)]).await;
    let (address, shutdown, service) = run(&world).await;
    // The service may answer before its first read of the store.
    while status(address).await != 200 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut lines = connect(address).await;
    assert!(reads(&mut lines, "\"total\":1").await);

    world.counted([vote(2, 0, 1)]).await;

    assert!(reads(&mut lines, "\"total\":2").await);
    shutdown.trigger();
    assert!(!reads(&mut lines, "no such line").await, "the stream ends at shutdown");
    timeout(Duration::from_secs(5), service)
        .await
        .expect("an end before the drain timeout")
        .unwrap()
        .unwrap();
}

async fn status(address: SocketAddr) -> u16 {
    let get = move || vote_testkit::http_get(address, "/polls/pets/results.json").status;
    tokio::task::spawn_blocking(get).await.unwrap()
}
