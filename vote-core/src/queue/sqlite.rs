//! A queue in a SQLite file: durable, without a server to install.

use std::path::Path;

use async_trait::async_trait;

use super::{
    AppendError, Appended, Backlog, Frame, LAYOUT_VERSION, Layout, Look, PollRecord, PollState, Position,
    Queue, QueueClock, QueueError, QueueId, QueueStatus, Read, Seal, Usage,
};
use crate::{
    Clock, DurabilityProblem, Partition, PollDigest, PollSlug, SystemClock, Timestamp,
    sqlite::{Failure, Files, OpenError, Schema, signed},
};

mod log;
mod polls;

use log::{CurrentQueue, Log, Row, entry, number};

const SCHEMA: Schema = Schema {
    of: "queue",
    migrations: &[
        (1, "boxes", include_str!("sqlite/1_boxes.sql")),
        (2, "remains", include_str!("sqlite/2_remains.sql")),
        (3, "polls", include_str!("sqlite/3_polls.sql")),
        (4, "clock", include_str!("sqlite/4_clock.sql")),
        (5, "given up", include_str!("sqlite/5_given_up.sql")),
        (6, "names", include_str!("sqlite/6_names.sql")),
        (7, "withdrawal", include_str!("sqlite/7_withdrawal.sql")),
        (8, "layout version", include_str!("sqlite/8_layout_version.sql")),
    ],
};

/// A queue in a SQLite file.
///
/// - An append is one transaction and waits for the disk: group votes, as [`Writer`](crate::writer::Writer) does.
/// - Wrap it in an `Arc` to share it between a frontend and a worker of the same process. Other processes of the same
///   machine may open the same file.
/// - The file must be on a local disk. It must not be the file of a store, or appends would wait for commits.
/// - Unlike on other queues, trimming needs some free disk space, because it writes.
#[derive(Debug)]
pub struct SqliteQueue {
    file: Files,
}

impl SqliteQueue {
    /// Opens the queue in a file. Creates the file, its tables and its folder where they are missing.
    ///
    /// # Errors
    /// Each text names the file and says what to do.
    ///
    /// - [`QueueError::Incompatible`]: the file is no queue, is damaged, or is of a newer version.
    /// - [`QueueError::Unavailable`]: the file can't be opened now; for example its folder can't be written.
    pub async fn open(path: &Path) -> Result<Self, QueueError> {
        let file = SCHEMA.open(path).await.map_err(|e| match e {
            OpenError::Newer { .. } | OpenError::Foreign { .. } | OpenError::Damaged { .. } => {
                QueueError::Incompatible(e.to_string())
            }
            OpenError::Missing { .. } | OpenError::Older { .. } | OpenError::Failed(_) => {
                QueueError::Unavailable(e.to_string())
            }
        })?;
        Ok(Self { file })
    }
}

impl From<Failure> for QueueError {
    fn from(failure: Failure) -> Self {
        if failure.is_damage() {
            Self::Incompatible(failure.to_string())
        } else {
            Self::Unavailable(failure.to_string())
        }
    }
}

/// For failures before `COMMIT` was sent: the connection is then closed, which rolls back.
impl From<Failure> for AppendError {
    fn from(failure: Failure) -> Self {
        Self::NotStored(failure.to_string())
    }
}

#[async_trait]
impl Queue for SqliteQueue {
    fn address(&self) -> String {
        format!("sqlite:{}", self.file.path.display())
    }

    async fn create(&self, layout: Layout, replacing: Option<QueueId>) -> Result<QueueId, QueueError> {
        let mut tx = self.file.writer.begin().await?;
        let id = match CurrentQueue::find(&mut tx).await? {
            Some(current) if replacing != Some(current.id) => current.id,
            replaced => {
                if let Some(replaced) = replaced {
                    replaced.keep_as_replaced(&mut tx).await?;
                }
                let id = QueueId::random()?;
                let insert = sqlx::query(
                    "INSERT INTO queues (id, version, partitions, fingerprint) VALUES (?1, ?2, ?3, ?4)",
                )
                .bind(&id.0[..])
                .bind(LAYOUT_VERSION)
                .bind(layout.partitions.count())
                .bind(&layout.fingerprint.0[..]);
                tx.run(insert).await?;
                id
            }
        };
        tx.commit().await?;
        Ok(id)
    }

