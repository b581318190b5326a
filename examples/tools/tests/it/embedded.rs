//! Tests of the examples that run the whole pipeline in one process.

use std::{
    net::SocketAddr,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use vote_testkit::{Postgres, Redis, Service, free_port, http, http_get};

use crate::world::{cookie, eventually, load, vote};

struct Embedded {
    service: Service,
    public: SocketAddr,
    results: SocketAddr,
}

fn start(data: &Path) -> Embedded {
    start_example("embedded", data, &[])
}

fn start_example(name: &str, data: &Path, more: &[&str]) -> Embedded {
    let address = || SocketAddr::from(([127, 0, 0, 1], free_port()));
    let (public, results) = (address(), address());
    let (listen, results_listen) = (public.to_string(), results.to_string());
    let mut arguments =
        vec!["--data", data.to_str().unwrap(), "--listen", &listen, "--results-listen", &results_listen];
    arguments.extend(more);
    let service = Service::start(&Service::example(name), &arguments, &[]);
    service.wait_for_port(public);
    eventually("the frontend is ready", Duration::from_secs(10), || vote(public, "cats", "").status == 401);
    Embedded { service, public, results }
}

impl Embedded {
    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&http_get(self.results, "/polls/pets/results.json").text()).unwrap_or_default()
    }

    /// Casts a vote, as JSON or as a form, as soon as votes are accepted.
    fn vote(&self, option: &str, form: bool) {
        let cookie = cookie(self.public);
        eventually("the vote is accepted", Duration::from_secs(10), || {
            if !form {
                return vote(self.public, option, &cookie).status == 202;
            }
            let headers =
                [("content-type", "application/x-www-form-urlencoded"), ("cookie", cookie.as_str())];
            let body = format!("option={option}");
            http(self.public, "POST", "/polls/pets/votes", &headers, body.as_bytes()).unwrap().status == 303
        });
    }
}

#[test]
fn votes_as_json_and_as_a_form_are_shown_within_two_seconds_and_survive_kill_9() {
    let data = tempfile::tempdir().unwrap();
    let embedded = start(data.path());
    embedded.vote("cats", false);
    embedded.vote("dogs", true);
    eventually("both votes are shown", Duration::from_secs(2), || embedded.json()["total"] == 2);
    let page = http_get(embedded.results, "/polls/pets").text();
    assert!(page.contains("Cats") && page.contains("50"), "{page}");
    // Some of these may not be counted yet when the process is killed.
    for _ in 0..20 {
        embedded.vote("cats", false);
    }
    embedded.service.signal("KILL");
    embedded.service.wait_exit(Duration::from_secs(5)).expect("the process has ended");
    let embedded = start(data.path());
    // The partitions of the killed process are free after 8 s.
    eventually("nothing is lost", Duration::from_secs(20), || embedded.json()["total"] == 22);
    assert_eq!(embedded.json()["options"][0]["votes"], 21);
}

#[test]
fn embedded_ends_on_sigterm() {
    let data = tempfile::tempdir().unwrap();
    let embedded = start(data.path());
    embedded.service.signal("TERM");
    let exit = embedded.service.wait_exit(Duration::from_secs(15)).expect("it ends");
    assert!(exit.success(), "{}", embedded.service.tail());
}

#[test]
fn local_redis_runs_with_a_file_or_postgres_as_the_store() {
    let redis = Redis::start();
    let (data, url) = (tempfile::tempdir().unwrap(), redis.url());
    let local = start_example("local-redis", data.path(), &["--redis", &url]);
    local.vote("cats", false);
    eventually("the vote is shown", Duration::from_secs(2), || local.json()["total"] == 1);
    drop(local);
    redis.cli(&["FLUSHALL"]);
    let store = Postgres::shared().database();
    let local = start_example("local-redis", data.path(), &["--redis", &url, "--store", &store]);
    local.vote("dogs", true);
    eventually("the vote is shown", Duration::from_secs(2), || local.json()["total"] == 1);
}

/// Threads that keep cores busy, so that the tasks of the pipeline run late and in any order.
struct BusyCores(Arc<AtomicBool>);

impl BusyCores {
    fn two() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        for _ in 0..2 {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        Self(stop)
    }
}

impl Drop for BusyCores {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Casts votes while other programs use the cores, and then audits the store.
#[track_caller]
fn assert_the_audit_holds_after_a_load(example: &Embedded, store: &str, load_options: &[&str]) {
    let shown = || http_get(example.results, "/polls/pets/results.json").status == 200;
    eventually("results are shown", Duration::from_secs(10), shown);
    let cores = BusyCores::two();
    let load = load(&[example.public], example.results, "pets", load_options);
    let output = load.wait_with_output().unwrap();
    drop(cores);
    crate::world::assert_exact(&output);
    // The audit needs a report of the queue from after all entries were read.
    let mut audit = Command::new(Service::binary("vote-results"));
    audit.arg("audit").env_clear().env("VOTE_STORE", store);
    let mut found = audit.output().unwrap();
    for _ in 0..25 {
        if found.status.code() != Some(2) {
            break;
        }
        std::thread::sleep(Duration::from_millis(200));
        found = audit.output().unwrap();
    }
    assert_eq!(found.status.code(), Some(0), "{}", String::from_utf8_lossy(&found.stdout));
}

#[test]
fn the_audit_of_embedded_holds_after_a_load_on_busy_cores() {
    let data = tempfile::tempdir().unwrap();
    let embedded = start(data.path());
    let store = format!("sqlite:{}", data.path().join("store.db").display());
    let load = ["--voters", "20000", "--double-votes", "5", "--connections", "64"];
    assert_the_audit_holds_after_a_load(&embedded, &store, &load);
}

#[test]
fn the_audit_of_local_redis_holds_after_a_load_on_busy_cores() {
    let redis = Redis::start();
    let (data, url, store) = (tempfile::tempdir().unwrap(), redis.url(), Postgres::shared().database());
    let local = start_example("local-redis", data.path(), &["--redis", &url, "--store", &store]);
    let load = ["--voters", "20000", "--double-votes", "5", "--connections", "64"];
    assert_the_audit_holds_after_a_load(&local, &store, &load);
}

#[test]
fn with_a_redis_that_may_lose_votes_none_are_accepted_and_the_log_says_what_to_set() {
    let redis = Redis::start_with(&[("appendonly", "no")]);
    let (data, url) = (tempfile::tempdir().unwrap(), redis.url());
    let local = start_example("local-redis", data.path(), &["--redis", &url]);
    eventually("the log says why", Duration::from_secs(5), || local.service.log().contains("set it to yes"));
    assert_eq!(vote(local.public, "cats", &cookie(local.public)).status, 503);
    drop(local);
    let volatile = start_example("local-redis", data.path(), &["--redis", &url, "--allow-volatile-queue"]);
    volatile.vote("cats", false);
}
