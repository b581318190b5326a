//! Tests of diverged queues: the remaining entries are counted, and the audit names the queue until an operator retires
//! it.

use std::{path::Path, process::Command, time::Duration};

use serde_json::Value;
use vote_testkit::Redis;

use crate::world::{Process, World, cookie, eventually, vote};

/// Casts votes of new voters.
#[track_caller]
fn cast(frontend: &Process, votes: usize) {
    for _ in 0..votes {
        assert_eq!(vote(frontend.public, "cats", &cookie(frontend.public)).status, 202);
    }
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from.join("appendonlydir")).arg(to).status().unwrap();
    assert!(copied.success());
}

/// Replaces the append-only files in `to` by those in `from`.
fn put_back(from: &Path, to: &Path) {
    std::fs::remove_dir_all(to.join("appendonlydir")).unwrap();
    copy(from, to);
}

fn stopped<T>(redis: &Redis, then: impl FnOnce() -> T) -> T {
    redis.kill9();
    let done = then();
    redis.restart();
    done
}

/// Waits until the audit is broken by this number of diverged queues and by nothing else, and returns its only poll.
#[track_caller]
fn broken_by_diverged_queues(world: &World, queues: usize) -> Value {
    eventually("the audit is broken by the diverged queues only", Duration::from_secs(30), || {
        let (code, audit) = world.audit();
        let problems = audit["problems"].as_array().unwrap();
        code == 1 && problems.len() == queues && problems.iter().all(|p| p["code"] == "diverged")
    });
    world.audit().1["polls"][0].clone()
}

/// Retires every diverged queue, after which the audit must hold again.
fn retire(world: &World, poll: &Value) {
    for queue in poll["queues"].as_array().unwrap().iter().filter(|queue| queue["state"] == "diverged") {
        let id = queue["queue"].as_str().unwrap();
        // Refused until its remaining entries are read, or until no worker has seen it for some time.
        eventually("the queue can be retired", Duration::from_secs(45), || {
            let command = ["queues", "retire", id, "--reason", "a test took its data"];
            world.command("vote-worker", &command).status.success()
        });
    }
    let audit = world.assert_audit_holds();
    let states: Vec<_> = audit["polls"][0]["queues"].as_array().unwrap().iter().collect();
    let is_retired = |reason: &str| reason.ends_with("retired: a test took its data");
    assert!(states.iter().any(|queue| is_retired(queue["reason"].as_str().unwrap())), "{audit:#}");
}

/// An older copy is restored and accepts more votes than it lost before any worker reads it. Only the last entry that
/// was read shows the divergence.
#[test]
fn a_redis_that_rolled_back_and_then_accepted_votes_has_diverged_and_its_remaining_entries_are_counted() {
    let mut world = World::start(1);
    let worker = world.worker("2");
    world.wait_until_ready();
    let kept = tempfile::tempdir().unwrap();
    cast(&world.frontends[0], 20);
    eventually("the first votes are counted", Duration::from_secs(10), || world.total() == 20);
    stopped(&world.redis[0], || copy(world.redis[0].dir(), kept.path()));
    world.frontends[0].wait_until_ready();
    cast(&world.frontends[0], 20);
    eventually("the next votes are counted as well", Duration::from_secs(10), || world.total() == 40);
    // Neither a worker is running, nor the frontend that knows what it acknowledged.
    assert!(worker.service.signal("KILL"));
    world.frontends.clear();
    stopped(&world.redis[0], || put_back(kept.path(), world.redis[0].dir()));
    world.frontends.push(world.frontend(&world.redis[0].socket_url()));
    world.frontends[0].wait_until_ready();
    cast(&world.frontends[0], 60);

    let (_one, _two) = (world.worker("2"), world.worker("2"));
    eventually("the remaining entries are counted", Duration::from_secs(20), || world.total() == 100);
    let poll = broken_by_diverged_queues(&world, 1);
    // Both workers detected it, and the remaining entries were counted once. They include the anchors, entries whose
    // votes were counted before. A partition that held nothing before has no anchor: its new votes may be counted for the
    // old queue, before another partition shows the divergence.
    let count = |field: &str| poll[field].as_u64().unwrap();
    assert_eq!(count("accepted"), count("new_voters"), "{poll:#}");
    assert_eq!(count("accepted") + count("reread_new"), 100, "{poll:#}");
    assert!((40..100).contains(&count("accepted")), "{poll:#}");
    assert!((count("reread_new")..=80).contains(&count("reread")), "{poll:#}");
    let frontend = &world.frontends[0];
    eventually("the frontend accepts votes again", Duration::from_secs(15), || {
        vote(frontend.public, "dogs", &cookie(frontend.public)).status == 202
    });
    eventually("the new vote is counted", Duration::from_secs(10), || world.total() == 101);
    retire(&world, &poll);
    let replaced = world.redis[0].cli(&["HLEN", "vote:replaced"]);
    assert_eq!(replaced.trim(), "0", "the replaced queue was read to its end and removed");
}

