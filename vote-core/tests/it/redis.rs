//! The queue on a real Redis.

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use vote_core::{
    Clock, DurabilityProblem, Partition, Position, Queue, QueueId, SystemClock,
    conformance::{QueueHarness, activate, frames, layout, poll, record, vote},
    queue::{AppendError, Appended, QueueError, RedisQueue, Usage},
};
use vote_testkit::Redis;

/// Queues on one server, each with a prefix of its own. Only the queue created last can be reopened, which is all
/// that the clauses need.
#[derive(Default)]
struct OnRedis {
    prefix: Mutex<String>,
}

#[async_trait]
impl QueueHarness for OnRedis {
    async fn fresh(&self) -> Arc<dyn Queue> {
        let prefix = Redis::unique_prefix();
        let queue = connect(Redis::shared(), &prefix);
        *self.prefix.lock().unwrap() = prefix;
        Arc::new(queue)
    }

    /// Reconnects to a server that has forgotten all scripts, as after a restart.
    async fn reopen(&self, queue: Arc<dyn Queue>) -> Arc<dyn Queue> {
        drop(queue);
        Redis::shared().cli(&["SCRIPT", "FLUSH"]);
        Arc::new(connect(Redis::shared(), &self.prefix.lock().unwrap()))
    }
}

mod acl;
mod deployed;

mod conformance {
    vote_core::queue_conformance!(super::OnRedis::default());
}

fn connect(redis: &Redis, prefix: &str) -> RedisQueue {
    RedisQueue::connect(&redis.url(), prefix).unwrap()
}

async fn open(redis: &Redis) -> (RedisQueue, QueueId) {
    let queue = connect(redis, "vote");
    let id = queue.create(layout(), None).await.unwrap();
    activate(&queue, id, &[poll()]).await.unwrap();
    (queue, id)
}

async fn stored(queue: &dyn Queue, id: QueueId) -> u64 {
    let mut votes = 0;
    for partition in layout().partitions.iter() {
        let read = queue.read(id, partition, Position::START, 1000).await.unwrap();
        votes += read.entries.iter().map(|entry| entry.votes).sum::<u64>();
    }
    votes
}

