//! Tests that votes cast at the frontends are counted, each exactly once.

use std::time::Duration;

use crate::world::{World, assert_exact, cookie, eventually, vote};

#[test]
fn a_vote_cast_at_a_frontend_is_shown_within_two_seconds_with_its_receipt() {
    let world = World::start(1);
    let _worker = world.worker("2");
    world.wait_until_ready();
    let frontend = world.frontends[0].public;
    let answer = vote(frontend, "cats", &cookie(frontend));
    assert_eq!(answer.status, 202, "{}", answer.text());
    eventually("the vote is counted", Duration::from_secs(2), || world.total() == 1);
    let json: serde_json::Value = serde_json::from_str(&answer.text()).unwrap();
    let path = format!("/receipts/{}", json["receipt"].as_str().unwrap());
    let receipt =
        vote_testkit::http(world.results.public, "GET", &path, &[("accept", "application/json")], b"")
            .unwrap();
    let receipt: serde_json::Value = serde_json::from_str(&receipt.text()).unwrap();
    assert_eq!(receipt["state"], "counted", "{receipt}");
    world.assert_conserved();
}

#[test]
fn a_load_with_double_votes_through_two_frontends_is_counted_exactly() {
    let world = World::start(2);
    let _workers = [world.worker("1"), world.worker("2")];
    world.wait_until_ready();
    let load =
        world.load(&["--voters", "10000", "--double-votes", "10", "--connections", "16", "--seed", "7"]);
    let report = assert_exact(&load.wait_with_output().unwrap());
    let (acked, double) = (report["acked"].as_u64().unwrap(), report["double_votes"].as_u64().unwrap());
    assert!(acked == 10_000 + double && double > 800, "{report}");
    let ledger = world.psql("SELECT sum(accepted) || ' ' || sum(superseded) FROM vote.ledger");
    assert_eq!(ledger, format!("{acked} {double}"));
    world.assert_conserved();
}

#[test]
fn queues_are_found_by_resolving_a_name() {
    let world = World::start(1);
    let by_name = format!("dns+redis://localhost:{}", world.redis[0].port());
    let _worker = world.worker_reading_only(&by_name);
    world.wait_until_ready();
    let frontend = world.frontends[0].public;
    assert_eq!(vote(frontend, "dogs", &cookie(frontend)).status, 202);
    eventually("the vote is counted", Duration::from_secs(5), || world.total() == 1);
}
