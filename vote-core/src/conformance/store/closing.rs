//! Polls that close, and queues that are written off.

use super::*;
use crate::{queue::Seal, store::SealRecord};

fn second(n: i64) -> Timestamp {
    Timestamp::MIN.saturating_add(n * 1_000_000)
}

async fn state(store: &dyn Store) -> (Option<Timestamp>, Option<Timestamp>) {
    let polls = store.polls().await.expect("polls");
    (polls[0].closed_at, polls[0].final_at)
}

pub(super) async fn a_closed_poll_stays_closed(harness: &dyn StoreHarness) {
    let store = prepared(harness).await;
    let nowhere = store.close_poll("nowhere".parse().expect("a slug"), second(1)).await;
    assert_eq!(nowhere.expect("an answer"), None, "there is no such poll");
    let closed = store.close_poll(poll(), second(1)).await.expect("an answer").expect("the poll");
    assert_eq!(closed, RegisteredPoll { closed_at: Some(second(1)), ..registered_poll() });
    let again = store.close_poll(poll(), second(2)).await.expect("an answer").expect("the poll");
    assert_eq!(again.closed_at, Some(second(1)), "the first time stays");
    let later = Poll { closes_at: Some(Timestamp::MAX), ..pets(Keep::First) };
    let registered = store.register_poll(&later).await.expect("an answer");
    assert_eq!(registered, closed, "its closing time does not follow the file any more");
    assert_eq!(store.polls().await.expect("polls"), [closed]);
}

pub(super) async fn a_final_poll_stays_final(harness: &dyn StoreHarness) {
    let (store, _lane, _votes) = committed(harness).await;
    store.close_poll(poll(), second(1)).await.expect("an answer");
    store.finish_poll(poll(), &books(&*store).await.versions, second(2)).await.expect("it can be final");
    assert_eq!(state(&*store).await, (Some(second(1)), Some(second(2))));
    store.finish_poll(poll(), &books(&*store).await.versions, second(3)).await.expect("it is final");
    assert_eq!(state(&*store).await, (Some(second(1)), Some(second(2))), "the first time stays");
}

pub(super) async fn a_poll_is_final_only_by_the_versions_it_was_judged_by(harness: &dyn StoreHarness) {
    let (store, mut lane, _votes) = committed(harness).await;
    store.close_poll(poll(), second(1)).await.expect("an answer");
    let judged = books(&*store).await.versions;
    assert_eq!(judged.len(), usize::from(layout().partitions.count()), "all partitions have a version");
    let more = vote(voters().nth(7).expect("a voter"), 0, 6);
    lane.commit(&inserts(judged[&PARTITION], 2, &[more])).await.expect("a commit");
    let result = store.finish_poll(poll(), &judged, second(2)).await;
    assert!(matches!(result, Err(StoreError::StaleVersion(PARTITION))), "{result:?}");
    assert_eq!(state(&*store).await, (Some(second(1)), None));
}

pub(super) async fn an_open_poll_is_never_final(harness: &dyn StoreHarness) {
    let store = prepared(harness).await;
    let before = books(&*store).await;
    let result = store.finish_poll(poll(), &before.versions, second(2)).await;
    assert!(matches!(result, Err(StoreError::Conflict(_))), "{result:?}");
    assert_eq!(books(&*store).await, before);
}

pub(super) async fn a_lane_starts_again_after_a_poll_became_final(harness: &dyn StoreHarness) {
    let (store, mut lane, _votes) = committed(harness).await;
    let version = acquire(&mut *lane).await.version;
    store.close_poll(poll(), second(1)).await.expect("an answer");
    store.finish_poll(poll(), &books(&*store).await.versions, second(2)).await.expect("it can be final");
    let late = vote(voters().nth(7).expect("a voter"), 0, 6);
    let result = lane.commit(&inserts(version, 2, &[late])).await;
    assert!(matches!(result, Err(StoreError::StaleVersion(PARTITION))), "{result:?}");
    assert_eq!(store.ballot(poll(), late.voter).await.expect("a look"), None);
}

pub(super) async fn the_first_seal_stays(harness: &dyn StoreHarness) {
    let store = prepared(harness).await;
    let count = usize::from(layout().partitions.count());
    let seal = |n: u8| SealRecord {
        queue: queue_id(1),
        poll: poll(),
        seal: Seal { ends: vec![at(n); count], accepted: vec![u64::from(n); count] },
    };
    store.note_seal(&seal(1)).await.expect("a note");
    store.note_seal(&seal(2)).await.expect("a note");
    let other = SealRecord { queue: queue_id(2), ..seal(3) };
    store.note_seal(&other).await.expect("a note");
    assert_eq!(books(&*store).await.seals, [seal(1), other]);
}

pub(super) async fn a_queue_that_was_written_off_stays_so(harness: &dyn StoreHarness) {
    let store = prepared(harness).await;
    assert!(!store.retire(queue_id(1), "gone").await.expect("an answer"), "there is no such queue");
    store.report(&[record(1, QueueState::Cut)]).await.expect("a report");
    assert!(store.retire(queue_id(1), "its disk burnt").await.expect("an answer"));
    assert!(store.retire(queue_id(1), "another reason").await.expect("an answer"));
    store.report(&[record(2, QueueState::Active)]).await.expect("a report");
    store.report(&[record(3, QueueState::Cut)]).await.expect("a report");
    let expected = QueueRecord {
        state: QueueState::Retired,
        reason: "noticed at 1; written off: its disk burnt".to_owned(),
        ..record(3, QueueState::Active)
    };
    assert_eq!(store.queues().await.expect("queues"), [expected]);
}
