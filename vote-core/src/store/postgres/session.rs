//! A session: one connection, the advisory locks it holds, and what it knows of its partitions.

use std::collections::{BTreeMap, HashMap, HashSet};

use async_trait::async_trait;
use sqlx::{PgConnection, Row};

use super::{
    CALL_TIMEOUT, IDLE_TIMEOUT, PostgresStore, Uuid,
    commit::{self, Failure, PollNumbers},
    completion, damaged, error_at,
    filter::Filter,
    lock, position, progress, quarantine,
};
use crate::{
    Partition, Partitions, PollSlug, QueueId, StoreReader, VoterKey,
    count::{Ballot, Checkpoint, CommitPlan, QuarantinedFrame, audit, audit::Finding},
    store::{Acquired, Lookup, Session, StoreError, not_prepared, not_registered},
};

/// A session on Postgres. Its connection is taken out for each call and put back only if the call succeeds. So any
/// error, timeout or dropped future ends the connection, and no transaction is left open on a connection that is used
/// again.
pub(super) struct PostgresSession {
    connection: Option<PgConnection>,
    address: String,
    schema: String,
    pub(super) partitions: Partitions,
    /// The first of the two numbers of each partition's advisory lock. The second one is the partition.
    lock: i32,
    owned: HashSet<Partition>,
    pub(super) polls: HashMap<PollSlug, PollNumbers>,
    pub(super) filters: HashMap<(Partition, PollSlug), Filter>,
}

impl std::fmt::Debug for PostgresSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresSession").field("address", &self.address).field("owned", &self.owned).finish()
    }
}

impl PostgresSession {
    pub(super) async fn open(store: &PostgresStore) -> Result<Self, StoreError> {
        let idle = format!("{}ms", IDLE_TIMEOUT.as_millis());
        let options = store.options.clone().application_name("vote lane").options([
            ("idle_session_timeout", idle.as_str()),
            ("idle_in_transaction_session_timeout", idle.as_str()),
        ]);
        let layout = store.layout().await?;
        let partitions = layout.ok_or_else(|| not_prepared(store.place()))?.partitions;
        let mut connection = store.connection(&options).await?;
        let lock = store.in_time(lock::number(&mut connection)).await?;
        Ok(Self {
            connection: Some(connection),
            address: store.address(),
            schema: store.schema.clone(),
            partitions,
            lock,
            owned: HashSet::new(),
            polls: HashMap::new(),
            filters: HashMap::new(),
        })
    }

    /// Runs a call on the connection, which is closed unless the call succeeds.
    async fn call<T>(
        &mut self,
        call: impl AsyncFnOnce(&mut Self, &mut PgConnection) -> Result<T, Failure>,
    ) -> Result<T, StoreError> {
        let mut connection = self.connection.take().ok_or_else(|| {
            StoreError::Unavailable("this session ended with an earlier error: open another one".into())
        })?;
        match tokio::time::timeout(CALL_TIMEOUT, call(self, &mut connection)).await {
            Ok(Ok(value)) => {
                self.connection = Some(connection);
                Ok(value)
            }
            Ok(Err(Failure::Store(e))) => Err(e),
            Ok(Err(Failure::Sqlx(e))) => Err(error_at(&self.address, &self.schema, e)),
            Err(_) => Err(StoreError::Unavailable(
                format!("{}: no answer within {CALL_TIMEOUT:?}", self.address).into(),
            )),
        }
    }

    /// Takes the lock of a partition if it is free; returns whether it was.
    async fn lock(&mut self, connection: &mut PgConnection, partition: Partition) -> Result<bool, Failure> {
        let locked = lock::take(connection, self.lock, partition).await?;
        if locked {
            self.owned.insert(partition);
        }
        Ok(locked)
    }

    /// Raises the version of a partition, which no other transaction can then do until this one ends. Fails with
    /// `StaleVersion` if the version is another one, or if a poll of `counted` is final.
    async fn move_version(
        &self,
        connection: &mut PgConnection,
        partition: Partition,
        version: u64,
        counted: &[&str],
    ) -> Result<(), Failure> {
        let moved = sqlx::query(
            "UPDATE partitions SET version = version + 1 WHERE partition = $1 AND version = $2
             AND NOT EXISTS (SELECT FROM polls WHERE slug = ANY ($3) AND final_at IS NOT NULL)",
        )
        .bind(partition.0 as i16)
        .bind(version as i64)
        .bind(counted)
        .execute(connection)
        .await?;
        if moved.rows_affected() == 1 { Ok(()) } else { Err(StoreError::StaleVersion(partition).into()) }
    }

    async fn complete_on(
        &mut self,
        connection: &mut PgConnection,
        partition: Partition,
        version: u64,
        poll: PollSlug,
    ) -> Result<Vec<Finding>, Failure> {
        sqlx::raw_sql("BEGIN").execute(&mut *connection).await?;
        self.move_version(connection, partition, version, &[]).await?;
        let accounts = completion::read(connection, partition, poll).await?;
        let obstacles = audit::obstacles_in(&accounts, poll, partition);
        if !obstacles.is_empty() {
            sqlx::raw_sql("ROLLBACK").execute(connection).await?;
            return Ok(obstacles);
        }
        sqlx::query(
            "INSERT INTO completions (poll, partition, revision) SELECT poll, $2, $3 FROM polls WHERE slug = $1
             ON CONFLICT (poll, partition) DO UPDATE SET revision = excluded.revision",
        )
        .bind(poll.as_str())
        .bind(partition.0 as i16)
        .bind(accounts.revision as i64)
        .execute(&mut *connection)
        .await?;
        sqlx::raw_sql("COMMIT").execute(connection).await?;
        // All votes that can come are counted. If others come after all, the filter is filled again.
        self.filters.remove(&(partition, poll));
        Ok(Vec::new())
    }