    async fn look(&self, partitions: &[Partition]) -> Result<Option<Look>, QueueError> {
        let mut tx = self.file.readers.begin().await?;
        let Some(current) = CurrentQueue::find(&mut tx).await? else {
            tx.commit().await?;
            return Ok(None);
        };
        let accepted = current.accepted_in(&mut tx, partitions).await?;
        tx.commit().await?;
        let server = self.file.identity.clone();
        Ok(Some(Look { id: current.id, server, is_replica: false, accepted }))
    }

    async fn status(&self) -> Result<Option<QueueStatus>, QueueError> {
        let mut tx = self.file.readers.begin().await?;
        let Some(current) = CurrentQueue::find(&mut tx).await? else {
            tx.commit().await?;
            return Ok(None);
        };
        let query = sqlx::query_as("SELECT partition, poll, votes FROM accepted WHERE queue = ?1")
            .bind(current.number);
        let rows: Vec<(u16, String, u64)> = tx.all(query).await?;
        let accepted = rows.into_iter().map(|(partition, poll, votes)| (Partition(partition), poll, votes));
        let accepted = accepted.collect();
        let query =
            sqlx::query_as("SELECT partition, count(*) FROM frames WHERE queue = ?1 GROUP BY partition")
                .bind(current.number);
        let rows: Vec<(u16, u64)> = tx.all(query).await?;
        let mut entries = vec![0; usize::from(current.layout.partitions.count())];
        for (partition, count) in rows {
            *entries
                .get_mut(usize::from(partition))
                .ok_or_else(|| tx.damaged("the partition of a frame"))? = count;
        }
        let polls = current.polls(&mut tx).await?;
        let replaced = log::replaced(&mut tx).await?;
        tx.commit().await?;
        let CurrentQueue { id, version, layout, active, clock_ahead: ahead, .. } = current;
        let server = self.file.identity.clone();
        let clock = QueueClock { now: SystemClock.now(), ahead };
        Ok(Some(QueueStatus {
            id,
            version,
            layout,
            active,
            server,
            is_replica: false,
            accepted,
            entries,
            polls,
            replaced,
            clock,
        }))
    }

    async fn activate(&self, id: QueueId) -> Result<(), QueueError> {
        let mut tx = self.file.writer.begin().await?;
        let current = CurrentQueue::by_id(&mut tx, id).await?;
        tx.run(sqlx::query("UPDATE queues SET active = 1 WHERE queue = ?1").bind(current.number)).await?;
        Ok(tx.commit().await?)
    }

    async fn record_polls(&self, id: QueueId, polls: &[PollRecord]) -> Result<Vec<PollSlug>, QueueError> {
        let mut tx = self.file.writer.begin().await?;
        let others = CurrentQueue::by_id(&mut tx, id).await?.record(&mut tx, polls).await?;
        tx.commit().await?;
        Ok(others)
    }

    async fn drop_poll(
        &self,
        id: QueueId,
        poll: PollSlug,
        digest: PollDigest,
        withdrawn_at: Timestamp,
    ) -> Result<bool, QueueError> {
        let mut tx = self.file.writer.begin().await?;
        let current = CurrentQueue::by_id(&mut tx, id).await?;
        let dropped = current.drop_poll(&mut tx, poll, digest, withdrawn_at).await?;
        tx.commit().await?;
        Ok(dropped)
    }

    async fn record_clock(&self, id: QueueId, ahead: i64) -> Result<(), QueueError> {
        let mut tx = self.file.writer.begin().await?;
        let current = CurrentQueue::by_id(&mut tx, id).await?;
        let update = sqlx::query("UPDATE queues SET clock_ahead = ?2 WHERE queue = ?1");
        tx.run(update.bind(current.number).bind(ahead)).await?;
        Ok(tx.commit().await?)
    }

    async fn append(&self, id: QueueId, frames: &[Frame]) -> Result<Vec<Appended>, AppendError> {
        let mut tx = self.file.writer.begin().await?;
        let current = match CurrentQueue::find(&mut tx).await? {
            Some(current) if current.id == id => current,
            _ => return Err(AppendError::Replaced),
        };
        if !current.active {
            return Err(AppendError::NotActivated);
        }
        let polls = current.polls(&mut tx).await?;
        let mut appended = Vec::with_capacity(frames.len());
        for frame in frames {
            if !current.layout.partitions.contains(frame.partition) {
                return Err(AppendError::NotStored(QueueError::NoPartition(frame.partition).to_string()));
            }
            appended.push(match PollState::refuses(polls.get(&frame.poll), frame.digest) {
                Some(refused) => refused,
                None => Appended::Stored(current.store(&mut tx, frame).await?),
            });
        }
        tx.commit().await.map_err(|e| AppendError::Unknown(e.to_string()))?;
        Ok(appended)
    }

