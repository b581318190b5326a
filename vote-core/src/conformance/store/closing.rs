//! Clauses about closing: polls that close and become final, seals, and retired queues.

use super::*;
use crate::{
    Clock, SystemClock,
    count::{SealRecord, audit::Finding},
    queue::Seal,
};

/// A time in microseconds that is longer than clocks may differ.
const TEN_MINUTES: i64 = 600_000_000;

/// Returns the suite's poll as the store has it.
async fn found(store: &dyn Store) -> RegisteredPoll {
    store.polls().await.expect("polls").remove(0)
}

/// Returns a seal of queue 1 with entries in [`PARTITION`] only.
fn sealed(accepted: u64, end: u8) -> SealRecord {
    let count = usize::from(layout().partitions.count());
    let mut seal = Seal { ends: vec![Position::START; count], accepted: vec![0; count] };
    let place = usize::from(PARTITION.0);
    (seal.ends[place], seal.accepted[place]) = (at(end), accepted);
    SealRecord { queue: queue_id(1), poll: poll(), seal }
}

/// Returns a store with three votes of a queue that was reported.
async fn counted(harness: &dyn StoreHarness) -> (Arc<dyn Store>, Box<dyn Session>, Vec<Vote>) {
    let (store, session, votes) = committed(harness).await;
    store.report(&[record(1, QueueState::Active)]).await.expect("a report");
    (store, session, votes)
}

/// Returns a store with three votes of a queue, in which the poll is closed and its seal recorded.
pub(super) async fn closed(harness: &dyn StoreHarness) -> (Arc<dyn Store>, Box<dyn Session>, Vec<Vote>) {
    let (store, session, votes) = counted(harness).await;
    store.close_poll(poll()).await.expect("an answer").expect("the poll");
    store.record_seal(&sealed(3, 1)).await.expect("a record");
    (store, session, votes)
}

/// Acquires a partition and tries to record it as complete; returns the obstacles.
async fn complete(session: &mut dyn Session, partition: Partition) -> Vec<Finding> {
    let acquired = session.acquire(partition).await.expect("an answer").expect("a free partition");
    session.complete(partition, acquired.version, poll()).await.expect("an answer")
}