/// Repeats a call until it succeeds: the client reconnects by itself.
async fn eventually<T, E: std::fmt::Debug>(mut call: impl AsyncFnMut() -> Result<T, E>) -> T {
    for _ in 0..100 {
        if let Ok(value) = call().await {
            return value;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    call().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_is_as_old_as_its_first_entry() {
    let queue = connect(Redis::shared(), &Redis::unique_prefix());
    let id = queue.create(layout(), None).await.unwrap();
    activate(&queue, id, &[poll()]).await.unwrap();
    // The id of an entry has whole milliseconds.
    let before = SystemClock.now().saturating_add(-1000);
    queue.append(id, &frames(&[vote(1, 0, 1)])).await.unwrap();
    let between = SystemClock.now();
    tokio::time::sleep(Duration::from_millis(5)).await;
    queue.append(id, &frames(&[vote(1, 0, 1)])).await.unwrap();
    let start = vec![Position::START; usize::from(layout().partitions.count())];
    let backlog = queue.backlog(id, &start, 10).await.unwrap();
    let oldest: Vec<_> = backlog.iter().filter_map(|backlog| backlog.oldest).collect();
    let [oldest] = oldest[..] else { panic!("expected a backlog in one partition: {oldest:?}") };
    assert!((before..=between).contains(&oldest), "{before} <= {oldest} <= {between}");
}

#[tokio::test(flavor = "multi_thread")]
async fn works_over_a_unix_socket() {
    let redis = Redis::start();
    let queue = RedisQueue::connect(&redis.socket_url(), "vote").unwrap();
    let id = queue.create(layout(), None).await.unwrap();
    activate(&queue, id, &[poll()]).await.unwrap();
    queue.append(id, &frames(&[vote(1, 0, 1)])).await.unwrap();
    assert_eq!(stored(&queue, id).await, 1);
    assert!(queue.address().starts_with("redis+unix:///"));
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_frames_survive_a_kill_of_the_server() {
    let redis = Redis::start();
    let (queue, id) = open(&redis).await;
    for n in 0..50 {
        queue.append(id, &frames(&[vote(n, 0, 1)])).await.unwrap();
    }
    redis.kill9();
    let lost = queue.append(id, &frames(&[vote(99, 0, 1)])).await;
    assert!(matches!(lost, Err(AppendError::Unknown(_) | AppendError::NotStored(_))), "{lost:?}");
    redis.restart();
    let status = eventually(|| queue.status()).await.unwrap();
    assert_eq!((status.id, status.active), (id, true));
    assert_eq!(stored(&queue, id).await, 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_sent_to_a_frozen_server_is_unknown_and_stored_at_most_once() {
    let redis = Redis::start();
    let (queue, id) = open(&redis).await;
    queue.append(id, &frames(&[vote(1, 0, 1)])).await.unwrap();
    redis.freeze();
    let appended = queue.append(id, &frames(&[vote(2, 0, 1)])).await;
    assert!(matches!(appended, Err(AppendError::Unknown(_))), "{appended:?}");
    // Long enough for the client to drop the connection, and to repeat the command if it repeated any.
    tokio::time::sleep(Duration::from_secs(8)).await;
    redis.thaw();
    eventually(|| queue.status()).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let votes = stored(&queue, id).await;
    assert!((1..=2).contains(&votes), "{votes} votes stored, of two of which one is unknown");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_server_stores_nothing_and_can_be_trimmed() {
    let redis = Redis::start();
    let (queue, id) = open(&redis).await;
    let votes: Vec<_> = (0..2000).map(|n| vote(n, 0, 1)).collect();
    queue.append(id, &frames(&votes)).await.unwrap();
    let before = stored(&queue, id).await;
    redis.cli(&["CONFIG", "SET", "maxmemory", "1mb"]);
    let refused = queue.append(id, &frames(&votes)).await;
    assert!(matches!(&refused, Err(AppendError::NotStored(why)) if why.contains("OOM")), "{refused:?}");
    assert_eq!(stored(&queue, id).await, before, "nothing was stored");
    let partition = Partition(0);
    let last =
        queue.read(id, partition, Position::START, 1000).await.unwrap().entries.last().unwrap().position;
    queue.trim(id, partition, last).await.unwrap();
    assert_eq!(queue.status().await.unwrap().unwrap().entries[0], 1, "only the anchor is left");
}

/// A worker does all of this before it drains a queue, so none of it may need the memory that draining frees.
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_on_a_full_server_can_be_sealed_replaced_activated_and_drained() {
    let redis = Redis::start();
    let (queue, id) = open(&redis).await;
    let votes: Vec<_> = (0..2000).map(|n| vote(n, 0, 1)).collect();
    queue.append(id, &frames(&votes)).await.unwrap();
    redis.cli(&["CONFIG", "SET", "maxmemory", "1mb"]);
    let seal = queue.seal(id, poll()).await.unwrap();
    assert_eq!(seal.accepted.iter().sum::<u64>(), 2000);
    let tea = "tea".parse().unwrap();
    queue.record_polls(id, &[record(tea)]).await.unwrap();
    assert!(queue.status().await.unwrap().unwrap().polls.contains_key(&tea));
    let next = queue.create(layout(), Some(id)).await.unwrap();
    activate(&queue, next, &[poll()]).await.unwrap();
    let replaced = queue.status().await.unwrap().unwrap().replaced.remove(0);
    let start = vec![Position::START; usize::from(layout().partitions.count())];
    let backlog = queue.backlog(replaced.id, &start, 1).await.unwrap();
    for (partition, backlog) in (0..).map(Partition).zip(&backlog) {
        queue.trim(replaced.id, partition, backlog.end).await.unwrap();
    }
    assert_eq!(queue.status().await.unwrap().unwrap().replaced, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_may_lose_votes_are_named() {
    let redis = Redis::start();
    let (queue, _) = open(&redis).await;
    assert_eq!(queue.durability_problems().await.unwrap(), []);
    for (name, value, restored) in [
        ("appendfsync", "everysec", "always"),
        ("no-appendfsync-on-rewrite", "yes", "no"),
        ("maxmemory-policy", "allkeys-lru", "noeviction"),
        ("appendonly", "no", "yes"),
    ] {
        redis.cli(&["CONFIG", "SET", name, value]);
        let problems = queue.durability_problems().await.unwrap();
        assert!(
            matches!(&problems[..], [DurabilityProblem::Setting { name: found, .. }] if *found == name),
            "{name}: {problems:?}"
        );
        redis.cli(&["CONFIG", "SET", name, restored]);
    }
}

/// Checks that a server is refused after its append-only file is switched on, until the first rewrite of the file is
/// complete.
async fn is_refused_until_the_file_is_written(redis: &Redis) {
    let (queue, _) = open(redis).await;
    for n in 0..30 {
        redis.cli(&["SET", &format!("other:{n}"), "x"]);
    }
    // In microseconds for each key, so that the rewrite takes a second or two.
    redis.cli(&["CONFIG", "SET", "rdb-key-save-delay", "50000"]);
    redis.cli(&["CONFIG", "SET", "appendonly", "no"]);
    let problems = queue.durability_problems().await.unwrap();
    assert!(problems[0].to_string().contains("appendonly"), "{problems:?}");
    redis.cli(&["CONFIG", "SET", "appendonly", "yes"]);
    let problems = queue.durability_problems().await.unwrap();
    assert!(matches!(problems[..], [DurabilityProblem::FileIncomplete { .. }]), "{problems:?}");
    eventually(async || {
        let problems = queue.durability_problems().await.unwrap();
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    })
    .await;
    redis.cli(&["BGREWRITEAOF"]);
    assert!(redis.cli(&["INFO", "persistence"]).contains("aof_rewrite_in_progress:1"));
    assert_eq!(queue.durability_problems().await.unwrap(), [], "a later rewrite loses nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_only_file_that_was_switched_on_is_trusted_once_it_is_rewritten() {
    is_refused_until_the_file_is_written(&Redis::start_with(&[("appendonly", "no")])).await;
    is_refused_until_the_file_is_written(&Redis::start()).await;
}

/// The entry is stored but not counted, so the error `NotStored` would be wrong.
#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_is_missing_in_the_middle_of_a_flush_leaves_the_outcome_unknown() {
    let redis = Redis::start();
    let (queue, id) = open(&redis).await;
    redis.cli(&["ACL", "SETUSER", "default", "-hincrby"]);
    let appended = queue.append(id, &frames(&[vote(1, 0, 1)])).await;
    assert!(matches!(appended, Err(AppendError::Unknown(_))), "{appended:?}");
    assert_eq!(stored(&queue, id).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_is_what_redis_compares_with_its_limit() {
    let redis = Redis::start();
    let (queue, id) = open(&redis).await;
    assert_eq!(queue.usage().await.unwrap().unwrap().limit, None, "no limit is set");
    redis.cli(&["CONFIG", "SET", "maxmemory", "20mb"]);
    let usage = async || queue.usage().await.unwrap().unwrap();
    assert_eq!(usage().await.limit, Some(20 << 20));

    let before = usage().await.used;
    let votes: Vec<_> = (0..1_000).map(|n| vote(n, 0, 1)).collect();
    for _ in 0..20 {
        queue.append(id, &frames(&votes)).await.unwrap();
    }
    let full = usage().await.used;
    // The voter key of a vote has 16 bytes.
    assert!(full > before + 20_000 * 16, "{before} bytes before, {full} with 20,000 votes");
    let start = vec![Position::START; usize::from(layout().partitions.count())];
    let ends = queue.backlog(id, &start, 1).await.unwrap();
    for (partition, backlog) in (0..).map(Partition).zip(ends) {
        queue.trim(id, partition, backlog.end).await.unwrap();
    }
    let trimmed = usage().await.used;
    assert!(trimmed < full - 15_000 * 16, "{full} bytes before, {trimmed} after the votes were trimmed");

    // Redis decides by the same numbers.
    redis.cli(&["CONFIG", "SET", "maxmemory", "500kb"]);
    let Usage { used, limit } = usage().await;
    assert!(used > limit.unwrap(), "{used} of {limit:?}");
    assert!(matches!(queue.append(id, &frames(&votes)).await, Err(AppendError::NotStored(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_on_a_server_that_rolled_back_has_diverged() {
    let redis = Redis::start();
    let (queue, id) = open(&redis).await;
    let append = async |n| queue.append(id, &frames(&[vote(n, 0, 1)])).await.unwrap();
    append(0).await;
    let partition = frames(&[vote(0, 0, 1)])[0].partition;
    let key = format!("vote:1:p:{partition}");
    append(0).await;
    let committed = queue.read(id, partition, Position::START, 10).await.unwrap().entries[1].position;
    let last = redis.cli(&["XREVRANGE", &key, "+", "-", "COUNT", "1"]);
    redis.cli(&["XDEL", &key, last.split_whitespace().next().unwrap()]);
    append(0).await;
    assert_eq!(queue.read(id, partition, committed, 10).await, Err(QueueError::Diverged(committed)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_reused_after_a_rollback_is_no_anchor() {
    let redis = Redis::start();
    let (queue, id) = open(&redis).await;
    let partition = frames(&[vote(1, 0, 1)])[0].partition;
    // As if the clock had been ahead once: Redis counts ids up from there.
    let key = format!("vote:1:p:{partition}");
    redis.cli(&["XADD", &key, "99999999999999-0", "pets", "0 x"]);
    redis.kill9();
    let (log, backup) = (redis.dir().join("appendonlydir"), redis.dir().join("backup"));
    copy(&log, &backup);
    redis.restart();
    eventually(|| queue.status()).await;
    let lost = queue.append(id, &frames(&[vote(1, 0, 1)])).await.unwrap();
    let Appended::Stored(committed) = lost[0] else { panic!("{lost:?}") };
    queue.read(id, partition, committed, 9).await.unwrap();
    redis.kill9();
    fs::remove_dir_all(&log).unwrap();
    copy(&backup, &log);
    redis.restart();
    eventually(|| queue.status()).await;
    let again = queue.append(id, &frames(&[vote(1, 1, 2)])).await.unwrap();
    let Appended::Stored(other) = again[0] else { panic!("{again:?}") };
    assert_eq!(other.as_bytes()[..16], committed.as_bytes()[..16], "the id is reused");
    assert_eq!(queue.read(id, partition, committed, 9).await, Err(QueueError::Diverged(committed)));
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_without_a_check_is_an_anchor() {
    let queue = connect(Redis::shared(), &Redis::unique_prefix());
    let id = queue.create(layout(), None).await.unwrap();
    activate(&queue, id, &[poll()]).await.unwrap();
    let flush = frames(&[vote(1, 0, 1)]);
    let stored = queue.append(id, &flush).await.unwrap();
    let Appended::Stored(position) = stored[0] else { panic!("{stored:?}") };
    let old = Position::from_bytes(&position.as_bytes()[..16]).unwrap();
    assert_eq!(queue.read(id, flush[0].partition, old, 9).await.unwrap().entries, []);
}

/// Append, read, seal and backlog obtain it in different ways.
#[tokio::test(flavor = "multi_thread")]
async fn an_entry_has_the_same_position_in_all_replies() {
    let queue = connect(Redis::shared(), &Redis::unique_prefix());
    let id = queue.create(layout(), None).await.unwrap();
    activate(&queue, id, &[poll()]).await.unwrap();
    let flush = frames(&[vote(1, 0, 1)]);
    let partition = flush[0].partition;
    let stored = queue.append(id, &flush).await.unwrap();
    let Appended::Stored(position) = stored[0] else { panic!("{stored:?}") };
    let start = vec![Position::START; usize::from(layout().partitions.count())];
    let backlog = queue.backlog(id, &start, 1).await.unwrap();
    let read = queue.read(id, partition, Position::START, 1).await.unwrap();
    let seal = queue.seal(id, poll()).await.unwrap();
    let place = usize::from(partition.0);
    assert_eq!([read.entries[0].position, backlog[place].end, seal.ends[place]], [position; 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_that_others_wrote_are_returned_for_quarantine() {
    let redis = Redis::start();
    let (queue, id) = open(&redis).await;
    let key = "vote:1:p:0";
    redis.cli(&["XADD", key, "*", "Ab c", "many votes"]);
    redis.cli(&["XADD", key, "*", &"long".repeat(100), "3 junk"]);
    let entries = queue.read(id, Partition(0), Position::START, 10).await.unwrap().entries;
    assert_eq!((entries[0].votes, &entries[0].frame[..]), (0, &b"many votes"[..]));
    assert_eq!((entries[1].votes, &entries[1].frame[..]), (3, &b"junk"[..]));
    assert!(entries[1].poll.len() <= 64, "a name that any store can hold");
}

#[tokio::test]
async fn an_unreachable_server_is_no_error_until_it_is_used() {
    let queue = RedisQueue::connect("redis://127.0.0.1:1", "vote").unwrap();
    assert!(matches!(queue.status().await, Err(QueueError::Unavailable(_))));
    let appended = queue.append(QueueId([0; 16]), &frames(&[vote(1, 0, 1)])).await;
    assert!(matches!(appended, Err(AppendError::Unknown(_) | AppendError::NotStored(_))), "{appended:?}");
    assert!(RedisQueue::connect("redis-cluster://127.0.0.1:1", "vote").is_err());
}
