//! Tests of queues of other deployments, and of diverged queues.

use std::time::Duration;

use vote_core::{
    Partitions, Pepper, Position, Queue, Secret,
    conformance::{self, frames},
    queue::{Layout, RedisQueue},
};
use vote_testkit::{Redis, Service};

use crate::world::{Process, SECRET, World, cookie, eventually, vote};

fn layout() -> Layout {
    let pepper = Pepper::from(Secret::from_hex(SECRET).unwrap());
    Layout { partitions: Partitions::default(), fingerprint: pepper.fingerprint() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_of_another_deployment_is_refused_and_the_others_are_read() {
    let world = World::start(1);
    let foreign = Redis::start();
    let queue = RedisQueue::connect(&foreign.url(), "vote").unwrap();
    let other = Layout { partitions: Partitions::new(4).unwrap(), ..layout() };
    queue.create(other, None).await.unwrap();
    let worker = world.worker_reading(&foreign.url());
    world.wait_until_ready();
    let frontend = world.frontends[0].public;
    assert_eq!(vote(frontend, "cats", &cookie(frontend)).status, 202);
    eventually("the vote is counted", Duration::from_secs(5), || world.total() == 1);
    assert!(!queue.status().await.unwrap().unwrap().active, "the refused queue is not activated");
    assert!(worker.service.log().contains("4 partitions instead of 16"), "{}", worker.service.tail());
}

#[test]
fn a_worker_with_another_pepper_is_refused_by_the_store() {
    let world = World::start(1);
    let _worker = world.worker("1");
    world.wait_until_ready();
    let store = world.store_url();
    let other = "ff".repeat(32);
    let environment = [
        ("VOTE_STORE", store.as_str()),
        ("VOTE_QUEUES", "redis://127.0.0.1:1"),
        ("VOTE_PEPPER", other.as_str()),
        ("VOTE_ADMIN_LISTEN", "127.0.0.1:0"),
    ];
    let wrong = Service::start(&Service::binary("vote-worker"), &[], &environment);
    let exit = wrong.wait_exit(Duration::from_secs(20)).expect("the worker ends");
    assert_eq!(exit.code(), Some(78), "{}", wrong.tail());
    assert!(wrong.log().contains("another pepper"), "{}", wrong.tail());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_rolled_back_is_marked_as_diverged_replaced_and_shown() {
    let world = World::start(1);
    let worker = world.worker("1");
    world.wait_until_ready();
    let frontend = world.frontends[0].public;
    let voter = cookie(frontend);
    assert_eq!(vote(frontend, "cats", &voter).status, 202);
    eventually("the vote is counted", Duration::from_secs(5), || world.total() == 1);
    let queue = RedisQueue::connect(&world.redis[0].url(), "vote").unwrap();
    let id = queue.status().await.unwrap().unwrap().id;
    // As when a Redis comes back with an older file: the entry that was read last is missing, and others follow.
    let partition = world.psql("SELECT partition FROM vote.checkpoints");
    let key = format!("vote:1:p:{partition}");
    world.redis[0].cli(&["DEL", &key]);
    eventually("the queue is marked as diverged", Duration::from_secs(15), || {
        world.psql("SELECT state FROM vote.queues WHERE state = 'diverged'") == "diverged"
    });
    // The divergence is recorded before the queue is replaced. Until then the queue accepts votes, which are counted.
    let mut replaced = false;
    for _ in 0..150 {
        replaced = queue.status().await.unwrap().unwrap().id != id;
        if replaced {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(replaced, "the queue has a new id");
    eventually("the frontend accepts votes again", Duration::from_secs(15), || {
        vote(frontend, "dogs", &cookie(frontend)).status == 202
    });
    eventually("both votes are counted", Duration::from_secs(5), || world.total() == 2);
    assert!(worker.service.log().contains("a queue has diverged"), "{}", worker.service.tail());
    let status = world.results.get("/status.json").text();
    assert!(status.contains("diverged"), "{status}");
}

/// Only entries that no worker had read are missing, so only the number of accepted votes shows the divergence.
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_lost_unread_votes_is_marked_as_diverged() {
    let world = World::start(1);
    let worker = world.worker("1");
    world.wait_until_ready();
    let frontend = world.frontends[0].public;
    for option in ["cats", "dogs", "cats"] {
        assert_eq!(vote(frontend, option, &cookie(frontend)).status, 202);
    }
    eventually("all votes are counted and reported", Duration::from_secs(10), || {
        world.total() == 3 && world.psql("SELECT accepted->'pets' FROM vote.queues") == "3"
    });
    worker.service.signal("KILL");
    assert_eq!(vote(frontend, "dogs", &cookie(frontend)).status, 202);
    let queue = RedisQueue::connect(&world.redis[0].url(), "vote").unwrap();
    let id = queue.status().await.unwrap().unwrap().id;
    world.psql("UPDATE vote.queues SET accepted = '{\"pets\": 5}'"); // As reported by a worker that then died.
    let _worker = world.worker("1");
    eventually("the queue is marked as diverged", Duration::from_secs(15), || {
        world.psql("SELECT id FROM (SELECT replace(queue::text, '-', '') AS id FROM vote.queues WHERE state = 'diverged') q")
            == id.to_string()
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_can_not_be_counted_is_quarantined_and_the_others_are_counted() {
    let world = World::start(1);
    let worker = world.worker("1");
    world.wait_until_ready();
    let queue = RedisQueue::connect(&world.redis[0].url(), "vote").unwrap();
    let id = queue.status().await.unwrap().unwrap().id;
    let mut frames = frames(&[conformance::vote(1, 0, 1), conformance::vote(2, 1, 1)]);
    frames[0].bytes = vec![1, 2, 3, 4, 5, 6, 7, 8].into();
    queue.append(id, &frames).await.unwrap();
    eventually("the other vote is counted", Duration::from_secs(5), || world.total() == 1);
    eventually("the damaged frame is quarantined", Duration::from_secs(5), || {
        world.psql("SELECT sum(votes) FROM vote.quarantine") == "1"
    });
    assert!(worker.service.log().contains("are quarantined"), "{}", worker.service.tail());
    world.assert_conserved();
    let read = queue.read(id, frames[0].partition, Position::START, 10).await.unwrap();
    assert_eq!(read.accepted.unwrap()["pets"], 1);
}

#[test]
fn one_redis_under_two_addresses_is_read_once() {
    let world = World::start(1);
    let worker: Process = world.worker_reading(&world.redis[0].socket_url());
    world.wait_until_ready();
    let frontend = world.frontends[0].public;
    for option in ["cats", "dogs"] {
        assert_eq!(vote(frontend, option, &cookie(frontend)).status, 202);
    }
    eventually("both votes are counted", Duration::from_secs(5), || world.total() == 2);
    assert_eq!(world.psql("SELECT sum(new_voters) || ' ' || sum(superseded) FROM vote.ledger"), "2 0");
    assert!(worker.service.log().contains("the same queue as at"), "{}", worker.service.tail());
}
