//! The examples that run the whole pipeline in one process.

use std::{net::SocketAddr, path::Path, time::Duration};

use vote_testkit::{Postgres, Redis, Service, free_port, http, http_get};

use crate::world::{cookie, eventually, vote};

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
    eventually("votes are taken", Duration::from_secs(10), || vote(public, "cats", "").status == 401);
    Embedded { service, public, results }
}

impl Embedded {
    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&http_get(self.results, "/polls/pets/results.json").text()).unwrap_or_default()
    }

    /// Casts a vote, by JSON or by the form, as soon as votes are taken.
    fn vote(&self, option: &str, form: bool) {
        let cookie = cookie(self.public);
        eventually("the vote is taken", Duration::from_secs(10), || {
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
fn votes_by_json_and_by_form_are_shown_within_two_seconds_and_survive_kill_9() {
    let data = tempfile::tempdir().unwrap();
    let embedded = start(data.path());
    embedded.vote("cats", false);
    embedded.vote("dogs", true);
    eventually("both are shown", Duration::from_secs(2), || embedded.json()["total"] == 2);
    let page = http_get(embedded.results, "/polls/pets").text();
    assert!(page.contains("Cats") && page.contains("50"), "{page}");
    // Some that may not be counted yet when it dies.
    for _ in 0..20 {
        embedded.vote("cats", false);
    }
    embedded.service.signal("KILL");
    embedded.service.wait_exit(Duration::from_secs(5)).expect("it is dead");
    let embedded = start(data.path());
    eventually("nothing is lost", Duration::from_secs(10), || embedded.json()["total"] == 22);
    assert_eq!(embedded.json()["options"][0]["votes"], 21);
}

#[test]
fn sigterm_ends_it() {
    let data = tempfile::tempdir().unwrap();
    let embedded = start(data.path());
    embedded.service.signal("TERM");
    let exit = embedded.service.wait_exit(Duration::from_secs(15)).expect("it ends");
    assert!(exit.success(), "{}", embedded.service.tail());
}

#[test]
fn a_redis_of_ones_own_takes_the_place_of_the_queue_with_a_file_or_postgres_as_the_store() {
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

#[test]
fn a_redis_that_may_lose_votes_takes_none_and_the_log_says_what_to_set() {
    let redis = Redis::start_with(&[("appendonly", "no")]);
    let (data, url) = (tempfile::tempdir().unwrap(), redis.url());
    let local = start_example("local-redis", data.path(), &["--redis", &url]);
    eventually("the log says why", Duration::from_secs(5), || local.service.log().contains("set it to yes"));
    assert_eq!(vote(local.public, "cats", &cookie(local.public)).status, 503);
    drop(local);
    let careless = start_example("local-redis", data.path(), &["--redis", &url, "--allow-volatile-queue"]);
    careless.vote("cats", false);
}
