//! Polls that the queue does not have as the file of the frontend defines them.

use std::time::Duration;

use http::{StatusCode, header};
use vote_core::{Polls, Queue, Timestamp, queue::PollRecord};

use crate::world::{Answer, POLLS, World, records};

const JSON: &str = "application/json";

fn file() -> Polls {
    Polls::from_toml("polls.toml", POLLS).unwrap()
}

/// What the queue knows of the polls with these names.
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
    assert_eq!(world.json("cats", Some(&cookie)).await.status, StatusCode::ACCEPTED, "the other one goes on");
    assert_unavailable(&world.red_car(&cookie).await, "poll-not-ready");
    let page = world.get("/polls/cars").await;
    assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(
        page.body.contains("takes no votes yet") && page.headers.contains_key(header::RETRY_AFTER),
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
async fn a_poll_that_the_queue_has_otherwise_is_unavailable() {
    let other = POLLS.replace("slug = \"blue\"", "slug = \"green\"");
    let records = records(&Polls::from_toml("polls.toml", &other).unwrap());
    let world = World::with_queue_of(&records, file()).await;
    let cookie = world.cookie().await;
    assert_unavailable(&world.red_car(&cookie).await, "poll-differs");
    assert_eq!(world.get("/polls/cars").await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(world.json("cats", Some(&cookie)).await.status, StatusCode::ACCEPTED, "the other one goes on");
    assert_eq!(world.votes().await.len(), 1);
}

#[tokio::test]
async fn a_poll_closes_when_its_queue_says_and_not_when_the_file_does() {
    let world = World::new().await;
    let cookie = world.cookie().await;
    let after_an_hour: Timestamp = Timestamp::from_micros(1_798_765_200_000_000).unwrap();
    for (closes_at, seconds, status, says) in [
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
            answer.body.contains(says) && world.get("/polls/pets").await.body.contains(says),
            "{}",
            answer.body
        );
    }
}
