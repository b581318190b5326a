//! Accounts and ballots of a SQLite store as of one moment: a transaction that only reads sees nothing of what is
//! committed after its first statement.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use sqlx::{
    AssertSqlSafe, FromRow, Sqlite,
    query::QueryAs,
    sqlite::{SqliteArguments, SqliteRow},
};

use super::{
    json::json, layout, polls, position, quarantine, queue_id, queues, registered, revision, summary,
    timestamp,
};
use crate::{
    Clock, OptionSlug, Partition, PollSlug, Position, QueueId, SystemClock, Timestamp, VoterKey,
    count::{Accounts, Balances, Ballot, LedgerEntry, LedgerRow, SealRecord, Summary, TallyRow},
    queue::Seal,
    sqlite::{Connections, Failure, Transaction, signed},
    store::{Snapshot, StoreError},
};

/// A transaction on a connection of its own, which is closed with it.
#[derive(Debug)]
pub(super) struct SqliteSnapshot {
    taken_at: Timestamp,
    tx: Transaction<'static>,
}

impl SqliteSnapshot {
    pub(super) async fn take(readers: &Connections) -> Result<Self, Failure> {
        let taken_at = SystemClock.now();
        let mut tx = readers.begin_apart().await?;
        // The first read fixes the moment; `BEGIN` does not.
        layout(&mut tx).await?;
        Ok(Self { taken_at, tx })
    }
}

/// Which rows are read: all, or those of a poll in a partition.
pub(super) type Scope = Option<(Partition, PollSlug)>;

/// Returns a query of rows in a scope. In it, `{partition}` and `{poll}` stand for the conditions on these columns.
pub(super) fn scoped<T>(sql: &str, of: Scope) -> QueryAs<'static, Sqlite, T, SqliteArguments>
where
    T: for<'r> FromRow<'r, SqliteRow>,
{
    // Two statements, since SQLite uses no index for one that fits both cases.
    let partition = if of.is_some() { "= ?1" } else { "IS NOT ?1" };
    let poll = if of.is_some() { "= ?2" } else { "IS NOT ?2" };
    let sql = sql.replace("{partition}", partition).replace("{poll}", poll);
    sqlx::query_as(AssertSqlSafe(sql))
        .bind(of.map(|(partition, _)| partition.0))
        .bind(of.map(|(_, poll)| poll.as_str().to_owned()))
}

/// Reads the accounts of a scope, without counting ballots row by row.
pub(super) async fn read(
    tx: &mut Transaction<'_>,
    taken_at: Timestamp,
    of: Scope,
) -> Result<Accounts, Failure> {
    Ok(Accounts {
        taken_at,
        revision: revision::read(tx).await?,
        polls: registered::all(tx).await?,
        versions: polls::versions(tx).await?,
        completions: completions(tx, of).await?,
        queues: queues::all(tx).await?,
        positions: positions(tx, of.map(|(partition, _)| partition)).await?,
        ledger: ledger(tx, of).await?,
        seals: seals(tx, of).await?,
        tally: tally(tx, of).await?,
        tally_changed_at: tally_changed_at(tx, of.map(|(partition, _)| partition)).await?,
        rows: None,
        quarantine: quarantine::totals(tx, of).await?,
    })
}

async fn completions(
    tx: &mut Transaction<'_>,
    of: Scope,
) -> Result<BTreeMap<(PollSlug, Partition), u64>, Failure> {
    let sql = "SELECT p.slug, c.partition, c.revision FROM completions AS c JOIN polls AS p USING (poll)
         WHERE c.partition {partition} AND p.slug {poll}";
    let rows: Vec<(String, u16, u64)> = tx.all(scoped(sql, of)).await?;
    rows.into_iter()
        .map(|(poll, partition, revision)| {
            Ok(((poll.parse().map_err(|e| tx.damaged(e))?, Partition(partition)), revision))
        })
        .collect()
}

#[async_trait]
impl Snapshot for SqliteSnapshot {
    async fn accounts(&mut self, recount: bool) -> Result<Accounts, StoreError> {
        let mut accounts = read(&mut self.tx, self.taken_at, None).await?;
        if recount {
            accounts.rows = Some(count_rows(&mut self.tx).await?);
        }
        Ok(accounts)
    }

    async fn summary(&mut self) -> Result<Summary, StoreError> {
        Ok(summary::summary(&mut self.tx, self.taken_at).await?)
    }

    async fn balances(&mut self) -> Result<Balances, StoreError> {
        Ok(summary::balances(&mut self.tx).await?)
    }

