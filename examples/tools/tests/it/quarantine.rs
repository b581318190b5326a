//! Tests of quarantined votes: they are kept, shown, replayed, and decided by an operator.

use std::time::Duration;

use vote_core::{
    Partition, Queue, QueueId, Secret, Vote,
    conformance::{self, frames, layout, one_frame},
    queue::{Appended, Frame, RedisQueue},
};
use vote_service::{Receipt, ReceiptKey};
use vote_testkit::http;

use crate::world::{SECRET, World, eventually};

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

/// Appends frames as a frontend does, and returns the id of the queue and the result for each frame.
async fn append(world: &World, frames: &[Frame]) -> (QueueId, Vec<Appended>) {
    let queue = RedisQueue::connect(&world.redis[0].url(), "vote").unwrap();
    let id = queue.status().await.unwrap().unwrap().id;
    let appended = queue.append(id, frames).await.unwrap();
    assert!(appended.iter().all(|answer| matches!(answer, Appended::Stored(_))), "{appended:?}");
    (id, appended)
}

fn state(world: &World) -> String {
    world.psql("SELECT string_agg(DISTINCT state, ' ') FROM vote.quarantine")
}

/// The queue knows the poll and the store does not, as after a restore to a state before the poll was registered.
#[tokio::test(flavor = "multi_thread")]
async fn votes_of_an_unregistered_poll_are_counted_once_it_is_registered() {
    let world = World::with_polls(1, PETS);
    let worker = world.worker("2");
    world.wait_until_ready();
    let cars = "cars".parse().unwrap();
    let votes: Vec<_> = (0..50).map(|n| Vote { poll: cars, ..conformance::vote(n, 0, 1) }).collect();
    let queue = RedisQueue::connect(&world.redis[0].url(), "vote").unwrap();
    let id = queue.status().await.unwrap().unwrap().id;
    queue.record_polls(id, &[conformance::record(cars)]).await.unwrap();
    append(&world, &frames(&votes)).await;
    eventually("the votes are quarantined", Duration::from_secs(10), || {
        world.psql("SELECT sum(votes) FROM vote.quarantine") == "50"
    });
    let listed = world.must("vote-worker", &["quarantine", "list"]);
    assert!(listed.contains("poll cars is not registered") && listed.contains("quarantined"), "{listed}");
    let (code, audit) = world.audit();
    assert_eq!(code, 2, "the votes are accounted for, but undecided: {audit:#}");
    assert_eq!((&audit["polls"][1]["poll"], &audit["polls"][1]["quarantined"]), (&"cars".into(), &50.into()));

    drop(worker);
    world.set_polls(&format!("{PETS}{CARS}"));
    let _worker = world.worker("2");
    eventually("the votes are counted", Duration::from_secs(20), || {
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
async fn a_damaged_frame_keeps_its_poll_from_being_final_until_an_operator_decides() {
    let world = World::start(1);
    let _worker = world.worker("2");
    world.wait_until_ready();
    let mut some = frames(&[conformance::vote(1, 0, 1), conformance::vote(2, 1, 1)]);
    some[0].bytes = vec![1, 2, 3, 4, 5, 6, 7, 8].into();
    append(&world, &some).await;
    eventually("the damaged frame is quarantined", Duration::from_secs(10), || {
        state(&world) == "quarantined"
    });
    let listed = world.must("vote-worker", &["quarantine", "list", "--pending"]);
    let key = listed.split_whitespace().next().unwrap().to_owned();
    let shown = world.must("vote-worker", &["quarantine", "show", &key]);
    assert!(shown.contains("decodes   no") && shown.contains("0102030405060708"), "{shown}");

    world.must("vote-worker", &["polls", "close", "pets"]);
    world.must("vote-worker", &["quarantine", "replay", &key]);
    eventually("the replayed frame is quarantined again", Duration::from_secs(15), || {
        state(&world) == "quarantined"
    });
    let polls = world.must("vote-worker", &["polls", "list"]);
    assert!(polls.contains("1 frames of poll pets in quarantine await a decision or a replay"), "{polls}");
    world.must("vote-worker", &["quarantine", "reject", "--poll", "pets", "--reason", "damaged by a test"]);
    eventually("the poll is final", Duration::from_secs(15), || {
        world.must("vote-worker", &["polls", "list"]).contains("final since")
    });
    let audit = world.assert_audit_holds();
    assert_eq!((&audit["polls"][0]["quarantined"], &audit["polls"][0]["tally"]), (&1.into(), &1.into()));
    let again = world.command("vote-worker", &["quarantine", "replay", &key]);
    assert_eq!(again.status.code(), Some(1), "a decision is never taken back");
    let listed = world.must("vote-worker", &["quarantine", "list"]);
    assert!(listed.contains("rejected") && listed.contains("damaged by a test"), "{listed}");
}

/// Returns ten votes of one partition, the fourth of which is for an option that the store does not know.
fn one_for_birds() -> (Partition, Vec<Vote>) {
    let partition = layout().partitions.of(conformance::vote(1, 0, 1).voter);
    let mut votes: Vec<Vote> = (1..)
        .map(|voter| conformance::vote(voter, (voter % 2) as u8, 1))
        .filter(|vote| layout().partitions.of(vote.voter) == partition)
        .take(10)
        .collect();
    votes[3].option = "birds".parse().unwrap();
    (partition, votes)
}

fn receipt_state(world: &World, receipt: &Receipt) -> String {
    let key: ReceiptKey = Secret::from_hex(SECRET).unwrap().into();
    let (path, headers) = (format!("/receipts/{}", key.seal(receipt)), [("accept", "application/json")]);
    let answer = http(world.results.public, "GET", &path, &headers, b"").unwrap();
    let json: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    json["state"].as_str().unwrap_or_else(|| panic!("{json}")).to_owned()
}

/// The frontend's file of polls has one more option than the registered definition.
#[tokio::test(flavor = "multi_thread")]
async fn only_the_vote_for_an_unknown_option_is_quarantined_of_its_frame() {
    let world = World::start(1);
    let _worker = world.worker("2");
    world.wait_until_ready();
    let (partition, votes) = one_for_birds();
    let (queue, appended) = append(&world, &[one_frame(votes[0].poll, partition, &votes)]).await;
    let [Appended::Stored(position)] = appended[..] else { panic!("{appended:?}") };

    eventually("the valid votes are counted", Duration::from_secs(5), || world.total() == 9);
    let listed = world.must("vote-worker", &["quarantine", "list", "--pending"]);
    assert_eq!(listed.lines().count(), 1, "{listed}");
    assert!(listed.contains("1 of 10 votes") && listed.contains("poll pets has no option birds"), "{listed}");
    let key = listed.split_whitespace().next().unwrap().to_owned();
    let shown = world.must("vote-worker", &["quarantine", "show", &key]);
    assert!(
        shown.contains("1 of 10 are quarantined") && shown.contains("     3  birds  cast at "),
        "{shown}"
    );
    let states = || {
        let receipt = |vote: &Vote| {
            let Vote { poll, voter, option, cast_at } = *vote;
            receipt_state(&world, &Receipt { poll, queue, partition, position, voter, cast_at, option })
        };
        votes.iter().map(receipt).collect::<Vec<_>>()
    };
    let expected: Vec<_> = (0..10).map(|index| if index == 3 { "quarantined" } else { "counted" }).collect();
    assert_eq!(states(), expected);
    let (code, audit) = world.audit();
    assert_eq!(code, 2, "the vote is accounted for, but undecided: {audit:#}");
    let figures = |audit: &serde_json::Value| {
        let poll = &audit["polls"][0];
        ["accepted", "new_voters", "quarantined"].map(|figure| poll[figure].as_u64())
    };
    assert_eq!(figures(&audit), [Some(10), Some(9), Some(1)]);

    world.must("vote-worker", &["quarantine", "replay", &key]);
    eventually("the replayed frame is quarantined again", Duration::from_secs(15), || {
        state(&world) == "quarantined"
    });
    assert_eq!(world.total(), 9, "no vote is counted twice");
    world.must("vote-worker", &["quarantine", "reject", &key, "--reason", "there are no birds"]);
    let audit = world.assert_audit_holds();
    assert_eq!(figures(&audit), [Some(10), Some(9), Some(1)]);
    assert_eq!(states(), expected, "the decision is about the one vote");
    world.assert_conserved();
}
