//! All services that read the same store serve the same bytes, whenever they were started and whatever their clocks say.

use std::sync::Arc;

use http::HeaderMap;
use vote_core::{
    Polls, Store,
    store::{PostgresStore, SqliteStore},
};
use vote_testkit::Postgres;

use crate::world::{World, pets_toml, vote};

/// The formats of the results. A withheld poll has no CSV.
const PATHS: [&str; 4] = [
    "/polls/pets/results.json",
    "/polls/pets/results.csv",
    "/polls/secret/results.json",
    "/polls/secret/results.csv",
];

/// Returns headers and body of each format; the headers have the entity tag.
pub(crate) async fn files(world: &World) -> Vec<(HeaderMap, String)> {
    let mut files = Vec::new();
    for path in PATHS {
        let answer = world.get(path).await;
        files.push((answer.headers, answer.body));
    }
    files
}

/// A live poll, and one whose results are withheld.
pub(crate) fn polls() -> Polls {
    let secret = pets_toml("results = \"after-close\"").replace("slug = \"pets\"", "slug = \"secret\"");
    Polls::from_toml("polls.toml", &(pets_toml("") + &secret)).unwrap()
}

async fn all_services_serve_the_same_files(store: Arc<dyn Store>) {
    let world = World::with(polls(), store).await;
    world.refresher.refresh().await;
    let mut seen = vec![files(&world).await];
    assert_eq!(files(&world.replica().await).await, seen[0], "before the first vote");
    for n in 0..3 {
        let secret = "secret".parse().unwrap();
        let of_both = vote_core::Vote { poll: secret, ..vote(50 + n, 0, 1) };
        world.counted([vote(n, 0, 1), of_both]).await;
        // This one did not see what happened before.
        let replica = world.replica().await;
        seen.push(files(&world).await);
        assert_eq!(files(&replica).await, seen[seen.len() - 1], "after vote {n}");
    }
    for slug in ["pets", "secret"] {
        world.store.inner.close_poll(slug.parse().unwrap()).await.unwrap();
    }
    world.refresher.refresh().await;
    let closed = files(&world).await;
    assert_eq!(files(&world.replica().await).await, closed, "after the polls were closed");

    let [.., before, last] = &seen[..] else { panic!("too few") };
    assert_ne!(before[0], last[0], "the time and the tag of a live poll change with its votes");
    assert_eq!(seen[0][2..], last[2..], "those of a withheld poll do not");
    assert!(last[2].1.contains("\"updated_at\":null"), "{}", last[2].1);
}

#[tokio::test]
async fn all_services_on_a_postgres_serve_the_same_files() {
    let store = PostgresStore::connect(&Postgres::shared().database(), "vote").unwrap();
    store.migrate().await.unwrap();
    all_services_serve_the_same_files(Arc::new(store)).await;
}

#[tokio::test]
async fn all_services_on_a_sqlite_file_serve_the_same_files() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&dir.path().join("store.db")).await.unwrap();
    all_services_serve_the_same_files(Arc::new(store)).await;
}