#[test]
fn a_redis_that_comes_back_empty_has_diverged() {
    let world = World::start(1);
    let _worker = world.worker("2");
    world.wait_until_ready();
    cast(&world.frontends[0], 10);
    eventually("the votes are counted", Duration::from_secs(10), || world.total() == 10);
    stopped(&world.redis[0], || std::fs::remove_dir_all(world.redis[0].dir().join("appendonlydir")).unwrap());
    eventually("the frontend accepts votes again", Duration::from_secs(15), || {
        vote(world.frontends[0].public, "dogs", &cookie(world.frontends[0].public)).status == 202
    });
    eventually("the new vote is counted", Duration::from_secs(10), || world.total() == 11);
    let poll = broken_by_diverged_queues(&world, 1);
    assert_eq!((&poll["accepted"], &poll["reread"]), (&11.into(), &0.into()), "{poll:#}");
    retire(&world, &poll);
}

/// Two servers have one queue identity and both accepted votes. No worker can know which is the copy.
#[test]
fn a_copied_redis_has_diverged_at_both_addresses_and_all_votes_are_counted() {
    let mut world = World::start(2);
    // The second one becomes a copy of the first before any worker has seen it.
    world.frontends.pop();
    let worker = world.worker_reading_only(&world.redis[0].url());
    world.frontends[0].wait_until_ready();
    cast(&world.frontends[0], 10);
    eventually("the votes are counted", Duration::from_secs(10), || world.total() == 10);
    assert!(worker.service.signal("KILL"));
    world.redis[1].kill9();
    stopped(&world.redis[0], || put_back(world.redis[0].dir(), world.redis[1].dir()));
    world.redis[1].restart();
    world.frontends.push(world.frontend(&world.redis[1].socket_url()));
    world.frontends.iter().for_each(Process::wait_until_ready);
    cast(&world.frontends[0], 10);
    cast(&world.frontends[1], 10);

    let _worker = world.worker("2");
    eventually("all votes are counted", Duration::from_secs(30), || world.total() == 30);
    let poll = broken_by_diverged_queues(&world, 1);
    for frontend in &world.frontends {
        eventually("the frontend accepts votes again", Duration::from_secs(15), || {
            vote(frontend.public, "dogs", &cookie(frontend.public)).status == 202
        });
    }
    eventually("the new votes are counted", Duration::from_secs(10), || world.total() == 32);
    retire(&world, &poll);
}

/// No worker reaches both servers. The record of the queue, which names its server, shows that there are two.
#[test]
fn a_copy_is_found_by_two_workers_of_which_each_reaches_one_server() {
    let mut world = World::start(2);
    world.frontends.pop();
    let one = world.worker_reading_only(&world.redis[0].url());
    world.frontends[0].wait_until_ready();
    cast(&world.frontends[0], 10);
    eventually("the votes are counted", Duration::from_secs(10), || world.total() == 10);
    world.redis[1].kill9();
    stopped(&world.redis[0], || put_back(world.redis[0].dir(), world.redis[1].dir()));
    // Both hold the same, so nothing else shows that there are two.
    world.redis[1].restart();
    world.frontends.push(world.frontend(&world.redis[1].socket_url()));
    let two = world.worker_reading_only(&world.redis[1].url());
    eventually("both servers get a new queue", Duration::from_secs(30), || {
        world.psql("SELECT count(*) FROM vote.queues WHERE original_id IS NULL") == "3"
    });
    let found = |worker: &Process| worker.service.log().contains("has a copy of this queue");
    assert!(found(&one) || found(&two), "{}\n{}", one.service.log(), two.service.log());
    for frontend in &world.frontends {
        eventually("the frontend accepts votes again", Duration::from_secs(15), || {
            vote(frontend.public, "dogs", &cookie(frontend.public)).status == 202
        });
    }
    eventually("all votes are counted", Duration::from_secs(45), || world.total() == 12);
    let poll = broken_by_diverged_queues(&world, 1);
    retire(&world, &poll);
}

/// Only the frontend knows of the lost votes, since no worker has read them.
#[test]
fn a_frontend_detects_that_its_redis_lost_acknowledged_votes() {
    let world = World::start(1);
    let worker = world.worker("1");
    world.wait_until_ready();
    cast(&world.frontends[0], 5);
    eventually("the votes are counted", Duration::from_secs(10), || world.total() == 5);
    worker.service.signal("STOP");
    let kept = tempfile::tempdir().unwrap();
    stopped(&world.redis[0], || copy(world.redis[0].dir(), kept.path()));
    world.frontends[0].wait_until_ready();
    cast(&world.frontends[0], 30);
    stopped(&world.redis[0], || put_back(kept.path(), world.redis[0].dir()));
    let log = || world.frontends[0].service.log();
    eventually("the log says so", Duration::from_secs(15), || {
        log().contains("lost acknowledged votes of partition")
    });
    worker.service.signal("CONT");
    let poll = broken_by_diverged_queues(&world, 1);
    assert_eq!(poll["accepted"], 5, "{poll:#}");
    retire(&world, &poll);
}

#[test]
fn a_queue_that_is_alive_can_not_be_retired() {
    let world = World::start(1);
    let _worker = world.worker("1");
    world.wait_until_ready();
    let audit = world.assert_audit_holds();
    let id = audit["polls"][0]["queues"][0]["queue"].as_str().unwrap().to_owned();
    let refused = world.command("vote-worker", &["queues", "retire", &id, "--reason", "a mistake"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("is alive"));
    let unknown =
        world.command("vote-worker", &["queues", "retire", &"0".repeat(32), "--reason", "a mistake"]);
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("there is no queue"));
}
