//! A store in a SQLite file: durable, with nothing to install, for one worker process.

use std::{path::Path, sync::Arc};

use async_trait::async_trait;

use super::{
    Ballot, Lane, LedgerEntry, LedgerRow, QueueRecord, QueueState, RegisteredPoll, Store, StoreError,
    StoreReader,
};
use crate::{
    OptionSlug, Partition, Partitions, PepperFingerprint, Poll, PollSlug, Position, QueueId, Timestamp,
    VoterKey,
    queue::Layout,
    sqlite::{Connections, Failure, OpenError, Schema, Transaction, signed},
};

mod commit;
mod lane;

use lane::{Lanes, SqliteLane};

const SCHEMA: Schema =
    Schema { of: "store", migrations: &[(1, "votes", include_str!("sqlite/1_votes.sql"))] };

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

async fn polls(tx: &mut Transaction<'_>) -> Result<Vec<RegisteredPoll>, Failure> {
    let query = sqlx::query_as("SELECT poll, slug, keep, voters, closes_at FROM polls ORDER BY poll");
    let rows: Vec<(i64, String, String, String, Option<i64>)> = tx.all(query).await?;
    let mut polls = Vec::with_capacity(rows.len());
    for (number, slug, keep, voters, closes_at) in rows {
        polls.push(RegisteredPoll {
            slug: slug.parse().map_err(|e| tx.damaged(e))?,
            options: options(tx, number).await?,
            keep: keep.parse().map_err(|e| tx.damaged(e))?,
            voters: voters.parse().map_err(|e| tx.damaged(e))?,
            closes_at: closes_at.map(|at| timestamp(tx, at)).transpose()?,
        });
    }
    Ok(polls)
}

/// The options of a poll, each at the place that is its number.
async fn options(tx: &mut Transaction<'_>, poll: i64) -> Result<Vec<OptionSlug>, Failure> {
    let query = sqlx::query_as("SELECT slug FROM options WHERE poll = ?1 ORDER BY option").bind(poll);
    let rows: Vec<(String,)> = tx.all(query).await?;
    rows.into_iter().map(|(slug,)| slug.parse().map_err(|e| tx.damaged(e))).collect()
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
        let polls = polls(&mut tx).await?;
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
        let rows: Vec<(String, u64)> = tx.all(query.bind(poll.as_str())).await?;
        let tally = rows
            .into_iter()
            .map(|(option, n)| Ok((option.parse().map_err(|e| tx.damaged(e))?, n)))
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
    ) -> Result<Option<String>, StoreError> {
        let mut tx = self.read().await?;
        let query = sqlx::query_as(
            "SELECT reason FROM quarantine WHERE partition = ?1 AND queue = ?2 AND position = ?3",
        );
        let query = query.bind(partition.0).bind(&queue.0[..]).bind(position.as_bytes());
        let row: Option<(String,)> = tx.one(query).await?;
        tx.commit().await?;
        Ok(row.map(|(reason,)| reason))
    }

    async fn ledger(&self) -> Result<Vec<LedgerRow>, StoreError> {
        let mut tx = self.read().await?;
        let query = sqlx::query_as(
            "SELECT partition, queue, poll, accepted, new_voters, superseded, quarantined FROM ledger
             ORDER BY partition, queue, poll",
        );
        let rows: Vec<(u16, Vec<u8>, String, u64, u64, u64, u64)> = tx.all(query).await?;
        let mut ledger = Vec::with_capacity(rows.len());
        for (partition, queue, poll, accepted, new_voters, superseded, quarantined) in rows {
            let queue = queue_id(&tx, queue)?;
            let entry = LedgerEntry { queue, poll, accepted, new_voters, superseded, quarantined };
            ledger.push(LedgerRow { partition: Partition(partition), entry });
        }
        tx.commit().await?;
        Ok(ledger)
    }

    async fn queues(&self) -> Result<Vec<QueueRecord>, StoreError> {
        let mut tx = self.read().await?;
        let query = sqlx::query_as(
            "SELECT queue, address, seen_at, accepted, backlog, state = 'cut' FROM queues ORDER BY queue",
        );
        let rows: Vec<(Vec<u8>, String, i64, u64, u64, bool)> = tx.all(query).await?;
        let mut queues = Vec::with_capacity(rows.len());
        for (id, address, seen_at, accepted, backlog, cut) in rows {
            queues.push(QueueRecord {
                id: queue_id(&tx, id)?,
                address,
                seen_at: timestamp(&tx, seen_at)?,
                accepted,
                backlog,
                state: if cut { QueueState::Cut } else { QueueState::Active },
            });
        }
        tx.commit().await?;
        Ok(queues)
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
        let closes_at = poll.closes_at.map(Timestamp::as_micros);
        let update = sqlx::query("UPDATE polls SET closes_at = ?2 WHERE slug = ?1").bind(poll.slug.as_str());
        if tx.run(update.bind(closes_at)).await?.rows_affected() == 0 {
            let insert =
                sqlx::query("INSERT INTO polls (slug, keep, voters, closes_at) VALUES (?1, ?2, ?3, ?4)")
                    .bind(poll.slug.as_str())
                    .bind(poll.keep.as_str())
                    .bind(poll.voters.as_str())
                    .bind(closes_at);
            let number = tx.run(insert).await?.last_insert_rowid();
            for (option, place) in poll.options.iter().zip(0_i64..) {
                let insert = sqlx::query("INSERT INTO options (poll, option, slug) VALUES (?1, ?2, ?3)")
                    .bind(number)
                    .bind(place)
                    .bind(option.slug.as_str());
                tx.run(insert).await?;
            }
        }
        let registered = polls(&mut tx).await?.into_iter().find(|registered| registered.slug == poll.slug);
        let registered = registered.ok_or_else(|| tx.damaged("the poll just registered is not there"))?;
        tx.commit().await?;
        Ok(registered)
    }

    async fn report(&self, queues: &[QueueRecord]) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        for record in queues {
            let latest = sqlx::query(
                "INSERT INTO queues (queue, address, seen_at, accepted, backlog, state)
                 VALUES (?1, ?2, ?3, ?4, ?5, 'active')
                 ON CONFLICT DO UPDATE SET address = excluded.address, seen_at = excluded.seen_at,
                     accepted = excluded.accepted, backlog = excluded.backlog
                 WHERE excluded.seen_at >= queues.seen_at",
            )
            .bind(&record.id.0[..])
            .bind(&record.address)
            .bind(record.seen_at.as_micros())
            .bind(signed(record.accepted))
            .bind(signed(record.backlog));
            tx.run(latest).await?;
            // Never the other way: a box that was cut stays so, and an old report of it counts as well.
            if record.state == QueueState::Cut {
                let cut =
                    sqlx::query("UPDATE queues SET state = 'cut' WHERE queue = ?1").bind(&record.id.0[..]);
                tx.run(cut).await?;
            }
        }
        Ok(tx.commit().await?)
    }

    async fn check(&self) -> Result<Vec<String>, StoreError> {
        Ok(self.inner.writer()?.check().await?)
    }

    async fn open_lane(&self) -> Result<Box<dyn Lane>, StoreError> {
        self.inner.writer()?;
        Ok(Box::new(SqliteLane::open(&self.inner)?))
    }
}
