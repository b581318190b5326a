//! Clauses about the owners of partitions.

use super::*;

pub(super) async fn a_partition_has_one_owner(harness: &dyn StoreHarness) {
    let store = prepared(harness).await;
    let (mut one, mut two) =
        (store.open_session().await.expect("a session"), store.open_session().await.expect("a session"));
    let acquired = acquire(&mut *one).await;
    assert_eq!(two.acquire(PARTITION).await.expect("an answer"), None, "another session owns it");
    assert_eq!(acquire(&mut *one).await, acquired, "the owner may ask again");
    one.release(PARTITION).await.expect("a release");
    assert_eq!(acquire(&mut *two).await, acquired);
}

pub(super) async fn a_dropped_session_frees_its_partitions(harness: &dyn StoreHarness) {
    let store = prepared(harness).await;
    let (mut one, mut two) =
        (store.open_session().await.expect("a session"), store.open_session().await.expect("a session"));
    acquire(&mut *one).await;
    drop(one);
    acquire_once_free(&mut *two).await;
}

pub(super) async fn partitions_without_an_owner_are_listed(harness: &dyn StoreHarness) {
    let store = prepared(harness).await;
    let all: Vec<_> = layout().partitions.iter().collect();
    let (mut one, mut two) =
        (store.open_session().await.expect("a session"), store.open_session().await.expect("a session"));
    assert_eq!(one.unowned().await.expect("an answer"), all, "no session owns any");
    acquire(&mut *one).await;
    two.acquire(Partition(3)).await.expect("an answer").expect("a free partition can be acquired");
    let rest: Vec<_> = all.iter().copied().filter(|p| ![PARTITION, Partition(3)].contains(p)).collect();
    assert_eq!(one.unowned().await.expect("an answer"), rest);
    assert_eq!(two.unowned().await.expect("an answer"), rest);
    one.release(PARTITION).await.expect("a release");
    assert!(two.unowned().await.expect("an answer").contains(&PARTITION));
}
