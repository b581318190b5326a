//! The users of a deployed Redis: their rights suffice for the whole contract, and allow nothing else.

use std::{
    fs,
    path::Path,
    process::Command,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use tempfile::TempDir;
use vote_core::{
    DurabilityProblem, Queue, QueueId,
    conformance::{QueueHarness, activate, frames, layout, poll, vote},
    queue::{AppendError, Appended, Frame, Layout, QueueError, QueueLayer, QueueStatus, RedisQueue, Usage},
};
use vote_testkit::Redis;

use super::eventually;

/// A Redis with the users of `deploy/redis/users.acl.in`, whose rights are extended to the keys of all tests.
struct Guarded {
    secrets: TempDir,
    redis: Redis,
}

impl Guarded {
    fn start() -> Self {
        let secrets = tempfile::tempdir().unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/make-secrets");
        let made = Command::new(script).arg(secrets.path()).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let file = secrets.path().join("redis_users");
        let users = fs::read_to_string(&file).unwrap();
        fs::write(&file, users.replace("~vote:", "~test-*:")).unwrap();
        let redis = Redis::start_with(&[("aclfile", file.to_str().unwrap())]);
        Self { secrets, redis }
    }

    fn shared() -> &'static Self {
        static SHARED: OnceLock<Guarded> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    fn password(&self, user: &str) -> String {
        fs::read_to_string(self.secrets.path().join(format!("redis_{user}_password"))).unwrap()
    }

    fn connect(&self, user: &str, prefix: &str) -> RedisQueue {
        let address = format!("{user}:{}@127.0.0.1:{}", self.password(user), self.redis.port());
        RedisQueue::connect(&format!("redis://{address}"), prefix).unwrap()
    }

    fn try_as(&self, user: &str, command: &[&str]) -> String {
        let password = self.password(user);
        let login = ["--user", user, "--pass", &password, "--no-auth-warning"];
        self.redis.answer(&[&login, command].concat())
    }
}

/// A queue on which each call is made by the user whose task it is: the worker's, unless the frontend makes it.
#[derive(Debug)]
struct TwoUsers {
    frontend: RedisQueue,
    worker: RedisQueue,
    /// Whether the worker is the next to replace a queue: frontend and worker take turns, since either may notice a
    /// loss.
    worker_replaces: AtomicBool,
}

#[async_trait]
impl QueueLayer for TwoUsers {
    fn inner(&self) -> &dyn Queue {
        &self.worker
    }
    async fn create(&self, layout: Layout, replacing: Option<QueueId>) -> Result<QueueId, QueueError> {
        let by_worker = replacing.is_some() && self.worker_replaces.fetch_xor(true, Ordering::Relaxed);
        let queue = if by_worker { &self.worker } else { &self.frontend };
        queue.create(layout, replacing).await
    }
    async fn status(&self) -> Result<Option<QueueStatus>, QueueError> {
        let status = self.frontend.status().await?;
        let clock = status.as_ref().map(|status| status.clock);
        let seen = self.worker.status().await?.zip(clock);
        let seen = seen.map(|(status, clock)| QueueStatus { clock, ..status });
        assert_eq!(seen, status, "both users see the same");
        Ok(status)
    }
    async fn append(&self, id: QueueId, frames: &[Frame]) -> Result<Vec<Appended>, AppendError> {
        self.frontend.append(id, frames).await
    }
    async fn durability_problems(&self) -> Result<Vec<DurabilityProblem>, QueueError> {
        self.frontend.durability_problems().await
    }
    async fn usage(&self) -> Result<Option<Usage>, QueueError> {
        self.frontend.usage().await
    }
}

#[derive(Default)]
struct OnGuarded {
    prefix: Mutex<String>,
}

fn connect(prefix: &str) -> Arc<dyn Queue> {
    let redis = Guarded::shared();
    Arc::new(TwoUsers {
        frontend: redis.connect("frontend", prefix),
        worker: redis.connect("worker", prefix),
        worker_replaces: AtomicBool::new(false),
    })
}

#[async_trait]
impl QueueHarness for OnGuarded {
    async fn fresh(&self) -> Arc<dyn Queue> {
        let prefix = Redis::unique_prefix();
        *self.prefix.lock().unwrap() = prefix.clone();
        connect(&prefix)
    }

    async fn reopen(&self, queue: Arc<dyn Queue>) -> Arc<dyn Queue> {
        drop(queue);
        connect(&self.prefix.lock().unwrap())
    }
}

mod conformance {
    vote_core::queue_conformance!(super::OnGuarded::default());
}

const STREAM: &str = "test-1:1:p:0";

#[test]
fn a_frontend_can_append_votes_and_can_neither_read_nor_remove_them() {
    let redis = Guarded::start();
    assert!(!redis.try_as("frontend", &["XADD", STREAM, "*", "f", "a vote"]).contains("NOPERM"));
    for refused in [
        &["XRANGE", STREAM, "-", "+"][..],
        &["XREVRANGE", STREAM, "+", "-"],
        &["XREAD", "STREAMS", STREAM, "0"],
        &["XINFO", "STREAM", STREAM],
        &["XDEL", STREAM, "0-1"],
        &["XTRIM", STREAM, "MAXLEN", "0"],
        &["DUMP", STREAM],
        &["DEL", STREAM],
        &["DEL", "test-1:1:a:0"],
        &["COPY", STREAM, "test-1:1:meta"],
        &["EVAL", "return redis.call('XRANGE', KEYS[1], '-', '+')", "1", STREAM],
        &["HSET", "test-1:1:polls", "pets", "sealed"],
        &["HDEL", "test-1:1:polls", "pets"],
        &["SET", "other:id", "x"],
        &["CONFIG", "SET", "appendfsync", "no"],
        &["CONFIG", "REWRITE"],
        &["FLUSHALL"],
        &["FLUSHDB"],
        &["SCRIPT", "FLUSH"],
        &["SHUTDOWN"],
        &["KEYS", "*"],
        &["MONITOR"],
        &["ACL", "LIST"],
    ] {
        let answer = redis.try_as("frontend", refused);
        assert!(answer.contains("NOPERM"), "{refused:?}: {answer}");
    }
}

#[test]
fn a_script_can_do_no_more_than_its_user() {
    let redis = Guarded::start();
    redis.try_as("frontend", &["XADD", STREAM, "*", "f", "a vote"]);
    for (user, script) in [
        ("frontend", "return redis.call('HSET', 'test-1:1:polls', 'pets', 'forged')".to_owned()),
        ("frontend", format!("return redis.call('XRANGE', '{STREAM}', '-', '+')")),
        ("worker", format!("return redis.call('XADD', '{STREAM}', '*', 'f', 'forged')")),
        ("worker", "return redis.call('HINCRBY', 'test-1:1:a:0', 'pets', 1)".to_owned()),
    ] {
        let hash = redis.try_as(user, &["SCRIPT", "LOAD", &script]);
        let answer = redis.try_as(user, &["EVALSHA", hash.trim(), "1", "test-1:id"]);
        let refused = ["can't run this command", "can't access at least one of the keys"];
        assert!(refused.iter().any(|why| answer.contains(why)), "{user}: {answer}");
    }
}

#[test]
fn a_worker_can_read_votes_and_can_append_none() {
    let redis = Guarded::start();
    redis.try_as("frontend", &["XADD", STREAM, "*", "f", "a vote"]);
    assert!(redis.try_as("worker", &["XRANGE", STREAM, "-", "+"]).contains("a vote"));
    for refused in [
        &["XADD", STREAM, "*", "f", "forged"][..],
        &["XSETID", STREAM, "9-9"],
        &["HINCRBY", "test-1:1:a:0", "pets", "1"],
        &["HSET", "test-1:1:a:0", "pets", "1"],
        &["HDEL", "test-1:1:polls", "pets"],
        &["RENAME", STREAM, "test-1:1:p:1"],
        &["RESTORE", STREAM, "0", "x"],
        &["CONFIG", "SET", "appendfsync", "no"],
        &["CONFIG", "GET", "*"],
        &["FLUSHALL"],
        &["SHUTDOWN"],
    ] {
        let answer = redis.try_as("worker", refused);
        assert!(answer.contains("NOPERM"), "{refused:?}: {answer}");
    }
}

#[test]
fn a_client_that_is_not_logged_in_can_do_nothing() {
    let redis = Guarded::start();
    for refused in [&["PING"][..], &["GET", "test-1:id"], &["CONFIG", "GET", "*"], &["FLUSHALL"]] {
        let answer = redis.redis.answer(refused);
        assert!(answer.contains("NOAUTH"), "{refused:?}: {answer}");
    }
    let answer = redis.redis.answer(&["AUTH", "default", ""]);
    assert!(answer.contains("WRONGPASS"), "{answer}");
}

/// If the user `default` had no rights, everything would be lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_recovers_everything_that_was_acknowledged() {
    let redis = Guarded::start();
    let (frontend, worker) = (redis.connect("frontend", "test-1"), redis.connect("worker", "test-1"));
    let id = frontend.create(layout(), None).await.unwrap();
    activate(&worker, id, &[poll()]).await.unwrap();
    frontend.append(id, &frames(&[vote(1, 0, 1), vote(2, 0, 1)])).await.unwrap();
    worker.seal(id, poll()).await.unwrap();
    let before = worker.status().await.unwrap().unwrap();
    redis.redis.kill9();
    redis.redis.restart();
    let after = eventually(async || worker.status().await).await.unwrap();
    // A restarted server has another identity.
    assert_eq!(
        QueueStatus { server: String::new(), clock: before.clock, ..after },
        QueueStatus { server: String::new(), ..before.clone() }
    );
    assert_eq!(frontend.durability_problems().await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_default_user_that_can_not_replay_the_append_only_file_is_reported() {
    let redis = Redis::start();
    let queue = RedisQueue::connect(&redis.url(), "vote").unwrap();
    assert_eq!(queue.durability_problems().await.unwrap(), []);
    for (rules, named) in [
        (&["-xadd"][..], "'xadd'"),
        (&["+xadd", "-hincrby"], "'hincrby'"),
        (&["+hincrby", "resetkeys", "~vote:id"], "vote:1:p:0"),
        (&["~*", "-acl|dryrun"], "+acl|dryrun"),
    ] {
        redis.cli(&[&["ACL", "SETUSER", "default"], rules].concat());
        let problems = queue.durability_problems().await.unwrap();
        assert!(problems.len() == 1 && problems[0].to_string().contains(named), "{rules:?}: {problems:?}");
    }
}