    async fn ballots(
        &mut self,
        poll: PollSlug,
        after: Option<VoterKey>,
        limit: usize,
    ) -> Result<Vec<Ballot>, StoreError> {
        let tx = &mut self.tx;
        let Some(number) = registered::number(tx, poll).await? else { return Ok(Vec::new()) };
        let options = registered::options(tx, number).await?;
        let query = sqlx::query_as(
            "SELECT voter, option, cast_at FROM votes WHERE poll = ?1 AND voter > ?2 ORDER BY voter LIMIT ?3",
        )
        .bind(number)
        // The empty value sorts before every key.
        .bind(after.as_ref().map_or(&[][..], |voter| &voter.0))
        .bind(signed(limit as u64));
        let rows = tx.all(query).await?;
        Ok(ballots(tx, &options, rows)?)
    }
}

/// Makes ballots of rows: voter, number of the option, time.
pub(super) fn ballots(
    tx: &Transaction<'_>,
    options: &[OptionSlug],
    rows: Vec<(Vec<u8>, u16, i64)>,
) -> Result<Vec<Ballot>, Failure> {
    rows.into_iter()
        .map(|(voter, option, cast_at)| {
            Ok(Ballot {
                voter: VoterKey(voter.try_into().map_err(|_| tx.damaged("the key of a voter"))?),
                option: *options
                    .get(usize::from(option))
                    .ok_or_else(|| tx.damaged("the option of a vote"))?,
                cast_at: timestamp(tx, cast_at)?,
            })
        })
        .collect()
}

pub(super) async fn positions(
    tx: &mut Transaction<'_>,
    of: Option<Partition>,
) -> Result<BTreeMap<(QueueId, Partition), Position>, Failure> {
    let query = sqlx::query_as(
        "SELECT queue, partition, position FROM checkpoints WHERE ?1 IS NULL OR partition = ?1",
    );
    let rows: Vec<(Vec<u8>, u16, Vec<u8>)> = tx.all(query.bind(of.map(|of| of.0))).await?;
    rows.into_iter()
        .map(|(queue, partition, at)| Ok(((queue_id(tx, queue)?, Partition(partition)), position(tx, &at)?)))
        .collect()
}

pub(super) async fn ledger(tx: &mut Transaction<'_>, of: Scope) -> Result<Vec<LedgerRow>, Failure> {
    let sql = "SELECT partition, queue, poll, accepted, new_voters, superseded, quarantined FROM ledger
         WHERE partition {partition} AND poll {poll} ORDER BY partition, queue, poll";
    type Row = (u16, Vec<u8>, String, u64, u64, u64, i64);
    let rows: Vec<Row> = tx.all(scoped(sql, of)).await?;
    rows.into_iter()
        .map(|(partition, queue, poll, accepted, new_voters, superseded, quarantined)| {
            let queue = queue_id(tx, queue)?;
            let entry = LedgerEntry { queue, poll, accepted, new_voters, superseded, quarantined };
            Ok(LedgerRow { partition: Partition(partition), entry })
        })
        .collect()
}

pub(super) async fn tally(tx: &mut Transaction<'_>, of: Scope) -> Result<Vec<TallyRow>, Failure> {
    let sql = "SELECT p.slug, o.slug, t.partition, t.n
         FROM tally AS t JOIN polls AS p USING (poll) JOIN options AS o USING (poll, option)
         WHERE t.n <> 0 AND t.partition {partition} AND p.slug {poll} ORDER BY t.poll, t.option, t.partition";
    let rows: Vec<(String, String, u16, i64)> = tx.all(scoped(sql, of)).await?;
    rows.into_iter()
        .map(|(poll, option, partition, votes)| {
            Ok(TallyRow {
                poll: poll.parse().map_err(|e| tx.damaged(e))?,
                option: option.parse().map_err(|e| tx.damaged(e))?,
                partition: Partition(partition),
                votes,
            })
        })
        .collect()
}

pub(super) async fn tally_changed_at(
    tx: &mut Transaction<'_>,
    of: Option<Partition>,
) -> Result<BTreeMap<PollSlug, Timestamp>, Failure> {
    let query = sqlx::query_as(
        "SELECT p.slug, max(t.changed_at) FROM tally AS t JOIN polls AS p USING (poll)
         WHERE ?1 IS NULL OR t.partition = ?1 GROUP BY p.slug",
    );
    let rows: Vec<(String, i64)> = tx.all(query.bind(of.map(|of| of.0))).await?;
    rows.into_iter()
        .map(|(poll, at)| Ok((poll.parse().map_err(|e| tx.damaged(e))?, timestamp(tx, at)?)))
        .collect()
}

