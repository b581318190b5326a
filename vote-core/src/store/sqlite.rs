//! A store in a SQLite file: durable, with nothing to install, for one worker process.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;

use super::{
    Ballot, Catalog, Decision, Lane, MAX_CLOCK_DIFFERENCE, QuarantineKey, QuarantineRow, QueueRecord,
    RegisteredPoll, SealRecord, Snapshot, Store, StoreError, StoreReader, WorkerRecord,
};
use crate::{
    Clock, OptionSlug, Partition, Partitions, PepperFingerprint, Poll, PollSlug, Position, QueueId,
    SystemClock, Timestamp, VoterKey,
    queue::Layout,
    sqlite::{Connections, Failure, OpenError, Schema, Transaction},
};

mod books;
mod commit;
mod lane;
mod polls;
mod quarantine;
mod queues;
mod workers;

use books::SqliteSnapshot;
use lane::{Lanes, SqliteLane};

const SCHEMA: Schema = Schema {
    of: "store",
    migrations: &[
        (1, "votes", include_str!("sqlite/1_votes.sql")),
        (2, "audit", include_str!("sqlite/2_audit.sql")),
        (3, "results", include_str!("sqlite/3_results.sql")),
        (4, "finality", include_str!("sqlite/4_finality.sql")),
        (5, "quarantine by vote", include_str!("sqlite/5_quarantine_by_vote.sql")),
    ],
};

/// A store in a SQLite file. Clones are the same store.
///
/// Any number of processes of one machine may read the file, but only one has lanes: the first
/// [`open_lane`](Store::open_lane) takes a lock on the file beside it, `FILE.lock`, which is held until the last clone
/// and the last lane are dropped. The file must be on a local disk and must not be the one of a queue.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: Arc<Path>,
    /// None if opened for reading only.
    writer: Option<Connections>,
    readers: Connections,
    lanes: Lanes,
}

impl SqliteStore {
    /// Opens the store in a file, and makes the file, its tables and its folder where they are missing.
    ///
    /// # Errors
    /// [`StoreError::NotPrepared`] if the file is something else or of a newer version, and
    /// [`StoreError::Unavailable`] if it can't be opened; the text names the file and says what to do.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let file = SCHEMA.open(path).await?;
        let lanes = Lanes::of(&file.path);
        Ok(Self {
            inner: Arc::new(Inner {
                path: file.path,
                writer: Some(file.writer),
                readers: file.readers,
                lanes,
            }),
        })
    }

    /// Opens a store that another process writes, for its results. All but the methods of [`StoreReader`] fail.
    ///
    /// # Errors
    /// [`StoreError::NotPrepared`] if the file or its tables are not there yet, and as [`open`](Self::open).
    pub async fn open_read_only(path: &Path) -> Result<Self, StoreError> {
        let (path, readers) = SCHEMA.open_read_only(path).await?;
        let lanes = Lanes::of(&path);
        Ok(Self { inner: Arc::new(Inner { path, writer: None, readers, lanes }) })
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
            StoreError::NotPrepared(format!("{} was opened for reading only", self.path.display()))
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
            Self::NotPrepared(format!("{failure}: the file is damaged, put back a copy"))
        } else {
            Self::Unavailable(Box::new(failure))
        }
    }
}

fn queue_id(tx: &Transaction<'_>, bytes: Vec<u8>) -> Result<QueueId, Failure> {
    bytes.try_into().map(QueueId).map_err(|_| tx.damaged("the id of a queue"))
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
            // Below zero it is wrong; the audit says so, and a result can't show it.
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
        // CROSS JOIN: partition by partition, since the key begins with it.
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
        let positions = books::positions(&mut tx, None).await?;
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
        let stands = match layout(&mut tx).await? {
            Some(stands) => stands,
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
        super::same_layout(stands, asked)
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
            revision: books::revision(&mut tx).await?,
            queues: queues.into_iter().map(|record| (record.id, record)).collect(),
            polls: polls::all(&mut tx).await?,
            sealed: books::sealed(&mut tx).await?,
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

    async fn note_seal(&self, seal: &SealRecord) -> Result<SealRecord, StoreError> {
        let mut tx = self.write().await?;
        let recorded = books::note_seal(&mut tx, seal).await?;
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

    async fn check(&self) -> Result<Vec<String>, StoreError> {
        Ok(self.inner.writer()?.check().await?)
    }

    async fn open_lane(&self) -> Result<Box<dyn Lane>, StoreError> {
        self.inner.writer()?;
        Ok(Box::new(SqliteLane::open(&self.inner)?))
    }
}
