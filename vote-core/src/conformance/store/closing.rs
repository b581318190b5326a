//! Polls that close and become final, and queues that are retired.

use std::time::Duration;

use super::*;
use crate::{
    Clock, SystemClock,
    queue::Seal,
    store::{SealRecord, WorkerId, WorkerRecord},
};

/// Longer than clocks may differ, in microseconds.
const TEN_MINUTES: i64 = 600_000_000;

async fn found(store: &dyn Store) -> RegisteredPoll {
    store.polls().await.expect("polls").remove(0)
}

fn sealed(accepted: u64, end: u8) -> SealRecord {
    let count = usize::from(layout().partitions.count());
    let mut seal = Seal { ends: vec![Position::START; count], accepted: vec![0; count] };
    let place = usize::from(PARTITION.0);
    (seal.ends[place], seal.accepted[place]) = (at(end), accepted);
    SealRecord { queue: queue_id(1), poll: poll(), seal }
}

/// A store with three votes of a queue that is on record.
async fn counted(harness: &dyn StoreHarness) -> (Arc<dyn Store>, Box<dyn Lane>, Vec<Vote>) {
    let (store, lane, votes) = committed(harness).await;
    store.report(&[record(1, QueueState::Active)]).await.expect("a report");
    (store, lane, votes)
}

/// The same, with the poll closed and its seal on record.
async fn closed(harness: &dyn StoreHarness) -> (Arc<dyn Store>, Box<dyn Lane>, Vec<Vote>) {
    let (store, lane, votes) = counted(harness).await;
    store.close_poll(poll()).await.expect("an answer").expect("the poll");
    store.note_seal(&sealed(3, 1)).await.expect("a record");
    (store, lane, votes)
}

async fn complete(lane: &mut dyn Lane, partition: Partition) -> Vec<String> {
    let acquired = lane.acquire(partition).await.expect("an answer").expect("nobody else is there");
    lane.complete(partition, acquired.version, poll()).await.expect("an answer")
}

async fn complete_all(lane: &mut dyn Lane) {
    for partition in layout().partitions.iter() {
        assert_eq!(complete(lane, partition).await, Vec::<String>::new(), "partition {partition}");
    }
}

pub(super) async fn a_closed_poll_stays_closed(harness: &dyn StoreHarness) {
    let store = prepared(harness).await;
    let nowhere = store.close_poll("nowhere".parse().expect("a slug")).await;
    assert_eq!(nowhere.expect("an answer"), None, "there is no such poll");
    let closed = store.close_poll(poll()).await.expect("an answer").expect("the poll");
    let closed_at = closed.closed_at.expect("it is closed");
    assert_eq!(closed, RegisteredPoll { closed_at: Some(closed_at), ..registered_poll() });
    tokio::time::sleep(Duration::from_millis(2)).await;
    let again = store.close_poll(poll()).await.expect("an answer").expect("the poll");
    assert_eq!(again.closed_at, Some(closed_at), "the first time stays");
    assert_eq!(store.polls().await.expect("polls"), [closed]);
}

pub(super) async fn a_poll_closes_by_time_when_both_clocks_say_so(harness: &dyn StoreHarness) {
    let store = prepared(harness).await;
    let now = SystemClock.now();
    let grace = Duration::from_secs(5);
    let close = |now| store.close_due_polls(grace, now);
    store.reschedule_poll(poll(), Some(now.saturating_add(TEN_MINUTES)), "a test").await.expect("an answer");
    assert_eq!(
        close(now.saturating_add(2 * TEN_MINUTES)).await.expect("an answer"),
        [],
        "the caller is ahead"
    );
    store.reschedule_poll(poll(), Some(now.saturating_add(-1_000_000)), "a test").await.expect("an answer");
    assert_eq!(close(now).await.expect("an answer"), [], "votes may still be on their way");
    store.reschedule_poll(poll(), Some(now.saturating_add(-6_000_000)), "a test").await.expect("an answer");
    assert_eq!(close(now.saturating_add(-TEN_MINUTES)).await.expect("an answer"), [], "the caller is behind");
    assert_eq!(found(&*store).await.closed_at, None);
    assert_eq!(close(now).await.expect("an answer"), [poll()]);
    assert!(found(&*store).await.closed_at.is_some());
    assert_eq!(close(now).await.expect("an answer"), [], "it is closed once");
}

