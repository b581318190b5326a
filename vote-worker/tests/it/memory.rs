//! The worker as a library, with queues and stores in memory, some of them broken.

use std::{sync::Arc, time::Duration};

use vote_core::{
    OptionSlug, Polls, Position, Queue, Store, StoreReader, SystemClock, Vote, WorkerId,
    conformance::{
        broken::{BrokenQueue, BrokenStore, QueueFault, StoreFault},
        frames, layout, poll, vote,
    },
    count::{CommitPlan, QueueState, SealRecord},
    queue::MemoryQueue,
    store::MemoryStore,
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
        id: WorkerId::random().unwrap(),
        sources: queues.iter().map(|queue| Source::Queue(Arc::clone(queue))).collect(),
        polls: Polls::example(),
        clock: Arc::new(SystemClock),
        health: Health::default(),
    }
}

/// Returns a queue that is created but not active yet.
pub(crate) async fn created(queue: impl Queue + 'static) -> Arc<dyn Queue> {
    queue.create(layout(), None).await.unwrap();
    Arc::new(queue)
}

/// Appends votes as soon as the worker has activated the queue.
async fn append(queue: &dyn Queue, votes: &[Vote]) {
    for _ in 0..200 {
        let id = queue.status().await.unwrap().unwrap().id;
        if queue.append(id, &frames(votes)).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the worker did not activate the queue");
}

async fn tally(store: &dyn StoreReader) -> Vec<(OptionSlug, u64)> {
    store.snapshot().await.unwrap().accounts(false).await.unwrap().tally_of(poll())
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
    let queues = [created(MemoryQueue::new()).await, created(MemoryQueue::new()).await];
    let shutdown = Shutdown::new();
    let worker = tokio::spawn(vote_worker::run(parts(store.clone(), &queues), options(3), shutdown.clone()));
    append(&*queues[0], &votes(0..1000)).await;
    append(&*queues[1], &votes(500..1500)).await;
    eventually_total(&*store, 1500).await;
    for queue in &queues {
        let entries = async || queue.status().await.unwrap().unwrap().entries;
        let until = tokio::time::Instant::now() + Duration::from_secs(10);
        while !entries().await.iter().all(|n| *n == 1) && tokio::time::Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let entries = entries().await;
        assert!(entries.iter().all(|n| *n == 1), "only the anchors are left: {entries:?}");
    }
    for row in store.snapshot().await.unwrap().accounts(false).await.unwrap().ledger {
        assert_eq!(row.entry.accepted, row.entry.new_voters + row.entry.superseded);
    }
    shutdown.trigger();
    worker.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_trim_delay_queues_keep_committed_entries() {
    let store = Arc::new(MemoryStore::new());
    let queue = created(MemoryQueue::new()).await;
    let shutdown = Shutdown::new();
    let kept = Options { trim_delay: Duration::from_secs(3600), ..options(1) };
    let worker =
        tokio::spawn(vote_worker::run(parts(store.clone(), &[Arc::clone(&queue)]), kept, shutdown.clone()));
    for n in 0..5 {
        append(&*queue, &votes(n..n + 1)).await;
        eventually_total(&*store, n + 1).await;
    }
    // Trims come once a second.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let entries: u64 = queue.status().await.unwrap().unwrap().entries.iter().sum();
    assert_eq!(entries, 5);
    shutdown.trigger();
    worker.await.unwrap().unwrap();
}

/// The standby has nothing at first, as if it was away, and everything afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn with_a_witness_queues_keep_committed_entries_that_it_does_not_show() {
    let (store, standby) = (Arc::new(MemoryStore::new()), Arc::new(MemoryStore::new()));
    let queue = created(MemoryQueue::new()).await;
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

/// Commits the positions of one store to another.
async fn copy_positions(from: &dyn StoreReader, to: &dyn Store) {
    to.prepare(layout()).await.unwrap();
    let mut session = to.open_session().await.unwrap();
    for ((queue, partition), position) in
        from.positions_in(&layout().partitions.iter().collect::<Vec<_>>()).await.unwrap()
    {
        let version = session.acquire(partition).await.unwrap().unwrap().version;
        let nothing = CommitPlan {
            partition,
            version,
            polls: Vec::new(),
            ledger: Vec::new(),
            positions: vec![(queue, position)],
            quarantine: Vec::new(),
            replayed: Vec::new(),
        };
        session.commit(&nothing).await.unwrap();
    }
}

/// If the look-ups of a store miss half the voters, plans conflict, and looking them up again does not help. Still no
/// vote may be counted wrong.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_misses_effective_ballots_never_counts_a_voter_twice() {
    let store = Arc::new(BrokenStore::new(StoreFault::LooksUpHalf));
    let queue = created(MemoryQueue::new()).await;
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
async fn a_queue_that_trims_too_much_is_detected_and_no_longer_counted() {
    let store = Arc::new(MemoryStore::new());
    let queue = created(BrokenQueue::new(QueueFault::TrimsEverything)).await;
    let first = queue.status().await.unwrap().unwrap().id;
    let shutdown = Shutdown::new();
    let worker = tokio::spawn(vote_worker::run(
        parts(store.clone(), &[Arc::clone(&queue)]),
        options(1),
        shutdown.clone(),
    ));
    append(&*queue, &votes(0..100)).await;
    eventually_total(&*store, 100).await;
    // A trim removes the anchors, too, which the next read detects.
    for _ in 0..500 {
        let queues = store.queues().await.unwrap();
        if queues.iter().any(|q| q.id == first && q.state == QueueState::Diverged) {
            assert_ne!(queue.status().await.unwrap().unwrap().id, first, "the new queue has a new identity");
            shutdown.trigger();
            return worker.await.unwrap().unwrap();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the queue was not found diverged");
}

/// The server came back in a state in which the poll is sealed already, and which lacks an entry of another poll.
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_ends_before_what_it_held_when_a_poll_was_sealed_lost_data() {
    for (missing, expected) in [(0, QueueState::Active), (1, QueueState::Diverged)] {
        let store = Arc::new(MemoryStore::new());
        let queue = created(MemoryQueue::new()).await;
        let first = queue.status().await.unwrap().unwrap().id;
        let worker = |shutdown: &Shutdown| {
            let parts = parts(store.clone(), &[Arc::clone(&queue)]);
            tokio::spawn(vote_worker::run(parts, options(1), shutdown.clone()))
        };
        let shutdown = Shutdown::new();
        let before = worker(&shutdown);
        append(&*queue, &votes(0..100)).await;
        eventually_total(&*store, 100).await;
        shutdown.trigger();
        before.await.unwrap().unwrap();
        store.close_poll(poll()).await.unwrap();
        let mut seal = queue.seal(first, poll()).await.unwrap();
        for end in &mut seal.ends {
            let mut bytes = end.as_bytes().to_vec();
            if let Some(number) = bytes.get_mut(7) {
                *number += missing;
            }
            *end = Position::from_bytes(&bytes).unwrap();
        }
        store.record_seal(&SealRecord { queue: first, poll: poll(), seal }).await.unwrap();

        let shutdown = Shutdown::new();
        let after = worker(&shutdown);
        let state = async || {
            let queues = store.queues().await.unwrap();
            queues.iter().find(|queue| queue.id == first).map(|queue| (queue.state, queue.reason.clone()))
        };
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if state().await.is_some_and(|(state, _)| state == QueueState::Diverged) {
                break;
            }
        }
        let (state, reason) = state().await.unwrap();
        assert_eq!(state, expected, "{missing}: {reason}");
        assert_eq!(reason.contains("when poll pets was sealed"), missing > 0, "{reason}");
        shutdown.trigger();
        after.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_with_another_pepper_ends_the_worker() {
    let store = Arc::new(MemoryStore::new());
    store.prepare(layout()).await.unwrap();
    let mut other = options(1);
    other.fingerprint.0 = [0; 8];
    let error = vote_worker::run(parts(store, &[]), other, Shutdown::new()).await.unwrap_err();
    assert!(error.to_string().contains("another pepper"), "{error}");
}
