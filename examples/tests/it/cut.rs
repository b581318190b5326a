//! Queues that lost data: what is left is counted, and the audit names what may be lost until somebody writes it off.

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

/// Puts the append-only files of `from` in the place of those in `to`.
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

/// The one poll of the audit, which must be broken by so many cut queues and by nothing else.
#[track_caller]
fn broken_by_cut_queues(world: &World, queues: usize) -> Value {
    eventually("the audit is broken by the cut queues and by nothing else", Duration::from_secs(30), || {
        let (code, audit) = world.audit();
        let problems = audit["problems"].as_array().unwrap();
        code == 1
            && problems.len() == queues
            && problems.iter().all(|p| p.as_str().unwrap().contains("is cut"))
    });
    world.audit().1["polls"][0].clone()
}

/// Writes every cut queue off, after which the audit holds again.
fn write_off(world: &World, poll: &Value) {
    for queue in poll["queues"].as_array().unwrap().iter().filter(|queue| queue["state"] == "cut") {
        let id = queue["queue"].as_str().unwrap();
        // Not before what is left of it is read, or nobody has seen it for some time.
        eventually("it can be written off", Duration::from_secs(45), || {
            let reason = ["queues", "retire", id, "--reason", "a test took its data"];
            world.command("vote-worker", &reason).status.success()
        });
    }
    let audit = world.assert_audit_holds();
    let states: Vec<_> = audit["polls"][0]["queues"].as_array().unwrap().iter().collect();
    let is_written_off = |reason: &str| reason.ends_with("written off: a test took its data");
    assert!(states.iter().any(|queue| is_written_off(queue["reason"].as_str().unwrap())), "{audit:#}");
}

/// An older copy comes back, takes votes, more than it lost, and only then somebody looks. Nothing but the entry that
/// was read last tells.
#[test]
fn a_redis_that_rolled_back_and_then_took_votes_is_cut_and_what_is_left_is_counted() {
    let mut world = World::start(1);
    let worker = world.worker("2");
    world.wait_until_ready();
    let kept = tempfile::tempdir().unwrap();
    cast(&world.frontends[0], 20);
    eventually("they are counted", Duration::from_secs(10), || world.total() == 20);
    stopped(&world.redis[0], || copy(world.redis[0].dir(), kept.path()));
    world.frontends[0].wait_until_ready();
    cast(&world.frontends[0], 20);
    eventually("they are counted, too", Duration::from_secs(10), || world.total() == 40);
    // Nobody looks: neither the worker, nor the frontend that knows what it acknowledged.
    assert!(worker.service.signal("KILL"));
    world.frontends.clear();
    stopped(&world.redis[0], || put_back(kept.path(), world.redis[0].dir()));
    world.frontends.push(world.frontend(&world.redis[0].socket_url()));
    world.frontends[0].wait_until_ready();
    cast(&world.frontends[0], 60);

    let (_one, _two) = (world.worker("2"), world.worker("2"));
    eventually("what is left is counted", Duration::from_secs(20), || world.total() == 100);
    let poll = broken_by_cut_queues(&world, 1);
    // Both workers noticed, and what was left was booked once. The anchors of what was counted are among it.
    let reread = poll["reread"].as_u64().unwrap();
    assert!((60..=80).contains(&reread) && poll["reread_new"] == 60, "{poll:#}");
    assert_eq!((&poll["accepted"], &poll["new_voters"]), (&40.into(), &40.into()), "{poll:#}");
    let again = &world.frontends[0];
    eventually("it takes votes again", Duration::from_secs(15), || {
        vote(again.public, "dogs", &cookie(again.public)).status == 202
    });
    eventually("they are counted", Duration::from_secs(10), || world.total() == 101);
    write_off(&world, &poll);
    let left = world.redis[0].cli(&["HLEN", "vote:remains"]);
    assert_eq!(left.trim(), "0", "what is left was read to its end, and is gone");
}

#[test]
fn a_redis_that_comes_back_empty_is_cut() {
    let world = World::start(1);
    let _worker = world.worker("2");
    world.wait_until_ready();
    cast(&world.frontends[0], 10);
    eventually("they are counted", Duration::from_secs(10), || world.total() == 10);
    stopped(&world.redis[0], || std::fs::remove_dir_all(world.redis[0].dir().join("appendonlydir")).unwrap());
    eventually("it takes votes again", Duration::from_secs(15), || {
        vote(world.frontends[0].public, "dogs", &cookie(world.frontends[0].public)).status == 202
    });
    eventually("they are counted", Duration::from_secs(10), || world.total() == 11);
    let poll = broken_by_cut_queues(&world, 1);
    assert_eq!((&poll["accepted"], &poll["reread"]), (&11.into(), &0.into()), "{poll:#}");
    write_off(&world, &poll);
}

/// Two servers with one identity: which is the copy nobody can know, and both took votes.
#[test]
fn a_redis_that_was_copied_is_cut_at_both_places_and_all_votes_are_counted() {
    let mut world = World::start(2);
    // The second one becomes a copy of the first, before any worker has seen it.
    world.frontends.pop();
    let worker = world.worker_reading_only(&world.redis[0].url());
    world.frontends[0].wait_until_ready();
    cast(&world.frontends[0], 10);
    eventually("they are counted", Duration::from_secs(10), || world.total() == 10);
    assert!(worker.service.signal("KILL"));
    world.redis[1].kill9();
    stopped(&world.redis[0], || put_back(world.redis[0].dir(), world.redis[1].dir()));
    world.redis[1].restart();
    world.frontends.push(world.frontend(&world.redis[1].socket_url()));
    world.frontends.iter().for_each(Process::wait_until_ready);
    cast(&world.frontends[0], 10);
    cast(&world.frontends[1], 10);

    let _worker = world.worker("2");
    eventually("all are counted", Duration::from_secs(30), || world.total() == 30);
    let poll = broken_by_cut_queues(&world, 1);
    for frontend in &world.frontends {
        eventually("it takes votes again", Duration::from_secs(15), || {
            vote(frontend.public, "dogs", &cookie(frontend.public)).status == 202
        });
    }
    eventually("they are counted", Duration::from_secs(10), || world.total() == 32);
    write_off(&world, &poll);
}

/// The frontend alone knows of votes that no worker saw.
#[test]
fn a_frontend_notices_that_its_redis_lost_what_it_acknowledged() {
    let world = World::start(1);
    let worker = world.worker("1");
    world.wait_until_ready();
    cast(&world.frontends[0], 5);
    eventually("they are counted", Duration::from_secs(10), || world.total() == 5);
    worker.service.signal("STOP");
    let kept = tempfile::tempdir().unwrap();
    stopped(&world.redis[0], || copy(world.redis[0].dir(), kept.path()));
    world.frontends[0].wait_until_ready();
    cast(&world.frontends[0], 30);
    stopped(&world.redis[0], || put_back(kept.path(), world.redis[0].dir()));
    let log = || world.frontends[0].service.log();
    eventually("it says so", Duration::from_secs(15), || log().contains("lost votes of partition"));
    worker.service.signal("CONT");
    let poll = broken_by_cut_queues(&world, 1);
    assert_eq!(poll["accepted"], 5, "{poll:#}");
    write_off(&world, &poll);
}

#[test]
fn a_queue_that_is_alive_is_not_written_off() {
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
