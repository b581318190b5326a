//! The binary: settings, signals, outages of Redis.

use std::{
    path::Path,
    process::{Command, Output},
    time::{Duration, Instant},
};

use vote_core::{
    Polls, Queue,
    queue::{PollRecord, RedisQueue},
};
use vote_testkit::{Redis, Service, free_port, http, http_get};

use crate::world::{POLLS, records};

const SECRET: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vote-frontend"))
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied())
        .output()
        .unwrap()
}

fn good() -> Vec<(&'static str, &'static str)> {
    vec![
        ("VOTE_QUEUE", "redis://127.0.0.1:1"),
        ("VOTE_PEPPER", SECRET),
        ("VOTE_COOKIE_KEYS", SECRET),
        ("VOTE_RECEIPT_KEY", SECRET),
    ]
}

#[track_caller]
fn assert_wrong(environment: &[(&str, &str)], expected: &[&str]) {
    let output = run(&[], environment);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{text}");
    for expected in expected {
        assert!(text.contains(expected), "{expected} in: {text}");
    }
}

#[test]
fn a_valid_configuration_passes_the_check() {
    let output = run(&["check-config"], &good());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn every_invalid_setting_is_named_before_the_service_listens() {
    let mut environment = good();
    environment[1].1 = "abcd";
    environment.extend([("VOTE_LISTEN", "nowhere"), ("VOTE_PARTITIONS", "17"), ("VOTE_THREADS", "0")]);
    assert_wrong(&environment, &["VOTE_PEPPER", "VOTE_LISTEN", "VOTE_PARTITIONS", "VOTE_THREADS"]);
    assert_wrong(&[], &["VOTE_QUEUE", "VOTE_PEPPER", "VOTE_COOKIE_KEYS", "VOTE_RECEIPT_KEY"]);
}

#[test]
fn an_unknown_setting_is_named() {
    let mut environment = good();
    environment.push(("VOTE_LISTNE", "127.0.0.1:1"));
    assert_wrong(&environment, &["VOTE_LISTNE", "VOTE_LISTEN"]);
}

#[test]
fn an_invalid_file_of_polls_is_named_with_poll_and_field() {
    let file = tempfile(b"[[poll]]\nslug = \"pets\"\ntitle = \"?\"\ncolour = 1\noptions = []\n");
    let mut environment = good();
    let path = file.to_str().unwrap().to_owned();
    environment.push(("VOTE_POLLS", &path));
    assert_wrong(&environment, &[&path, "pets", "colour"]);
    std::fs::remove_file(file).unwrap();
}

fn tempfile(bytes: &[u8]) -> std::path::PathBuf {
    let path = std::env::temp_dir().join(format!("polls-{}.toml", std::process::id()));
    std::fs::write(&path, bytes).unwrap();
    path
}

struct Running {
    service: Service,
    public: String,
    admin: String,
}

fn start(redis: &Redis, more: &[(&str, &str)]) -> Running {
    let (public, admin) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
    let url = redis.url();
    let mut environment = good();
    environment[0].1 = &url;
    environment.extend([("VOTE_LISTEN", public.as_str()), ("VOTE_ADMIN_LISTEN", admin.as_str())]);
    environment.extend(more);
    let service = Service::start(Path::new(env!("CARGO_BIN_EXE_vote-frontend")), &[], &environment);
    service.wait_for_port(&public);
    service.wait_for_port(&admin);
    Running { service, public, admin }
}

impl Running {
    fn ready(&self) -> Result<(), String> {
        let answer = http_get(&self.admin, "/readyz");
        if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
    }

    #[track_caller]
    fn wait_until_ready(&self) {
        let start = Instant::now();
        while let Err(why) = self.ready() {
            assert!(start.elapsed() < Duration::from_secs(15), "not ready: {why}\n{}", self.service.tail());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn vote(&self, cookie: &str) -> vote_testkit::Response {
        let headers = [("content-type", "application/json"), ("cookie", cookie)];
        http(&self.public, "POST", "/polls/pets/votes", &headers, br#"{"option": "cats"}"#).unwrap()
    }

    fn cookie(&self) -> String {
        let page = http_get(&self.public, "/polls/pets");
        page.header("set-cookie").unwrap().split(';').next().unwrap().to_owned()
    }
}

/// Activates the queue as a worker with the example polls does.
async fn activate(redis: &Redis) -> RedisQueue {
    activate_with(redis, &records(&Polls::example())).await
}

async fn activate_with(redis: &Redis, polls: &[PollRecord]) -> RedisQueue {
    let queue = RedisQueue::connect(&redis.url(), "vote").unwrap();
    for _ in 0..100 {
        if let Ok(Some(status)) = queue.status().await {
            queue.record_polls(status.id, polls).await.unwrap();
            queue.activate(status.id).await.unwrap();
            return queue;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the frontend did not create a queue");
}

#[tokio::test(flavor = "multi_thread")]
async fn votes_are_accepted_once_the_queue_is_active_and_sigterm_ends_the_process() {
    let redis = Redis::start();
    let running = start(&redis, &[]);
    assert!(running.ready().is_err(), "no worker has activated the queue");
    let cookie = running.cookie();
    assert_eq!(running.vote(&cookie).status, 503);
    let queue = activate(&redis).await;
    running.wait_until_ready();
    assert_eq!(running.vote(&cookie).status, 202);
    let accepted: u64 = queue.status().await.unwrap().unwrap().accepted.total();
    assert_eq!(accepted, 1);
    assert!(http_get(&running.admin, "/metrics").text().contains("vote_frontend_accepted_total 1"));
    running.service.signal("TERM");
    let exit = running.service.wait_exit(Duration::from_secs(15)).expect("the process ends");
    assert!(exit.success(), "{}", running.service.tail());
}

#[tokio::test(flavor = "multi_thread")]
async fn while_redis_is_down_votes_get_503_and_afterwards_are_accepted_again() {
    let redis = Redis::start();
    let running = start(&redis, &[]);
    activate(&redis).await;
    running.wait_until_ready();
    let cookie = running.cookie();
    redis.kill9();
    let answer = running.vote(&cookie);
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(answer.header("retry-after").is_some() && answer.header("set-cookie").is_some());
    assert_eq!(http_get(&running.public, "/polls/pets").status, 200, "pages are still served");
    redis.restart();
    running.wait_until_ready();
    assert_eq!(running.vote(&cookie).status, 202);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_may_lose_votes_is_refused_unless_allowed() {
    let redis = Redis::start_with(&[("appendfsync", "everysec")]);
    let running = start(&redis, &[]);
    let queue = RedisQueue::connect(&redis.url(), "vote").unwrap();
    let layout = vote_core::queue::Layout {
        partitions: vote_core::Partitions::default(),
        fingerprint: vote_core::Pepper::from(vote_core::Secret::from_hex(SECRET).unwrap()).fingerprint(),
    };
    let id = queue.create(layout, None).await.unwrap();
    queue.record_polls(id, &records(&Polls::example())).await.unwrap();
    queue.activate(id).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let why = running.ready().unwrap_err();
    assert!(why.contains("appendfsync"), "{why}");
    assert_eq!(running.vote(&running.cookie()).status, 503);
    let permissive = start(&redis, &[("VOTE_ALLOW_VOLATILE_QUEUE", "true")]);
    permissive.wait_until_ready();
    assert_eq!(permissive.vote(&permissive.cookie()).status, 202);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_ready_while_it_accepts_votes_for_an_open_poll_and_names_the_others() {
    let polls = POLLS.replace("2027-01-01", "2020-01-01").replace("2027-01-02", "2199-01-02");
    let records = records(&Polls::from_toml("polls.toml", &polls).unwrap());
    let folder = std::env::temp_dir().join(format!("polls-of-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("polls.toml");
    std::fs::write(&file, &polls).unwrap();
    let redis = Redis::start();
    let running = start(&redis, &[("VOTE_POLLS", file.to_str().unwrap())]);
    let queue = activate_with(&redis, &[]).await;
    let wait_for = |expected: &str| {
        let start = Instant::now();
        loop {
            let answer = http_get(&running.admin, "/readyz");
            let text = format!("{} {}", answer.status, answer.text());
            if text.contains(expected) {
                return text;
            }
            assert!(start.elapsed() < Duration::from_secs(10), "{expected} in {text}");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    let none = wait_for("503 not ready: no votes are accepted for any open poll");
    assert!(none.contains("poll cars") && none.contains("poll pets"), "{none}");
    let wait_for_metric = |line: &str| {
        let start = Instant::now();
        while !http_get(&running.admin, "/metrics").text().lines().any(|found| found == line) {
            assert!(start.elapsed() < Duration::from_secs(10), "{line}");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    wait_for_metric("vote_frontend_poll_unavailable{poll=\"cars\"} 1");

    let id = queue.status().await.unwrap().unwrap().id;
    queue.record_polls(id, &records[..1]).await.unwrap();
    let one = wait_for("200 ready, but no votes are accepted for poll cars");
    assert!(!one.contains("pets"), "{one}");
    assert_eq!(running.vote(&running.cookie()).status, 202);

    queue.record_polls(id, &records).await.unwrap();
    wait_for("200 ready\n");
    wait_for_metric("vote_frontend_poll_unavailable{poll=\"cars\"} 0");
    std::fs::remove_dir_all(folder).unwrap();
}
