//! The worker as a library, on queues and a store in memory, some of them broken.

use std::{sync::Arc, time::Duration};

use vote_core::{
    OptionSlug, Polls, Queue, Store, StoreReader, SystemClock, Vote,
    conformance::{
        broken::{BrokenQueue, BrokenStore, QueueFault, StoreFault},
        frames, layout, poll, vote,
    },
    queue::MemoryQueue,
    store::{CommitPlan, MemoryStore},
};
use vote_service::Shutdown;
use vote_worker::{Health, Options, Parts, Source, Witness};

pub(crate) fn options(lanes: usize) -> Options {
    Options {
        lanes,
        partitions: None,
        fingerprint: layout().fingerprint,
        trim_delay: Duration::ZERO,
        close_grace: Duration::ZERO,
        allow_volatile: true,
    }
}

pub(crate) fn parts(store: Arc<dyn Store>, queues: &[Arc<dyn Queue>]) -> Parts {
    Parts {
        store,
        witnesses: Vec::new(),
        sources: queues.iter().map(|queue| Source::Queue(Arc::clone(queue))).collect(),
        polls: Polls::example(),
        clock: Arc::new(SystemClock),
        health: Health::default(),
    }
}

pub(crate) async fn boxed(queue: impl Queue + 'static) -> Arc<dyn Queue> {
    queue.create(layout(), None).await.unwrap();
    Arc::new(queue)
}

