//! A store in a SQLite file: durable, without anything to install, for one worker process.

use std::{path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;

use super::{
    Catalog, MAX_CLOCK_DIFFERENCE, Session, Store, StoreError, StoreReader, StoreReaderLayer, WorkerRecord,
};
use crate::{
    Clock, DurabilityProblem, Partitions, PepperFingerprint, Poll, PollSlug, Position, QueueId, SystemClock,
    Timestamp,
    count::{Decision, QuarantineKey, QueueRecord, RegisteredPoll, SealRecord},
    queue::Layout,
    sqlite::{Connections, Failure, OpenError, Schema, Transaction},
};

mod accounts;
mod commit;
mod json;
mod polls;
mod quarantine;
mod queues;
mod reader;
mod registered;
mod revision;
mod session;
mod summary;
mod withdrawal;
mod workers;

pub use reader::SqliteReader;
use session::{Sessions, SqliteSession};

const SCHEMA: Schema = Schema {
    of: "store",
    migrations: &[
        (1, "votes", include_str!("sqlite/1_votes.sql")),
        (2, "audit", include_str!("sqlite/2_audit.sql")),
        (3, "results", include_str!("sqlite/3_results.sql")),
        (4, "finality", include_str!("sqlite/4_finality.sql")),
        (5, "quarantine by vote", include_str!("sqlite/5_quarantine_by_vote.sql")),
        (6, "withdrawal", include_str!("sqlite/6_withdrawal.sql")),
        (7, "reason codes", include_str!("sqlite/7_reason_codes.sql")),
        (8, "diverged", include_str!("sqlite/8_diverged.sql")),
        (9, "names", include_str!("sqlite/9_names.sql")),
        (10, "undone withdrawal", include_str!("sqlite/10_undone_withdrawal.sql")),
        (11, "tally changed", include_str!("sqlite/11_tally_changed.sql")),
        (12, "reporter", include_str!("sqlite/12_reporter.sql")),
    ],
};

/// A store in a SQLite file. Clones are the same store.
///
/// Any number of processes of one machine may [read](SqliteReader) the file, but only one may have sessions: the first
/// [`open_session`](Store::open_session) takes a lock on a file beside it, `FILE.lock`, which is held until the last
/// clone and the last session are dropped. The file must be on a local disk, and must not be that of a queue.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: Arc<Path>,
    writer: Connections,
    reader: SqliteReader,
    sessions: Sessions,
}

impl SqliteStore {
    /// Opens the store in a file, and creates the file, its tables and its folder where they are missing.
    ///
    /// # Errors
    /// - [`StoreError::NotAStore`] if the file is not a store.
    /// - [`StoreError::NewerVersion`] if it is one of a newer version.
    /// - [`StoreError::Damaged`] if it is damaged.
    /// - [`StoreError::Unavailable`] if the file can't be opened.
    ///
    /// The text names the file and says what to do.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let file = SCHEMA.open(path).await?;
        let sessions = Sessions::of(&file.path);
        let reader = SqliteReader::new(file.readers);
        Ok(Self { inner: Arc::new(Inner { path: file.path, writer: file.writer, reader, sessions }) })
    }

    async fn write(&self) -> Result<Transaction<'_>, StoreError> {
        self.inner.write().await
    }
}

impl Inner {
    async fn read(&self) -> Result<Transaction<'_>, StoreError> {
        self.reader.read().await
    }

    async fn write(&self) -> Result<Transaction<'_>, StoreError> {
        Ok(self.writer.begin().await?)
    }
}

