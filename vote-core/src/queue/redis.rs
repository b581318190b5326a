//! A queue on Redis 7.0 or newer, or Valkey: standalone or with replicas, which are left alone until they
//! are promoted; without cluster.
//!
//! Keys; their prefix is `vote` unless set otherwise:
//!
//! | key | type | holds |
//! |---|---|---|
//! | `vote:id` | string | id of the current queue, a space, and its number on this server |
//! | `vote:<number>:meta` | hash | `version`, `partitions`, `pepper` (fingerprint), `active` (1 once active), `clock` |
//! | `vote:<number>:p:<n>` | stream | partition n; an entry is one field: poll → number of votes, a space, and the frame |
//! | `vote:<number>:a:<n>` | hash | poll → votes ever accepted in partition n |
//! | `vote:<number>:polls` | hash | poll → its state |
//! | `vote:replaced` | hash | id of a replaced queue → id and number of the original queue, whose keys it keeps |
//!
//! The number is in the keys instead of the id because keys are repeated in the append-only file with each command:
//! this layout writes 155 bytes for a vote that is alone in its frame, where keys with the id and entries with three
//! fields took 259. There is a hash of counts for each partition, so that a look or a read costs what it returns.
//!
//! `clock` is by how many microseconds the server's clock was ahead of the store's when they were last compared. The
//! state of a poll is the digest of its definition, followed by a space and the closing time (microseconds since
//! 1970) if there is one; or `sealed`; or `withdrawn`, the digest that was dropped last and the time of its withdrawal
//! (microseconds since 1970).
//!
//! Each atomic step is one script. So is a read, since a Redis that is full refuses to queue commands in a `MULTI`,
//! even those that only read, and that is when it must be read. The order number of a position is a stream entry's
//! id, as two numbers of 8 bytes big-endian; the check of a position is not stored, but computed wherever the entry
//! is at hand.

use std::{fmt, sync::atomic::AtomicBool};

use async_trait::async_trait;
use fred::{
    error::Error,
    interfaces::ClientLike,
    types::{InfoKind, Value},
};

use super::{
    AppendError, Appended, Backlog, Frame, LAYOUT_VERSION, Layout, Look, PollRecord, Position, Queue,
    QueueError, QueueId, QueueStatus, Read, Seal, Usage,
};
use crate::{DurabilityProblem, Partition, PollDigest, PollSlug, Timestamp};

mod durability;
mod entry;
mod error;
mod reply;
mod server;
mod value;

use error::{append_error, queue_error};
use server::{Script, Server};

/// Maximum number of entries of one read: 64 MiB of the largest frames.
const MAX_READ: usize = 1024;

/// A queue on Redis. It connects in the background, and reconnects whenever the connection is lost.
pub struct RedisQueue {
    server: Server,
    prefix: String,
    scripts: Scripts,
    /// Whether the server's append-only file, when last seen, lacked what came before it was switched on.
    began_late: AtomicBool,
}

#[derive(Default)]
struct Scripts {
    append: Script,
    clock: Script,
    create: Script,
    drop: Script,
    look: Script,
    read: Script,
    record: Script,
    activate: Script,
    seal: Script,
    status: Script,
    trim: Script,
    backlog: Script,
}

impl fmt::Debug for RedisQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisQueue")
            .field("address", &self.server.address)
            .field("prefix", &self.prefix)
            .finish()
    }
}

impl RedisQueue {
    /// Connects to a queue at `url`: `redis://[user:password@]host:port[/db]`, `rediss://…` for TLS, or
    /// `redis+unix:///path/to/socket`. Keys begin with `prefix`.
    ///
    /// Returns at once; an unreachable server shows as an error of later calls. Must be called within a tokio
    /// runtime, which then drives the connection.
    ///
    /// # Errors
    /// [`QueueError::Incompatible`] if the address can't be parsed, or is one of a cluster or of sentinels.
    pub fn connect(url: &str, prefix: &str) -> Result<Self, QueueError> {
        Ok(Self {
            server: Server::connect(url)?,
            prefix: prefix.to_owned(),
            scripts: Scripts::default(),
            began_late: AtomicBool::new(false),
        })
    }