/// Appends votes as soon as the worker has registered the queue.
async fn append(queue: &dyn Queue, votes: &[Vote]) {
    for _ in 0..200 {
        let id = queue.status().await.unwrap().unwrap().id;
        if queue.append(id, &frames(votes)).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the worker did not register the queue");
}

async fn tally(store: &dyn StoreReader) -> Vec<(OptionSlug, u64)> {
    store.tally(poll()).await.unwrap_or_default()
}

async fn total(store: &dyn StoreReader) -> u64 {
    tally(store).await.iter().map(|(_, votes)| votes).sum()
}

async fn eventually_total(store: &dyn StoreReader, expected: u64) {
    for _ in 0..500 {
        if total(store).await == expected {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(total(store).await, expected);
}

fn votes(range: std::ops::Range<u64>) -> Vec<Vote> {
    range.map(|n| vote(n, (n % 3 == 0) as u8, 1)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn several_lanes_count_several_queues_and_trim_them() {
    let store = Arc::new(MemoryStore::new());
    let queues = [boxed(MemoryQueue::new()).await, boxed(MemoryQueue::new()).await];
    let shutdown = Shutdown::new();
    let worker = tokio::spawn(vote_worker::run(parts(store.clone(), &queues), options(3), shutdown.clone()));
    append(&*queues[0], &votes(0..1000)).await;
    append(&*queues[1], &votes(500..1500)).await;
    eventually_total(&*store, 1500).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    for queue in &queues {
        let entries = queue.status().await.unwrap().unwrap().entries;
        assert!(entries.iter().all(|n| *n == 1), "only the anchors are left: {entries:?}");
    }
    for row in store.snapshot().await.unwrap().books(false).await.unwrap().ledger {
        assert_eq!(row.entry.accepted, row.entry.new_voters + row.entry.superseded);
    }
    shutdown.trigger();
    worker.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_delay_queues_keep_what_is_committed() {
    let store = Arc::new(MemoryStore::new());
    let queue = boxed(MemoryQueue::new()).await;
    let shutdown = Shutdown::new();
    let kept = Options { trim_delay: Duration::from_secs(3600), ..options(1) };
    let worker =
        tokio::spawn(vote_worker::run(parts(store.clone(), &[Arc::clone(&queue)]), kept, shutdown.clone()));
    for n in 0..5 {
        append(&*queue, &votes(n..n + 1)).await;
        eventually_total(&*store, n + 1).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let entries: u64 = queue.status().await.unwrap().unwrap().entries.iter().sum();
    assert_eq!(entries, 5);
    shutdown.trigger();
    worker.await.unwrap().unwrap();
}

/// A standby that has nothing while it is away, and everything afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn with_a_witness_queues_keep_what_it_does_not_show() {
    let (store, standby) = (Arc::new(MemoryStore::new()), Arc::new(MemoryStore::new()));
    let queue = boxed(MemoryQueue::new()).await;
    let shutdown = Shutdown::new();
    let entries = async || -> u64 { queue.status().await.unwrap().unwrap().entries.iter().sum() };
    let witness = Witness { name: "standby".to_owned(), store: standby.clone() };
    let parts = Parts { witnesses: vec![witness], ..parts(store.clone(), &[Arc::clone(&queue)]) };
    let worker = tokio::spawn(vote_worker::run(parts, options(1), shutdown.clone()));
    let voters: Vec<Vote> = (0..100).map(|n| vote(n, 0, 1)).filter(|v| v.voter.0[0] < 16).collect();
    for (n, vote) in voters[..4].iter().enumerate() {
        append(&*queue, &[*vote]).await;
        eventually_total(&*store, n as u64 + 1).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(entries().await, 4, "the witness shows nothing");

    copy_positions(&*store, &*standby).await;
    for _ in 0..200 {
        if entries().await == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(entries().await, 1, "only the anchor is left");
    shutdown.trigger();
    worker.await.unwrap().unwrap();
}

/// Commits the positions of a store to another.
async fn copy_positions(from: &dyn StoreReader, to: &dyn Store) {
    to.prepare(layout()).await.unwrap();
    let mut lane = to.open_lane().await.unwrap();
    for ((queue, partition), position) in from.all_positions().await.unwrap() {
        let version = lane.acquire(partition).await.unwrap().unwrap().version;
        let nothing = CommitPlan {
            partition,
            version,
            polls: Vec::new(),
            ledger: Vec::new(),
            positions: vec![(queue, position)],
            quarantine: Vec::new(),
            replayed: Vec::new(),
        };
        lane.commit(&nothing).await.unwrap();
    }
}

/// A store whose look-ups miss half makes plans that conflict; looking everybody up again does not help then, and so
/// nothing may ever be counted wrong.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_can_not_find_what_stands_never_counts_a_voter_twice() {
    let store = Arc::new(BrokenStore::new(StoreFault::LooksUpHalf));
    let queue = boxed(MemoryQueue::new()).await;
    let shutdown = Shutdown::new();
    let worker = tokio::spawn(vote_worker::run(
        parts(store.clone(), &[Arc::clone(&queue)]),
        options(1),
        shutdown.clone(),
    ));
    append(&*queue, &votes(0..100)).await;
    eventually_total(&*store, 100).await;
    append(&*queue, &votes(0..100)).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(total(&*store).await, 100);
    shutdown.trigger();
    worker.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_reads_destructively_is_noticed_and_no_longer_booked() {
    let store = Arc::new(MemoryStore::new());
    let queue = boxed(BrokenQueue::new(QueueFault::TrimsEverything)).await;
    let first = queue.status().await.unwrap().unwrap().id;
    let shutdown = Shutdown::new();
    let worker = tokio::spawn(vote_worker::run(
        parts(store.clone(), &[Arc::clone(&queue)]),
        options(1),
        shutdown.clone(),
    ));
    append(&*queue, &votes(0..100)).await;
    eventually_total(&*store, 100).await;
    // The anchors are gone with the trim, which the next read sees.
    for _ in 0..500 {
        let queues = store.queues().await.unwrap();
        if queues.iter().any(|q| q.id == first && q.state == vote_core::store::QueueState::Cut) {
            assert_ne!(queue.status().await.unwrap().unwrap().id, first, "it has a new identity");
            shutdown.trigger();
            return worker.await.unwrap().unwrap();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the queue is not seen as cut");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_another_pepper_ends_the_worker() {
    let store = Arc::new(MemoryStore::new());
    store.prepare(layout()).await.unwrap();
    let mut other = options(1);
    other.fingerprint.0 = [0; 8];
    let error = vote_worker::run(parts(store, &[]), other, Shutdown::new()).await.unwrap_err();
    assert!(error.to_string().contains("another pepper"), "{error}");
}