impl From<OpenError> for StoreError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Missing { place, lacks } => Self::NotPrepared {
                place,
                lacks,
                remedy: "start the worker, which creates it, with the same path",
            },
            OpenError::Older { place } => {
                Self::OlderVersion { place, remedy: "start a worker of this version first" }
            }
            OpenError::Newer { place, migration } => Self::NewerVersion { place, migration },
            OpenError::Foreign { place, reason } => Self::NotAStore { place, reason },
            OpenError::Damaged { place, reason } => Self::Damaged(format!("{place}: {reason}")),
            OpenError::Failed(reason) => Self::Unavailable(reason.into()),
        }
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        if failure.is_damage() {
            Self::Damaged(failure.to_string())
        } else {
            Self::Unavailable(Box::new(failure))
        }
    }
}

fn queue_id(tx: &Transaction<'_>, bytes: Vec<u8>) -> Result<QueueId, Failure> {
    bytes.try_into().map(QueueId).map_err(|_| tx.damaged("the identity of a queue"))
}

fn position(tx: &Transaction<'_>, bytes: &[u8]) -> Result<Position, Failure> {
    Position::from_bytes(bytes).ok_or_else(|| tx.damaged("a position"))
}

fn timestamp(tx: &Transaction<'_>, micros: i64) -> Result<Timestamp, Failure> {
    Timestamp::from_micros(micros).map_err(|e| tx.damaged(e))
}

async fn layout(tx: &mut Transaction<'_>) -> Result<Option<Layout>, Failure> {
    let row: Option<(u16, Vec<u8>)> =
        tx.one(sqlx::query_as("SELECT partitions, fingerprint FROM meta")).await?;
    let Some((partitions, fingerprint)) = row else { return Ok(None) };
    let partitions = Partitions::new(partitions).map_err(|e| tx.damaged(e))?;
    let fingerprint = fingerprint.try_into().map_err(|_| tx.damaged("the fingerprint of the pepper"))?;
    Ok(Some(Layout { partitions, fingerprint: PepperFingerprint(fingerprint) }))
}

#[async_trait]
impl StoreReaderLayer for SqliteStore {
    type Inner = SqliteReader;

    async fn inner(&self) -> Result<&SqliteReader, StoreError> {
        Ok(&self.inner.reader)
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn prepare(&self, asked: Layout) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        let recorded = match layout(&mut tx).await? {
            Some(recorded) => recorded,
            None => {
                let insert =
                    sqlx::query("INSERT INTO meta (one, partitions, fingerprint) VALUES (1, ?1, ?2)")
                        .bind(asked.partitions.count())
                        .bind(&asked.fingerprint.0[..]);
                tx.run(insert).await?;
                for partition in asked.partitions.iter() {
                    let insert =
                        sqlx::query("INSERT INTO partitions (partition) VALUES (?1)").bind(partition.0);
                    tx.run(insert).await?;
                }
                asked
            }
        };
        tx.commit().await?;
        super::same_layout(recorded, asked)
    }

    async fn register_poll(&self, poll: &Poll) -> Result<RegisteredPoll, StoreError> {
        let mut tx = self.write().await?;
        let registered = polls::register(&mut tx, poll).await?;
        tx.commit().await?;
        Ok(registered)
    }

    async fn catalog(&self, known: Option<&Catalog>) -> Result<Catalog, StoreError> {
        let taken_at = SystemClock.now();
        let mut tx = self.inner.read().await?;
        let queues = queues::all(&mut tx).await?;
        let late = queues.iter().filter(|queue| queue.is_late(taken_at));
        let catalog = Catalog {
            taken_at,
            version: 0,
            revision: revision::read(&mut tx).await?,
            late: late.map(|queue| (queue.id, queue.seen_at)).collect(),
            queues: Arc::new(queues.iter().map(|queue| (queue.id, queue.into())).collect()),
            polls: Arc::new(registered::all(&mut tx).await?),
            dropped: Arc::new(withdrawal::dropped(&mut tx).await?),
            sealed: accounts::sealed(&mut tx).await?,
            workers: workers::alive(&mut tx, taken_at).await?,
        };
        tx.commit().await?;
        Ok(catalog.versioned(known))
    }

