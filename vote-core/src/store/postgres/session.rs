//! A session: one connection, the advisory locks it holds, and what it knows of its partitions.

use std::collections::{BTreeMap, HashMap, HashSet};

use async_trait::async_trait;
use sqlx::{PgConnection, Row};

use super::{
    CALL_TIMEOUT, IDLE_TIMEOUT, Moment, PostgresStore, Uuid, accounts,
    commit::{self, Failure, PollNumbers},
    damaged, error_at,
    filter::{Filter, Scanned},
    position, quarantine, reader,
};
use crate::{
    Partition, Partitions, PollSlug, QueueId, StoreReader, VoterKey,
    count::{Ballot, Checkpoint, CommitPlan, QuarantinedFrame, audit, audit::Finding},
    store::{Acquired, Lookup, Session, StoreError, not_prepared, not_registered},
};

/// Number of voters that one look-up reads into a filter.
const SCAN_STEP: i64 = 100_000;

/// A session on Postgres. Its connection is taken out for each call and put back only if the call succeeds. So any
/// error, timeout or dropped future ends the connection, and no transaction is left open on a connection that is used
/// again.
pub(super) struct PostgresSession {
    connection: Option<PgConnection>,
    address: String,
    schema: String,
    partitions: Partitions,
    /// The first of the two numbers of each partition's advisory lock. The second one is the partition.
    lock: i32,
    owned: HashSet<Partition>,
    polls: HashMap<PollSlug, PollNumbers>,
    filters: HashMap<(Partition, PollSlug), Filter>,
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
        let lock = store.in_time(lock_number(&mut connection)).await?;
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

    /// Returns the numbers of a poll, which are read once in a session; `None` if the poll is not registered.
    async fn numbers(
        &mut self,
        connection: &mut PgConnection,
        poll: PollSlug,
    ) -> Result<Option<PollNumbers>, Failure> {
        if let Some(numbers) = self.polls.get(&poll) {
            return Ok(Some(numbers.clone()));
        }
        let rows = sqlx::query(
            "SELECT poll, o.option, o.slug FROM polls p JOIN options o USING (poll) WHERE p.slug = $1",
        )
        .bind(poll.as_str())
        .fetch_all(connection)
        .await?;
        let Some(first) = rows.first() else { return Ok(None) };
        let mut numbers = PollNumbers { poll: first.get("poll"), options: Vec::with_capacity(rows.len()) };
        for row in &rows {
            let slug = row.get::<&str, _>("slug").parse().map_err(|_| damaged("option"))?;
            numbers.options.push((row.get("option"), slug));
        }
        self.polls.insert(poll, numbers.clone());
        Ok(Some(numbers))
    }

    /// Takes the lock of a partition if it is free; returns whether it was.
    async fn lock(&mut self, connection: &mut PgConnection, partition: Partition) -> Result<bool, Failure> {
        let object = i32::from(partition.0);
        let locked: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock($1, $2)")
            .bind(self.lock)
            .bind(object)
            .fetch_one(&mut *connection)
            .await?;
        if locked {
            self.owned.insert(partition);
        }
        Ok(locked)
    }

    /// Reads the next step of the table into the filter of a partition and poll.
    async fn fill_filter(
        &mut self,
        connection: &mut PgConnection,
        partition: Partition,
        poll: PollSlug,
        number: i16,
    ) -> Result<(), Failure> {
        let key = (partition, poll);
        let known = self.filters.get(&key);
        if known.is_none_or(Filter::is_full) {
            let in_filter = known.map_or(0, Filter::len);
            let counted: i64 = sqlx::query_scalar(
                "SELECT coalesce(sum(n), 0)::bigint FROM tally WHERE poll = $1 AND partition = $2",
            )
            .bind(number)
            .bind(partition.0 as i16)
            .fetch_one(&mut *connection)
            .await?;
            self.filters.insert(key, Filter::new(in_filter.max(usize::try_from(counted).unwrap_or(0))));
        }
        let Some(filter) = self.filters.get_mut(&key) else { return Ok(()) };
        let range = self.partitions.range(partition);
        let (sql, from) = match filter.scanned() {
            Scanned::All => return Ok(()),
            Scanned::Nothing => (
                "SELECT voter FROM votes WHERE poll = $1 AND voter >= $2 AND voter <= $3 ORDER BY voter LIMIT $4",
                *range.start(),
            ),
            Scanned::UpTo(last) => (
                "SELECT voter FROM votes WHERE poll = $1 AND voter > $2 AND voter <= $3 ORDER BY voter LIMIT $4",
                last,
            ),
        };
        let voters: Vec<Uuid> = sqlx::query_scalar(sql)
            .bind(number)
            .bind(Uuid(from.0))
            .bind(Uuid(range.end().0))
            .bind(SCAN_STEP)
            .fetch_all(connection)
            .await?;
        for voter in &voters {
            filter.add(VoterKey(voter.0));
        }
        filter.set_scanned(match voters.last() {
            Some(last) if voters.len() as i64 == SCAN_STEP => Scanned::UpTo(VoterKey(last.0)),
            _ => Scanned::All,
        });
        Ok(())
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
        let accounts = accounts::read(connection, Some(partition)).await?;
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
        Ok(Vec::new())
    }

