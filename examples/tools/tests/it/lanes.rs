//! Tests of how partitions are distributed over the running workers.

use std::time::Duration;

use crate::world::{Process, World, assert_exact, cookie, eventually, vote};

fn owned(workers: &[&Process]) -> Vec<u64> {
    workers.iter().map(|worker| worker.metric("vote_worker_partitions_owned") as u64).collect()
}

#[test]
fn an_added_worker_gets_its_share_and_a_killed_one_is_replaced_within_ten_seconds() {
    let world = World::start(1);
    let one = world.worker("1");
    world.wait_until_ready();
    eventually("one worker owns all partitions", Duration::from_secs(10), || owned(&[&one]) == [16]);
    let two = world.worker("1");
    let took = eventually("two workers share", Duration::from_secs(10), || owned(&[&one, &two]) == [8, 8]);
    println!("the added worker had its share after {took:?}");
    one.service.signal("KILL");
    let took =
        eventually("the other owns all partitions", Duration::from_secs(10), || owned(&[&two]) == [16]);
    println!("the killed worker was replaced after {took:?}");
}

#[test]
fn a_frozen_worker_is_replaced_within_25_seconds_and_does_no_harm_when_it_continues() {
    let world = World::start(2);
    let frozen = world.worker("2");
    world.wait_until_ready();
    let load = world.load(&[
        "--voters",
        "40000",
        "--double-votes",
        "5",
        "--connections",
        "8",
        "--rate",
        "2000",
        "--timeout-seconds",
        "60",
    ]);
    eventually("some votes are counted", Duration::from_secs(30), || world.total() > 2000);
    // Under load, so that some batches are read and not committed.
    frozen.service.signal("STOP");
    let other = world.worker("2");
    let took =
        eventually("the other owns all partitions", Duration::from_secs(25), || owned(&[&other]) == [16]);
    println!("the frozen worker was replaced after {took:?}");
    frozen.service.signal("CONT");
    eventually("both share", Duration::from_secs(15), || {
        let owned = owned(&[&frozen, &other]);
        owned == [8, 8]
    });
    assert_exact(&load.wait_with_output().unwrap());
    world.assert_conserved();
}

#[test]
fn more_lanes_than_partitions_do_no_harm() {
    let world = World::start(1);
    let many = world.worker("20");
    world.wait_until_ready();
    eventually("all partitions are owned", Duration::from_secs(15), || owned(&[&many]) == [16]);
    let frontend = world.frontends[0].public;
    assert_eq!(vote(frontend, "cats", &cookie(frontend)).status, 202);
    eventually("the vote is counted", Duration::from_secs(5), || world.total() == 1);
}
