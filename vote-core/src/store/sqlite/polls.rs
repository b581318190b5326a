//! Polls in a SQLite store: registered, closed, final.

use std::collections::BTreeMap;

use super::timestamp;
use crate::{
    OptionSlug, Partition, Poll, PollSlug, Timestamp,
    sqlite::{Failure, Transaction},
    store::{RegisteredPoll, StoreError},
};

pub(super) async fn all(tx: &mut Transaction<'_>) -> Result<Vec<RegisteredPoll>, Failure> {
    let query = sqlx::query_as(
        "SELECT poll, slug, keep, voters, results, closes_at, closed_at, final_at FROM polls ORDER BY poll",
    );
    type Row = (i64, String, String, String, String, Option<i64>, Option<i64>, Option<i64>);
    let rows: Vec<Row> = tx.all(query).await?;
    let mut polls = Vec::with_capacity(rows.len());
    for (number, slug, keep, voters, results, closes_at, closed_at, final_at) in rows {
        polls.push(RegisteredPoll {
            slug: slug.parse().map_err(|e| tx.damaged(e))?,
            options: options(tx, number).await?,
            keep: keep.parse().map_err(|e| tx.damaged(e))?,
            voters: voters.parse().map_err(|e| tx.damaged(e))?,
            results: results.parse().map_err(|e| tx.damaged(e))?,
            closes_at: closes_at.map(|at| timestamp(tx, at)).transpose()?,
            closed_at: closed_at.map(|at| timestamp(tx, at)).transpose()?,
            final_at: final_at.map(|at| timestamp(tx, at)).transpose()?,
        });
    }
    Ok(polls)
}

async fn find(tx: &mut Transaction<'_>, slug: PollSlug) -> Result<Option<RegisteredPoll>, Failure> {
    Ok(all(tx).await?.into_iter().find(|poll| poll.slug == slug))
}

/// The number that stands for a registered poll.
pub(super) async fn number(tx: &mut Transaction<'_>, poll: PollSlug) -> Result<Option<i64>, Failure> {
    let query = sqlx::query_as("SELECT poll FROM polls WHERE slug = ?1").bind(poll.as_str());
    let found: Option<(i64,)> = tx.one(query).await?;
    Ok(found.map(|(number,)| number))
}

/// The options of a poll, each at the place that is its number.
pub(super) async fn options(tx: &mut Transaction<'_>, poll: i64) -> Result<Vec<OptionSlug>, Failure> {
    let query = sqlx::query_as("SELECT slug FROM options WHERE poll = ?1 ORDER BY option").bind(poll);
    let rows: Vec<(String,)> = tx.all(query).await?;
    rows.into_iter().map(|(slug,)| slug.parse().map_err(|e| tx.damaged(e))).collect()
}

pub(super) async fn register(tx: &mut Transaction<'_>, poll: &Poll) -> Result<RegisteredPoll, Failure> {
    let closes_at = poll.closes_at.map(Timestamp::as_micros);
    if number(tx, poll.slug).await?.is_some() {
        let update = sqlx::query("UPDATE polls SET closes_at = ?2 WHERE slug = ?1 AND closed_at IS NULL");
        tx.run(update.bind(poll.slug.as_str()).bind(closes_at)).await?;
    } else {
        let insert = sqlx::query(
            "INSERT INTO polls (slug, keep, voters, results, closes_at) VALUES (?1, ?2, ?3, ?4, ?5)",
        )
        .bind(poll.slug.as_str())
        .bind(poll.keep.as_str())
        .bind(poll.voters.as_str())
        .bind(poll.results.as_str())
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
    let registered = find(tx, poll.slug).await?;
    registered.ok_or_else(|| tx.damaged("the poll just registered is not there"))
}

pub(super) async fn close(
    tx: &mut Transaction<'_>,
    poll: PollSlug,
    at: Timestamp,
) -> Result<Option<RegisteredPoll>, Failure> {
    let update = sqlx::query("UPDATE polls SET closed_at = ?2 WHERE slug = ?1 AND closed_at IS NULL");
    tx.run(update.bind(poll.as_str()).bind(at.as_micros())).await?;
    find(tx, poll).await
}

/// The version of each partition.
pub(super) async fn versions(tx: &mut Transaction<'_>) -> Result<BTreeMap<Partition, u64>, Failure> {
    let rows: Vec<(u16, u64)> =
        tx.all(sqlx::query_as("SELECT partition, version FROM partitions ORDER BY partition")).await?;
    Ok(rows.into_iter().map(|(partition, version)| (Partition(partition), version)).collect())
}

/// After an error the transaction must be dropped.
pub(super) async fn finish(
    tx: &mut Transaction<'_>,
    poll: PollSlug,
    expected: &BTreeMap<Partition, u64>,
    at: Timestamp,
) -> Result<(), StoreError> {
    // The transaction holds the write lock, so what is read here is still so when it commits.
    for (partition, version) in versions(tx).await? {
        if expected.get(&partition) != Some(&version) {
            return Err(StoreError::StaleVersion(partition));
        }
    }
    match find(tx, poll).await? {
        Some(RegisteredPoll { final_at: Some(_), .. }) => return Ok(()),
        Some(RegisteredPoll { closed_at: Some(_), .. }) => {}
        _ => return Err(StoreError::Conflict(format!("poll {poll} is not closed"))),
    }
    let update = sqlx::query("UPDATE polls SET final_at = ?2 WHERE slug = ?1");
    tx.run(update.bind(poll.as_str()).bind(at.as_micros())).await?;
    tx.run(sqlx::query("UPDATE partitions SET version = version + 1")).await?;
    Ok(())
}