    async fn commit_on(&mut self, connection: &mut PgConnection, plan: &CommitPlan) -> Result<(), Failure> {
        sqlx::raw_sql("BEGIN").execute(&mut *connection).await?;
        let counted: Vec<&str> = plan.polls.iter().map(|poll| poll.poll.as_str()).collect();
        self.move_version(connection, plan.partition, plan.version, &counted).await?;
        let mut polls = Vec::with_capacity(plan.polls.len());
        for poll in &plan.polls {
            let numbers = self.numbers(connection, poll.poll).await?;
            polls.push((numbers.ok_or_else(|| not_registered(poll.poll))?, poll));
        }
        // In the order of the table's key.
        polls.sort_unstable_by_key(|(numbers, _)| numbers.poll);
        commit::insert(connection, &polls).await?;
        for (numbers, poll) in &polls {
            commit::replace(connection, numbers, &poll.replacements).await?;
        }
        commit::add_to_tally(connection, plan.partition, &polls).await?;
        progress::add_to_ledger(connection, plan).await?;
        progress::move_checkpoints(connection, plan).await?;
        commit::quarantine(connection, plan).await?;
        commit::replayed(connection, plan).await?;
        sqlx::raw_sql("COMMIT").execute(&mut *connection).await?;
        for poll in &plan.polls {
            if let Some(filter) = self.filters.get_mut(&(plan.partition, poll.poll)) {
                poll.inserts.iter().for_each(|ballot| filter.add(ballot.voter));
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Session for PostgresSession {
    async fn unowned(&mut self) -> Result<Vec<Partition>, StoreError> {
        self.call(async |session, connection| {
            lock::end_stuck_sessions(connection, session.lock).await?;
            Ok(lock::unowned(connection, session.lock).await?)
        })
        .await
    }

    async fn acquire(&mut self, partition: Partition) -> Result<Option<Acquired>, StoreError> {
        self.call(async |session, connection| {
            if !session.owned.contains(&partition) && !session.lock(connection, partition).await? {
                return Ok(None);
            }
            // The filters lack what other sessions have inserted since.
            session.filters.retain(|(of, _), _| *of != partition);
            acquired(connection, partition).await.map(Some)
        })
        .await
    }

    async fn release(&mut self, partition: Partition) -> Result<(), StoreError> {
        self.call(async |session, connection| {
            session.filters.retain(|(of, _), _| *of != partition);
            if session.owned.remove(&partition) {
                lock::free(connection, session.lock, partition).await?;
            }
            Ok(())
        })
        .await
    }

    async fn lookup(
        &mut self,
        partition: Partition,
        poll: PollSlug,
        voters: &[VoterKey],
        lookup: Lookup,
    ) -> Result<Vec<Ballot>, StoreError> {
        self.call(async |session, connection| {
            session.lookup_on(connection, partition, poll, voters, lookup).await
        })
        .await
    }

    async fn replays(
        &mut self,
        partition: Partition,
        limit: usize,
    ) -> Result<Vec<QuarantinedFrame>, StoreError> {
        self.call(async |_, connection| {
            let rows = sqlx::query(quarantine::REPLAYS)
                .bind(partition.0 as i16)
                .bind(i64::try_from(limit).unwrap_or(i64::MAX))
                .fetch_all(connection)
                .await?;
            rows.iter().map(|row| Ok(quarantine::frame(row)?)).collect()
        })
        .await
    }

    async fn commit(&mut self, plan: &CommitPlan) -> Result<(), StoreError> {
        self.call(async |session, connection| session.commit_on(connection, plan).await).await
    }

    async fn complete(
        &mut self,
        partition: Partition,
        version: u64,
        poll: PollSlug,
    ) -> Result<Vec<Finding>, StoreError> {
        self.call(async |session, connection| session.complete_on(connection, partition, version, poll).await)
            .await
    }
}

/// Reads the version and the checkpoints of a partition.
async fn acquired(connection: &mut PgConnection, partition: Partition) -> Result<Acquired, Failure> {
    // The version first: if another session commits between these statements, this session's commit is refused.
    let version: Option<i64> = sqlx::query_scalar("SELECT version FROM partitions WHERE partition = $1")
        .bind(partition.0 as i16)
        .fetch_optional(&mut *connection)
        .await?;
    let version = version.ok_or(StoreError::UnknownPartition(partition))?;
    let mut checkpoints: BTreeMap<QueueId, Checkpoint> = BTreeMap::new();
    let rows = sqlx::query("SELECT queue, position FROM checkpoints WHERE partition = $1")
        .bind(partition.0 as i16)
        .fetch_all(&mut *connection)
        .await?;
    for row in rows {
        let checkpoint = checkpoints.entry(QueueId(row.get::<Uuid, _>("queue").0)).or_default();
        checkpoint.position = position(row.get("position"))?;
    }
    let rows = sqlx::query("SELECT queue, poll, accepted FROM ledger WHERE partition = $1")
        .bind(partition.0 as i16)
        .fetch_all(connection)
        .await?;
    for row in rows {
        let checkpoint = checkpoints.entry(QueueId(row.get::<Uuid, _>("queue").0)).or_default();
        let accepted = u64::try_from(row.get::<i64, _>("accepted")).map_err(|_| damaged("ledger"))?;
        checkpoint.accepted.insert(row.get("poll"), accepted);
    }
    let version = u64::try_from(version).map_err(|_| damaged("version"))?;
    Ok(Acquired { version, checkpoints })
}
