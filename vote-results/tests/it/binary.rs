//! The binary `vote-results`.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    path::Path,
    process::{Command, Output},
    sync::Arc,
    time::{Duration, Instant},
};

use vote_core::{Polls, store::SqliteStore};
use vote_testkit::{Service, free_port, http_get};

use crate::world::{KEY, World, pets_toml, pets_with, vote};

const PROGRAM: &str = env!("CARGO_BIN_EXE_vote-results");

fn program(args: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.env_clear().args(args).envs(env.iter().copied());
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn check_config_accepts_valid_settings() {
    let env = [("VOTE_STORE", "postgres://vote@db.example/votes"), ("VOTE_RECEIPT_KEY", KEY)];
    let output = program(&["check-config"], &env);
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(0), "configuration ok\n"));
}

#[test]
fn invalid_settings_exit_with_78_and_are_all_reported() {
    let env = [("VOTE_STORE", "memory:"), ("VOTE_LISTEN", "nowhere"), ("VOTE_RECIEPT_KEY", KEY)];
    for args in [&["check-config"][..], &[]] {
        let output = program(args, &env);
        let problems = text(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{problems}");
        for name in ["VOTE_STORE: ", "VOTE_LISTEN: ", "VOTE_RECEIPT_KEY: ", "did you mean VOTE_RECEIPT_KEY?"]
        {
            assert!(problems.contains(name), "{name} in {problems}");
        }
        assert!(!problems.contains(KEY));
    }
}

/// An exit code of 1 would say that votes were lost.
#[test]
fn an_audit_of_a_file_that_is_no_store_exits_with_78() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("notes.txt");
    std::fs::write(&file, "This is neither a store nor a queue, and long enough for a header. ".repeat(10))
        .unwrap();
    let output = program(&["audit"], &[("VOTE_STORE", &format!("sqlite:{}", file.display()))]);
    let problem = text(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{problem}");
    assert!(problem.contains("notes.txt"), "{problem}");
}

#[test]
fn help_and_version_are_printed() {
    for (arg, part) in [("--help", "VOTE_RECEIPT_KEY"), ("--version", "vote-results ")] {
        let output = program(&[arg], &[]);
        assert!(output.status.success() && text(&output.stdout).contains(part), "{arg}");
    }
}

/// Starts the program on a SQLite file. Returns it with its public and its admin address.
fn start(file: &Path, more: &[(&str, &str)]) -> (Service, String, String) {
    let listen = format!("127.0.0.1:{}", free_port());
    let admin = format!("127.0.0.1:{}", free_port());
    let store = format!("sqlite:{}", file.display());
    let env = [
        ("VOTE_STORE", store.as_str()),
        ("VOTE_RECEIPT_KEY", KEY),
        ("VOTE_LISTEN", &listen),
        ("VOTE_ADMIN_LISTEN", &admin),
    ];
    let service = Service::start(Path::new(PROGRAM), &[], &[&env[..], more].concat());
    service.wait_for_port(&listen);
    (service, listen, admin)
}

async fn fill(file: &Path, polls: Polls) {
    let world = World::with(polls, Arc::new(SqliteStore::open(file).await.unwrap())).await;
    for voter in 0..3 {
        world.accept(vote(voter, u8::from(voter == 2), 1)).await;
    }
    world.count().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_waits_for_a_file_that_is_created_later() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("votes.db");
    let (service, listen, admin) = start(&file, &[]);
    let page = http_get(&listen, "/polls/pets");
    assert_eq!(page.status, 503);
    assert_eq!(http_get(&admin, "/readyz").status, 503);
    assert_eq!(http_get(&admin, "/healthz").status, 200);

    fill(&file, Polls::example()).await;

    service.wait_http_ok(&format!("http://{admin}/readyz"));
    let results = http_get(&listen, "/polls/pets/results.json").text();
    assert!(results.contains(r#""option":"cats","label":"Cats","votes":2,"percent":66.7"#), "{results}");
    let metrics = http_get(&admin, "/metrics").text();
    for name in [
        r#"vote_results_votes{poll="pets",option="cats"} 2"#,
        "vote_results_read_seconds",
        "vote_results_store_errors_total",
        r#"vote_results_conservation_residual_votes{poll="pets",invariant="accepted"} 0"#,
        r#"vote_results_conservation_residual_votes{poll="pets",invariant="tally"} 0"#,
        r#"vote_results_poll_final{poll="pets"} 0"#,
        "vote_ready 1",
    ] {
        assert!(metrics.contains(name), "{name} in {metrics}");
    }
    let healthcheck = program(&["healthcheck"], &[("VOTE_ADMIN_LISTEN", &admin)]);
    assert!(healthcheck.status.success(), "{}", text(&healthcheck.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_the_streams_and_then_the_program() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("votes.db");
    fill(&file, Polls::example()).await;
    let (service, listen, admin) = start(&file, &[]);
    service.wait_http_ok(&format!("http://{admin}/readyz"));
    let mut stream = TcpStream::connect(&listen).unwrap();
    stream.write_all(b"GET /polls/pets/events HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut lines = BufReader::new(stream).lines();
    assert!(lines.any(|line| line.unwrap().contains("\"total\":3")));

    service.signal("TERM");
    let started = Instant::now();

    let rest: Result<Vec<_>, _> = lines.collect();
    let rest = rest.expect("the stream ends properly");
    assert!(rest.contains(&"0".to_owned()), "the last chunk: {rest:?}");
    let exit = service.wait_exit(Duration::from_secs(10)).expect("an end");
    assert!(exit.success(), "{exit:?}\n{}", service.tail());
    assert!(started.elapsed() < Duration::from_secs(5), "it ends long before the drain timeout");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_withheld_poll_has_no_metric_of_votes() {
    let dir = tempfile::tempdir().unwrap();
    let (file, polls) = (dir.path().join("votes.db"), dir.path().join("polls.toml"));
    fill(&file, pets_with("results = \"after-close\"")).await;
    std::fs::write(&polls, pets_toml("results = \"after-close\"")).unwrap();
    let (service, listen, admin) = start(&file, &[("VOTE_POLLS", polls.to_str().unwrap())]);
    service.wait_http_ok(&format!("http://{admin}/readyz"));

    assert!(http_get(&listen, "/polls/pets/results.json").text().contains("\"withheld\":true"));
    let metrics = http_get(&admin, "/metrics").text();
    assert!(!metrics.contains("vote_results_votes{"), "{metrics}");
}
