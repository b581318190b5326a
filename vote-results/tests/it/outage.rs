//! The store fails or does not exist yet.

use std::time::Duration;

use http::{Request, StatusCode};
use tower::ServiceExt;
use vote_results::refresh::MAX_AGE;
use vote_service::{Readiness, admin::Admin};

use crate::world::{World, vote};

/// Returns the status of `/readyz`.
async fn ready(world: &World) -> StatusCode {
    let admin = Admin::new(world.refresher.latest());
    let request = Request::builder().uri("/readyz").body(()).unwrap();
    admin.oneshot(request).await.unwrap().status()
}

#[tokio::test]
async fn before_the_first_read_results_are_unavailable() {
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

    world.refresher.refresh().await;

    assert_eq!(ready(&world).await, StatusCode::OK);
    assert_eq!(world.get("/polls/pets").await.status, StatusCode::OK);
}

#[tokio::test]
async fn the_reason_for_a_failed_first_read_is_shown() {
    let world = World::new().await;
    world.store.fail("no tables yet: run `vote-worker migrate`");
    world.refresher.refresh().await;
    for path in ["/polls/pets", "/polls/pets/results.json"] {
        let answer = world.get(path).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(answer.body.contains("run `vote-worker migrate`"), "{}", answer.body);
    }
    assert!(world.refresher.latest().ready().unwrap_err().contains("run `vote-worker migrate`"));
}

#[tokio::test(start_paused = true)]
async fn during_an_outage_the_last_numbers_are_shown_as_out_of_date() {
    let world = World::new().await;
    world.counted([vote(1, 0, 1)]).await;
    world.store.fail("connection refused");
    world.clock.advance(1);
    world.refresher.refresh().await;

    let json = world.get("/polls/pets/results.json").await;
    assert_eq!((json.status, &json.json()["total"]), (StatusCode::OK, &1.into()));
    assert!(
        world
            .get("/polls/pets")
            .await
            .body
            .contains("may be out of date: they could not be updated since <time")
    );
    let status = world.get("/status.json").await.json();
    assert_eq!(status["stale"]["since"], "2027-01-15T08:00:01Z");
    assert_eq!(status["stale"]["reason"], "the store is not available: connection refused");
    assert!(world.get("/status").await.body.contains("connection refused"));
}

#[tokio::test(start_paused = true)]
async fn the_start_of_an_outage_is_kept_while_the_reason_changes() {
    let world = World::new().await;
    world.refresher.refresh().await;
    for reason in ["refused", "refused", "timed out"] {
        world.clock.advance(1);
        world.store.fail(reason);
        world.refresher.refresh().await;
    }
    let stale = world.get("/status.json").await.json()["stale"].clone();
    assert_eq!(stale["since"], "2027-01-15T08:00:01Z");
    assert_eq!(stale["reason"], "the store is not available: timed out");

    world.store.recover();
    world.refresher.refresh().await;

    assert!(world.get("/status.json").await.json()["stale"].is_null());
}

#[tokio::test(start_paused = true)]
async fn the_service_stays_ready_during_a_short_outage_but_not_a_long_one() {
    let world = World::new().await;
    world.refresher.refresh().await;
    world.store.fail("connection refused");

    tokio::time::advance(MAX_AGE).await;
    world.refresher.refresh().await;
    assert_eq!(ready(&world).await, StatusCode::OK);

    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(ready(&world).await, StatusCode::SERVICE_UNAVAILABLE);
    let reason = world.refresher.latest().ready().unwrap_err();
    assert_eq!(reason, "the store was last read 11 s ago: the store is not available: connection refused");

    world.store.recover();
    world.refresher.refresh().await;
    assert_eq!(ready(&world).await, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn the_service_is_not_ready_after_its_poller_ended() {
    let world = World::new().await;
    world.refresher.refresh().await;
    let latest = world.refresher.latest();
    drop(world.refresher);
    assert_eq!(latest.ready().unwrap_err(), "shutting down");
}