/// Counts the effective ballots row by row. Takes about 5 s for every ten million, since SQLite sorts them.
async fn count_rows(tx: &mut Transaction<'_>) -> Result<BTreeMap<(PollSlug, OptionSlug), u64>, Failure> {
    // Left joins, so that a row whose poll or option is missing from its table is not left out.
    let query = sqlx::query_as(
        "SELECT p.slug, o.slug, v.n
         FROM (SELECT poll, option, count(*) AS n FROM votes GROUP BY poll, option) AS v
         LEFT JOIN polls AS p USING (poll) LEFT JOIN options AS o USING (poll, option)",
    );
    let rows: Vec<(Option<String>, Option<String>, u64)> = tx.all(query).await?;
    rows.into_iter()
        .map(|(poll, option, n)| {
            let unknown = || tx.damaged("a vote for a poll or an option that is missing");
            let poll = poll.ok_or_else(unknown)?.parse().map_err(|e| tx.damaged(e))?;
            let option = option.ok_or_else(unknown)?.parse().map_err(|e| tx.damaged(e))?;
            Ok(((poll, option), n))
        })
        .collect()
}

/// Records a seal, and returns the seal on record: for each partition the highest position and count ever recorded.
pub(super) async fn record_seal(
    tx: &mut Transaction<'_>,
    record: &SealRecord,
) -> Result<SealRecord, Failure> {
    let all = seals(tx, None).await?;
    let before = all.iter().find(|known| (known.queue, known.poll) == (record.queue, record.poll));
    let merged = before.map_or_else(|| record.clone(), |before| before.clone().merged(record));
    if before.is_some_and(|before| before.seal.accepted != merged.seal.accepted) {
        revision::raise(tx).await?;
    }
    let SealRecord { queue, poll, seal } = &merged;
    let rows: Vec<_> = seal.ends.iter().zip(&seal.accepted).collect();
    let insert = sqlx::query(
        "INSERT OR REPLACE INTO seals (queue, poll, partition, position, accepted)
         SELECT ?1, ?2, key, unhex(value ->> 0), value ->> 1 FROM json_each(?3)",
    )
    .bind(&queue.0[..])
    .bind(poll.as_str())
    .bind(json(&rows, |(end, accepted)| format!("[\"{end}\",{}]", signed(**accepted))));
    tx.run(insert).await?;
    Ok(merged)
}

/// Returns each queue with a recorded seal of a poll that is closed and not final, and that poll.
pub(super) async fn sealed(tx: &mut Transaction<'_>) -> Result<BTreeSet<(QueueId, PollSlug)>, Failure> {
    let query = sqlx::query_as(
        "SELECT DISTINCT s.queue, s.poll FROM seals AS s JOIN polls AS p ON p.slug = s.poll
         WHERE p.closed_at IS NOT NULL AND p.final_at IS NULL",
    );
    let rows: Vec<(Vec<u8>, String)> = tx.all(query).await?;
    rows.into_iter()
        .map(|(queue, poll)| Ok((queue_id(tx, queue)?, poll.parse().map_err(|e| tx.damaged(e))?)))
        .collect()
}

pub(super) async fn seals(tx: &mut Transaction<'_>, of: Scope) -> Result<Vec<SealRecord>, Failure> {
    let sql = "SELECT queue, poll, partition, position, accepted FROM seals
         WHERE partition {partition} AND poll {poll} ORDER BY queue, poll, partition";
    type Row = (Vec<u8>, String, u16, Vec<u8>, u64);
    let rows: Vec<Row> = tx.all(scoped(sql, of)).await?;
    let mut seals: BTreeMap<(QueueId, PollSlug), SealRecord> = BTreeMap::new();
    for (queue, poll, partition, end, accepted) in rows {
        let (queue, poll) = (queue_id(tx, queue)?, poll.parse().map_err(|e| tx.damaged(e))?);
        let empty = Seal { ends: Vec::new(), accepted: Vec::new() };
        let record = seals.entry((queue, poll)).or_insert(SealRecord { queue, poll, seal: empty });
        record.seal.ends.resize(usize::from(partition), Position::START);
        record.seal.accepted.resize(usize::from(partition), 0);
        record.seal.ends.push(position(tx, &end)?);
        record.seal.accepted.push(accepted);
    }
    Ok(seals.into_values().collect())
}
