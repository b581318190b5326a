//! What becomes of a vote, as its receipt tells.

use bytes::Bytes;
use http::StatusCode;
use serde_json::json;
use vote_core::{
    Clock, Polls, QueueId, Store, StoreReader, Vote,
    conformance::{layout, one_frame},
    queue::Frame,
    store::{Decision, QueueRecord, QueueState},
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
async fn where_the_first_vote_stands_a_second_is_superseded() {
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
async fn where_the_last_vote_stands_the_first_is_superseded() {
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
async fn the_rule_is_that_of_the_store_and_not_of_a_file_that_was_changed_later() {
    let world = World::of(pets_with("keep = \"last\"")).await;
    let first = world.accept(vote(1, 0, 1)).await;
    world.accept(vote(1, 1, 2)).await;
    world.count().await;

    let queue = vote_results::receipts::QueueFate::default();
    let fate = vote_results::receipts::fate(&*world.store, &Polls::example(), &first, &queue).await.unwrap();

    assert_eq!(fate.name(), "superseded");
}

#[tokio::test]
async fn a_vote_that_comes_late_but_is_the_first_waits_while_another_stands() {
    let world = World::new().await;
    world.counted([vote(1, 1, 2)]).await;
    let earlier = world.accept(vote(1, 0, 1)).await;
    assert_eq!(state(&world, &earlier).await, "waiting");

    world.count().await;

    assert_eq!(state(&world, &earlier).await, "counted");
}

#[tokio::test]
async fn a_frame_that_was_set_aside_is_said_to_be_so_with_the_reason() {
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
    assert!(answer["message"].as_str().unwrap().contains("damaged on the way"), "{answer}");
    assert!(answer["message"].as_str().unwrap().contains("have to decide"), "{answer}");

    let key = world.store.inner.quarantine(None, 1).await.unwrap()[0].key();
    let decision = Decision::Reject("the voter was told".to_owned());
    world.store.inner.decide(&[key], &decision).await.unwrap();
    let answer = look(&world, &receipt).await.json();
    assert!(answer["message"].as_str().unwrap().contains("decided that it stays so"), "{answer}");
    assert!(!answer["message"].as_str().unwrap().contains("the voter was told"), "{answer}");

    // The same, read from what was left of the queue of another vote.
    let elsewhere = Receipt { queue: QueueId([7; 16]), ..receipt };
    assert_eq!(state(&world, &elsewhere).await, "waiting");
    let record = QueueRecord::new(world.id, "memory:".to_owned(), world.clock.now());
    let remains = QueueRecord { remains_of: Some(elsewhere.queue), ..record };
    world.store.inner.report(&[remains]).await.unwrap();
    world.poller.poll().await;
    assert_eq!(state(&world, &elsewhere).await, "quarantined");
}

#[tokio::test]
async fn only_the_vote_that_is_quarantined_is_said_to_be_so() {
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
    assert!(answer["message"].as_str().unwrap().contains("decided that it stays so"), "{answer}");
    assert_eq!(state(&world, &receipts[0]).await, "counted");
}

#[tokio::test]
async fn a_vote_in_a_queue_that_lost_data_is_lost_unless_it_was_counted() {
    let world = World::new().await;
    let counted = world.accept(vote(1, 0, 1)).await;
    world.count().await;
    let uncounted = world.accept(vote(2, 0, 1)).await;
    world.report(2, 1, QueueState::Cut).await;
    world.poller.poll().await;

    assert_eq!(state(&world, &counted).await, "counted");
    let answer = look(&world, &uncounted).await.json();
    assert_eq!(answer["state"], "lost");
    assert!(answer["message"].as_str().unwrap().starts_with("Your vote is lost"), "{answer}");
}

#[tokio::test]
async fn a_vote_that_was_read_but_is_nowhere_is_not_said_to_wait() {
    let world = World::new().await;
    let receipt = world.accept(vote(1, 0, 1)).await;
    world.count().await;
    // Another voter, of whom nothing was ever read, at a position that was.
    let stranger = Receipt { voter: vote(2, 0, 1).voter, ..receipt };
    assert_eq!(state(&world, &stranger).await, "lost");
}

#[tokio::test]
async fn a_commit_between_the_two_questions_makes_no_counted_vote_look_lost() {
    let world = World::new().await;
    let receipt = world.accept(vote(1, 0, 1)).await;
    world.store.commit_after_next_position(world.plans().await);

    assert_eq!(state(&world, &receipt).await, "counted");
}

#[tokio::test]
async fn what_is_no_receipt_gets_a_plain_answer() {
    let world = World::new().await;
    let receipt = world.accept(vote(1, 0, 1)).await;
    let token = world.key.seal(&receipt);
    for bad in ["x", &token[1..], &"A".repeat(5000), "%00", "..."] {
        let path = format!("/receipts/{bad}");
        let page = world.get(&path).await;
        assert_eq!(page.status, StatusCode::NOT_FOUND, "{bad}");
        assert!(page.body.contains("no such receipt"), "{}", page.body);
        let json = world.send("GET", &path, &[("Accept", "application/json")]).await.json();
        assert_eq!((&json["state"], &json["poll"]), (&json!("unknown"), &json!(null)));
    }
}

#[tokio::test]
async fn a_page_shows_the_state_and_is_kept_by_no_cache() {
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
async fn neither_choice_nor_voter_is_shown() {
    // The title names the options, so it is another one here.
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
async fn while_the_store_is_down_the_receipt_is_said_to_stay_valid() {
    let world = World::new().await;
    let receipt = world.accept(vote(1, 0, 1)).await;
    world.store.fail("connection to 10.0.0.7 refused");
    let answer = look(&world, &receipt).await;
    assert_eq!((answer.status, answer.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, "5"));
    assert!(
        answer.body.contains("receipt stays valid") && !answer.body.contains("10.0.0.7"),
        "{}",
        answer.body
    );
}