    /// Returns the key that holds the id of the current queue.
    fn current(&self) -> String {
        format!("{}:id", self.prefix)
    }

    /// Runs a script, after loading it if the server does not have it.
    async fn run(&self, script: &Script, source: &'static str, args: Vec<Value>) -> Result<Value, Error> {
        self.server.run(script, source, &self.current(), args).await
    }

    /// Runs a script like [`run`](Self::run), for calls where it does not matter whether one that failed took effect.
    async fn ask(
        &self,
        script: &Script,
        source: &'static str,
        args: Vec<Value>,
    ) -> Result<Value, QueueError> {
        self.run(script, source, args).await.map_err(|e| queue_error(&e))
    }
}

#[async_trait]
impl Queue for RedisQueue {
    fn address(&self) -> String {
        self.server.address.clone()
    }

    async fn create(&self, layout: Layout, replacing: Option<QueueId>) -> Result<QueueId, QueueError> {
        let args = vec![
            self.prefix.clone().into(),
            QueueId::random()?.to_string().into(),
            replacing.map(|id| id.to_string()).unwrap_or_default().into(),
            i64::from(LAYOUT_VERSION).into(),
            i64::from(layout.partitions.count()).into(),
            layout.fingerprint.to_string().into(),
            QueueId::random()?.to_string().into(),
        ];
        let reply = self.ask(&self.scripts.create, include_str!("redis/create.lua"), args).await?;
        value::text(&reply)?.parse().map_err(|_| value::unexpected("the id of a queue", &reply))
    }

    async fn look(&self, partitions: &[Partition]) -> Result<Option<Look>, QueueError> {
        let mut args: Vec<Value> = Vec::with_capacity(1 + partitions.len());
        args.push(self.prefix.clone().into());
        args.extend(partitions.iter().map(|partition| Value::from(i64::from(partition.0))));
        let reply = self.ask(&self.scripts.look, include_str!("redis/look.lua"), args).await?;
        reply::look(reply)
    }

    async fn status(&self) -> Result<Option<QueueStatus>, QueueError> {
        let args = vec![self.prefix.clone().into()];
        let reply = self.ask(&self.scripts.status, include_str!("redis/status.lua"), args).await?;
        reply::status(reply)
    }

    async fn activate(&self, id: QueueId) -> Result<(), QueueError> {
        let args = vec![self.prefix.clone().into(), id.to_string().into()];
        self.ask(&self.scripts.activate, include_str!("redis/activate.lua"), args).await.map(drop)
    }

    async fn record_polls(&self, id: QueueId, polls: &[PollRecord]) -> Result<Vec<PollSlug>, QueueError> {
        let mut args: Vec<Value> = Vec::with_capacity(2 + polls.len() * 4);
        args.push(self.prefix.clone().into());
        args.push(id.to_string().into());
        let micros = |at: Option<Timestamp>| at.map(|at| at.as_micros().to_string()).unwrap_or_default();
        for record in polls {
            args.push(record.poll.as_str().into());
            args.push(record.digest.to_string().into());
            args.push(micros(record.closes_at).into());
            args.push(micros(record.undone_withdrawal).into());
        }
        let reply = self.ask(&self.scripts.record, include_str!("redis/record.lua"), args).await?;
        reply::polls(reply)
    }

    async fn drop_poll(
        &self,
        id: QueueId,
        poll: PollSlug,
        digest: PollDigest,
        withdrawn_at: Timestamp,
    ) -> Result<bool, QueueError> {
        let args = vec![
            self.prefix.clone().into(),
            id.to_string().into(),
            poll.as_str().into(),
            digest.to_string().into(),
            withdrawn_at.as_micros().into(),
        ];
        let reply = self.ask(&self.scripts.drop, include_str!("redis/drop.lua"), args).await?;
        match reply.as_u64() {
            Some(answer) => Ok(answer == 1),
            None => Err(value::unexpected("whether a poll was dropped", &reply)),
        }
    }

