//! Clauses about the catalog: what workers act on.

use super::*;
use crate::{
    Clock, SystemClock, WorkerId,
    store::{CatalogQueue, LATE_AFTER, WorkerRecord},
};

fn snack() -> Poll {
    Poll { slug: "snack".parse().expect("a slug"), ..pets(Keep::First) }
}

pub(super) async fn live_workers_are_listed(harness: &dyn StoreHarness) {
    let store = prepared(harness).await;
    let worker = |id: u8, lanes| WorkerRecord {
        id: WorkerId([id; 16]),
        lanes,
        unreached: (0..id).map(queue_id).collect(),
    };
    store.heartbeat(&worker(1, 2)).await.expect("a record");
    store.heartbeat(&worker(2, 4)).await.expect("a record");
    store.heartbeat(&worker(1, 0)).await.expect("a record");
    let workers = store.catalog(None).await.expect("the catalog").workers;
    assert_eq!(workers.into_values().collect::<Vec<_>>(), [worker(1, 0), worker(2, 4)]);
}

pub(super) async fn a_queue_seen_in_the_future_counts_as_seen_long_ago(harness: &dyn StoreHarness) {
    let store = prepared(harness).await;
    let future = QueueRecord { seen_at: Timestamp::MAX, ..record(1, QueueState::Active) };
    store
        .report(&[future, QueueRecord { id: queue_id(2), ..record(2, QueueState::Active) }])
        .await
        .expect("a report");
    let worker =
        WorkerRecord { id: WorkerId([1; 16]), lanes: 1, unreached: std::collections::BTreeSet::new() };
    store.heartbeat(&worker).await.expect("a record");
    let queues = store.queues().await.expect("queues");
    let age = SystemClock.now().as_micros() - queues[0].seen_at.as_micros();
    assert!((50_000_000..70_000_000).contains(&age), "it counts as seen a minute ago: {age} µs");
    assert_eq!(queues[1].seen_at, record(2, QueueState::Active).seen_at, "a time in the past is kept");
}

pub(super) async fn the_catalog_holds_what_is_on_record(harness: &dyn StoreHarness) {
    let (store, _session, _votes) = closing::closed(harness).await;
    let before = SystemClock.now();
    let catalog = store.catalog(None).await.expect("the catalog");
    assert!(catalog.taken_at.as_micros().abs_diff(before.as_micros()) < 10_000_000, "about the present time");
    assert_eq!(*catalog.polls, store.polls().await.expect("polls"));
    let queues = store.queues().await.expect("queues");
    let expected: BTreeMap<QueueId, CatalogQueue> =
        queues.iter().map(|queue| (queue.id, queue.into())).collect();
    assert_eq!(*catalog.queues, expected);
    assert_eq!(catalog.sealed.into_iter().collect::<Vec<_>>(), [(queue_id(1), poll())]);
    assert_eq!(catalog.revision, accounts(&*store).await.revision);
}

pub(super) async fn a_catalog_read_again_has_what_has_changed(harness: &dyn StoreHarness) {
    let store = prepared(harness).await;
    let mut known = store.catalog(None).await.expect("the catalog");
    let again = store.catalog(Some(&known)).await.expect("the catalog");
    assert_eq!(again.version, known.version, "nothing has changed");
    let mut changed = async |what: &str| {
        let again = store.catalog(Some(&known)).await.expect("the catalog");
        assert_ne!(again.version, known.version, "{what}: a new version");
        let anew = store.catalog(None).await.expect("the catalog");
        assert_eq!(
            (&again.queues, &again.polls, &again.dropped),
            (&anew.queues, &anew.polls, &anew.dropped),
            "{what}"
        );
        known = again;
    };
    store.register_poll(&snack()).await.expect("a registration");
    changed("a poll").await;
    // Without votes, so that the poll can be withdrawn.
    let (accepted, queued) = Default::default();
    let reported = QueueRecord { server: "a".to_owned(), accepted, queued, ..record(1, QueueState::Active) };
    store.report(std::slice::from_ref(&reported)).await.expect("a report");
    changed("a queue").await;
    let seen_at = SystemClock.now();
    let moved = QueueRecord { server: "b".to_owned(), seen_at, ..reported.clone() };
    store.report(std::slice::from_ref(&moved)).await.expect("a report");
    changed("its server").await;
    let reporter = Some(WorkerId([7; 16]));
    store.report(&[QueueRecord { reporter, ..moved.clone() }]).await.expect("a report");
    changed("its reporter").await;
    store.retire(queue_id(1), "gone").await.expect("an answer");
    changed("its state").await;
    store.reschedule_poll(poll(), Some(Timestamp::MAX), "later").await.expect("an answer");
    changed("a closing time").await;
    store.withdraw_poll(poll(), "a typo").await.expect("an answer");
    changed("a withdrawal").await;
    let withdrawn = store.polls().await.expect("polls").into_iter().find(|known| known.slug == poll());
    let at = withdrawn.and_then(|poll| poll.withdrawal).expect("it is withdrawn").at;
    store.record_dropped(queue_id(1), poll(), at).await.expect("a record");
    changed("a dropped poll").await;
    store.close_poll(snack().slug).await.expect("an answer");
    changed("a closed poll").await;
}

pub(super) async fn a_queue_is_found_by_its_identity(harness: &dyn StoreHarness) {
    let store = prepared(harness).await;
    let records = [1, 2].map(|n| QueueRecord { id: queue_id(n), ..record(n.into(), QueueState::Active) });
    store.report(&records).await.expect("a report");
    assert_eq!(store.queue(queue_id(2)).await.expect("an answer").as_ref(), Some(&records[1]));
    assert_eq!(store.queue(queue_id(3)).await.expect("an answer"), None);
}

pub(super) async fn active_queues_without_a_recent_report_are_late(harness: &dyn StoreHarness) {
    let store = prepared(harness).await;
    let now = SystemClock.now();
    let at = |n: u8, seconds: i64, state| QueueRecord {
        id: queue_id(n),
        seen_at: now.saturating_add(seconds * 1_000_000),
        ..record(1, state)
    };
    let replaced = QueueRecord { original_id: Some(queue_id(9)), ..at(4, -60, QueueState::Active) };
    let queues = [
        at(1, 0, QueueState::Active),
        at(2, -60, QueueState::Active),
        at(3, -60, QueueState::Diverged),
        replaced,
        at(5, 60, QueueState::Active),
    ];
    store.report(&queues).await.expect("a report");
    let catalog = store.catalog(None).await.expect("the catalog");
    let late = [1, 4].map(|place| (queues[place].id, queues[place].seen_at));
    assert_eq!(catalog.late, late.into(), "not seen for long, and seen before the clock was set back");
    let seen = |n| catalog.was_seen_within(queue_id(n), LATE_AFTER);
    assert_eq!([seen(1), seen(2), seen(5), seen(8)], [true, false, false, false]);
}
