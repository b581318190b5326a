//! Frames that could not be counted: kept, shown, tried again, and decided about.

use std::time::Duration;

use vote_core::{
    Queue, Vote,
    conformance::{self, frames},
    queue::{Appended, Frame, RedisQueue},
};

use crate::world::{World, eventually};

const PETS: &str = r#"
[[poll]]
slug = "pets"
title = "Cats or dogs?"
options = [{ slug = "cats", label = "Cats" }, { slug = "dogs", label = "Dogs" }]
"#;
const CARS: &str = r#"
[[poll]]
slug = "cars"
title = "Cats as cars?"
options = [{ slug = "cats", label = "Cats" }, { slug = "dogs", label = "Dogs" }]
"#;

async fn append(world: &World, frames: &[Frame]) {
    let queue = RedisQueue::connect(&world.redis[0].url(), "vote").unwrap();
    let id = queue.status().await.unwrap().unwrap().id;
    let appended = queue.append(id, frames).await.unwrap();
    assert!(appended.iter().all(|answer| matches!(answer, Appended::Stored(_))), "{appended:?}");
}

fn state(world: &World) -> String {
    world.psql("SELECT string_agg(DISTINCT state, ' ') FROM vote.quarantine")
}

/// The queue knows the poll and the store does not: that was restored to a state from before the poll.
#[tokio::test(flavor = "multi_thread")]
async fn votes_of_a_poll_that_becomes_known_later_are_counted_then() {
    let world = World::with_polls(1, PETS);
    let worker = world.worker("2");
    world.wait_until_ready();
    let cars = "cars".parse().unwrap();
    let votes: Vec<_> = (0..50).map(|n| Vote { poll: cars, ..conformance::vote(n, 0, 1) }).collect();
    let queue = RedisQueue::connect(&world.redis[0].url(), "vote").unwrap();
    let id = queue.status().await.unwrap().unwrap().id;
    queue.record_polls(id, &[conformance::record(cars)]).await.unwrap();
    append(&world, &frames(&votes)).await;
    eventually("they are set aside", Duration::from_secs(10), || {
        world.psql("SELECT sum(votes) FROM vote.quarantine") == "50"
    });
    let listed = world.must("vote-worker", &["quarantine", "list"]);
    assert!(listed.contains("poll cars is not registered") && listed.contains("held"), "{listed}");
    let (code, audit) = world.audit();
    assert_eq!(code, 2, "they are accounted for, and undecided: {audit:#}");
    assert_eq!((&audit["polls"][1]["poll"], &audit["polls"][1]["quarantined"]), (&"cars".into(), &50.into()));

    drop(worker);
    world.set_polls(&format!("{PETS}{CARS}"));
    let _worker = world.worker("2");
    eventually("they are counted", Duration::from_secs(20), || {
        world.psql("SELECT coalesce(sum(n), 0) FROM vote.tally") == "50"
    });
    let audit = world.assert_audit_holds();
    assert_eq!(
        (&audit["polls"][1]["quarantined"], &audit["polls"][1]["new_voters"]),
        (&0.into(), &50.into())
    );
    assert_eq!(state(&world), "counted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_frame_keeps_its_poll_from_being_final_until_somebody_decides() {
    let world = World::start(1);
    let _worker = world.worker("2");
    world.wait_until_ready();
    let mut some = frames(&[conformance::vote(1, 0, 1), conformance::vote(2, 1, 1)]);
    some[0].bytes = vec![1, 2, 3, 4, 5, 6, 7, 8].into();
    append(&world, &some).await;
    eventually("one is set aside", Duration::from_secs(10), || state(&world) == "held");
    let listed = world.must("vote-worker", &["quarantine", "list", "--pending"]);
    let key = listed.split_whitespace().next().unwrap().to_owned();
    let shown = world.must("vote-worker", &["quarantine", "show", &key]);
    assert!(shown.contains("decodes   no") && shown.contains("0102030405060708"), "{shown}");

    world.must("vote-worker", &["polls", "close", "pets"]);
    world.must("vote-worker", &["quarantine", "replay", &key]);
    eventually("it was tried again, and still can't be counted", Duration::from_secs(15), || {
        state(&world) == "held"
    });
    let said = world.must("vote-worker", &["polls", "list"]);
    assert!(said.contains("1 frames of poll pets are in quarantine undecided"), "{said}");
    world.must("vote-worker", &["quarantine", "reject", "--poll", "pets", "--reason", "damaged by a test"]);
    eventually("it is final", Duration::from_secs(15), || {
        world.must("vote-worker", &["polls", "list"]).contains("final since")
    });
    let audit = world.assert_audit_holds();
    assert_eq!((&audit["polls"][0]["quarantined"], &audit["polls"][0]["tally"]), (&1.into(), &1.into()));
    let again = world.command("vote-worker", &["quarantine", "replay", &key]);
    assert_eq!(again.status.code(), Some(1), "what was decided stays so");
    let listed = world.must("vote-worker", &["quarantine", "list"]);
    assert!(listed.contains("rejected") && listed.contains("damaged by a test"), "{listed}");
}
