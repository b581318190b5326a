//! Votes that are accepted.

use http::{StatusCode, header};
use vote_core::Queue;

use crate::world::World;

#[tokio::test]
async fn a_form_vote_is_stored_and_answered_with_the_receipt_page() {
    let world = World::new().await;
    let page = world.get("/polls/pets").await;
    assert!(page.body.contains(r#"action="/polls/pets/votes""#) && page.body.contains(r#"value="cats""#));
    let form = "application/x-www-form-urlencoded";
    let answer = world.post("pets", form, "option=cats", page.cookie().as_deref()).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
    let receipt = answer.headers[header::LOCATION].to_str().unwrap();
    let page = world.get(receipt).await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(page.body.contains(&format!("http://results.example{receipt}")), "{}", page.body);
    assert_eq!(world.votes().await[0].option.as_str(), "cats");
}

#[tokio::test]
async fn a_json_vote_is_stored_and_answered_with_its_receipt() {
    let world = World::new().await;
    let answer = world.json("dogs", Some(&world.cookie().await)).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.body);
    let json: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    let receipt = json["receipt"].as_str().unwrap();
    assert_eq!(world.get(&format!("/receipts/{receipt}")).await.status, StatusCode::OK);
    assert_eq!(world.votes().await.len(), 1);
}

#[tokio::test]
async fn one_cookie_is_one_voter_in_each_poll() {
    let world = World::new().await;
    let (one, two) = (world.cookie().await, world.cookie().await);
    for cookie in [&one, &one, &two] {
        assert_eq!(world.json("cats", Some(cookie)).await.status, StatusCode::ACCEPTED);
    }
    let red = world.post("cars", "application/json", r#"{"option": "red"}"#, Some(&one)).await;
    assert_eq!(red.status, StatusCode::ACCEPTED);
    let mut voters: Vec<_> = world.votes().await.iter().map(|vote| vote.voter).collect();
    assert_eq!(voters.len(), 4);
    voters.sort();
    voters.dedup();
    assert_eq!(voters.len(), 3, "two in pets, and one in cars that can't be linked to them");
}

#[tokio::test]
async fn a_later_vote_has_a_later_timestamp_even_if_the_clock_is_behind() {
    let world = World::new().await;
    world.set_clock(100);
    let first = world.json("cats", Some(&world.cookie().await)).await;
    world.set_clock(50);
    world.json("dogs", first.cookie().as_deref()).await;
    let options: Vec<_> = world.votes().await.iter().map(|vote| vote.option.to_string()).collect();
    assert_eq!(options, ["cats", "dogs"], "in the order they were cast");
}

#[tokio::test]
async fn a_vote_that_was_not_stored_gets_503_and_its_timestamp_in_the_cookie() {
    let world = World::new().await;
    // Replaces the queue; no worker activates the new one.
    world.queue.create(crate::world::layout(), Some(world.id)).await.unwrap();
    world.set_clock(100);
    let before = world.cookie().await;
    let answer = world.json("cats", Some(&before)).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.error(), "not-stored");
    assert!(answer.headers.contains_key(header::RETRY_AFTER));
    assert!(answer.cookie().is_some_and(|cookie| cookie != before));
}

#[tokio::test]
async fn the_home_page_shows_the_only_poll_or_a_list() {
    let world = World::new().await;
    let list = world.get("/").await.body;
    assert!(list.contains("/polls/pets") && list.contains("/polls/cars"), "{list}");
    let only = World::with_polls(
        r#"
        [[poll]]
        slug = "only"
        title = "The only one"
        options = [{ slug = "a", label = "A" }, { slug = "b", label = "B" }]
        "#,
    )
    .await;
    assert!(only.get("/").await.body.contains(r#"action="/polls/only/votes""#));
}

#[tokio::test]
async fn a_page_sets_a_cookie_only_if_the_request_has_none() {
    let world = World::new().await;
    let first = world.get("/polls/pets").await;
    assert_eq!(first.headers[header::CACHE_CONTROL], "no-store");
    let request = http::Request::get("/polls/pets").header(header::COOKIE, first.cookie().unwrap());
    let second = world.send(request.body(Default::default()).unwrap()).await;
    assert_eq!(second.cookie(), None);
}
