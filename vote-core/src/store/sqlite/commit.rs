//! The statements of a commit to a SQLite store, in a transaction that holds the write lock.
//!
//! A batch of ballots goes to SQLite as one JSON text, which `json_each` splits into rows: one statement instead of
//! thousands, each of which would cost two hops between the task and SQLite's thread. The text contains only hex digits
//! and integers, so nothing has to be escaped.

use std::collections::HashMap;

use super::{json::json, polls, quarantine, registered};
use crate::{
    Clock, OptionSlug, Partition, PollSlug, SystemClock,
    count::{Ballot, CommitPlan, LedgerEntry, PollPlan},
    sqlite::{Failure, Transaction, signed},
    store::{StoreError, no_option, not_registered},
};

/// Applies a plan. After an error, drop the transaction.
pub(super) async fn apply(tx: &mut Transaction<'_>, plan: &CommitPlan) -> Result<(), StoreError> {
    let partition = plan.partition;
    let counted: Vec<PollSlug> = plan.polls.iter().map(|poll| poll.poll).collect();
    if polls::any_final(tx, &counted).await? {
        return Err(StoreError::StaleVersion(partition));
    }
    move_version(tx, partition, plan.version).await?;
    for poll in &plan.polls {
        apply_poll(tx, partition, poll).await?;
    }
    for entry in &plan.ledger {
        add_to_ledger(tx, partition, entry).await?;
    }
    for (queue, position) in &plan.positions {
        let moved = sqlx::query(
            "INSERT INTO checkpoints (partition, queue, position) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET position = excluded.position",
        );
        tx.run(moved.bind(partition.0).bind(&queue.0[..]).bind(position.as_bytes())).await?;
    }
    for frame in &plan.quarantine {
        quarantine::insert(tx, partition, frame).await?;
    }
    for replayed in &plan.replayed {
        quarantine::replayed(tx, partition, replayed).await?;
    }
    Ok(())
}

/// Raises the version of a partition. Fails if it is another one: then another session has committed, and the rest of
/// the plan may not fit either.
pub(super) async fn move_version(
    tx: &mut Transaction<'_>,
    partition: Partition,
    version: u64,
) -> Result<(), StoreError> {
    let update =
        sqlx::query("UPDATE partitions SET version = version + 1 WHERE partition = ?1 AND version = ?2");
    let moved = tx.run(update.bind(partition.0).bind(signed(version))).await?;
    if moved.rows_affected() == 1 { Ok(()) } else { Err(StoreError::StaleVersion(partition)) }
}

/// The numbers of a registered poll and its options.
struct Numbers {
    slug: PollSlug,
    poll: i64,
    options: HashMap<OptionSlug, i64>,
}

impl Numbers {
    async fn find(tx: &mut Transaction<'_>, slug: PollSlug) -> Result<Self, StoreError> {
        let poll = registered::number(tx, slug).await?.ok_or_else(|| not_registered(slug))?;
        let options = registered::options(tx, poll).await?.into_iter().zip(0..).collect();
        Ok(Self { slug, poll, options })
    }

    fn option(&self, option: OptionSlug) -> Result<i64, StoreError> {
        self.options.get(&option).copied().ok_or_else(|| no_option(option))
    }
}

async fn apply_poll(
    tx: &mut Transaction<'_>,
    partition: Partition,
    plan: &PollPlan,
) -> Result<(), StoreError> {
    if plan.inserts.is_empty() && plan.replacements.is_empty() && plan.tally.is_empty() {
        return Ok(());
    }
    let numbers = Numbers::find(tx, plan.poll).await?;
    if !plan.inserts.is_empty() {
        insert(tx, &numbers, &plan.inserts).await?;
    }
    if !plan.replacements.is_empty() {
        replace(tx, &numbers, &plan.replacements).await?;
    }
    for (option, n) in &plan.tally {
        let add = sqlx::query(
            "INSERT INTO tally (poll, option, partition, n, changed_at) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO UPDATE SET n = n + excluded.n, changed_at = max(changed_at, excluded.changed_at)",
        );
        let add = add.bind(numbers.poll).bind(numbers.option(*option)?).bind(partition.0).bind(*n);
        tx.run(add.bind(SystemClock.now().as_micros())).await?;
    }
    Ok(())
}

