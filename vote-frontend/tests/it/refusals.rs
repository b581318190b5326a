//! Requests that are refused, and the responses to them.

use http::{Request, StatusCode, header};

use crate::world::{Answer, World};

const JSON: &str = "application/json";
const CATS: &str = r#"{"option": "cats"}"#;

#[track_caller]
fn assert_refused(answer: &Answer, status: u16, error: &str) {
    assert_eq!((answer.status.as_u16(), answer.error().as_str()), (status, error), "{}", answer.body);
    assert_eq!(answer.headers[header::CONTENT_TYPE], "application/json");
}

async fn assert_nothing_counted(world: &World) {
    assert_eq!(world.votes().await, []);
}

#[tokio::test]
async fn an_unknown_poll_is_not_found() {
    let world = World::new().await;
    let cookie = world.cookie().await;
    assert_refused(&world.post("birds", JSON, CATS, Some(&cookie)).await, 404, "unknown-poll");
    assert_eq!(world.get("/polls/birds").await.status, StatusCode::NOT_FOUND);
    assert_nothing_counted(&world).await;
}

#[tokio::test]
async fn an_unknown_option_is_refused_with_the_list_of_options() {
    let world = World::new().await;
    let answer = world.json("birds", Some(&world.cookie().await)).await;
    assert_refused(&answer, 422, "unknown-option");
    assert!(answer.body.contains("cats, dogs"), "{}", answer.body);
    assert_nothing_counted(&world).await;
}

#[tokio::test]
async fn a_malformed_body_is_refused() {
    let world = World::new().await;
    let cookie = world.cookie().await;
    assert_refused(&world.post("pets", JSON, "{", Some(&cookie)).await, 400, "malformed-body");
    let large = format!(r#"{{"option": "{}"}}"#, "x".repeat(2000));
    assert_refused(&world.post("pets", JSON, &large, Some(&cookie)).await, 413, "body-too-large");
    let answer = world.post("pets", "text/plain", "cats", Some(&cookie)).await;
    assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert!(answer.body.contains("application/json"), "the response says what to send: {}", answer.body);
    assert_nothing_counted(&world).await;
}

#[tokio::test]
async fn a_vote_without_a_valid_cookie_is_not_counted_and_the_response_sets_one() {
    let mut flipped = World::new().await.cookie().await.into_bytes();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let flipped = String::from_utf8(flipped).unwrap();
    for cookie in [None, Some(flipped.as_str()), Some("vote-voter=1.x.y.z")] {
        let world = World::new().await;
        let answer = world.json("cats", cookie).await;
        assert_refused(&answer, 401, "no-cookie");
        assert_nothing_counted(&world).await;
        let again = world.json("cats", answer.cookie().as_deref()).await;
        assert_eq!(again.status, StatusCode::ACCEPTED);
    }
}

#[tokio::test]
async fn a_form_without_a_cookie_gets_the_form_again() {
    let world = World::new().await;
    let answer = world.post("pets", "application/x-www-form-urlencoded", "option=cats", None).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert!(answer.body.contains("not counted") && answer.body.contains("<form"), "{}", answer.body);
    assert!(answer.cookie().is_some());
    assert_nothing_counted(&world).await;
}

#[tokio::test]
async fn a_cross_site_post_is_refused_with_a_reason() {
    let world = World::new().await;
    for (name, value) in [("sec-fetch-site", "cross-site"), ("origin", "https://elsewhere.example")] {
        let request = Request::post("/polls/pets/votes")
            .header(header::HOST, "votes.example")
            .header(header::CONTENT_TYPE, JSON)
            .header(header::COOKIE, world.cookie().await)
            .header(name, value)
            .body(CATS.into())
            .unwrap();
        let answer = world.send(request).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{name}");
        assert!(answer.error().contains("cross"), "{}", answer.body);
    }
    assert_nothing_counted(&world).await;
}

#[tokio::test]
async fn a_poll_accepts_votes_only_while_it_is_open() {
    let world = World::new().await;
    let cookie = world.cookie().await;
    world.set_clock(-1);
    assert_refused(&world.json("cats", Some(&cookie)).await, 403, "poll-not-open");
    world.set_clock(86_400);
    assert_refused(&world.json("cats", Some(&cookie)).await, 403, "poll-closed");
    let page = world.get("/polls/pets").await;
    assert!(page.body.contains("closed at 2027-01-02") && !page.body.contains("<form"), "{}", page.body);
    assert_nothing_counted(&world).await;
    world.set_clock(86_399);
    assert_eq!(world.json("cats", Some(&cookie)).await.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn a_sealed_poll_is_closed_whatever_the_clock_shows() {
    use vote_core::Queue;
    let world = World::new().await;
    world.queue.seal(world.id, "pets".parse().unwrap()).await.unwrap();
    assert_refused(&world.json("cats", Some(&world.cookie().await)).await, 403, "poll-closed");
}

#[tokio::test]
async fn unknown_paths_and_methods_are_refused() {
    let world = World::new().await;
    for path in ["/x", "/polls", "/polls/pets/votes/x", "/receipts/garbage", "/receipts/"] {
        assert_eq!(world.get(path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    let get = world.get("/polls/pets/votes").await;
    assert_eq!(
        (get.status, &get.headers[header::ALLOW]),
        (StatusCode::METHOD_NOT_ALLOWED, &"POST".parse().unwrap())
    );
    let delete = world.send(Request::delete("/polls/pets").body(Default::default()).unwrap()).await;
    assert_eq!(delete.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn pages_have_security_headers() {
    let page = World::new().await.get("/polls/pets").await;
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("form-action 'self'"), "{policy}");
    assert_eq!(page.headers["x-content-type-options"], "nosniff");
}
