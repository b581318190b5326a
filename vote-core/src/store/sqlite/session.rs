//! Sessions of a SQLite store. The owners of partitions are known in memory only; a lock on a file keeps other
//! processes from opening sessions.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;

use super::{Inner, accounts, commit, json::json, polls, position, quarantine, queue_id, registered};
use crate::{
    Clock, Partition, PollSlug, QueueId, SystemClock, VoterKey,
    count::{Ballot, Checkpoint, CommitPlan, QuarantinedFrame, audit, audit::Finding},
    sqlite::{Failure, Transaction, signed},
    store::{Acquired, Lookup, Session, StoreError},
};

/// The sessions of a store, and the lock that keeps other processes from opening any.
#[derive(Debug)]
pub(super) struct Sessions {
    /// The file to lock. Not the database itself, on which SQLite has its own locks.
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The locked file, from the first session on. The lock ends when it is closed, at the latest with the process.
    lock: Option<File>,
    opened: u64,
    owners: HashMap<Partition, u64>,
}

impl Sessions {
    pub(super) fn of(database: &Path) -> Self {
        let mut path = database.as_os_str().to_owned();
        path.push(".lock");
        Self { path: path.into(), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics between two changes that belong together, so a poisoned state is still consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the number of a new session.
    fn open(&self) -> Result<u64, StoreError> {
        let mut state = self.state();
        if state.lock.is_none() {
            state.lock = Some(self.lock()?);
        }
        state.opened += 1;
        Ok(state.opened)
    }

    fn lock(&self) -> Result<File, StoreError> {
        let path = self.path.display();
        let failed = |e: io::Error| {
            StoreError::Unavailable(format!("can't lock {path}: {e}; let this user write it").into())
        };
        let file =
            File::options().create(true).truncate(false).write(true).open(&self.path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(StoreError::InUse { lock: self.path.clone() }),
            Err(TryLockError::Error(e)) => Err(failed(e)),
        }
    }
}

/// A session on a SQLite store.
#[derive(Debug)]
pub(super) struct SqliteSession {
    store: Arc<Inner>,
    number: u64,
}

impl SqliteSession {
    pub(super) fn open(store: &Arc<Inner>) -> Result<Self, StoreError> {
        let number = store.sessions.open()?;
        Ok(Self { store: Arc::clone(store), number })
    }

    fn give_up(&self, partition: Partition) {
        let owners = &mut self.store.sessions.state().owners;
        if owners.get(&partition) == Some(&self.number) {
            owners.remove(&partition);
        }
    }
}

impl Drop for SqliteSession {
    fn drop(&mut self) {
        self.store.sessions.state().owners.retain(|_, owner| *owner != self.number);
    }
}

#[async_trait]
impl Session for SqliteSession {
    async fn unowned(&mut self) -> Result<Vec<Partition>, StoreError> {
        let mut tx = self.store.read().await?;
        let partitions = polls::versions(&mut tx).await?;
        tx.commit().await?;
        let state = self.store.sessions.state();
        Ok(partitions.into_keys().filter(|partition| !state.owners.contains_key(partition)).collect())
    }

    async fn acquire(&mut self, partition: Partition) -> Result<Option<Acquired>, StoreError> {
        if *self.store.sessions.state().owners.entry(partition).or_insert(self.number) != self.number {
            return Ok(None);
        }
        // With the write lock, so that a commit whose future was dropped has ended, whatever its outcome.
        let mut tx = self.store.write().await?;
        let version = sqlx::query_as("SELECT version FROM partitions WHERE partition = ?1").bind(partition.0);
        let Some((version,)) = tx.one(version).await? else {
            self.give_up(partition);
            return Err(StoreError::UnknownPartition(partition));
        };
        let checkpoints = checkpoints(&mut tx, partition).await?;
        tx.commit().await?;
        Ok(Some(Acquired { version, checkpoints }))
    }

    async fn release(&mut self, partition: Partition) -> Result<(), StoreError> {
        self.give_up(partition);
        Ok(())
    }

    async fn lookup(
        &mut self,
        _partition: Partition,
        poll: PollSlug,
        voters: &[VoterKey],
        _lookup: Lookup,
    ) -> Result<Vec<Ballot>, StoreError> {
        let mut tx = self.store.read().await?;
        let Some(number) = registered::number(&mut tx, poll).await? else { return Ok(Vec::new()) };
        let options = registered::options(&mut tx, number).await?;
        // CROSS JOIN makes SQLite look up each voter by the key, whatever the planner estimates.
        let query = sqlx::query_as(
            "SELECT v.voter, v.option, v.cast_at FROM json_each(?2) AS asked
             CROSS JOIN votes AS v ON v.poll = ?1 AND v.voter = unhex(asked.value)",
        );
        let asked = json(voters, |voter| format_args!("\"{voter}\"").to_string());
        let rows = tx.all(query.bind(number).bind(asked)).await?;
        let ballots = accounts::ballots(&tx, &options, rows)?;
        tx.commit().await?;
        Ok(ballots)
    }

    async fn replays(
        &mut self,
        partition: Partition,
        limit: usize,
    ) -> Result<Vec<QuarantinedFrame>, StoreError> {
        let mut tx = self.store.read().await?;
        let frames = quarantine::replays(&mut tx, partition, limit).await?;
        tx.commit().await?;
        Ok(frames)
    }

    async fn commit(&mut self, plan: &CommitPlan) -> Result<(), StoreError> {
        let mut tx = self.store.write().await?;
        commit::apply(&mut tx, plan).await?;
        Ok(tx.commit().await?)
    }

    async fn complete(
        &mut self,
        partition: Partition,
        version: u64,
        poll: PollSlug,
    ) -> Result<Vec<Finding>, StoreError> {
        let mut tx = self.store.write().await?;
        commit::move_version(&mut tx, partition, version).await?;
        let accounts = accounts::read(&mut tx, SystemClock.now(), Some((partition, poll))).await?;
        let obstacles = audit::obstacles_in(&accounts, poll, partition);
        if !obstacles.is_empty() {
            // Dropping the transaction rolls the version back.
            return Ok(obstacles);
        }
        let insert = sqlx::query(
            "INSERT OR REPLACE INTO completions (poll, partition, revision)
             SELECT poll, ?2, ?3 FROM polls WHERE slug = ?1",
        );
        tx.run(insert.bind(poll.as_str()).bind(partition.0).bind(signed(accounts.revision))).await?;
        tx.commit().await?;
        Ok(obstacles)
    }
}

async fn checkpoints(
    tx: &mut Transaction<'_>,
    partition: Partition,
) -> Result<BTreeMap<QueueId, Checkpoint>, Failure> {
    let query =
        sqlx::query_as("SELECT queue, position FROM checkpoints WHERE partition = ?1").bind(partition.0);
    let rows: Vec<(Vec<u8>, Vec<u8>)> = tx.all(query).await?;
    let mut checkpoints: BTreeMap<QueueId, Checkpoint> = BTreeMap::new();
    for (queue, bytes) in rows {
        checkpoints.entry(queue_id(tx, queue)?).or_default().position = position(tx, &bytes)?;
    }
    let query =
        sqlx::query_as("SELECT queue, poll, accepted FROM ledger WHERE partition = ?1").bind(partition.0);
    let rows: Vec<(Vec<u8>, String, u64)> = tx.all(query).await?;
    for (queue, poll, accepted) in rows {
        checkpoints.entry(queue_id(tx, queue)?).or_default().accepted.insert(poll, accepted);
    }
    Ok(checkpoints)
}
