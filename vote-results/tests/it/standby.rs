//! Results that are read from a hot standby of Postgres.

use std::{sync::Arc, time::Duration};

use vote_core::{count::audit::Verdict, store::PostgresStore};
use vote_results::audit;
use vote_testkit::{Postgres, TcpProxy};

use crate::{
    replicas::{files, polls},
    world::{World, vote},
};

/// Returns a world on a primary, and a service on its standby.
async fn start(primary: &Postgres, standby: &Postgres) -> (World, World) {
    let url = primary.database();
    let store = PostgresStore::connect(&url, "vote").unwrap();
    store.migrate().await.unwrap();
    let world = World::with(polls(), Arc::new(store)).await;
    world.counted([vote(1, 0, 1)]).await;
    primary.wait_for_standby(standby);
    let store = PostgresStore::connect(&standby.url(url.rsplit('/').next().unwrap()), "vote").unwrap();
    let replica = world.replica_on(Arc::new(store)).await;
    (world, replica)
}

#[tokio::test]
async fn a_service_on_a_standby_serves_the_same_files() {
    let primary = Postgres::start();
    let standby = primary.standby("second", primary.port(), &[]);
    let (world, replica) = start(&primary, &standby).await;
    assert_eq!(files(&replica).await, files(&world).await);

    world.counted([vote(2, 0, 1), vote(3, 1, 1)]).await;
    world.report(3, 0, vote_core::count::QueueState::Active).await;
    primary.wait_for_standby(&standby);
    replica.refresher.refresh().await;

    assert_eq!(files(&replica).await, files(&world).await);
    assert!(files(&replica).await[0].1.contains("\"total\":3"));
    assert_eq!(replica.get("/status.json").await.json()["stale"], serde_json::Value::Null);
    let audit = audit::audit(&*replica.store.inner, None).await.unwrap();
    assert_ne!(audit.verdict, Verdict::Broken, "an audit can read a standby, too: {audit:?}");
    assert_eq!(audit.polls[0].rows, Some(3));
}

#[tokio::test]
async fn a_standby_that_lags_behind_is_shown_as_out_of_date() {
    let primary = Postgres::start();
    let log = TcpProxy::to(primary.port());
    let standby = primary.standby("second", log.port(), &[]);
    let (world, replica) = start(&primary, &standby).await;

    log.cut();
    world.counted([vote(2, 0, 1)]).await;
    tokio::time::sleep(Duration::from_secs(11)).await;
    replica.refresher.refresh().await;

    let page = replica.get("/polls/pets").await.body;
    assert!(page.contains("may be out of date: they could not be updated since"), "{page}");
    let stale = replica.get("/status.json").await.json()["stale"]["reason"].to_string();
    assert!(stale.contains("no change has reached this standby"), "{stale}");
    assert!(files(&replica).await[0].1.contains("\"total\":1"), "what it has is still shown");
    let of_primary = world.replica().await.get("/status.json").await.json();
    assert_eq!(of_primary["stale"], serde_json::Value::Null, "the primary is no standby");
}
