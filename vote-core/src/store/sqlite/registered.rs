//! Reads of the polls that are registered in a SQLite store.

use super::timestamp;
use crate::{
    OptionSlug, PollSlug,
    count::{RegisteredPoll, Reschedule, Withdrawal},
    sqlite::{Failure, Transaction},
    store::withdrawal,
};

/// Returns all polls, in the order of registration.
pub(super) async fn all(tx: &mut Transaction<'_>) -> Result<Vec<RegisteredPoll>, Failure> {
    let query = sqlx::query_as(
        "SELECT poll, slug, keep, voters, results, closes_at, closed_at, final_at, withdrawn_at, withdrawn_reason,
             undone_withdrawal
         FROM polls ORDER BY poll",
    );
    type Time = Option<i64>;
    type Row = (i64, String, String, String, String, Time, Time, Time, Time, Option<String>, Time);
    let rows: Vec<Row> = tx.all(query).await?;
    let mut polls = Vec::with_capacity(rows.len());
    for (number, name, keep, voters, results, closes_at, closed_at, final_at, withdrawn_at, reason, undone) in
        rows
    {
        let withdrawal = match withdrawn_at.zip(reason) {
            Some((at, reason)) => Some(Withdrawal { at: timestamp(tx, at)?, reason }),
            None => None,
        };
        let poll = RegisteredPoll {
            slug: withdrawal::slug(&name).map_err(|e| tx.damaged(e))?,
            options: options(tx, number).await?,
            keep: keep.parse().map_err(|e| tx.damaged(e))?,
            voters: voters.parse().map_err(|e| tx.damaged(e))?,
            results: results.parse().map_err(|e| tx.damaged(e))?,
            closes_at: closes_at.map(|at| timestamp(tx, at)).transpose()?,
            reschedules: reschedules(tx, number).await?,
            closed_at: closed_at.map(|at| timestamp(tx, at)).transpose()?,
            final_at: final_at.map(|at| timestamp(tx, at)).transpose()?,
            withdrawal,
            undone_withdrawal: undone.map(|at| timestamp(tx, at)).transpose()?,
            earlier: Vec::new(),
        };
        polls.push((name, poll));
    }
    Ok(withdrawal::fold(polls))
}

/// Returns the poll of this name.
pub(super) async fn find(
    tx: &mut Transaction<'_>,
    slug: PollSlug,
) -> Result<Option<RegisteredPoll>, Failure> {
    Ok(all(tx).await?.into_iter().find(|poll| poll.slug == slug))
}

/// Returns the number of a registered poll.
pub(super) async fn number(tx: &mut Transaction<'_>, poll: PollSlug) -> Result<Option<i64>, Failure> {
    let query = sqlx::query_as("SELECT poll FROM polls WHERE slug = ?1").bind(poll.as_str());
    let found: Option<(i64,)> = tx.one(query).await?;
    Ok(found.map(|(number,)| number))
}

/// Returns the options of a poll, each at the index that is its number.
pub(super) async fn options(tx: &mut Transaction<'_>, poll: i64) -> Result<Vec<OptionSlug>, Failure> {
    let query = sqlx::query_as("SELECT slug FROM options WHERE poll = ?1 ORDER BY option").bind(poll);
    let rows: Vec<(String,)> = tx.all(query).await?;
    rows.into_iter().map(|(slug,)| slug.parse().map_err(|e| tx.damaged(e))).collect()
}

async fn reschedules(tx: &mut Transaction<'_>, poll: i64) -> Result<Vec<Reschedule>, Failure> {
    let query =
        sqlx::query_as("SELECT at, old, new, reason FROM reschedules WHERE poll = ?1 ORDER BY reschedule");
    let rows: Vec<(i64, Option<i64>, Option<i64>, String)> = tx.all(query.bind(poll)).await?;
    rows.into_iter()
        .map(|(at, from, to, reason)| {
            Ok(Reschedule {
                at: timestamp(tx, at)?,
                from: from.map(|at| timestamp(tx, at)).transpose()?,
                to: to.map(|at| timestamp(tx, at)).transpose()?,
                reason,
            })
        })
        .collect()
}