async fn complete_all(session: &mut dyn Session) {
    for partition in layout().partitions.iter() {
        assert_eq!(complete(session, partition).await, [], "partition {partition}");
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
    assert_eq!(again.closed_at, Some(closed_at), "the first time is kept");
    assert_eq!(store.polls().await.expect("polls"), [closed]);
}

pub(super) async fn a_poll_closes_by_time_only_if_both_clocks_agree(harness: &dyn StoreHarness) {
    let store = prepared(harness).await;
    let now = SystemClock.now();
    let grace = Duration::from_secs(5);
    let close = |now| store.close_due_polls(grace, now);
    store.reschedule_poll(poll(), Some(now.saturating_add(TEN_MINUTES)), "a test").await.expect("an answer");
    assert_eq!(
        close(now.saturating_add(2 * TEN_MINUTES)).await.expect("an answer"),
        [],
        "the caller's clock is ahead"
    );
    store.reschedule_poll(poll(), Some(now.saturating_add(-1_000_000)), "a test").await.expect("an answer");
    assert_eq!(close(now).await.expect("an answer"), [], "the grace is not over");
    store.reschedule_poll(poll(), Some(now.saturating_add(-6_000_000)), "a test").await.expect("an answer");
    assert_eq!(close(now.saturating_add(-TEN_MINUTES)).await.expect("an answer"), [], "the caller is behind");
    assert_eq!(found(&*store).await.closed_at, None);
    assert_eq!(close(now).await.expect("an answer"), [poll()]);
    assert!(found(&*store).await.closed_at.is_some());
    assert_eq!(close(now).await.expect("an answer"), [], "it is closed only once");
}

pub(super) async fn a_closing_time_changes_by_command_only(harness: &dyn StoreHarness) {
    let store = prepared(harness).await;
    let (one, two) = (Timestamp::MAX.saturating_add(-1), Timestamp::MAX);
    let moved = store.reschedule_poll(poll(), Some(one), "rain").await.expect("an answer").expect("the poll");
    assert_eq!(moved.closes_at, Some(one));
    let file = Poll { closes_at: Some(two), ..pets(Keep::First) };
    assert_eq!(store.register_poll(&file).await.expect("an answer"), moved, "a file changes nothing");
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
    let (store, mut session, _votes) = closed(harness).await;
    complete_all(&mut *session).await;
    assert!(store.finalize_poll(poll()).await.expect("an answer"), "it becomes final");
    let first = found(&*store).await;
    assert!(first.final_at.is_some());
    tokio::time::sleep(Duration::from_millis(2)).await;
    assert!(store.finalize_poll(poll()).await.expect("an answer"), "it stays final");
    store
        .report(&[QueueRecord { id: queue_id(2), ..record(2, QueueState::Active) }])
        .await
        .expect("a report");
    assert!(store.finalize_poll(poll()).await.expect("an answer"), "it stays final with a new queue");
    assert_eq!(found(&*store).await, first, "the first time is kept");
}

pub(super) async fn a_poll_is_final_only_when_every_partition_is_complete(harness: &dyn StoreHarness) {
    let (store, mut session, _votes) = closed(harness).await;
    for partition in layout().partitions.iter() {
        assert!(!store.finalize_poll(poll()).await.expect("an answer"), "before partition {partition}");
        assert_eq!(complete(&mut *session, partition).await, []);
    }
    assert!(store.finalize_poll(poll()).await.expect("an answer"));
}

pub(super) async fn an_open_poll_is_never_final(harness: &dyn StoreHarness) {
    let (store, mut session, _votes) = counted(harness).await;
    store.record_seal(&sealed(3, 1)).await.expect("a record");
    let before = accounts(&*store).await;
    assert_ne!(complete(&mut *session, PARTITION).await, []);
    assert!(!store.finalize_poll(poll()).await.expect("an answer"));
    let after = accounts(&*store).await;
    assert_eq!(after, Accounts { taken_at: after.taken_at, ..before });
}

pub(super) async fn a_final_poll_counts_no_more_votes(harness: &dyn StoreHarness) {
    let (store, mut session, _votes) = closed(harness).await;
    complete_all(&mut *session).await;
    assert!(store.finalize_poll(poll()).await.expect("an answer"));
    let version = acquire(&mut *session).await.version;
    let late = vote(voters().nth(7).expect("a voter"), 0, 6);
    let result = session.commit(&inserts(version, 2, &[late])).await;
    assert!(matches!(result, Err(StoreError::StaleVersion(PARTITION))), "{result:?}");
    assert_eq!(store.ballot(poll(), late.voter).await.expect("an answer"), None);
}

pub(super) async fn a_partition_is_complete_only_when_read_to_every_seal(harness: &dyn StoreHarness) {
    let (store, mut session, _votes) = closed(harness).await;
    let other = queue_id(2);
    store.report(&[QueueRecord { id: other, ..record(2, QueueState::Active) }]).await.expect("a report");
    assert_ne!(complete(&mut *session, PARTITION).await, [], "queue 2 has no seal");
    store.record_seal(&SealRecord { queue: other, ..sealed(2, 5) }).await.expect("a record");
    assert_ne!(complete(&mut *session, PARTITION).await, [], "queue 2 was not read");
    assert_eq!(complete(&mut *session, Partition(1)).await, [], "it has no entries");
    assert_eq!(accounts(&*store).await.completions.keys().collect::<Vec<_>>(), [&(poll(), Partition(1))]);
    let acquired = acquire(&mut *session).await;
    let stale = session.complete(PARTITION, acquired.version + 1, poll()).await;
    assert!(matches!(stale, Err(StoreError::StaleVersion(PARTITION))), "{stale:?}");
}

pub(super) async fn a_new_queue_outdates_completions(harness: &dyn StoreHarness) {
    let (store, mut session, _votes) = closed(harness).await;
    complete_all(&mut *session).await;
    store.report(&[record(5, QueueState::Active)]).await.expect("a report of a known queue");
    let now = accounts(&*store).await;
    assert!(now.completions.values().all(|revision| *revision == now.revision), "it is known already");
    let other = queue_id(2);
    store.report(&[QueueRecord { id: other, ..record(2, QueueState::Active) }]).await.expect("a report");
    assert!(!store.finalize_poll(poll()).await.expect("an answer"), "the new queue has no seal");
    store.retire(other, "its node is gone").await.expect("an answer");
    complete_all(&mut *session).await;
    assert!(store.finalize_poll(poll()).await.expect("an answer"));
}

pub(super) async fn a_higher_seal_outdates_completions(harness: &dyn StoreHarness) {
    let (store, mut session, _votes) = closed(harness).await;
    complete_all(&mut *session).await;
    store.record_seal(&sealed(4, 2)).await.expect("a record");
    assert!(!store.finalize_poll(poll()).await.expect("an answer"), "the new seal counts one vote more");
}

pub(super) async fn the_highest_seal_is_kept(harness: &dyn StoreHarness) {
    let store = prepared(harness).await;
    assert_eq!(store.record_seal(&sealed(2, 2)).await.expect("a record"), sealed(2, 2));
    assert_eq!(store.record_seal(&sealed(1, 3)).await.expect("a record"), sealed(2, 3));
    let other = SealRecord { queue: queue_id(2), ..sealed(9, 9) };
    store.record_seal(&other).await.expect("a record");
    assert_eq!(accounts(&*store).await.seals, [sealed(2, 3), other]);
}

pub(super) async fn a_retired_queue_stays_retired(harness: &dyn StoreHarness) {
    let store = prepared(harness).await;
    assert!(!store.retire(queue_id(1), "gone").await.expect("an answer"), "there is no such queue");
    store.report(&[record(1, QueueState::Diverged)]).await.expect("a report");
    assert!(store.retire(queue_id(1), "its disk burnt").await.expect("an answer"));
    assert!(store.retire(queue_id(1), "another reason").await.expect("an answer"));
    store.report(&[record(2, QueueState::Active)]).await.expect("a report");
    store.report(&[record(3, QueueState::Diverged)]).await.expect("a report");
    let expected = QueueRecord {
        state: QueueState::Retired,
        reason: "noticed at 1; retired: its disk burnt".to_owned(),
        ..record(3, QueueState::Active)
    };
    assert_eq!(store.queues().await.expect("queues"), [expected]);
}
