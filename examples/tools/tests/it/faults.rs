//! Tests with processes that are killed or stopped: no vote is lost or counted twice, and no operator has to act.

use std::time::Duration;

use vote_testkit::{Postgres, Redis};

use crate::world::{World, assert_exact, cookie, eventually, vote};

const LOAD: [&str; 8] = ["--voters", "12000", "--double-votes", "5", "--connections", "8", "--rate", "3000"];

#[test]
fn a_worker_killed_under_load_loses_no_vote() {
    let world = World::start(2);
    let (killed, _other) = (world.worker("2"), world.worker("2"));
    world.wait_until_ready();
    let load = world.load(&LOAD);
    eventually("some votes are counted", Duration::from_secs(30), || world.total() > 2000);
    assert!(killed.service.signal("KILL"));
    let _new = world.worker("2");
    assert_exact(&load.wait_with_output().unwrap());
    world.assert_conserved();
}

#[test]
fn a_redis_killed_under_load_loses_no_acknowledged_vote() {
    let world = World::start(2);
    let _worker = world.worker("2");
    world.wait_until_ready();
    let load = world.load(&LOAD);
    eventually("some votes are counted", Duration::from_secs(30), || world.total() > 2000);
    world.redis[0].kill9();
    std::thread::sleep(Duration::from_millis(500));
    world.redis[0].restart();
    assert_exact(&load.wait_with_output().unwrap());
    world.assert_conserved();
}

#[test]
fn while_postgres_is_down_votes_are_accepted_and_workers_wait() {
    let postgres = Postgres::start();
    let world = World::on(vec![Redis::start()], postgres.database());
    let worker = world.worker("2");
    world.wait_until_ready();
    let frontend = world.frontends[0].public;
    postgres.stop();
    assert_eq!(vote(frontend, "cats", &cookie(frontend)).status, 202, "votes are accepted without Postgres");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(worker.service.wait_exit(Duration::ZERO), None, "the worker keeps running");
    assert!(worker.service.log().contains("store"), "the log says why it waits: {}", worker.service.tail());
    postgres.restart();
    eventually("the vote is counted", Duration::from_secs(20), || world.total() == 1);
}

#[test]
fn a_worker_that_starts_before_postgres_waits_for_it() {
    let postgres = Postgres::start();
    let (redis, url) = (Redis::start(), postgres.database());
    postgres.stop();
    let world = World::on(vec![redis], url);
    let worker = world.worker("1");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(worker.service.wait_exit(Duration::ZERO), None, "{}", worker.service.tail());
    postgres.restart();
    world.wait_until_ready();
    let frontend = world.frontends[0].public;
    assert_eq!(vote(frontend, "cats", &cookie(frontend)).status, 202);
    eventually("the vote is counted", Duration::from_secs(10), || world.total() == 1);
}

#[test]
fn a_worker_ends_on_sigterm() {
    let world = World::start(1);
    let worker = world.worker("2");
    worker.wait_until_ready();
    worker.service.signal("TERM");
    let exit = worker.service.wait_exit(Duration::from_secs(10)).expect("the worker ends");
    assert!(exit.success(), "{}", worker.service.tail());
}
