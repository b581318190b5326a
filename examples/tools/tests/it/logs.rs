//! Tests that with `VOTE_LOG_FORMAT=json` every line of a service's log is a JSON object.

use std::{net::TcpListener, path::Path, time::Duration};

use serde_json::Value;
use vote_testkit::{Service, free_port};

use crate::world::SECRET;

const SERVICES: [&str; 3] = ["vote-frontend", "vote-worker", "vote-results"];

/// Starts a service with debug logs, whose queue and store are files in a folder.
pub(crate) fn start(name: &str, folder: &Path, listen: &str, more: &[(&str, &str)]) -> Service {
    let (queue, store) =
        (format!("sqlite:{}/queue.db", folder.display()), format!("sqlite:{}/store.db", folder.display()));
    let admin = format!("127.0.0.1:{}", free_port());
    let mut environment = vec![
        ("VOTE_LOG_FORMAT", "json"),
        ("VOTE_LOG", "debug"),
        ("VOTE_ADMIN_LISTEN", if name == "vote-worker" { listen } else { &admin }),
        ("VOTE_LISTEN", listen),
        ("VOTE_QUEUE", &queue),
        ("VOTE_QUEUES", &queue),
        ("VOTE_STORE", &store),
        ("VOTE_MIGRATE", "true"),
        ("VOTE_PEPPER", SECRET),
        ("VOTE_COOKIE_KEYS", SECRET),
        ("VOTE_RECEIPT_KEY", SECRET),
    ];
    environment.extend(more);
    Service::start(&Service::binary(name), &[], &environment)
}

/// Returns all lines of a log, each of which must be JSON.
#[track_caller]
fn lines(service: &Service) -> Vec<Value> {
    let log = service.log();
    let line =
        |line| serde_json::from_str::<Value>(line).unwrap_or_else(|e| panic!("{e}: {line:?} of\n{log}"));
    let lines: Vec<Value> = log.lines().map(line).collect();
    for line in &lines {
        for name in ["timestamp", "level", "target"] {
            assert!(line[name].is_string(), "{name} of {line}");
        }
    }
    lines
}

#[track_caller]
fn assert_logged(service: &Service, level: &str, part: &str) {
    let lines = lines(service);
    let matches =
        |line: &Value| line["level"] == level && line["message"].as_str().is_some_and(|m| m.contains(part));
    assert!(lines.iter().any(matches), "{level} {part} in {lines:#?}");
}

#[test]
fn every_line_of_a_service_is_json() {
    let folder = tempfile::tempdir().unwrap();
    for name in SERVICES {
        let listen = format!("127.0.0.1:{}", free_port());
        let service = start(name, folder.path(), &listen, &[]);
        service.wait_for_port(&listen);
        std::thread::sleep(Duration::from_secs(1));
        service.signal("TERM");
        assert!(
            service.wait_exit(Duration::from_secs(10)).is_some_and(|exit| exit.success()),
            "{}",
            service.tail()
        );
        assert_logged(&service, "INFO", "admin routes on");
    }
}

#[test]
fn the_error_of_a_failed_start_is_json() {
    let folder = tempfile::tempdir().unwrap();
    let in_use = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = in_use.local_addr().unwrap().to_string();
    for name in SERVICES {
        let service = start(name, folder.path(), &listen, &[]);
        assert!(service.wait_exit(Duration::from_secs(10)).is_some_and(|exit| !exit.success()), "{name}");
        assert_logged(&service, "ERROR", "in use");

        let service =
            start(name, folder.path(), &listen, &[("VOTE_ADMIN_LISTEN", "nowhere"), ("VOTE_LOG", "off")]);
        assert!(service.wait_exit(Duration::from_secs(10)).is_some_and(|exit| !exit.success()), "{name}");
        assert_logged(&service, "ERROR", "VOTE_ADMIN_LISTEN");
    }
}