    async fn commit_on(&mut self, connection: &mut PgConnection, plan: &CommitPlan) -> Result<(), Failure> {
        sqlx::raw_sql("BEGIN").execute(&mut *connection).await?;
        let counted: Vec<&str> = plan.polls.iter().map(|poll| poll.poll.as_str()).collect();
        self.move_version(connection, plan.partition, plan.version, &counted).await?;
        for poll in &plan.polls {
            let numbers = self.numbers(connection, poll.poll).await?;
            let numbers = numbers.ok_or_else(|| not_registered(poll.poll))?;
            commit::insert(connection, &numbers, &poll.inserts).await?;
            commit::replace(connection, &numbers, &poll.replacements).await?;
            commit::add_to_tally(connection, &numbers, plan.partition, poll).await?;
        }
        commit::add_to_ledger(connection, plan).await?;
        commit::move_checkpoints(connection, plan).await?;
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

/// Returns the first of the two numbers of the advisory locks of a store's partitions.
pub(super) async fn lock_number(connection: &mut PgConnection) -> Result<i32, sqlx::Error> {
    let lock_id: Uuid = sqlx::query_scalar("SELECT lock_id FROM meta").fetch_one(connection).await?;
    let [a, b, c, d, ..] = lock_id.0;
    Ok(i32::from_be_bytes([a, b, c, d]))
}

/// Ends sessions that make no progress. A client that is stopped within a statement keeps its locks for as long as
/// the kernel of its machine answers for it, whatever the timeouts.
pub(super) async fn end_stuck_sessions(connection: &mut PgConnection, lock: i32) -> Result<(), sqlx::Error> {
    // The function is called in the list of results: in a WHERE clause it could be called for rows that other
    // conditions exclude. A commit that waits for a synchronous standby is left alone: if its session were ended,
    // the commit would become visible without being replicated.
    let terminated = sqlx::query(
        "SELECT a.pid, pg_terminate_backend(a.pid) FROM pg_stat_activity a
         WHERE a.state <> 'idle' AND a.state_change < clock_timestamp() - $2 * interval '1 ms'
           AND a.wait_event IS DISTINCT FROM 'SyncRep'
           AND EXISTS (
               SELECT FROM pg_locks l
               WHERE l.pid = a.pid AND l.locktype = 'advisory' AND l.granted AND l.objsubid = 2
                 AND l.classid = $1::bigint::oid
                 AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()))",
    )
    .bind(i64::from(lock as u32))
    .bind(IDLE_TIMEOUT.as_millis() as f64)
    .fetch_all(connection)
    .await?;
    for row in terminated {
        let pid: i32 = row.get("pid");
        tracing::warn!(pid, "ended a session that made no progress for 10 s");
    }
    Ok(())
}

#[async_trait]
impl Session for PostgresSession {
    async fn unowned(&mut self) -> Result<Vec<Partition>, StoreError> {
        self.call(async |session, connection| {
            end_stuck_sessions(connection, session.lock).await?;
            let rows = sqlx::query(
                "SELECT partition FROM partitions p
                 WHERE NOT EXISTS (
                     SELECT FROM pg_locks l
                     WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2
                       AND l.classid = $1::bigint::oid AND l.objid = p.partition::int::oid
                       AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()))
                 ORDER BY partition",
            )
            .bind(i64::from(session.lock as u32))
            .fetch_all(connection)
            .await?;
            Ok(rows.iter().map(reader::partition).collect())
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
            // The version first: if another session commits between these statements, this session's commit is refused.
            let version: Option<i64> =
                sqlx::query_scalar("SELECT version FROM partitions WHERE partition = $1")
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
            Ok(Some(Acquired { version, checkpoints }))
        })
        .await
    }

    async fn release(&mut self, partition: Partition) -> Result<(), StoreError> {
        self.call(async |session, connection| {
            session.filters.retain(|(of, _), _| *of != partition);
            if session.owned.remove(&partition) {
                sqlx::query("SELECT pg_advisory_unlock($1, $2)")
                    .bind(session.lock)
                    .bind(i32::from(partition.0))
                    .execute(connection)
                    .await?;
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
            if voters.is_empty() {
                return Ok(Vec::new());
            }
            let Some(numbers) = session.numbers(connection, poll).await? else { return Ok(Vec::new()) };
            let wanted: Vec<Uuid> = match lookup {
                Lookup::Exhaustive => voters.iter().map(|voter| Uuid(voter.0)).collect(),
                Lookup::Filtered => {
                    session.fill_filter(connection, partition, poll, numbers.poll).await?;
                    let filter = session.filters.get(&(partition, poll));
                    let may_hold = |voter: &&VoterKey| filter.is_none_or(|filter| filter.may_hold(**voter));
                    voters.iter().filter(may_hold).map(|voter| Uuid(voter.0)).collect()
                }
            };
            if wanted.is_empty() {
                return Ok(Vec::new());
            }
            let rows =
                sqlx::query("SELECT voter, option, cast_at FROM votes WHERE poll = $1 AND voter = ANY ($2)")
                    .bind(numbers.poll)
                    .bind(wanted)
                    .fetch_all(connection)
                    .await?;
            let ballot = |row: &sqlx::postgres::PgRow| {
                Ok(Ballot {
                    voter: VoterKey(row.get::<Uuid, _>("voter").0),
                    option: numbers.option(row.get("option"))?,
                    cast_at: row.try_get::<Moment, _>("cast_at").map_err(|_| damaged("time"))?.0,
                })
            };
            rows.iter().map(ballot).collect()
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