    async fn read(
        &self,
        id: QueueId,
        partition: Partition,
        after: Position,
        limit: usize,
    ) -> Result<Read, QueueError> {
        // One read-only transaction is one snapshot, whatever is appended meanwhile.
        let mut tx = self.file.readers.begin().await?;
        let log = Log::by_id(&mut tx, id).await?;
        log.has(partition)?;
        let from = number(after);
        if log.is_current && after != Position::START {
            log.entry_at(&mut tx, partition, after).await?.ok_or(QueueError::Diverged(after))?;
        }
        // One row more than asked for shows whether the end was reached.
        let query = sqlx::query_as(
            "SELECT position, poll, votes, frame FROM frames
             WHERE queue = ?1 AND partition = ?2 AND position > ?3 ORDER BY position LIMIT ?4",
        )
        .bind(log.number)
        .bind(partition.0)
        .bind(from.unwrap_or_default())
        .bind(signed(limit as u64).saturating_add(1));
        let mut rows: Vec<Row> = tx.all(query).await?;
        let at_end = rows.len() <= limit;
        rows.truncate(limit);
        let accepted = if log.is_current && at_end {
            let query =
                sqlx::query_as("SELECT poll, votes FROM accepted WHERE queue = ?1 AND partition = ?2")
                    .bind(log.number)
                    .bind(partition.0);
            let counters: Vec<(String, u64)> = tx.all(query).await?;
            Some(counters.into_iter().collect())
        } else {
            None
        };
        tx.commit().await?;
        let entries = rows.into_iter().map(entry).collect();
        Ok(Read { entries, at_end, accepted, server: self.file.identity.clone() })
    }

    async fn trim(&self, id: QueueId, partition: Partition, upto: Position) -> Result<(), QueueError> {
        let mut tx = self.file.writer.begin().await?;
        let log = Log::by_id(&mut tx, id).await?;
        log.has(partition)?;
        if log.is_current && log.entry_at(&mut tx, partition, upto).await?.is_none() {
            return Ok(tx.commit().await?);
        }
        // A position of another kind of queue trims nothing: a trim is only a hint.
        let upto = number(upto).unwrap_or_default();
        let before = if log.is_current { upto } else { upto.saturating_add(1) };
        let delete = sqlx::query("DELETE FROM frames WHERE queue = ?1 AND partition = ?2 AND position < ?3")
            .bind(log.number)
            .bind(partition.0)
            .bind(before);
        tx.run(delete).await?;
        if !log.is_current {
            log.forget_if_empty(&mut tx).await?;
        }
        Ok(tx.commit().await?)
    }

    async fn seal(&self, id: QueueId, poll: PollSlug) -> Result<Seal, QueueError> {
        let mut tx = self.file.writer.begin().await?;
        let current = CurrentQueue::by_id(&mut tx, id).await?;
        current.seal(&mut tx, poll).await?;
        let query = sqlx::query_as("SELECT partition, poll, votes FROM accepted WHERE queue = ?1");
        let rows: Vec<(u16, String, u64)> = tx.all(query.bind(current.number)).await?;
        let count = usize::from(current.layout.partitions.count());
        let mut seal = Seal { ends: current.ends(&mut tx).await?, accepted: vec![0; count] };
        for (partition, name, votes) in rows {
            let accepted = seal.accepted.get_mut(usize::from(partition));
            let accepted = accepted.ok_or_else(|| tx.damaged("the partition of a count"))?;
            if name == poll.as_str() {
                *accepted = votes;
            }
        }
        tx.commit().await?;
        Ok(seal)
    }

    async fn backlog(
        &self,
        id: QueueId,
        after: &[Position],
        limit: usize,
    ) -> Result<Vec<Backlog>, QueueError> {
        let mut tx = self.file.readers.begin().await?;
        let log = Log::by_id(&mut tx, id).await?;
        let backlog = log.backlog(&mut tx, after, limit).await?;
        tx.commit().await?;
        Ok(backlog)
    }

    async fn durability_problems(&self) -> Result<Vec<DurabilityProblem>, QueueError> {
        Ok(self.file.writer.check().await?)
    }

    // The disk is the limit, and SQLite does not know its size.
    async fn usage(&self) -> Result<Option<Usage>, QueueError> {
        Ok(None)
    }
}
