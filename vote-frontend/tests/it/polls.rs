//! Polls that the queue does not have as the frontend's file defines them.

use std::time::Duration;

use http::{StatusCode, header};
use vote_core::{Polls, Queue, Timestamp, queue::PollRecord};

use crate::world::{Answer, POLLS, World, records};

const JSON: &str = "application/json";

fn file() -> Polls {
    Polls::from_toml("polls.toml", POLLS).unwrap()
}

/// Records of the polls with these names, as in the file.
fn only(slugs: &[&str]) -> Vec<PollRecord> {
    records(&file()).into_iter().filter(|record| slugs.contains(&record.poll.as_str())).collect()
}

impl World {
    async fn red_car(&self, cookie: &str) -> Answer {
        self.post("cars", JSON, r#"{"option": "red"}"#, Some(cookie)).await
    }
}

#[track_caller]
fn assert_unavailable(answer: &Answer, error: &str) {
    assert_eq!((answer.status.as_u16(), answer.error().as_str()), (503, error), "{}", answer.body);
    assert_eq!(answer.headers[header::RETRY_AFTER], "5");
}

#[tokio::test]
async fn a_poll_that_the_queue_does_not_know_is_unavailable_until_it_does() {
    let world = World::with_queue_of(&only(&["pets"]), file()).await;
    let cookie = world.cookie().await;
    assert_eq!(
        world.json("cats", Some(&cookie)).await.status,
        StatusCode::ACCEPTED,
        "the other poll is not affected"
    );
    assert_unavailable(&world.red_car(&cookie).await, "poll-not-ready");
    let page = world.get("/polls/cars").await;
    assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(
        page.body.contains("does not accept votes yet") && page.headers.contains_key(header::RETRY_AFTER),
        "{}",
        page.body
    );
    assert_eq!(world.get("/polls/pets").await.status, StatusCode::OK);

    world.queue.record_polls(world.id, &only(&["cars"])).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(world.red_car(&cookie).await.status, StatusCode::ACCEPTED);
    assert_eq!(world.get("/polls/cars").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_poll_that_the_queue_defines_differently_is_unavailable() {
    let other = POLLS.replace("slug = \"blue\"", "slug = \"green\"");
    let records = records(&Polls::from_toml("polls.toml", &other).unwrap());
    let world = World::with_queue_of(&records, file()).await;
    let cookie = world.cookie().await;
    assert_unavailable(&world.red_car(&cookie).await, "poll-differs");
    assert_eq!(world.get("/polls/cars").await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        world.json("cats", Some(&cookie)).await.status,
        StatusCode::ACCEPTED,
        "the other poll is not affected"
    );
    assert_eq!(world.votes().await.len(), 1);
}

#[tokio::test]
async fn an_option_is_not_reported_as_unknown_if_the_queue_defines_the_poll_differently() {
    let other = POLLS.replace("slug = \"blue\"", "slug = \"green\"");
    let records = records(&Polls::from_toml("polls.toml", &other).unwrap());
    let world = World::with_queue_of(&records, file()).await;
    let green = world.post("cars", JSON, r#"{"option": "green"}"#, Some(&world.cookie().await)).await;
    assert_unavailable(&green, "poll-differs");
}

#[tokio::test]
async fn an_option_is_not_reported_as_unknown_while_the_definition_in_the_queue_is_unknown() {
    let world = World::new().await;
    let cookie = world.cookie().await;
    // Replaces the queue; no worker activates the new one.
    world.queue.create(crate::world::layout(), Some(world.id)).await.unwrap();
    let green = async || world.post("cars", JSON, r#"{"option": "green"}"#, Some(&cookie)).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!((green().await.status.as_u16(), green().await.error().as_str()), (503, "not-stored"));
}

#[tokio::test]
async fn the_closing_time_in_the_queue_takes_precedence_over_the_file() {
    let world = World::new().await;
    let cookie = world.cookie().await;
    let after_an_hour: Timestamp = Timestamp::from_micros(1_798_765_200_000_000).unwrap();
    for (closes_at, seconds, status, text) in [
        (Some(after_an_hour), 3599, 202, ""),
        (Some(after_an_hour), 3600, 403, "closed at 2027-01-01T01:00:00Z"),
        (None, 100 * 24 * 3600, 202, ""),
    ] {
        let record = PollRecord { closes_at, ..only(&["pets"])[0] };
        world.queue.record_polls(world.id, &[record]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        world.set_clock(seconds);
        let answer = world.json("cats", Some(&cookie)).await;
        assert_eq!(answer.status.as_u16(), status, "{closes_at:?}: {}", answer.body);
        assert!(
            answer.body.contains(text) && world.get("/polls/pets").await.body.contains(text),
            "{}",
            answer.body
        );
    }
}
