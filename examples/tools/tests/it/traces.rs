//! Tests that traces reach a collector, and that an unresponsive collector does no harm.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde_json::Value;
use vote_testkit::{Service, free_port};

use crate::{
    logs::start,
    world::{cookie, eventually, vote},
};

/// A collector that keeps all requests.
struct Collector {
    url: String,
    received: Arc<Mutex<Vec<Value>>>,
}

impl Collector {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let received: Arc<Mutex<Vec<Value>>> = Arc::default();
        let keep = Arc::clone(&received);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let keep = Arc::clone(&keep);
                std::thread::spawn(move || while receive(&stream, &keep).is_some() {});
            }
        });
        Self { url, received }
    }

    /// Returns all spans, each with its service and its name.
    fn spans(&self) -> Vec<(String, String, Value)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let mut spans = Vec::new();
        for resource in
            self.received.lock().unwrap().iter().flat_map(|r| r["resourceSpans"].as_array().unwrap())
        {
            let service = text(&attribute(&resource["resource"], "service.name")["stringValue"]);
            for span in resource["scopeSpans"][0]["spans"].as_array().unwrap() {
                spans.push((service.clone(), text(&span["name"]), span.clone()));
            }
        }
        spans
    }
}

fn attribute(of: &Value, key: &str) -> Value {
    let found = of["attributes"].as_array().unwrap().iter().find(|attribute| attribute["key"] == key);
    found.unwrap_or_else(|| panic!("{key} of {of}"))["value"].clone()
}

/// Reads one request, keeps it and answers it; returns `None` at the end of the connection.
fn receive(mut stream: &TcpStream, keep: &Mutex<Vec<Value>>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut head = Vec::new();
    for line in reader.by_ref().lines() {
        match line.ok()? {
            line if line.is_empty() => break,
            line => head.push(line.to_ascii_lowercase()),
        }
    }
    assert_eq!(head.first()?, "post /v1/traces http/1.1");
    assert!(head.contains(&"content-type: application/json".to_owned()), "{head:?}");
    let length = head.iter().find_map(|line| line.strip_prefix("content-length: "))?.parse().ok()?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    keep.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").ok()
}

/// Starts the three services with a collector, and returns them with the address of the frontend.
fn pipeline(folder: &Path, collector: &str) -> ([Service; 3], std::net::SocketAddr) {
    let more = [("VOTE_OTLP_ENDPOINT", collector), ("VOTE_OTLP_RATIO", "1")];
    let services = ["vote-frontend", "vote-worker", "vote-results"].map(|name| {
        let listen = format!("127.0.0.1:{}", free_port());
        let service = start(name, folder, &listen, &more);
        service.wait_for_port(&listen);
        (service, listen)
    });
    let frontend = services[0].1.parse().unwrap();
    (services.map(|(service, _)| service), frontend)
}

#[test]
fn the_steps_of_a_vote_reach_a_collector() {
    let (folder, collector) = (tempfile::tempdir().unwrap(), Collector::start());
    let (_services, frontend) = pipeline(folder.path(), &collector.url);
    let cookie = cookie(frontend);
    eventually("a vote is accepted", Duration::from_secs(20), || {
        vote(frontend, "cats", &cookie).status == 202
    });

    let expected = [
        ("vote-frontend", "request"),
        ("vote-frontend", "flush"),
        ("vote-worker", "batch"),
        ("vote-worker", "commit"),
        ("vote-results", "read"),
    ];
    let expected = BTreeSet::from(expected.map(|(service, name)| (service.to_owned(), name.to_owned())));
    let names =
        || collector.spans().into_iter().map(|(service, name, _)| (service, name)).collect::<BTreeSet<_>>();
    eventually("all spans are received", Duration::from_secs(10), || names() == expected);
    let spans = collector.spans();
    let commit = &spans.iter().find(|(_, name, _)| name == "commit").unwrap().2;
    let batch = spans.iter().find(|(_, _, span)| span["spanId"] == commit["parentSpanId"]).unwrap();
    assert_eq!((batch.1.as_str(), &batch.2["traceId"]), ("batch", &commit["traceId"]));
    assert_eq!(attribute(&batch.2, "votes")["intValue"], "1");
    let accepted = |span: &Value| {
        attribute(span, "route")["stringValue"] == "/polls/{poll}/votes"
            && attribute(span, "status")["intValue"] == "202"
    };
    assert!(spans.iter().any(|(_, name, span)| name == "request" && accepted(span)), "{spans:#?}");
    assert!(!format!("{spans:?}").contains("pets"), "spans have route patterns, so that no receipt leaks");
}

#[test]
fn a_collector_that_never_answers_delays_no_vote() {
    let folder = tempfile::tempdir().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let (services, frontend) = pipeline(folder.path(), &format!("http://{}", silent.local_addr().unwrap()));
    let cookie = cookie(frontend);
    eventually("a vote is accepted", Duration::from_secs(20), || {
        vote(frontend, "cats", &cookie).status == 202
    });
    // Until the first batch of spans is being sent and waits for an answer.
    std::thread::sleep(Duration::from_secs(2));
    let started = Instant::now();
    for _ in 0..20 {
        assert_eq!(vote(frontend, "cats", &cookie).status, 202);
    }
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    for service in &services {
        service.signal("TERM");
        let exit = service.wait_exit(Duration::from_secs(5)).expect("the service ends in time");
        assert!(exit.success(), "{}", service.tail());
    }
    assert!(services[0].log().contains("traces can't be sent to"), "{}", services[0].tail());
}
