//! Snapshots: what is specific to SQLite.

use std::time::{Duration, Instant};

use super::*;

async fn commit(store: &SqliteStore, batch: u64) {
    let (mut session, acquired) = session(store).await;
    session.commit(&plan(&acquired, &votes(batch, 10))).await.unwrap();
}

#[tokio::test]
async fn a_snapshot_does_not_see_later_commits() {
    let files = Files::new();
    let store = prepared(&files).await;
    let reader = SqliteReader::open(&files.last_path()).await.unwrap();
    commit(&store, 0).await;
    for store_or_reader in [&store as &dyn StoreReader, &reader] {
        let before = accounts(store_or_reader).await;
        let mut snapshot = store_or_reader.snapshot().await.unwrap();
        commit(&store, before.versions[&PARTITION]).await;
        store.close_poll(poll()).await.unwrap();
        let seen = snapshot.accounts(true).await.unwrap();
        assert_eq!(seen, Accounts { taken_at: seen.taken_at, ..before.clone() });
        let ballots = snapshot.ballots(poll(), None, usize::MAX).await.unwrap();
        assert_eq!(ballots.len() as u64, before.rows.unwrap().values().sum::<u64>());
    }
    assert_eq!(accounts(&reader).await.ledger[0].entry.accepted, 30);
}

#[tokio::test]
async fn ballots_are_paged_by_voter() {
    let files = Files::new();
    let store = prepared(&files).await;
    commit(&store, 0).await;
    let mut snapshot = store.snapshot().await.unwrap();
    let (mut pages, mut after) = (Vec::new(), None);
    loop {
        let page = snapshot.ballots(poll(), after, 4).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.voter);
        pages.extend(page);
    }
    assert_eq!(pages, votes(0, 10).iter().map(ballot).collect::<Vec<_>>());
}

/// Returns whether SQLite can empty its log, which it can't while a transaction is open that began before the last
/// commit.
async fn log_can_be_emptied(connection: &mut SqliteConnection) -> bool {
    let (busy, _, _): (i64, i64, i64) =
        sqlx::query_as("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(connection).await.unwrap();
    busy == 0
}

#[tokio::test]
async fn a_dropped_snapshot_leaves_no_transaction_open() {
    let files = Files::new();
    let store = prepared(&files).await;
    let mut beside = raw(&files.last_path()).await;
    sqlx::query("PRAGMA busy_timeout = 0").execute(&mut beside).await.unwrap();
    for (batch, steps) in (0..40).zip(steps(5)) {
        // Drops the snapshot while it is taken, while it reads, or afterwards.
        cut_short(steps, async { store.snapshot().await.unwrap().accounts(true).await.unwrap() }).await;
        commit(&store, batch).await;
    }
    let mut snapshot = store.snapshot().await.unwrap();
    snapshot.accounts(false).await.unwrap();
    commit(&store, 40).await;
    assert!(!log_can_be_emptied(&mut beside).await, "the snapshot needs the log");
    drop(snapshot);
    // SQLite closes a connection on a thread of its own.
    let started = Instant::now();
    while !log_can_be_emptied(&mut beside).await {
        assert!(started.elapsed() < Duration::from_secs(10), "a transaction is open");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(accounts(&store).await.ledger[0].entry.accepted, 410);
}

#[tokio::test]
async fn snapshots_take_no_connection_from_other_readers() {
    let files = Files::new();
    let store = prepared(&files).await;
    let mut snapshots = Vec::new();
    for _ in 0..10 {
        snapshots.push(store.snapshot().await.unwrap());
    }
    tokio::time::timeout(Duration::from_secs(10), store.polls()).await.expect("readers are free").unwrap();
    for mut snapshot in snapshots {
        snapshot.accounts(false).await.unwrap();
    }
}
