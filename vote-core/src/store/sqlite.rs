//! A store in a SQLite file: durable, without anything to install, for one worker process.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;

use super::{Catalog, MAX_CLOCK_DIFFERENCE, Session, Snapshot, Store, StoreError, StoreReader, WorkerRecord};
use crate::{
    Clock, OptionSlug, Partition, Partitions, PepperFingerprint, Poll, PollSlug, Position, QueueId,
    SystemClock, Timestamp, VoterKey,
    count::{Ballot, Decision, QuarantineKey, QuarantineRow, QueueRecord, RegisteredPoll, SealRecord},
    queue::Layout,
    sqlite::{Connections, Failure, OpenError, Schema, Transaction},
};

mod accounts;
mod commit;
mod polls;
mod quarantine;
mod queues;
mod session;
mod withdrawal;
mod workers;

use accounts::SqliteSnapshot;
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
    ],
};

/// A store in a SQLite file. Clones are the same store.
///
/// Any number of processes of one machine may read the file, but only one may have sessions: the first
/// [`open_session`](Store::open_session) takes a lock on a file beside it, `FILE.lock`, which is held until the last
/// clone and the last session are dropped. The file must be on a local disk, and must not be that of a queue.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: Arc<Path>,
    /// The write connection; `None` if the store was opened for reading only.
    writer: Option<Connections>,
    readers: Connections,
    sessions: Sessions,
}

impl SqliteStore {
    /// Opens the store in a file, and creates the file, its tables and its folder where they are missing.
    ///
    /// # Errors
    /// - [`StoreError::NotPrepared`] if the file is not a store, or one of a newer version.
    /// - [`StoreError::Unavailable`] if the file can't be opened.
    ///
    /// The text names the file and says what to do.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let file = SCHEMA.open(path).await?;
        let sessions = Sessions::of(&file.path);
        Ok(Self {
            inner: Arc::new(Inner {
                path: file.path,
                writer: Some(file.writer),
                readers: file.readers,
                sessions,
            }),
        })
    }

    /// Opens a store that another process writes, for reading its results. Of the methods of [`Store`], only those of
    /// [`StoreReader`] and [`catalog`](Store::catalog) work; the others fail with [`StoreError::NotPrepared`].
    ///
    /// # Errors
    /// [`StoreError::NotPrepared`] also if the file or its tables do not exist yet; otherwise those of
    /// [`open`](Self::open).
    pub async fn open_read_only(path: &Path) -> Result<Self, StoreError> {
        let (path, readers) = SCHEMA.open_read_only(path).await?;
        let sessions = Sessions::of(&path);
        Ok(Self { inner: Arc::new(Inner { path, writer: None, readers, sessions }) })
    }

    async fn read(&self) -> Result<Transaction<'_>, StoreError> {
        self.inner.read().await
    }

    async fn write(&self) -> Result<Transaction<'_>, StoreError> {
        self.inner.write().await
    }
}

impl Inner {
    async fn read(&self) -> Result<Transaction<'_>, StoreError> {
        Ok(self.readers.begin().await?)
    }

    async fn write(&self) -> Result<Transaction<'_>, StoreError> {
        Ok(self.writer()?.begin().await?)
    }

    fn writer(&self) -> Result<&Connections, StoreError> {
        self.writer.as_ref().ok_or_else(|| {
            StoreError::NotPrepared(format!(
                "the store {} was opened for reading only: open it for writing",
                self.path.display()
            ))
        })
    }
}