pub(super) async fn a_closing_time_moves_by_command_only(harness: &dyn StoreHarness) {
    let store = prepared(harness).await;
    let (one, two) = (Timestamp::MAX.saturating_add(-1), Timestamp::MAX);
    let moved = store.reschedule_poll(poll(), Some(one), "rain").await.expect("an answer").expect("the poll");
    assert_eq!(moved.closes_at, Some(one));
    let file = Poll { closes_at: Some(two), ..pets(Keep::First) };
    assert_eq!(store.register_poll(&file).await.expect("an answer"), moved, "the file is old");
    let moved = store.reschedule_poll(poll(), None, "sun").await.expect("an answer").expect("the poll");
    let moves: Vec<_> = moved.reschedules.iter().map(|r| (r.from, r.to, r.reason.as_str())).collect();
    assert_eq!(moves, [(None, Some(one), "rain"), (Some(one), None, "sun")]);
    assert_eq!(store.polls().await.expect("polls"), [moved]);
    let nowhere = store.reschedule_poll("nowhere".parse().expect("a slug"), None, "rain").await;
    assert_eq!(nowhere.expect("an answer"), None, "there is no such poll");
}

pub(super) async fn a_closed_poll_is_not_rescheduled(harness: &dyn StoreHarness) {
    let store = prepared(harness).await;
    let closed = store.close_poll(poll()).await.expect("an answer").expect("the poll");
    let result = store.reschedule_poll(poll(), Some(Timestamp::MAX), "too late").await;
    assert!(matches!(result, Err(StoreError::Conflict(_))), "{result:?}");
    assert_eq!(store.polls().await.expect("polls"), [closed]);
}

pub(super) async fn a_final_poll_stays_final(harness: &dyn StoreHarness) {
    let (store, mut lane, _votes) = closed(harness).await;
    complete_all(&mut *lane).await;
    assert!(store.finish_poll(poll()).await.expect("an answer"), "it can be final");
    let first = found(&*store).await;
    assert!(first.final_at.is_some());
    tokio::time::sleep(Duration::from_millis(2)).await;
    assert!(store.finish_poll(poll()).await.expect("an answer"), "it is final");
    store
        .report(&[QueueRecord { id: queue_id(2), ..record(2, QueueState::Active) }])
        .await
        .expect("a report");
    assert!(store.finish_poll(poll()).await.expect("an answer"), "it is final, whatever comes");
    assert_eq!(found(&*store).await, first, "the first time stays");
}

pub(super) async fn a_poll_is_final_only_when_every_partition_is_complete(harness: &dyn StoreHarness) {
    let (store, mut lane, _votes) = closed(harness).await;
    for partition in layout().partitions.iter() {
        assert!(!store.finish_poll(poll()).await.expect("an answer"), "before partition {partition}");
        assert_eq!(complete(&mut *lane, partition).await, Vec::<String>::new());
    }
    assert!(store.finish_poll(poll()).await.expect("an answer"));
}

pub(super) async fn an_open_poll_is_never_final(harness: &dyn StoreHarness) {
    let (store, mut lane, _votes) = counted(harness).await;
    store.note_seal(&sealed(3, 1)).await.expect("a record");
    let before = books(&*store).await;
    assert_ne!(complete(&mut *lane, PARTITION).await, Vec::<String>::new());
    assert!(!store.finish_poll(poll()).await.expect("an answer"));
    let after = books(&*store).await;
    assert_eq!(after, Books { taken_at: after.taken_at, ..before });
}

pub(super) async fn a_final_poll_takes_no_more_votes(harness: &dyn StoreHarness) {
    let (store, mut lane, _votes) = closed(harness).await;
    complete_all(&mut *lane).await;
    assert!(store.finish_poll(poll()).await.expect("an answer"));
    let version = acquire(&mut *lane).await.version;
    let late = vote(voters().nth(7).expect("a voter"), 0, 6);
    let result = lane.commit(&inserts(version, 2, &[late])).await;
    assert!(matches!(result, Err(StoreError::StaleVersion(PARTITION))), "{result:?}");
    assert_eq!(store.ballot(poll(), late.voter).await.expect("a look"), None);
}

pub(super) async fn a_partition_is_complete_only_when_it_was_read_to_every_seal(harness: &dyn StoreHarness) {
    let (store, mut lane, _votes) = closed(harness).await;
    let other = queue_id(2);
    store.report(&[QueueRecord { id: other, ..record(2, QueueState::Active) }]).await.expect("a report");
    assert_ne!(complete(&mut *lane, PARTITION).await, Vec::<String>::new(), "it has no seal yet");
    store.note_seal(&SealRecord { queue: other, ..sealed(2, 5) }).await.expect("a record");
    assert_ne!(complete(&mut *lane, PARTITION).await, Vec::<String>::new(), "it was not read");
    assert_eq!(complete(&mut *lane, Partition(1)).await, Vec::<String>::new(), "nothing was in that one");
    assert_eq!(books(&*store).await.completions.keys().collect::<Vec<_>>(), [&(poll(), Partition(1))]);
    let acquired = acquire(&mut *lane).await;
    let stale = lane.complete(PARTITION, acquired.version + 1, poll()).await;
    assert!(matches!(stale, Err(StoreError::StaleVersion(PARTITION))), "{stale:?}");
}

