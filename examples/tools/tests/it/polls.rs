//! Tests of differing files of polls: votes that the store could not count are refused, and no others.

use std::time::Duration;

use serde_json::Value;
use vote_core::{Clock, SystemClock};
use vote_testkit::{Response, http, http_get};

use crate::world::{World, cookie, eventually, vote};

fn poll(slug: &str, options: &[&str]) -> String {
    let options: Vec<_> =
        options.iter().map(|name| format!("{{ slug = \"{name}\", label = \"{name}\" }}")).collect();
    format!("[[poll]]\nslug = \"{slug}\"\ntitle = \"Which?\"\noptions = [{}]\n", options.join(", "))
}

fn pets() -> String {
    poll("pets", &["cats", "dogs"])
}

fn vote_on(world: &World, poll: &str, option: &str) -> Response {
    let frontend = world.frontends[0].public;
    let voter = cookie(frontend);
    let headers = [("content-type", "application/json"), ("cookie", voter.as_str())];
    let body = format!(r#"{{"option": "{option}"}}"#);
    http(frontend, "POST", &format!("/polls/{poll}/votes"), &headers, body.as_bytes()).unwrap()
}

#[track_caller]
fn assert_unavailable(answer: &Response, error: &str) {
    let body: Value = serde_json::from_str(&answer.text()).unwrap_or_default();
    assert_eq!((answer.status, &body["error"]), (503, &error.into()), "{}", answer.text());
    assert!(answer.header("retry-after").is_some());
}

fn ready(world: &World) -> String {
    http_get(world.frontends[0].admin, "/readyz").text()
}

#[test]
fn a_poll_that_only_the_frontends_have_is_unavailable_until_a_worker_has_it() {
    let mut world = World::with_polls(1, &pets());
    let worker = world.worker("2");
    world.wait_until_ready();
    world.set_polls(&(pets() + &poll("cars", &["red", "blue"])));
    world.restart_frontends();
    world.wait_until_ready();
    assert_unavailable(&vote_on(&world, "cars", "red"), "poll-not-ready");
    assert_eq!(vote_on(&world, "pets", "cats").status, 202);
    assert!(ready(&world).contains("ready, but no votes are accepted for poll cars"), "{}", ready(&world));

    drop(worker);
    let _worker = world.worker("2");
    eventually("a vote is accepted", Duration::from_secs(15), || {
        vote_on(&world, "cars", "red").status == 202
    });
    assert_eq!(ready(&world), "ready\n");
    eventually("both votes are counted", Duration::from_secs(15), || {
        world.psql("SELECT coalesce(sum(n), 0) FROM vote.tally") == "2"
    });
    assert_eq!(world.psql("SELECT count(*) FROM vote.quarantine"), "0");
    world.assert_audit_holds();
}

#[test]
fn a_poll_that_the_frontends_define_differently_is_unavailable() {
    let cars = |options: &[&str]| pets() + &poll("cars", options);
    let mut world = World::with_polls(1, &cars(&["red", "blue"]));
    let _worker = world.worker("2");
    world.wait_until_ready();
    world.set_polls(&cars(&["red", "blue", "green"]));
    world.restart_frontends();
    world.wait_until_ready();
    for option in ["green", "red"] {
        assert_unavailable(&vote_on(&world, "cars", option), "poll-differs");
    }
    let frontend = world.frontends[0].public;
    assert_eq!(vote(frontend, "cats", &cookie(frontend)).status, 202);
    eventually("the metric names the poll", Duration::from_secs(5), || {
        world.frontends[0].metric("vote_frontend_poll_unavailable{poll=\"cars\"}") == 1.0
    });
    eventually("the vote in the other poll is counted", Duration::from_secs(15), || world.total() == 1);
    assert_eq!(world.psql("SELECT count(*) FROM vote.quarantine"), "0");
    world.assert_audit_holds();
}

#[test]
fn frontends_follow_a_closing_time_that_was_moved_in_the_store() {
    let closing = |at: &str| format!("{}closes_at = \"{at}\"\n", pets());
    let world = World::with_polls(1, &closing("2198-01-01T00:00:00Z"));
    let queues = world.redis[0].url();
    // With this grace period the poll stays open in the store after its closing time.
    let _worker = world.worker_of(&queues, "1", &[("VOTE_CLOSE_GRACE", "3600")]);
    world.wait_until_ready();
    assert_eq!(vote_on(&world, "pets", "cats").status, 202);
    let reschedule = |at: &str| {
        let to = ["polls", "reschedule", "pets", "--closes-at", at, "--reason", "a test"];
        world.must("vote-worker", &to);
    };
    reschedule(&SystemClock.now().saturating_add(-60_000_000).to_string());
    let frontend = world.frontends[0].public;
    eventually("the frontend accepts no more votes", Duration::from_secs(5), || {
        http_get(frontend, "/polls/pets").text().contains("This poll closed at")
    });
    reschedule("2199-01-01T00:00:00Z");
    eventually("the frontend accepts votes again", Duration::from_secs(5), || {
        http_get(frontend, "/polls/pets").header("set-cookie").is_some()
    });
    assert_eq!(vote_on(&world, "pets", "dogs").status, 202);
}