    async fn close_poll(&self, poll: PollSlug) -> Result<Option<RegisteredPoll>, StoreError> {
        let mut tx = self.write().await?;
        let closed = polls::close(&mut tx, poll, SystemClock.now()).await?;
        tx.commit().await?;
        Ok(closed)
    }

    async fn close_due_polls(&self, grace: Duration, now: Timestamp) -> Result<Vec<PollSlug>, StoreError> {
        let mut tx = self.write().await?;
        let ours = SystemClock.now();
        let difference = ours.as_micros().abs_diff(now.as_micros());
        if difference > MAX_CLOCK_DIFFERENCE.as_micros() as u64 {
            return Ok(Vec::new());
        }
        let closed = polls::close_due(&mut tx, grace, ours).await?;
        tx.commit().await?;
        Ok(closed)
    }

    async fn reschedule_poll(
        &self,
        poll: PollSlug,
        closes_at: Option<Timestamp>,
        reason: &str,
    ) -> Result<Option<RegisteredPoll>, StoreError> {
        let mut tx = self.write().await?;
        let moved = polls::reschedule(&mut tx, poll, closes_at, reason, SystemClock.now()).await?;
        tx.commit().await?;
        Ok(moved)
    }

    async fn withdraw_poll(
        &self,
        poll: PollSlug,
        reason: &str,
    ) -> Result<Option<RegisteredPoll>, StoreError> {
        let mut tx = self.write().await?;
        let withdrawn = withdrawal::withdraw(&mut tx, poll, reason, SystemClock.now()).await?;
        tx.commit().await?;
        Ok(withdrawn)
    }

    async fn undo_withdrawal(&self, poll: PollSlug, withdrawn_at: Timestamp) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        withdrawal::undo(&mut tx, poll, withdrawn_at).await?;
        Ok(tx.commit().await?)
    }

    async fn record_dropped(
        &self,
        queue: QueueId,
        poll: PollSlug,
        withdrawn_at: Timestamp,
    ) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        withdrawal::note(&mut tx, queue, poll, withdrawn_at).await?;
        Ok(tx.commit().await?)
    }

    async fn record_seal(&self, seal: &SealRecord) -> Result<SealRecord, StoreError> {
        let mut tx = self.write().await?;
        let recorded = accounts::record_seal(&mut tx, seal).await?;
        tx.commit().await?;
        Ok(recorded)
    }

    async fn finalize_poll(&self, poll: PollSlug) -> Result<bool, StoreError> {
        let mut tx = self.write().await?;
        let is_final = polls::finish(&mut tx, poll, SystemClock.now()).await?;
        tx.commit().await?;
        Ok(is_final)
    }

    async fn heartbeat(&self, worker: &WorkerRecord) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        workers::record(&mut tx, worker, SystemClock.now()).await?;
        Ok(tx.commit().await?)
    }

    async fn report(&self, queues: &[QueueRecord]) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        queues::report(&mut tx, queues, SystemClock.now()).await?;
        Ok(tx.commit().await?)
    }

    async fn retire(&self, queue: QueueId, reason: &str) -> Result<bool, StoreError> {
        let mut tx = self.write().await?;
        let known = queues::retire(&mut tx, queue, reason).await?;
        tx.commit().await?;
        Ok(known)
    }

    async fn decide(&self, frames: &[QuarantineKey], decision: &Decision) -> Result<u64, StoreError> {
        let mut tx = self.write().await?;
        let decided = quarantine::decide(&mut tx, frames, decision).await?;
        tx.commit().await?;
        Ok(decided)
    }

    async fn durability_problems(&self) -> Result<Vec<DurabilityProblem>, StoreError> {
        Ok(self.inner.writer.check().await?)
    }

    async fn open_session(&self) -> Result<Box<dyn Session>, StoreError> {
        let place = || SCHEMA.place(&self.inner.path);
        self.inner.reader.layout().await?.ok_or_else(|| super::not_prepared(place()))?;
        Ok(Box::new(SqliteSession::open(&self.inner)?))
    }
}