impl From<OpenError> for StoreError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Missing(reason) | OpenError::Foreign(reason) => Self::NotPrepared(reason),
            OpenError::Failed(reason) => Self::Unavailable(reason.into()),
        }
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        if failure.is_damage() {
            Self::NotPrepared(format!("{failure}: the file is damaged, restore it from a backup"))
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
impl StoreReader for SqliteStore {
    async fn layout(&self) -> Result<Option<Layout>, StoreError> {
        let mut tx = self.read().await?;
        let layout = layout(&mut tx).await?;
        tx.commit().await?;
        Ok(layout)
    }

    async fn polls(&self) -> Result<Vec<RegisteredPoll>, StoreError> {
        let mut tx = self.read().await?;
        let polls = polls::all(&mut tx).await?;
        tx.commit().await?;
        Ok(polls)
    }

    async fn tally(&self, poll: PollSlug) -> Result<Vec<(OptionSlug, u64)>, StoreError> {
        let mut tx = self.read().await?;
        let query = sqlx::query_as(
            "SELECT o.slug, ifnull(sum(t.n), 0)
             FROM polls AS p JOIN options AS o USING (poll) LEFT JOIN tally AS t USING (poll, option)
             WHERE p.slug = ?1 GROUP BY o.option ORDER BY o.option",
        );
        let rows: Vec<(String, i64)> = tx.all(query.bind(poll.as_str())).await?;
        let tally = rows
            .into_iter()
            // Only damage can make a sum negative. The audit reports that; a result can't show it.
            .map(|(option, n)| {
                Ok((option.parse().map_err(|e| tx.damaged(e))?, u64::try_from(n).unwrap_or(0)))
            })
            .collect::<Result<_, Failure>>()?;
        tx.commit().await?;
        Ok(tally)
    }

    async fn ballot(&self, poll: PollSlug, voter: VoterKey) -> Result<Option<Ballot>, StoreError> {
        let mut tx = self.read().await?;
        let query = sqlx::query_as(
            "SELECT o.slug, v.cast_at
             FROM polls AS p JOIN votes AS v USING (poll) JOIN options AS o USING (poll, option)
             WHERE p.slug = ?1 AND v.voter = ?2",
        );
        let row: Option<(String, i64)> = tx.one(query.bind(poll.as_str()).bind(&voter.0[..])).await?;
        let ballot = match row {
            None => None,
            Some((option, cast_at)) => Some(Ballot {
                voter,
                option: option.parse().map_err(|e| tx.damaged(e))?,
                cast_at: timestamp(&tx, cast_at)?,
            }),
        };
        tx.commit().await?;
        Ok(ballot)
    }

    async fn position(&self, queue: QueueId, partition: Partition) -> Result<Position, StoreError> {
        let mut tx = self.read().await?;
        let query = sqlx::query_as("SELECT position FROM positions WHERE partition = ?1 AND queue = ?2");
        let row: Option<(Vec<u8>,)> = tx.one(query.bind(partition.0).bind(&queue.0[..])).await?;
        let position = row.map(|(bytes,)| position(&tx, &bytes)).transpose()?;
        tx.commit().await?;
        Ok(position.unwrap_or_default())
    }

    async fn quarantined(
        &self,
        queue: QueueId,
        partition: Partition,
        position: Position,
    ) -> Result<Option<QuarantineRow>, StoreError> {
        let mut tx = self.read().await?;
        let row = quarantine::one(&mut tx, QuarantineKey { queue, partition, position }).await?;
        tx.commit().await?;
        Ok(row)
    }

    async fn positions(&self, queue: QueueId) -> Result<BTreeMap<Partition, Position>, StoreError> {
        let mut tx = self.read().await?;
        // CROSS JOIN makes SQLite look up partition after partition, since the key begins with the partition.
        let query = sqlx::query_as(
            "SELECT p.partition, q.position FROM partitions AS p
             CROSS JOIN positions AS q ON q.partition = p.partition AND q.queue = ?1",
        );
        let rows: Vec<(u16, Vec<u8>)> = tx.all(query.bind(&queue.0[..])).await?;
        let positions = rows
            .into_iter()
            .map(|(partition, bytes)| Ok((Partition(partition), position(&tx, &bytes)?)))
            .collect::<Result<_, Failure>>()?;
        tx.commit().await?;
        Ok(positions)
    }

    async fn all_positions(&self) -> Result<BTreeMap<(QueueId, Partition), Position>, StoreError> {
        let mut tx = self.read().await?;
        let positions = accounts::positions(&mut tx, None).await?;
        tx.commit().await?;
        Ok(positions)
    }

    async fn queues(&self) -> Result<Vec<QueueRecord>, StoreError> {
        let mut tx = self.read().await?;
        let queues = queues::all(&mut tx).await?;
        tx.commit().await?;
        Ok(queues)
    }

    async fn quarantine(
        &self,
        after: Option<QuarantineKey>,
        limit: usize,
    ) -> Result<Vec<QuarantineRow>, StoreError> {
        let mut tx = self.read().await?;
        let rows = quarantine::page(&mut tx, after, limit).await?;
        tx.commit().await?;
        Ok(rows)
    }

    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        Ok(Box::new(SqliteSnapshot::take(&self.inner.readers).await?))
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

    async fn catalog(&self) -> Result<Catalog, StoreError> {
        let taken_at = SystemClock.now();
        let mut tx = self.read().await?;
        let queues = queues::all(&mut tx).await?;
        let catalog = Catalog {
            taken_at,
            revision: accounts::revision(&mut tx).await?,
            queues: queues.into_iter().map(|record| (record.id, record)).collect(),
            polls: polls::all(&mut tx).await?,
            given_up: withdrawal::given_up(&mut tx).await?,
            sealed: accounts::sealed(&mut tx).await?,
            workers: workers::alive(&mut tx, taken_at).await?,
        };
        tx.commit().await?;
        Ok(catalog)
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

    async fn keep_poll(&self, poll: PollSlug, withdrawn_at: Timestamp) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        withdrawal::keep(&mut tx, poll, withdrawn_at).await?;
        Ok(tx.commit().await?)
    }

    async fn note_given_up(
        &self,
        queue: QueueId,
        poll: PollSlug,
        withdrawn_at: Timestamp,
    ) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        withdrawal::note(&mut tx, queue, poll, withdrawn_at).await?;
        Ok(tx.commit().await?)
    }

    async fn note_seal(&self, seal: &SealRecord) -> Result<SealRecord, StoreError> {
        let mut tx = self.write().await?;
        let recorded = accounts::note_seal(&mut tx, seal).await?;
        tx.commit().await?;
        Ok(recorded)
    }

    async fn finish_poll(&self, poll: PollSlug) -> Result<bool, StoreError> {
        let mut tx = self.write().await?;
        let is_final = polls::finish(&mut tx, poll, SystemClock.now()).await?;
        tx.commit().await?;
        Ok(is_final)
    }

    async fn beat(&self, worker: &WorkerRecord) -> Result<(), StoreError> {
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

    async fn durability_problems(&self) -> Result<Vec<String>, StoreError> {
        Ok(self.inner.writer()?.check().await?)
    }

    async fn open_session(&self) -> Result<Box<dyn Session>, StoreError> {
        self.inner.writer()?;
        self.layout().await?.ok_or_else(super::not_prepared)?;
        Ok(Box::new(SqliteSession::open(&self.inner)?))
    }
}