async fn insert(tx: &mut Transaction<'_>, numbers: &Numbers, ballots: &[Ballot]) -> Result<(), StoreError> {
    let insert = sqlx::query(
        "INSERT INTO votes (poll, voter, option, cast_at)
         SELECT ?1, unhex(value ->> 0), value ->> 1, value ->> 2 FROM json_each(?2)",
    );
    let mut rows = Vec::with_capacity(ballots.len());
    for Ballot { voter, option, cast_at } in ballots {
        rows.push((voter, numbers.option(*option)?, cast_at.as_micros()));
    }
    let rows = json(&rows, |(voter, option, at)| format!("[\"{voter}\",{option},{at}]"));
    match tx.run(insert.bind(numbers.poll).bind(rows)).await {
        Ok(_) => Ok(()),
        Err(e) if e.is_duplicate() => Err(StoreError::Conflict(format!(
            "of {} voters that are new in {}, one has an effective ballot already",
            ballots.len(),
            numbers.slug
        ))),
        Err(e) => Err(e.into()),
    }
}

async fn replace(
    tx: &mut Transaction<'_>,
    numbers: &Numbers,
    replacements: &[(Ballot, Ballot)],
) -> Result<(), StoreError> {
    // MATERIALIZED, and the poll in each row, make the planner go through these rows and look up each by the key.
    let replace = sqlx::query(
        "WITH change AS MATERIALIZED (
             SELECT ?1 AS poll, unhex(value ->> 0) AS voter, value ->> 1 AS old_option, value ->> 2 AS old_cast_at,
                    value ->> 3 AS option, value ->> 4 AS cast_at
             FROM json_each(?2))
         UPDATE votes SET option = change.option, cast_at = change.cast_at FROM change
         WHERE votes.poll = change.poll AND votes.voter = change.voter
           AND votes.option = change.old_option AND votes.cast_at = change.old_cast_at",
    );
    let mut rows = Vec::with_capacity(replacements.len());
    for (old, new) in replacements {
        rows.push((
            old.voter,
            (numbers.option(old.option)?, old.cast_at.as_micros()),
            (numbers.option(new.option)?, new.cast_at.as_micros()),
        ));
    }
    let rows =
        json(&rows, |(voter, old, new)| format!("[\"{voter}\",{},{},{},{}]", old.0, old.1, new.0, new.1));
    let replaced = tx.run(replace.bind(numbers.poll).bind(rows)).await?.rows_affected();
    if replaced != replacements.len() as u64 {
        return Err(StoreError::Conflict(format!(
            "of {} ballots to be replaced in {}, {replaced} are those that the plan expects",
            replacements.len(),
            numbers.slug
        )));
    }
    Ok(())
}

/// Replaces the accepted count of an entry of the ledger, and adds to its other counts.
async fn add_to_ledger(
    tx: &mut Transaction<'_>,
    partition: Partition,
    entry: &LedgerEntry,
) -> Result<(), Failure> {
    let add = sqlx::query(
        "INSERT INTO ledger (partition, queue, poll, accepted, new_voters, superseded, quarantined)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT DO UPDATE SET accepted = excluded.accepted, new_voters = new_voters + excluded.new_voters,
             superseded = superseded + excluded.superseded, quarantined = quarantined + excluded.quarantined",
    )
    .bind(partition.0)
    .bind(&entry.queue.0[..])
    .bind(&entry.poll)
    .bind(signed(entry.accepted))
    .bind(signed(entry.new_voters))
    .bind(signed(entry.superseded))
    .bind(entry.quarantined);
    tx.run(add).await?;
    Ok(())
}
