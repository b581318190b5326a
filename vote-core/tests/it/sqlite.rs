//! Queue and store in SQLite files.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use async_trait::async_trait;
use sqlx::{ConnectOptions, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;
use vote_core::{
    Clock, Partition, Position, Queue, QueueId, Session, Store, StoreReader, SystemClock, Vote,
    conformance::{QueueHarness, StoreHarness, activate, ballot, frames, layout, poll, queue_id, vote},
    count::{Accounts, CommitPlan, LedgerEntry, LedgerRow, PollPlan, QueueRecord},
    poll::{Polls, ResultsFrom},
    queue::{Appended, Frame, QueueError, SqliteQueue},
    store::{Acquired, SqliteReader, SqliteStore, StoreError, WorkerId, WorkerRecord},
};

mod migration;
mod replaced;
mod snapshot;

/// A temporary folder with any number of files, removed when the test ends.
struct Files {
    folder: TempDir,
    made: AtomicU32,
}

impl Files {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), made: 0.into() }
    }

    fn new_path(&self) -> PathBuf {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        self.folder.path().join(format!("made/on/demand/{number}.db"))
    }

    fn last_path(&self) -> PathBuf {
        let number = self.made.load(Ordering::Relaxed) - 1;
        self.folder.path().join(format!("made/on/demand/{number}.db"))
    }
}

#[async_trait]
impl QueueHarness for Files {
    async fn fresh(&self) -> Arc<dyn Queue> {
        Arc::new(SqliteQueue::open(&self.new_path()).await.unwrap())
    }
    async fn reopen(&self, queue: Arc<dyn Queue>) -> Arc<dyn Queue> {
        drop(queue);
        Arc::new(SqliteQueue::open(&self.last_path()).await.unwrap())
    }
}

#[async_trait]
impl StoreHarness for Files {
    async fn fresh(&self) -> Arc<dyn Store> {
        Arc::new(SqliteStore::open(&self.new_path()).await.unwrap())
    }
    async fn reopen(&self, store: Arc<dyn Store>) -> Arc<dyn Store> {
        drop(store);
        Arc::new(SqliteStore::open(&self.last_path()).await.unwrap())
    }
}

mod queue {
    vote_core::queue_conformance!(super::Files::new());
}

mod store {
    vote_core::store_conformance!(super::Files::new());
}

const PARTITION: Partition = Partition(0);

/// Polls a future up to `steps` times and once more, and then drops it. A future that needs more hops to SQLite's
/// thread than that is always dropped.
async fn cut_short<T>(steps: u32, future: impl Future<Output = T>) -> Option<T> {
    let spin = async {
        for _ in 0..steps {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        done = future => Some(done),
        () = spin => None,
    }
}

/// Returns pseudo-random numbers of steps, the same in each run. Some suffice for any call and some for none, however
/// fast the disk is.
fn steps(seed: u64) -> impl Iterator<Item = u32> {
    std::iter::successors(Some(seed), |n| Some(n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1)))
        .map(|n| (n >> 33) as u32)
        .zip(0..)
        .map(|(random, round)| match round % 4 {
            0 => u32::MAX,
            1 => random % 6,
            _ => random % 2000,
        })
}

async fn open_queue(files: &Files) -> (SqliteQueue, QueueId) {
    let queue = SqliteQueue::open(&files.new_path()).await.unwrap();
    let id = queue.create(layout(), None).await.unwrap();
    activate(&queue, id, &[poll()]).await.unwrap();
    (queue, id)
}

