//! The books and ballots of one moment of a SQLite store: a transaction that only reads sees nothing of what is
//! committed after its first statement.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::{commit::json, layout, polls, position, quarantine, queue_id, queues, timestamp};
use crate::{
    OptionSlug, Partition, PollSlug, Position, QueueId, VoterKey,
    queue::Seal,
    sqlite::{Connections, Failure, Transaction, signed},
    store::{Ballot, Books, LedgerEntry, LedgerRow, SealRecord, Snapshot, StoreError, TallyRow},
};

/// A transaction on a connection of its own, which ends with it.
#[derive(Debug)]
pub(super) struct SqliteSnapshot {
    tx: Transaction<'static>,
}

impl SqliteSnapshot {
    pub(super) async fn take(readers: &Connections) -> Result<Self, Failure> {
        let mut tx = readers.begin_apart().await?;
        // Any read fixes the moment, which `BEGIN` does not.
        layout(&mut tx).await?;
        Ok(Self { tx })
    }
}

#[async_trait]
impl Snapshot for SqliteSnapshot {
    async fn books(&mut self, recount: bool) -> Result<Books, StoreError> {
        let tx = &mut self.tx;
        Ok(Books {
            polls: polls::all(tx).await?,
            versions: polls::versions(tx).await?,
            queues: queues::all(tx).await?,
            positions: positions(tx).await?,
            ledger: ledger(tx).await?,
            seals: seals(tx).await?,
            tally: tally(tx).await?,
            rows: if recount { Some(count_rows(tx).await?) } else { None },
            quarantine: quarantine::totals(tx).await?,
        })
    }

    async fn ballots(
        &mut self,
        poll: PollSlug,
        after: Option<VoterKey>,
        limit: usize,
    ) -> Result<Vec<Ballot>, StoreError> {
        let tx = &mut self.tx;
        let Some(number) = polls::number(tx, poll).await? else { return Ok(Vec::new()) };
        let options = polls::options(tx, number).await?;
        let query = sqlx::query_as(
            "SELECT voter, option, cast_at FROM votes WHERE poll = ?1 AND voter > ?2 ORDER BY voter LIMIT ?3",
        )
        .bind(number)
        // No bytes are before every key.
        .bind(after.as_ref().map_or(&[][..], |voter| &voter.0))
        .bind(signed(limit as u64));
        let rows = tx.all(query).await?;
        Ok(ballots(tx, &options, rows)?)
    }
}

/// Ballots as they are stored: voter, number of the option, time.
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

async fn positions(tx: &mut Transaction<'_>) -> Result<BTreeMap<(QueueId, Partition), Position>, Failure> {
    let rows: Vec<(Vec<u8>, u16, Vec<u8>)> =
        tx.all(sqlx::query_as("SELECT queue, partition, position FROM positions")).await?;
    rows.into_iter()
        .map(|(queue, partition, at)| Ok(((queue_id(tx, queue)?, Partition(partition)), position(tx, &at)?)))
        .collect()
}

async fn ledger(tx: &mut Transaction<'_>) -> Result<Vec<LedgerRow>, Failure> {
    let query = sqlx::query_as(
        "SELECT partition, queue, poll, accepted, new_voters, superseded, quarantined FROM ledger
         ORDER BY partition, queue, poll",
    );
    type Row = (u16, Vec<u8>, String, u64, u64, u64, i64);
    let rows: Vec<Row> = tx.all(query).await?;
    rows.into_iter()
        .map(|(partition, queue, poll, accepted, new_voters, superseded, quarantined)| {
            let queue = queue_id(tx, queue)?;
            let entry = LedgerEntry { queue, poll, accepted, new_voters, superseded, quarantined };
            Ok(LedgerRow { partition: Partition(partition), entry })
        })
        .collect()
}

async fn tally(tx: &mut Transaction<'_>) -> Result<Vec<TallyRow>, Failure> {
    let query = sqlx::query_as(
        "SELECT p.slug, o.slug, t.partition, t.n
         FROM tally AS t JOIN polls AS p USING (poll) JOIN options AS o USING (poll, option)
         WHERE t.n <> 0 ORDER BY t.poll, t.option, t.partition",
    );
    let rows: Vec<(String, String, u16, i64)> = tx.all(query).await?;
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

/// The standing votes, row by row. Takes about 5 s for every ten million, since SQLite sorts them.
async fn count_rows(tx: &mut Transaction<'_>) -> Result<BTreeMap<(PollSlug, OptionSlug), u64>, Failure> {
    // Joined from the left: a row of no known poll or option must not go uncounted.
    let query = sqlx::query_as(
        "SELECT p.slug, o.slug, v.n
         FROM (SELECT poll, option, count(*) AS n FROM votes GROUP BY poll, option) AS v
         LEFT JOIN polls AS p USING (poll) LEFT JOIN options AS o USING (poll, option)",
    );
    let rows: Vec<(Option<String>, Option<String>, u64)> = tx.all(query).await?;
    rows.into_iter()
        .map(|(poll, option, n)| {
            let unknown = || tx.damaged("a vote for a poll or an option that is not there");
            let poll = poll.ok_or_else(unknown)?.parse().map_err(|e| tx.damaged(e))?;
            let option = option.ok_or_else(unknown)?.parse().map_err(|e| tx.damaged(e))?;
            Ok(((poll, option), n))
        })
        .collect()
}

/// The first that was noted of a queue and poll stays.
pub(super) async fn note_seal(tx: &mut Transaction<'_>, record: &SealRecord) -> Result<(), Failure> {
    let SealRecord { queue, poll, seal } = record;
    let rows: Vec<_> = seal.ends.iter().zip(&seal.accepted).collect();
    let insert = sqlx::query(
        "INSERT INTO seals (queue, poll, partition, position, accepted)
         SELECT ?1, ?2, key, unhex(value ->> 0), value ->> 1 FROM json_each(?3)
         WHERE NOT EXISTS (SELECT 1 FROM seals WHERE queue = ?1 AND poll = ?2)",
    )
    .bind(&queue.0[..])
    .bind(poll.as_str())
    .bind(json(&rows, |(end, accepted)| format!("[\"{end}\",{}]", signed(**accepted))));
    tx.run(insert).await?;
    Ok(())
}

async fn seals(tx: &mut Transaction<'_>) -> Result<Vec<SealRecord>, Failure> {
    let query =
        sqlx::query_as("SELECT queue, poll, position, accepted FROM seals ORDER BY queue, poll, partition");
    let rows: Vec<(Vec<u8>, String, Vec<u8>, u64)> = tx.all(query).await?;
    let mut seals: BTreeMap<(QueueId, PollSlug), SealRecord> = BTreeMap::new();
    for (queue, poll, end, accepted) in rows {
        let (queue, poll) = (queue_id(tx, queue)?, poll.parse().map_err(|e| tx.damaged(e))?);
        let empty = Seal { ends: Vec::new(), accepted: Vec::new() };
        let record = seals.entry((queue, poll)).or_insert(SealRecord { queue, poll, seal: empty });
        record.seal.ends.push(position(tx, &end)?);
        record.seal.accepted.push(accepted);
    }
    Ok(seals.into_values().collect())
}
