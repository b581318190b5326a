//! Polls in a SQLite store: registered, rescheduled, closed, final.

use std::{collections::BTreeMap, time::Duration};

use super::registered;
use crate::{
    Partition, Poll, PollSlug, Timestamp,
    count::RegisteredPoll,
    sqlite::{Failure, Transaction},
    store::{StoreError, is_closed},
};

pub(super) async fn register(tx: &mut Transaction<'_>, poll: &Poll) -> Result<RegisteredPoll, Failure> {
    let is_free = match registered::find(tx, poll.slug).await? {
        None => true,
        Some(found) => super::withdrawal::make_way(tx, &found, poll).await?,
    };
    if is_free {
        let insert = sqlx::query(
            "INSERT INTO polls (slug, keep, voters, closes_at, results) VALUES (?1, ?2, ?3, ?4, ?5)",
        )
        .bind(poll.slug.as_str())
        .bind(poll.keep.as_str())
        .bind(poll.voters.as_str())
        .bind(poll.closes_at.map(Timestamp::as_micros))
        .bind(poll.results.as_str());
        let number = tx.run(insert).await?.last_insert_rowid();
        for (option, place) in poll.options.iter().zip(0_i64..) {
            let insert = sqlx::query("INSERT INTO options (poll, option, slug) VALUES (?1, ?2, ?3)")
                .bind(number)
                .bind(place)
                .bind(option.slug.as_str());
            tx.run(insert).await?;
        }
    }
    let registered = registered::find(tx, poll.slug).await?;
    registered.ok_or_else(|| tx.damaged("the poll that was just registered is missing"))
}

pub(super) async fn close(
    tx: &mut Transaction<'_>,
    poll: PollSlug,
    now: Timestamp,
) -> Result<Option<RegisteredPoll>, Failure> {
    let update = sqlx::query(
        "UPDATE polls SET closed_at = ?2 WHERE slug = ?1 AND closed_at IS NULL AND withdrawn_at IS NULL",
    );
    tx.run(update.bind(poll.as_str()).bind(now.as_micros())).await?;
    registered::find(tx, poll).await
}

/// Closes the polls that are due at a time of the store's clock, and returns them.
pub(super) async fn close_due(
    tx: &mut Transaction<'_>,
    grace: Duration,
    now: Timestamp,
) -> Result<Vec<PollSlug>, Failure> {
    let grace = i64::try_from(grace.as_micros()).unwrap_or(i64::MAX);
    let is_due = |poll: &RegisteredPoll| {
        let is_open = poll.closed_at.is_none() && poll.withdrawal.is_none();
        is_open && poll.closes_at.is_some_and(|at| at.saturating_add(grace) <= now)
    };
    let due: Vec<PollSlug> =
        registered::all(tx).await?.iter().filter(|poll| is_due(poll)).map(|poll| poll.slug).collect();
    for poll in &due {
        close(tx, *poll, now).await?;
    }
    Ok(due)
}

/// Moves the closing time of a poll. After an error, drop the transaction.
pub(super) async fn reschedule(
    tx: &mut Transaction<'_>,
    poll: PollSlug,
    closes_at: Option<Timestamp>,
    reason: &str,
    now: Timestamp,
) -> Result<Option<RegisteredPoll>, StoreError> {
    let Some(found) = registered::find(tx, poll).await? else { return Ok(None) };
    if found.closed_at.is_some() {
        return Err(is_closed(poll));
    }
    let closes_at = closes_at.map(Timestamp::as_micros);
    let insert = sqlx::query(
        "INSERT INTO reschedules (poll, at, old, new, reason)
         SELECT poll, ?2, closes_at, ?3, ?4 FROM polls WHERE slug = ?1",
    );
    tx.run(insert.bind(poll.as_str()).bind(now.as_micros()).bind(closes_at).bind(reason)).await?;
    let update = sqlx::query("UPDATE polls SET closes_at = ?2 WHERE slug = ?1");
    tx.run(update.bind(poll.as_str()).bind(closes_at)).await?;
    Ok(registered::find(tx, poll).await?)
}

/// Returns whether one of these polls is final.
pub(super) async fn any_final(tx: &mut Transaction<'_>, polls: &[PollSlug]) -> Result<bool, Failure> {
    let query = sqlx::query_as("SELECT slug FROM polls WHERE final_at IS NOT NULL");
    let rows: Vec<(String,)> = tx.all(query).await?;
    Ok(rows.iter().any(|(slug,)| polls.iter().any(|poll| poll.as_str() == slug)))
}

/// Returns the version of each partition, or of one.
pub(super) async fn versions(tx: &mut Transaction<'_>) -> Result<BTreeMap<Partition, u64>, Failure> {
    let query = sqlx::query_as("SELECT partition, version FROM partitions ORDER BY partition");
    let rows: Vec<(u16, u64)> = tx.all(query).await?;
    Ok(rows.into_iter().map(|(partition, version)| (Partition(partition), version)).collect())
}

/// Makes a poll final if it can be; returns whether it is. The transaction holds the write lock, so nothing changes
/// meanwhile.
pub(super) async fn finish(
    tx: &mut Transaction<'_>,
    poll: PollSlug,
    now: Timestamp,
) -> Result<bool, Failure> {
    let update = sqlx::query(
        "UPDATE polls SET final_at = ?2 WHERE slug = ?1 AND closed_at IS NOT NULL AND final_at IS NULL
             AND (SELECT count(*) FROM completions AS c, meta AS m
                  WHERE c.poll = polls.poll AND c.revision = m.revision) = (SELECT count(*) FROM partitions)",
    );
    tx.run(update.bind(poll.as_str()).bind(now.as_micros())).await?;
    Ok(registered::find(tx, poll).await?.is_some_and(|poll| poll.final_at.is_some()))
}
