//! The status of votes, looked up by receipt.

use bytes::Bytes;
use http::StatusCode;
use serde_json::json;
use vote_core::{
    Clock, Polls, QueueId, Store, StoreReader, Vote,
    conformance::{layout, one_frame},
    count::{Decision, QueueRecord, QueueState},
    queue::Frame,
};
use vote_service::Receipt;

use crate::world::{Answer, World, pets_with, vote};

async fn look(world: &World, receipt: &Receipt) -> Answer {
    let path = format!("/receipts/{}", world.key.seal(receipt));
    world.send("GET", &path, &[("Accept", "application/json")]).await
}

async fn state(world: &World, receipt: &Receipt) -> String {
    look(world, receipt).await.json()["state"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_vote_waits_until_it_is_counted() {
    let world = World::new().await;
    let receipt = world.accept(vote(1, 0, 1)).await;
    assert_eq!(state(&world, &receipt).await, "waiting");

    world.count().await;

    assert_eq!(state(&world, &receipt).await, "counted");
}

#[tokio::test]
async fn with_keep_first_a_second_vote_is_superseded() {
    let world = World::new().await;
    let first = world.accept(vote(1, 0, 1)).await;
    let second = world.accept(vote(1, 1, 2)).await;
    world.count().await;
    assert_eq!(
        (state(&world, &first).await, state(&world, &second).await),
        ("counted".into(), "superseded".into())
    );
}

#[tokio::test]
async fn with_keep_last_the_first_vote_is_superseded() {
    let world = World::of(pets_with("keep = \"last\"")).await;
    let first = world.accept(vote(1, 0, 1)).await;
    let second = world.accept(vote(1, 1, 2)).await;
    world.count().await;
    assert_eq!(
        (state(&world, &first).await, state(&world, &second).await),
        ("superseded".into(), "counted".into())
    );
}

#[tokio::test]
async fn the_merge_rule_of_the_store_applies_even_if_the_file_differs() {
    let world = World::of(pets_with("keep = \"last\"")).await;
    let first = world.accept(vote(1, 0, 1)).await;
    world.accept(vote(1, 1, 2)).await;
    world.count().await;

    let queue = vote_results::receipts::QueueOutcome::default();
    let status =
        vote_results::receipts::status_of(&*world.store, &Polls::example(), &first, &queue).await.unwrap();

    assert_eq!(status.name(), "superseded");
}

#[tokio::test]
async fn a_vote_that_will_win_the_merge_is_waiting_until_it_is_read() {
    let world = World::new().await;
    world.counted([vote(1, 1, 2)]).await;
    let earlier = world.accept(vote(1, 0, 1)).await;
    assert_eq!(state(&world, &earlier).await, "waiting");

    world.count().await;

    assert_eq!(state(&world, &earlier).await, "counted");
}

#[tokio::test]
async fn a_quarantined_vote_is_shown_with_the_reason_and_the_decision() {
    let world = World::new().await;
    let vote = vote(1, 0, 1);
    let good = vote_core::conformance::frames(&[vote]).remove(0);
    let mut bytes = good.bytes.to_vec();
    bytes[5] ^= 1;
    let position = world.append(&Frame { bytes: Bytes::from(bytes), ..good.clone() }).await;
    let receipt = Receipt {
        poll: vote.poll,
        queue: world.id,
        partition: good.partition,
        position,
        voter: vote.voter,
        cast_at: vote.cast_at,
        option: vote.option,
    };
    assert_eq!(state(&world, &receipt).await, "waiting");
    world.count().await;

    let answer = look(&world, &receipt).await.json();

    assert_eq!(answer["state"], "quarantined");
    assert!(answer["message"].as_str().unwrap().contains("damaged in transit"), "{answer}");
    assert!(answer["message"].as_str().unwrap().contains("must decide"), "{answer}");

    let key = world.store.inner.quarantine(None, 1).await.unwrap()[0].key();
    let decision = Decision::Reject("the voter was told".to_owned());
    world.store.inner.decide(&[key], &decision).await.unwrap();
    let answer = look(&world, &receipt).await.json();
    assert!(answer["message"].as_str().unwrap().contains("decided not to count it"), "{answer}");
    assert!(!answer["message"].as_str().unwrap().contains("the voter was told"), "{answer}");

    // The same vote, read from a replaced queue.
    let elsewhere = Receipt { queue: QueueId([7; 16]), ..receipt };
    assert_eq!(state(&world, &elsewhere).await, "waiting");
    let record = QueueRecord::new(world.id, "memory:".to_owned(), world.clock.now());
    let replaced = QueueRecord { original_id: Some(elsewhere.queue), ..record };
    world.store.inner.report(&[replaced]).await.unwrap();
    world.refresher.refresh().await;
    assert_eq!(state(&world, &elsewhere).await, "quarantined");
}

#[tokio::test]
async fn other_votes_of_a_frame_with_a_quarantined_vote_have_their_own_status() {
    let world = World::new().await;
    let partition = layout().partitions.of(vote(1, 1, 5).voter);
    let mut of_frame: Vec<Vote> = (1..)
        .map(|voter| vote(voter, 1, 5))
        .filter(|vote| layout().partitions.of(vote.voter) == partition)
        .take(4)
        .collect();
    of_frame[2].option = "birds".parse().unwrap();
    let earlier = Vote { cast_at: vote(1, 1, 1).cast_at, ..of_frame[3] };
    world.counted([earlier]).await;
    let position = world.append(&one_frame(earlier.poll, partition, &of_frame)).await;
    let receipts = of_frame.iter().map(|vote| Receipt {
        poll: vote.poll,
        queue: world.id,
        partition,
        position,
        voter: vote.voter,
        cast_at: vote.cast_at,
        option: vote.option,
    });
    let receipts: Vec<Receipt> = receipts.collect();

    world.count().await;

    let mut states = Vec::new();
    for receipt in &receipts {
        states.push(state(&world, receipt).await);
    }
    assert_eq!(states, ["counted", "counted", "quarantined", "superseded"]);
    let answer = look(&world, &receipts[2]).await.json();
    assert!(answer["message"].as_str().unwrap().contains("lacks an option"), "{answer}");

    let key = world.store.inner.quarantine(None, 1).await.unwrap()[0].key();
    world.store.inner.decide(&[key], &Decision::Reject("no such option".to_owned())).await.unwrap();
    let answer = look(&world, &receipts[2]).await.json();
    assert!(answer["message"].as_str().unwrap().contains("decided not to count it"), "{answer}");
    assert_eq!(state(&world, &receipts[0]).await, "counted");
}

#[tokio::test]
async fn a_vote_in_a_diverged_queue_is_lost_unless_it_was_counted() {
    let world = World::new().await;
    let counted = world.accept(vote(1, 0, 1)).await;
    world.count().await;
    let uncounted = world.accept(vote(2, 0, 1)).await;
    world.report(2, 1, QueueState::Diverged).await;
    world.refresher.refresh().await;

    assert_eq!(state(&world, &counted).await, "counted");
    let answer = look(&world, &uncounted).await.json();
    assert_eq!(answer["state"], "lost");
    assert!(answer["message"].as_str().unwrap().starts_with("Your vote has been lost"), "{answer}");
}

#[tokio::test]
async fn an_unaccounted_vote_is_lost() {
    let world = World::new().await;
    let receipt = world.accept(vote(1, 0, 1)).await;
    world.count().await;
    // A voter without any ballot, at a position that was read.
    let stranger = Receipt { voter: vote(2, 0, 1).voter, ..receipt };
    assert_eq!(state(&world, &stranger).await, "lost");
}

#[tokio::test]
async fn a_commit_during_the_lookup_does_not_make_a_counted_vote_look_lost() {
    let world = World::new().await;
    let receipt = world.accept(vote(1, 0, 1)).await;
    world.store.commit_after_next_position(world.plans().await);

    assert_eq!(state(&world, &receipt).await, "counted");
}

#[tokio::test]
async fn an_invalid_receipt_is_not_found() {
    let world = World::new().await;
    let receipt = world.accept(vote(1, 0, 1)).await;
    let token = world.key.seal(&receipt);
    for bad in ["x", &token[1..], &"A".repeat(5000), "%00", "..."] {
        let path = format!("/receipts/{bad}");
        let page = world.get(&path).await;
        assert_eq!(page.status, StatusCode::NOT_FOUND, "{bad}");
        assert!(page.body.contains("not a valid receipt"), "{}", page.body);
        let json = world.send("GET", &path, &[("Accept", "application/json")]).await.json();
        assert_eq!((&json["state"], &json["poll"]), (&json!("unknown"), &json!(null)));
    }
}

#[tokio::test]
async fn the_page_shows_the_state_and_is_not_cached() {
    let world = World::new().await;
    let receipt = world.accept(vote(1, 0, 1)).await;
    let page = world.get(&format!("/receipts/{}", world.key.seal(&receipt))).await;
    assert_eq!((page.status, page.header("cache-control")), (StatusCode::OK, "no-store"));
    for part in
        [">waiting<", "waiting to be counted", "http-equiv=\"refresh\"", "href=\"/polls/pets\"", "noindex"]
    {
        assert!(page.body.contains(part), "{part} in {}", page.body);
    }
}

#[tokio::test]
async fn neither_the_choice_nor_the_voter_is_shown() {
    // A title of its own, since that of the example names the options.
    let polls = Polls::from_toml(
        "polls.toml",
        r#"
        [[poll]]
        slug = "pets"
        title = "Which?"
        options = [{ slug = "cats", label = "Cats" }, { slug = "dogs", label = "Dogs" }]
        "#,
    );
    let world = World::of(polls.unwrap()).await;
    let receipts = [world.accept(vote(1, 0, 1)).await, world.accept(vote(1, 1, 2)).await];
    let mut seen = Vec::new();
    for counted in [false, true] {
        if counted {
            world.count().await;
        }
        for receipt in &receipts {
            let path = format!("/receipts/{}", world.key.seal(receipt));
            seen.push(world.get(&path).await.body);
            seen.push(look(&world, receipt).await.body);
        }
    }
    for body in seen {
        for secret in ["cats", "Cats", "dogs", "Dogs", &receipts[0].voter.to_string()] {
            assert!(!body.contains(secret), "{secret} in {body}");
        }
    }
}

#[tokio::test]
async fn during_an_outage_voters_learn_that_their_receipt_remains_valid() {
    let world = World::new().await;
    let receipt = world.accept(vote(1, 0, 1)).await;
    world.store.fail("connection to 10.0.0.7 refused");
    let answer = look(&world, &receipt).await;
    assert_eq!((answer.status, answer.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, "5"));
    assert!(
        answer.body.contains("receipt remains valid") && !answer.body.contains("10.0.0.7"),
        "{}",
        answer.body
    );
}
