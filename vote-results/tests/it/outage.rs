//! The store is down, or not there yet.

use std::time::Duration;

use http::{Request, StatusCode};
use tower::ServiceExt;
use vote_results::poller::MAX_AGE;
use vote_service::admin::Admin;

use crate::world::{World, vote};

/// The status of `/readyz`.
async fn ready(world: &World) -> StatusCode {
    let latest = world.poller.latest();
    let admin = Admin::new(move || latest.ready());
    let request = Request::builder().uri("/readyz").body(()).unwrap();
    admin.oneshot(request).await.unwrap().status()
}

#[tokio::test]
async fn before_the_first_read_there_is_nothing_to_show() {
    let world = World::new().await;
    assert_eq!(ready(&world).await, StatusCode::SERVICE_UNAVAILABLE);
    for path in ["/polls/pets", "/polls/pets/results.json", "/polls/pets/results.csv", "/polls/pets/events"] {
        let answer = world.get(path).await;
        assert_eq!(
            (answer.status, answer.header("retry-after")),
            (StatusCode::SERVICE_UNAVAILABLE, "2"),
            "{path}"
        );
    }

    world.poller.poll().await;

    assert_eq!(ready(&world).await, StatusCode::OK);
    assert_eq!(world.get("/polls/pets").await.status, StatusCode::OK);
}

#[tokio::test]
async fn what_is_missing_is_told() {
    let world = World::new().await;
    world.store.fail("no tables yet: run `vote-worker migrate`");
    world.poller.poll().await;
    for path in ["/polls/pets", "/polls/pets/results.json"] {
        let answer = world.get(path).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(answer.body.contains("run `vote-worker migrate`"), "{}", answer.body);
    }
    assert!(world.poller.latest().ready().unwrap_err().contains("run `vote-worker migrate`"));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_leaves_the_last_numbers_marked_as_old() {
    let world = World::new().await;
    world.counted([vote(1, 0, 1)]).await;
    world.store.fail("connection refused");
    world.clock.advance(1);
    world.poller.poll().await;

    let json = world.get("/polls/pets/results.json").await;
    assert_eq!((json.status, &json.json()["total"]), (StatusCode::OK, &1.into()));
    assert!(world.get("/polls/pets").await.body.contains("may be out of date: since <time"));
    let status = world.get("/status.json").await.json();
    assert_eq!(status["stale"]["since"], "2027-01-15T08:00:01Z");
    assert_eq!(status["stale"]["reason"], "the store is not available: connection refused");
    assert!(world.get("/status").await.body.contains("connection refused"));
}

#[tokio::test(start_paused = true)]
async fn the_beginning_of_an_outage_is_remembered() {
    let world = World::new().await;
    world.poller.poll().await;
    for reason in ["refused", "refused", "timed out"] {
        world.clock.advance(1);
        world.store.fail(reason);
        world.poller.poll().await;
    }
    let stale = world.get("/status.json").await.json()["stale"].clone();
    assert_eq!(stale["since"], "2027-01-15T08:00:01Z");
    assert_eq!(stale["reason"], "the store is not available: timed out");

    world.store.recover();
    world.poller.poll().await;

    assert!(world.get("/status.json").await.json()["stale"].is_null());
}

#[tokio::test(start_paused = true)]
async fn a_short_outage_leaves_the_service_ready_and_a_long_one_does_not() {
    let world = World::new().await;
    world.poller.poll().await;
    world.store.fail("connection refused");

    tokio::time::advance(MAX_AGE).await;
    world.poller.poll().await;
    assert_eq!(ready(&world).await, StatusCode::OK);

    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(ready(&world).await, StatusCode::SERVICE_UNAVAILABLE);
    let reason = world.poller.latest().ready().unwrap_err();
    assert_eq!(reason, "the store was last read 11 s ago: the store is not available: connection refused");

    world.store.recover();
    world.poller.poll().await;
    assert_eq!(ready(&world).await, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn without_its_poller_the_service_is_not_ready() {
    let world = World::new().await;
    world.poller.poll().await;
    let latest = world.poller.latest();
    drop(world.poller);
    assert_eq!(latest.ready().unwrap_err(), "shutting down");
}
