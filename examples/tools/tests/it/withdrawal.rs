//! Tests of polls that are withdrawn before the first vote and get another definition under the same slug.

use std::time::Duration;

use vote_testkit::http;

use crate::world::{Process, World, cookie, eventually, vote, vote_in};

const PETS: &str = "[[poll]]\nslug = \"pets\"\ntitle = \"Cats or dogs?\"\n\
    options = [{ slug = \"cats\", label = \"Cats\" }, { slug = \"dogs\", label = \"Dogs\" }]\n";

/// The file of polls, in which the poll "snack" has these two options.
fn with_snacks(one: &str, two: &str) -> String {
    format!(
        "{PETS}[[poll]]\nslug = \"snack\"\ntitle = \"Which snack?\"\n\
         options = [{{ slug = \"{one}\", label = \"One\" }}, {{ slug = \"{two}\", label = \"Two\" }}]\n"
    )
}

fn withdraw(world: &World) -> std::process::Output {
    world.command("vote-worker", &["polls", "withdraw", "snack", "--reason", "a typo"])
}

fn polls(world: &World) -> String {
    world.must("vote-worker", &["polls", "list"])
}

fn vote_for_snack(world: &World, option: &str) -> u16 {
    vote_for_snack_at(&world.frontends[0], option)
}

fn vote_for_snack_at(frontend: &Process, option: &str) -> u16 {
    vote_in(frontend.public, "snack", option, &cookie(frontend.public)).unwrap().status
}

#[test]
fn a_withdrawn_poll_gets_another_definition_while_other_polls_accept_votes() {
    let mut world = World::with_polls(2, &with_snacks("crisps", "popcron"));
    let worker = world.worker("2");
    world.wait_until_ready();

    let output = withdraw(&world);
    assert!(output.status.success(), "{output:?}");
    eventually("every queue dropped it", Duration::from_secs(10), || polls(&world).contains("dropped it"));
    assert_eq!(vote_for_snack(&world, "crisps"), 503, "no vote is accepted for a withdrawn poll");
    let frontend = world.frontends[0].public;
    assert_eq!(vote(frontend, "cats", &cookie(frontend)).status, 202);

    world.set_polls(&with_snacks("crisps", "popcorn"));
    drop(worker);
    let _worker = world.worker("2");
    eventually("the new definition is registered", Duration::from_secs(10), || {
        polls(&world).contains("earlier definition")
    });
    // A frontend with the old file refuses votes for the poll; one with the new file accepts them.
    assert_eq!(vote_for_snack(&world, "crisps"), 503);
    world.restart_frontends();
    world.wait_until_ready();
    eventually("a vote is accepted", Duration::from_secs(10), || vote_for_snack(&world, "popcorn") == 202);
    eventually("the vote is counted", Duration::from_secs(10), || {
        world.results_json("snack")["total"].as_u64() >= Some(1) && world.total() == 1
    });
    world.assert_audit_holds();
}

#[test]
fn a_poll_with_votes_is_not_withdrawn() {
    let world = World::with_polls(1, &with_snacks("crisps", "popcorn"));
    let _worker = world.worker("1");
    world.wait_until_ready();
    assert_eq!(vote_for_snack(&world, "crisps"), 202);
    eventually("the vote is counted", Duration::from_secs(10), || world.results_json("snack")["total"] == 1);

    let output = withdraw(&world);
    assert!(!output.status.success(), "{output:?}");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("poll snack has votes"), "{error}");
    assert_eq!(vote_for_snack(&world, "crisps"), 202);
}

/// The store learns of votes only when a worker reads them, so it may accept the withdrawal of a poll that has votes.
#[test]
fn a_withdrawal_is_undone_if_a_queue_has_unread_votes() {
    let world = World::with_polls(1, &with_snacks("crisps", "popcorn"));
    let worker = world.worker("1");
    world.wait_until_ready();
    drop(worker);
    assert_eq!(vote_for_snack(&world, "crisps"), 202);
    let output = withdraw(&world);
    assert!(output.status.success(), "{output:?}");

    let _worker = world.worker("1");
    eventually("the vote is counted", Duration::from_secs(20), || world.results_json("snack")["total"] == 1);
    // By the worker that reports the queue: this one, once the first is known to have stopped.
    eventually("the withdrawal is undone", Duration::from_secs(10), || !polls(&world).contains("withdrawn"));
    assert_eq!(vote_for_snack(&world, "popcorn"), 202);
    let page = http(world.frontends[0].public, "GET", "/polls/snack", &[], b"").unwrap();
    assert_eq!(page.status, 200);
    world.assert_audit_holds();
}

#[test]
fn a_queue_that_dropped_a_poll_accepts_votes_again_once_the_withdrawal_is_undone() {
    let world = World::with_polls(2, &with_snacks("crisps", "popcorn"));
    let worker = world.worker("1");
    world.wait_until_ready();
    drop(worker);
    assert_eq!(vote_for_snack(&world, "crisps"), 202);
    let output = withdraw(&world);
    assert!(output.status.success(), "{output:?}");

    // This worker does not read the queue that has the vote, so it can't undo the withdrawal.
    let worker = world.worker_reading_only(&world.redis[1].url());
    let recorded = || world.redis[1].answer(&["HGET", "vote:1:polls", "snack"]);
    eventually("the queue without votes dropped it", Duration::from_secs(20), || {
        recorded().starts_with("withdrawn")
    });
    assert_eq!(vote_for_snack_at(&world.frontends[1], "crisps"), 503);
    drop(worker);

    let _worker = world.worker("1");
    eventually("votes are accepted again", Duration::from_secs(20), || {
        vote_for_snack_at(&world.frontends[1], "popcorn") == 202
    });
    assert!(!polls(&world).contains("withdrawn"), "{}", polls(&world));
    assert_eq!(vote_for_snack(&world, "popcorn"), 202);
    eventually("all votes are counted", Duration::from_secs(20), || {
        world.results_json("snack")["total"].as_u64() >= Some(3)
    });
    world.assert_audit_holds();
}

/// This happens after a worker was frozen, or after a Redis was rolled back by a moment.
#[test]
fn a_queue_that_has_a_withdrawn_poll_again_drops_it_again() {
    let world = World::with_polls(1, &with_snacks("crisps", "popcron"));
    let _worker = world.worker("1");
    world.wait_until_ready();
    let recorded = || world.redis[0].answer(&["HGET", "vote:1:polls", "snack"]).trim().to_owned();
    let before = recorded();
    let output = withdraw(&world);
    assert!(output.status.success(), "{output:?}");
    eventually("the queue dropped it", Duration::from_secs(10), || polls(&world).contains("dropped it"));

    world.redis[0].answer(&["HSET", "vote:1:polls", "snack", &before]);
    eventually("the queue dropped it again", Duration::from_secs(10), || recorded() != before);
    assert_eq!(vote_for_snack(&world, "crisps"), 503);
}
