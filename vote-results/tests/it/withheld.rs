//! Polls whose figures are withheld until they are final.

use http::StatusCode;
use serde_json::json;
use vote_core::count::QueueState;

use crate::world::{World, next, pets_with, vote};

/// A world with 46 voters, 31 of them for cats, and 47 votes: numbers that appear nowhere else.
async fn world() -> World {
    let world = World::of(pets_with("results = \"after-close\"")).await;
    let votes = (0..46).map(|voter| vote(voter, u8::from(voter >= 31), 1)).chain([vote(45, 0, 2)]);
    world.counted(votes).await;
    world.report(47, 0, QueueState::Active).await;
    world.refresher.refresh().await;
    world
}

/// Returns the numbers in a text that are figures of the outcome.
fn leaks(text: &str) -> Vec<&str> {
    let numbers = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '.');
    numbers.filter(|number| ["46", "31", "15", "47", "67.4", "32.6"].contains(number)).collect()
}

#[tokio::test]
async fn no_route_shows_a_number_of_the_outcome() {
    let world = world().await;
    for path in
        ["/polls/pets", "/polls/pets/results.json", "/polls/pets/results.csv", "/status", "/status.json"]
    {
        let answer = world.get(path).await;
        // Times and the identity of the queue may contain these digits.
        let body = answer.body.replace(&world.id.to_string(), "").replace("2027-01-15", "");
        assert_eq!(leaks(&body), Vec::<&str>::new(), "{path}: {body}");
    }
}

#[tokio::test]
async fn the_json_is_marked_as_withheld() {
    let world = world().await;
    assert_eq!(
        world.get("/polls/pets/results.json").await.json(),
        json!({
            "poll": "pets",
            "title": "Cats or dogs?",
            "status": "provisional",
            "withheld": true,
            "total": null,
            "options": [{ "option": "cats", "label": "Cats" }, { "option": "dogs", "label": "Dogs" }],
            "updated_at": null,
        })
    );
}

#[tokio::test]
async fn the_csv_is_forbidden_with_the_reason() {
    let answer = world().await.get("/polls/pets/results.csv").await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert!(answer.body.contains("published once it has closed"), "{}", answer.body);
}

#[tokio::test(start_paused = true)]
async fn the_event_stream_sends_no_event_when_votes_come_in() {
    let world = world().await;
    let mut events = world.events("/polls/pets/events").await;
    next(&mut events).await.unwrap();
    let first = next(&mut events).await.unwrap();
    assert!(first.contains("\"withheld\":true") && leaks(&first).is_empty(), "{first}");

    world.clock.advance(1);
    world.counted([vote(100, 0, 9)]).await;

    assert_eq!(next(&mut events).await.unwrap(), ": still here\n\n");
}

#[tokio::test]
async fn the_status_still_shows_whether_all_votes_are_accounted_for() {
    let status = world().await.get("/status.json").await.json();
    let poll = &status["polls"][0];
    assert_eq!(
        (&poll["accepted"], &poll["residual"], &poll["conserved"], &poll["withheld"]),
        (&json!(null), &json!(null), &json!(true), &json!(true))
    );
    assert_eq!(
        (&status["queues"][0]["queued"], &status["queues"][0]["drained"]),
        (&json!(null), &json!(null))
    );
}