pub(super) async fn a_new_queue_outdates_what_was_complete(harness: &dyn StoreHarness) {
    let (store, mut lane, _votes) = closed(harness).await;
    complete_all(&mut *lane).await;
    store.report(&[record(5, QueueState::Active)]).await.expect("a report of a queue that is known");
    let now = books(&*store).await;
    assert!(now.completions.values().all(|revision| *revision == now.revision), "it is no news");
    let other = queue_id(2);
    store.report(&[QueueRecord { id: other, ..record(2, QueueState::Active) }]).await.expect("a report");
    assert!(!store.finish_poll(poll()).await.expect("an answer"), "its votes are not read");
    store.retire(other, "it is gone").await.expect("an answer");
    complete_all(&mut *lane).await;
    assert!(store.finish_poll(poll()).await.expect("an answer"));
}

pub(super) async fn a_higher_seal_outdates_what_was_complete(harness: &dyn StoreHarness) {
    let (store, mut lane, _votes) = closed(harness).await;
    complete_all(&mut *lane).await;
    store.note_seal(&sealed(4, 2)).await.expect("a record");
    assert!(!store.finish_poll(poll()).await.expect("an answer"), "a vote came after the first seal");
}

pub(super) async fn the_highest_seal_stays(harness: &dyn StoreHarness) {
    let store = prepared(harness).await;
    assert_eq!(store.note_seal(&sealed(2, 2)).await.expect("a record"), sealed(2, 2));
    assert_eq!(store.note_seal(&sealed(1, 3)).await.expect("a record"), sealed(2, 3));
    let other = SealRecord { queue: queue_id(2), ..sealed(9, 9) };
    store.note_seal(&other).await.expect("a record");
    assert_eq!(books(&*store).await.seals, [sealed(2, 3), other]);
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

pub(super) async fn workers_that_give_a_sign_of_life_are_listed(harness: &dyn StoreHarness) {
    let store = prepared(harness).await;
    let worker = |id: u8, lanes| WorkerRecord {
        id: WorkerId([id; 16]),
        lanes,
        unreached: (0..id).map(queue_id).collect(),
    };
    store.beat(&worker(1, 2)).await.expect("a record");
    store.beat(&worker(2, 4)).await.expect("a record");
    store.beat(&worker(1, 0)).await.expect("a record");
    let workers = store.catalog().await.expect("the catalog").workers;
    assert_eq!(workers.into_values().collect::<Vec<_>>(), [worker(1, 0), worker(2, 4)]);
}

pub(super) async fn a_queue_seen_in_the_future_is_one_not_seen_lately(harness: &dyn StoreHarness) {
    let store = prepared(harness).await;
    let future = QueueRecord { seen_at: Timestamp::MAX, ..record(1, QueueState::Active) };
    store
        .report(&[future, QueueRecord { id: queue_id(2), ..record(2, QueueState::Active) }])
        .await
        .expect("a report");
    let worker =
        WorkerRecord { id: WorkerId([1; 16]), lanes: 1, unreached: std::collections::BTreeSet::new() };
    store.beat(&worker).await.expect("a record");
    let queues = store.queues().await.expect("queues");
    let age = SystemClock.now().as_micros() - queues[0].seen_at.as_micros();
    assert!((50_000_000..70_000_000).contains(&age), "the clock was set back since: {age}");
    assert_eq!(queues[1].seen_at, record(2, QueueState::Active).seen_at, "the past stays");
}

pub(super) async fn the_catalog_holds_what_is_on_record(harness: &dyn StoreHarness) {
    let (store, _lane, _votes) = closed(harness).await;
    let before = SystemClock.now();
    let catalog = store.catalog().await.expect("the catalog");
    assert!(catalog.taken_at.as_micros().abs_diff(before.as_micros()) < 10_000_000, "by the store's clock");
    assert_eq!(catalog.polls, store.polls().await.expect("polls"));
    let queues = store.queues().await.expect("queues");
    assert_eq!(catalog.queues.into_values().collect::<Vec<_>>(), queues);
    assert_eq!(catalog.sealed.into_iter().collect::<Vec<_>>(), [(queue_id(1), poll())]);
    assert_eq!(catalog.revision, books(&*store).await.revision);
}
