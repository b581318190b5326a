//! The admin port.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use tokio::{net::TcpListener, task::spawn_blocking};
use vote_service::{Limits, Readiness, Shutdown, admin};

use crate::support::{Server, ms, status};

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")
}

#[tokio::test]
async fn readiness_follows_the_check_and_health_does_not() {
    let ready = Arc::new(AtomicBool::new(false));
    let checked = Arc::clone(&ready);
    let check = move || {
        if checked.load(Ordering::Relaxed) { Ok(()) } else { Err("the queue is unavailable".to_owned()) }
    };
    let server = Server::start(admin::Admin::new(check), Limits::default()).await;
    assert_eq!(status(&server.ask(&get("/healthz")).await), 200);
    let answer = server.ask(&get("/readyz")).await;
    assert!(status(&answer) == 503 && answer.ends_with("not ready: the queue is unavailable\n"), "{answer}");
    ready.store(true, Ordering::Relaxed);
    assert_eq!(status(&server.ask(&get("/readyz")).await), 200);
}

/// Readiness with a remark while the flag is set.
struct Remarking(Arc<AtomicBool>);

impl Readiness for Remarking {
    fn ready(&self) -> Result<(), String> {
        Ok(())
    }

    fn remarks(&self) -> Option<String> {
        self.0.load(Ordering::Relaxed).then(|| "one of two is down".to_owned())
    }
}

#[tokio::test]
async fn a_ready_service_may_remark_on_what_does_not_work() {
    let remark = Arc::new(AtomicBool::new(true));
    let remarks = Arc::clone(&remark);
    let server = Server::start(admin::Admin::new(Remarking(remarks)), Limits::default()).await;
    let answer = server.ask(&get("/readyz")).await;
    assert!(status(&answer) == 200 && answer.ends_with("ready, but one of two is down\n"), "{answer}");
    remark.store(false, Ordering::Relaxed);
    assert!(server.ask(&get("/readyz")).await.ends_with("\r\n\r\nready\n"));
}

#[tokio::test]
async fn metrics_have_buckets_for_durations_and_numbers_of_votes() {
    vote_service::metrics::exported();
    metrics::histogram!("test_flush_seconds").record(0.0003);
    metrics::histogram!("test_frame_votes").record(3.0);
    let server = Server::start(admin::Admin::new(|| Ok(())), Limits::default()).await;
    let text = server.ask(&get("/metrics")).await;
    assert!(text.contains("test_flush_seconds_bucket{le=\"0.00025\"} 0\n"), "{text}");
    assert!(text.contains("test_flush_seconds_bucket{le=\"0.0005\"} 1\n"), "{text}");
    assert!(text.contains("test_frame_votes_bucket{le=\"5\"} 1\n"), "{text}");
    assert!(text.contains("vote_http_connections"), "{text}");
}

#[tokio::test]
async fn other_routes_and_methods_are_refused() {
    let server = Server::start(admin::Admin::new(|| Ok(())), Limits::default()).await;
    assert_eq!(status(&server.ask(&get("/")).await), 404);
    assert_eq!(status(&server.ask("POST /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await), 405);
}

async fn healthcheck(addr: SocketAddr) -> Result<(), String> {
    spawn_blocking(move || admin::healthcheck(addr)).await.unwrap()
}

#[tokio::test]
async fn the_health_check_reaches_a_process_that_listens_on_all_addresses() {
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let shutdown = Shutdown::new();
    let task = tokio::spawn(admin::serve_admin(listener, || Err("not yet".to_owned()), shutdown.clone()));
    healthcheck(addr).await.unwrap();
    shutdown.trigger();
    task.await.unwrap().unwrap();
    let e = healthcheck(addr).await.unwrap_err();
    assert!(e.contains("does not answer"), "{e}");
}

#[tokio::test]
async fn the_health_check_times_out() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let started = Instant::now();
    healthcheck(silent.local_addr().unwrap()).await.unwrap_err();
    assert!(started.elapsed() >= ms(1900) && started.elapsed() < ms(3500), "{:?}", started.elapsed());
}