    async fn record_clock(&self, id: QueueId, ahead: i64) -> Result<(), QueueError> {
        let args = vec![self.prefix.clone().into(), id.to_string().into(), ahead.to_string().into()];
        self.ask(&self.scripts.clock, include_str!("redis/clock.lua"), args).await.map(drop)
    }

    async fn append(&self, id: QueueId, frames: &[Frame]) -> Result<Vec<Appended>, AppendError> {
        let mut args: Vec<Value> = Vec::with_capacity(3 + frames.len() * 6);
        args.push(self.prefix.clone().into());
        args.push(id.to_string().into());
        args.push(i64::from(frames.iter().map(|frame| frame.partition.0).max().unwrap_or_default()).into());
        for of_poll in frames.chunk_by(|a, b| (a.poll, a.digest) == (b.poll, b.digest)) {
            args.push(of_poll[0].poll.as_str().into());
            args.push(of_poll[0].digest.to_string().into());
            args.push((of_poll.len() as i64).into());
            for frame in of_poll {
                args.push(i64::from(frame.partition.0).into());
                args.push(i64::from(frame.votes).into());
                args.push(Value::Bytes(frame.bytes.clone()));
            }
        }
        let reply = self.run(&self.scripts.append, include_str!("redis/append.lua"), args).await;
        let reply = reply.map_err(|e| append_error(&e))?;
        // A reply that can't be parsed does not tell what was stored.
        reply::appended(reply, frames).map_err(|e| AppendError::Unknown(e.to_string()))
    }

    async fn read(
        &self,
        id: QueueId,
        partition: Partition,
        after: Position,
        limit: usize,
    ) -> Result<Read, QueueError> {
        let limit = limit.min(MAX_READ);
        let (start, anchor) = match entry::id(after) {
            None => ("-".to_owned(), 0),
            Some(entry_id) => (entry_id, 1),
        };
        // One entry more than asked for shows whether there are more.
        let count = (limit + anchor + 1) as i64;
        let args = vec![
            self.prefix.clone().into(),
            id.to_string().into(),
            i64::from(partition.0).into(),
            start.into(),
            count.into(),
        ];
        let reply = self.ask(&self.scripts.read, include_str!("redis/read.lua"), args).await?;
        reply::read(reply, after, limit)
    }

    async fn trim(&self, id: QueueId, partition: Partition, upto: Position) -> Result<(), QueueError> {
        let upto = entry::id(upto).unwrap_or_else(|| "0-0".to_owned());
        let args = vec![
            self.prefix.clone().into(),
            id.to_string().into(),
            i64::from(partition.0).into(),
            upto.into(),
        ];
        self.ask(&self.scripts.trim, include_str!("redis/trim.lua"), args).await.map(drop)
    }

    async fn seal(&self, id: QueueId, poll: PollSlug) -> Result<Seal, QueueError> {
        let args = vec![self.prefix.clone().into(), id.to_string().into(), poll.as_str().into()];
        let reply = self.ask(&self.scripts.seal, include_str!("redis/seal.lua"), args).await?;
        reply::seal(reply)
    }

    async fn backlog(
        &self,
        id: QueueId,
        after: &[Position],
        limit: usize,
    ) -> Result<Vec<Backlog>, QueueError> {
        let mut args: Vec<Value> = Vec::with_capacity(3 + after.len());
        args.push(self.prefix.clone().into());
        args.push(id.to_string().into());
        args.push((limit.clamp(1, MAX_READ) as i64).into());
        args.extend(after.iter().map(|after| entry::id(*after).unwrap_or_else(|| "-".to_owned()).into()));
        let reply = self.ask(&self.scripts.backlog, include_str!("redis/backlog.lua"), args).await?;
        reply::backlog(reply, after)
    }

    async fn durability_problems(&self) -> Result<Vec<DurabilityProblem>, QueueError> {
        durability::problems(&self.server.client, &self.prefix, &self.began_late)
            .await
            .map_err(|e| queue_error(&e))
    }

    async fn usage(&self) -> Result<Option<Usage>, QueueError> {
        let info: String =
            self.server.client.info(Some(InfoKind::Memory)).await.map_err(|e| queue_error(&e))?;
        reply::usage(&info).map(Some)
    }
}
