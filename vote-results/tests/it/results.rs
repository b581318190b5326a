//! The results of a poll in every format, and the status.

use http::StatusCode;
use serde_json::json;
use vote_core::{Polls, count::QueueState};

use crate::world::{World, pets_with, vote};

#[tokio::test]
async fn the_json_shows_the_counted_votes() {
    let world = World::new().await;

    world.counted([vote(1, 0, 1), vote(2, 0, 2), vote(3, 1, 3), vote(3, 0, 4)]).await;

    let answer = world.get("/polls/pets/results.json").await;
    assert_eq!((answer.status, answer.header("content-type")), (StatusCode::OK, "application/json"));
    assert_eq!(
        answer.json(),
        json!({
            "poll": "pets",
            "title": "Cats or dogs?",
            "status": "provisional",
            "total": 3,
            "options": [
                { "option": "cats", "label": "Cats", "votes": 2, "percent": 66.7 },
                { "option": "dogs", "label": "Dogs", "votes": 1, "percent": 33.3 },
            ],
            "updated_at": "2027-01-15T08:00:00Z",
        })
    );
}

#[tokio::test]
async fn a_poll_without_votes_shows_zeros() {
    let world = World::new().await;
    world.refresher.refresh().await;

    let answer = world.get("/polls/pets/results.json").await.json();

    assert_eq!(answer["total"], 0);
    assert_eq!(
        answer["options"][1],
        json!({ "option": "dogs", "label": "Dogs", "votes": 0, "percent": 0.0 })
    );
}

#[tokio::test]
async fn updated_at_is_the_time_of_the_last_change() {
    let world = World::new().await;
    world.counted([vote(1, 0, 1)]).await;

    world.clock.advance(5);
    world.refresher.refresh().await;
    assert_eq!(world.get("/polls/pets/results.json").await.json()["updated_at"], "2027-01-15T08:00:00Z");

    world.counted([vote(2, 0, 1)]).await;
    assert_eq!(world.get("/polls/pets/results.json").await.json()["updated_at"], "2027-01-15T08:00:05Z");
}

#[tokio::test]
async fn the_json_is_not_sent_again_until_it_changes() {
    let world = World::new().await;
    world.counted([vote(1, 0, 1)]).await;
    let first = world.get("/polls/pets/results.json").await;
    assert_eq!(first.header("cache-control"), "public, max-age=1");

    let known = [("If-None-Match", first.header("etag"))];
    let again = world.send("GET", "/polls/pets/results.json", &known).await;
    assert_eq!((again.status, again.body.as_str()), (StatusCode::NOT_MODIFIED, ""));

    world.counted([vote(2, 0, 1)]).await;
    assert_eq!(world.send("GET", "/polls/pets/results.json", &known).await.status, StatusCode::OK);
}

#[tokio::test]
async fn the_csv_is_a_download_that_is_safe_in_spreadsheets() {
    let polls = Polls::from_toml(
        "polls.toml",
        r#"
        [[poll]]
        slug = "pets"
        title = "Cats or dogs?"
        options = [{ slug = "cats", label = "=1+1, \"really\"" }, { slug = "dogs", label = "Dogs" }]
        "#,
    );
    let world = World::of(polls.unwrap()).await;
    world.counted([vote(1, 0, 1)]).await;

    let answer = world.get("/polls/pets/results.csv").await;

    assert_eq!(
        answer.body,
        "option,label,votes,percent\r\ncats,\"'=1+1, \"\"really\"\"\",1,100.0\r\ndogs,Dogs,0,0.0\r\n"
    );
    assert!(answer.header("content-type").starts_with("text/csv"));
    assert_eq!(answer.header("content-disposition"), "attachment; filename=\"pets.csv\"");
}

#[tokio::test]
async fn the_page_shows_the_numbers_and_links_to_the_voting_site() {
    let world = World::of(pets_with("closes_at = 2027-02-15T06:00:00Z")).await;
    world.counted([vote(1, 0, 1), vote(2, 1, 2)]).await;

    let page = world.get("/polls/pets").await;

    assert_eq!((page.status, page.header("content-type")), (StatusCode::OK, "text/html; charset=utf-8"));
    for part in
        ["Cats or dogs?", "50.0%", "2027-02-15 06:00:00 UTC", "href=\"https://vote.example/polls/pets\""]
    {
        assert!(page.body.contains(part), "{part} in {}", page.body);
    }
}

#[tokio::test]
async fn the_status_accounts_for_every_vote() {
    let world = World::new().await;
    world.counted([vote(1, 0, 1), vote(2, 0, 2), vote(2, 1, 3)]).await;
    world.report(3, 0, QueueState::Active).await;
    world.refresher.refresh().await;

    let status = world.get("/status.json").await.json();

    assert_eq!(status["stale"], json!(null));
    assert_eq!(
        status["polls"],
        json!([{
            "poll": "pets", "title": "Cats or dogs?", "registered": true, "problem": null, "withheld": false, "conserved": true,
            "accepted": 3, "new_voters": 2, "superseded": 1, "quarantined": 0, "residual": 0,
        }])
    );
    assert_eq!(
        status["queues"],
        json!([{
            "queue": world.id.to_string(), "address": "memory:", "seen_at": "2027-01-15T08:00:00Z", "accepted": 3,
            "queued": 0, "drained": true, "state": "active",
        }])
    );
}

#[tokio::test]
async fn the_status_page_shows_a_diverged_queue() {
    let world = World::new().await;
    world.report(1234, 5, QueueState::Diverged).await;
    world.clock.advance(30);
    world.refresher.refresh().await;

    let page = world.get("/status").await.body;

    for part in [
        "memory:",
        &world.id.to_string(),
        "1,234",
        "30 s ago",
        "diverged",
        "its content contradicts what was read before",
    ] {
        assert!(page.contains(part), "{part} in {page}");
    }
}