/// Returns the entries of all partitions, after checking them against the counters.
async fn consistent_entries(queue: &SqliteQueue, id: QueueId) -> BTreeMap<(Partition, Position), u64> {
    // Acquires the write lock once, so that no COMMIT of a dropped append falls between two reads.
    queue.activate(id).await.unwrap();
    let mut all = BTreeMap::new();
    for partition in layout().partitions.iter() {
        let read = queue.read(id, partition, Position::START, 1 << 30).await.unwrap();
        let votes: u64 = read.entries.iter().map(|entry| entry.votes).sum();
        let accepted: u64 = read.accepted.unwrap().values().sum();
        assert_eq!(votes, accepted, "partition {partition}");
        all.extend(read.entries.into_iter().map(|entry| ((partition, entry.position), entry.votes)));
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_appends_store_a_whole_flush_or_nothing() {
    let files = Files::new();
    let (queue, id) = open_queue(&files).await;
    let queue = Arc::new(queue);
    let tasks: Vec<_> = (0..4_u64)
        .map(|task| {
            let queue = Arc::clone(&queue);
            tokio::spawn(async move {
                let (mut stored, mut dropped) = (Vec::new(), 0);
                for (round, steps) in (0..60_u64).zip(steps(task)) {
                    let votes: Vec<_> = (0..40).map(|n| vote(task << 32 | round << 16 | n, 0, 1)).collect();
                    let frames = frames(&votes);
                    match cut_short(steps, queue.append(id, &frames)).await {
                        Some(appended) => stored.extend(frames.into_iter().zip(appended.unwrap())),
                        None => dropped += 1,
                    }
                }
                (stored, dropped)
            })
        })
        .collect();
    let (mut stored, mut dropped): (Vec<(Frame, Appended)>, u32) = (Vec::new(), 0);
    for task in tasks {
        let (some, number) = task.await.unwrap();
        stored.extend(some);
        dropped += number;
    }
    assert!(dropped >= 60, "at least a quarter was dropped: {dropped}");
    let entries = consistent_entries(&queue, id).await;
    for (frame, appended) in &stored {
        let Appended::Stored(position) = appended else { panic!("nothing was sealed") };
        assert_eq!(entries.get(&(frame.partition, *position)), Some(&u64::from(frame.votes)));
    }
    assert_eq!(entries.values().sum::<u64>() % 40, 0, "each flush has 40 votes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_handles_work_after_a_dropped_append() {
    let files = Files::new();
    let (queue, id) = open_queue(&files).await;
    let other = SqliteQueue::open(&files.last_path()).await.unwrap();
    let flush = frames(&[vote(1, 0, 1)]);
    for steps in steps(7).take(40) {
        cut_short(steps, queue.append(id, &flush)).await;
        other.append(id, &flush).await.unwrap();
        queue.read(id, flush[0].partition, Position::START, 1).await.unwrap();
    }
    consistent_entries(&other, id).await;
}

async fn prepared(files: &Files) -> SqliteStore {
    let store = SqliteStore::open(&files.new_path()).await.unwrap();
    store.prepare(layout()).await.unwrap();
    store.register_poll(Polls::example().get("pets").unwrap()).await.unwrap();
    store
}

/// Returns `count` votes of partition 0 that no other `batch` has.
fn votes(batch: u64, count: usize) -> Vec<Vote> {
    let mut votes: Vec<_> = (batch << 40..)
        .map(|voter| vote(voter, (voter % 2) as u8, 1))
        .filter(|vote| layout().partitions.of(vote.voter) == PARTITION)
        .take(count)
        .collect();
    votes.sort_by_key(|vote| vote.voter);
    votes
}

fn plan(acquired: &Acquired, votes: &[Vote]) -> CommitPlan {
    let mut tally = BTreeMap::new();
    for vote in votes {
        *tally.entry(vote.option).or_insert(0) += 1;
    }
    let before = acquired.checkpoints.values().flat_map(|c| c.accepted.values()).sum::<u64>();
    let n = votes.len() as u64;
    CommitPlan {
        partition: PARTITION,
        version: acquired.version,
        polls: vec![PollPlan {
            poll: poll(),
            inserts: votes.iter().map(ballot).collect(),
            replacements: Vec::new(),
            tally,
        }],
        ledger: vec![LedgerEntry {
            queue: queue_id(1),
            poll: poll().to_string(),
            accepted: before + n,
            new_voters: n,
            superseded: 0,
            quarantined: 0,
        }],
        positions: vec![(queue_id(1), Position::from_bytes(&(acquired.version + 1).to_be_bytes()).unwrap())],
        quarantine: Vec::new(),
        replayed: Vec::new(),
    }
}

async fn accounts(store: &dyn StoreReader) -> Accounts {
    store.snapshot().await.unwrap().accounts(true).await.unwrap()
}

async fn ledger(store: &dyn StoreReader) -> Vec<LedgerRow> {
    accounts(store).await.ledger
}

/// Opens a connection of its own, beside those of the store or the queue.
async fn raw(path: &Path) -> SqliteConnection {
    SqliteConnectOptions::new().filename(path).create_if_missing(true).connect().await.unwrap()
}

async fn session(store: &SqliteStore) -> (Box<dyn Session>, Acquired) {
    let mut session = store.open_session().await.unwrap();
    let acquired = session.acquire(PARTITION).await.unwrap().expect("no other session has it");
    (session, acquired)
}

#[tokio::test]
async fn a_worker_that_stopped_before_the_clock_was_set_back_is_not_alive() {
    let files = Files::new();
    let store = prepared(&files).await;
    let worker = |n| WorkerRecord { id: WorkerId([n; 16]), lanes: 1, unreached: BTreeSet::new() };
    store.heartbeat(&worker(1)).await.unwrap();
    let set = sqlx::query("UPDATE workers SET seen_at = seen_at + 5000000");
    set.execute(&mut raw(&files.last_path()).await).await.unwrap();
    let alive = async || store.catalog(None).await.unwrap().workers.into_values().collect::<Vec<_>>();
    assert_eq!(alive().await, []);
    let now = SystemClock.now();
    let queue = QueueRecord::new(queue_id(1), "sqlite:".to_owned(), now);
    store.report(std::slice::from_ref(&queue)).await.unwrap();

    store.heartbeat(&worker(2)).await.unwrap();

    assert_eq!(alive().await, [worker(2)]);
    let age = now.as_micros() - store.queues().await.unwrap()[0].seen_at.as_micros();
    assert!((50_000_000..70_000_000).contains(&age), "the time of the report is not known: {age}");
    store.report(std::slice::from_ref(&queue)).await.unwrap();
    store.heartbeat(&worker(1)).await.unwrap();
    assert_eq!(store.queues().await.unwrap()[0].seen_at, now, "the clock is set back once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_commit_is_applied_or_not_and_the_next_acquire_shows_which() {
    let files = Files::new();
    let store = prepared(&files).await;
    let (mut applied, mut unsure) = (0, 0);
    for (batch, steps) in (0..80).zip(steps(3)) {
        let votes = votes(batch, 30);
        let (mut first, before) = session(&store).await;
        match cut_short(steps, first.commit(&plan(&before, &votes))).await {
            Some(result) => result.unwrap(),
            None => unsure += 1,
        }
        drop(first);
        let (mut second, after) = session(&store).await;
        let keys: Vec<_> = votes.iter().map(|vote| vote.voter).collect();
        let found =
            second.lookup(PARTITION, poll(), &keys, vote_core::store::Lookup::Exhaustive).await.unwrap();
        assert_eq!(found.len() as u64, (after.version - before.version) * 30, "the whole commit or nothing");
        applied = after.version;
    }
    assert!(unsure >= 20 && applied >= 20, "{unsure} were dropped, {applied} applied");
    let total: u64 = accounts(&store).await.tally_of(poll()).iter().map(|(_, n)| n).sum();
    let ledger = ledger(&store).await;
    assert_eq!((total, ledger[0].entry.accepted, ledger[0].entry.new_voters), (applied * 30, total, total));
}

#[tokio::test]
async fn a_conflict_in_a_large_batch_changes_nothing_and_the_store_stays_usable() {
    let files = Files::new();
    let store = prepared(&files).await;
    let (mut first, acquired) = session(&store).await;
    let some = votes(1, 1000);
    first.commit(&plan(&acquired, &some[..1])).await.unwrap();
    let acquired = first.acquire(PARTITION).await.unwrap().unwrap();
    let result = first.commit(&plan(&acquired, &some)).await;
    assert!(matches!(result, Err(StoreError::Conflict(_))), "{result:?}");
    drop(first);
    let (mut second, again) = session(&store).await;
    assert_eq!(again, acquired, "the failed commit changed nothing");
    second.commit(&plan(&again, &some[1..])).await.unwrap();
    assert_eq!(accounts(&store).await.tally_of(poll()).iter().map(|(_, n)| n).sum::<u64>(), 1000);
}

#[tokio::test]
async fn a_second_worker_gets_no_session_until_the_first_is_gone() {
    let files = Files::new();
    let first = prepared(&files).await;
    let second = SqliteStore::open(&files.last_path()).await.unwrap();
    let session = first.open_session().await.unwrap();
    let refused = second.open_session().await.unwrap_err();
    assert!(matches!(refused, StoreError::InUse { .. }), "{refused:?}");
    let reason = refused.to_string();
    assert!(reason.contains("another worker") && reason.contains(".lock"), "{reason}");
    drop(first);
    assert!(second.open_session().await.is_err(), "a session of the first still exists");
    drop(session);
    second.open_session().await.unwrap();
}

#[tokio::test]
async fn a_reader_sees_what_the_writer_commits() {
    let files = Files::new();
    let store = prepared(&files).await;
    let reader = SqliteReader::open(&files.last_path()).await.unwrap();
    for batch in 0..3 {
        let (mut session, acquired) = session(&store).await;
        session.commit(&plan(&acquired, &votes(batch, 10))).await.unwrap();
        assert_eq!(accounts(&reader).await.tally_of(poll()), accounts(&store).await.tally_of(poll()));
        assert_eq!(ledger(&reader).await[0].entry.accepted, (batch + 1) * 10);
    }
    assert_eq!(reader.layout().await.unwrap(), Some(layout()));
}

#[tokio::test]
async fn a_reader_does_not_create_the_file() {
    let files = Files::new();
    let path = files.folder.path().join("store.db");
    let refused = SqliteReader::open(&path).await.unwrap_err();
    assert!(matches!(refused, StoreError::NotPrepared { .. }), "{refused:?}");
    assert!(refused.to_string().contains("store.db"), "{refused}");
    assert!(!path.exists());
    std::fs::write(&path, b"").unwrap();
    let result = SqliteReader::open(&path).await;
    assert!(
        matches!(result, Err(StoreError::NotPrepared { .. })),
        "an empty file is not a store yet: {result:?}"
    );
}

#[tokio::test]
async fn a_file_with_other_content_is_refused() {
    let files = Files::new();
    let (queue, _) = open_queue(&files).await;
    let path = files.last_path();
    for result in [SqliteStore::open(&path).await.map(drop), SqliteReader::open(&path).await.map(drop)] {
        let Err(StoreError::NotAStore { place, .. }) = result else { panic!("{result:?}") };
        assert!(place.contains("0.db"), "{place}");
    }
    queue.status().await.unwrap().expect("the queue is as it was");
    prepared(&files).await;
    let Err(QueueError::Incompatible(reason)) = SqliteQueue::open(&files.last_path()).await else {
        panic!("a queue opened the file of a store")
    };
    assert!(reason.contains("something else"), "{reason}");
    let text = files.folder.path().join("notes.txt");
    std::fs::write(&text, "no database at all, but long enough to have a header".repeat(100)).unwrap();
    let Err(QueueError::Incompatible(reason)) = SqliteQueue::open(&text).await else { panic!("no error") };
    assert!(reason.contains("notes.txt"), "{reason}");
}

#[tokio::test]
async fn a_file_is_durable_and_its_address_names_it() {
    let files = Files::new();
    let (queue, _) = open_queue(&files).await;
    assert_eq!(queue.durability_problems().await, Ok(Vec::new()));
    assert_eq!(queue.address(), format!("sqlite:{}", files.last_path().canonicalize().unwrap().display()));
    let store = prepared(&files).await;
    assert_eq!(store.durability_problems().await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_file_may_be_opened_concurrently() {
    let files = Files::new();
    for _ in 0..10 {
        let path = files.new_path();
        let opening: Vec<_> = (0..8)
            .map(|_| {
                let path = path.clone();
                tokio::spawn(async move { SqliteStore::open(&path).await })
            })
            .collect();
        for store in opening {
            store.await.unwrap().unwrap().prepare(layout()).await.unwrap();
        }
    }
}
