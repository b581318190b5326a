//! Frames that were set aside, in a SQLite store.

use sqlx::{Sqlite, query::QueryAs, sqlite::SqliteArguments};

use super::{position, queue_id, timestamp};
use crate::{
    Clock, Partition, SystemClock,
    sqlite::{Failure, Transaction, signed},
    store::{
        Decision, QuarantineKey, QuarantineRow, QuarantineState, QuarantineTotal, QuarantinedFrame,
        ReplayOutcome, Replayed, StoreError,
    },
};

/// partition, queue, position, poll, votes, reason, awaits_poll, frame, state, set_aside_at
type Row = (u16, Vec<u8>, Vec<u8>, String, u64, String, bool, Vec<u8>, String, i64);

async fn rows(
    tx: &mut Transaction<'_>,
    query: QueryAs<'_, Sqlite, Row, SqliteArguments>,
) -> Result<Vec<QuarantineRow>, Failure> {
    let rows = tx.all(query).await?;
    let row = |(partition, queue, at, poll, votes, reason, awaits_poll, frame, state, set_aside_at): Row| {
        let known = QuarantineState::ALL.into_iter().find(|known| known.as_str() == state);
        Ok(QuarantineRow {
            partition: Partition(partition),
            frame: QuarantinedFrame {
                queue: queue_id(tx, queue)?,
                position: position(tx, &at)?,
                poll,
                votes,
                reason,
                awaits_poll,
                frame: frame.into(),
            },
            state: known.ok_or_else(|| tx.damaged(format!("the state {state:?} of a frame set aside")))?,
            set_aside_at: timestamp(tx, set_aside_at)?,
        })
    };
    rows.into_iter().map(row).collect()
}

/// Up to so many frames, by key, those after one.
pub(super) async fn page(
    tx: &mut Transaction<'_>,
    after: Option<QuarantineKey>,
    limit: usize,
) -> Result<Vec<QuarantineRow>, Failure> {
    let query = sqlx::query_as(
        "SELECT partition, queue, position, poll, votes, reason, awaits_poll, frame, state, set_aside_at
         FROM quarantine WHERE (queue, partition, position) > (?1, ?2, ?3)
         ORDER BY queue, partition, position LIMIT ?4",
    )
    // No bytes are before every id.
    .bind(after.as_ref().map_or(&[][..], |key| &key.queue.0))
    .bind(after.as_ref().map_or(0, |key| key.partition.0))
    .bind(after.as_ref().map_or(&[][..], |key| key.position.as_bytes()))
    .bind(signed(limit as u64));
    rows(tx, query).await
}

/// Frames of a partition that are to be tried again.
pub(super) async fn replays(
    tx: &mut Transaction<'_>,
    partition: Partition,
    limit: usize,
) -> Result<Vec<QuarantinedFrame>, Failure> {
    // The first condition is word for word that of the index, which SQLite would not use otherwise.
    let query = sqlx::query_as(
        "SELECT partition, queue, position, poll, votes, reason, awaits_poll, frame, state, set_aside_at
         FROM quarantine
         WHERE partition = ?1 AND (state = 'replay' OR (state = 'held' AND awaits_poll))
           AND (state = 'replay' OR EXISTS (
               SELECT 1 FROM polls WHERE slug = quarantine.poll AND final_at IS NULL))
         ORDER BY queue, position LIMIT ?2",
    );
    let found = rows(tx, query.bind(partition.0).bind(signed(limit as u64))).await?;
    Ok(found.into_iter().map(|row| row.frame).collect())
}

/// Of how many frames that was still open.
pub(super) async fn decide(
    tx: &mut Transaction<'_>,
    frames: &[QuarantineKey],
    decision: &Decision,
) -> Result<u64, Failure> {
    let mut decided = 0;
    for key in frames {
        let (update, reason) = match decision {
            Decision::Replay => (
                "UPDATE quarantine SET state = 'replay'
                 WHERE partition = ?1 AND queue = ?2 AND position = ?3 AND state IN ('held', 'replay')",
                None,
            ),
            Decision::Reject(reason) => (
                "UPDATE quarantine SET state = 'rejected', reason = reason || ?4
                 WHERE partition = ?1 AND queue = ?2 AND position = ?3 AND state IN ('held', 'replay')",
                Some(format!("{}{reason}", QuarantinedFrame::REJECTED)),
            ),
        };
        let mut update =
            sqlx::query(update).bind(key.partition.0).bind(&key.queue.0[..]).bind(key.position.as_bytes());
        if let Some(reason) = reason {
            update = update.bind(reason);
        }
        decided += tx.run(update).await?.rows_affected();
    }
    Ok(decided)
}

/// What is set aside, frames that were counted since left out.
pub(super) async fn totals(
    tx: &mut Transaction<'_>,
    of: Option<Partition>,
) -> Result<Vec<QuarantineTotal>, Failure> {
    let query = sqlx::query_as(
        "SELECT queue, partition, poll, sum(votes), count(*) FILTER (WHERE state IN ('held', 'replay'))
         FROM quarantine WHERE state <> 'counted' AND (?1 IS NULL OR partition = ?1)
         GROUP BY queue, partition, poll",
    );
    let rows: Vec<(Vec<u8>, u16, String, u64, u64)> = tx.all(query.bind(of.map(|of| of.0))).await?;
    rows.into_iter()
        .map(|(queue, partition, poll, votes, pending)| {
            let queue = queue_id(tx, queue)?;
            Ok(QuarantineTotal { queue, partition: Partition(partition), poll, votes, pending })
        })
        .collect()
}

/// Sets a frame aside. After an error the transaction must be dropped.
pub(super) async fn set_aside(
    tx: &mut Transaction<'_>,
    partition: Partition,
    frame: &QuarantinedFrame,
) -> Result<(), StoreError> {
    let insert = sqlx::query(
        "INSERT INTO quarantine
             (partition, queue, position, poll, votes, reason, awaits_poll, frame, state, set_aside_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 'held', ?9)",
    )
    .bind(partition.0)
    .bind(&frame.queue.0[..])
    .bind(frame.position.as_bytes())
    .bind(&frame.poll)
    .bind(signed(frame.votes))
    .bind(&frame.reason)
    .bind(frame.awaits_poll)
    .bind(&frame.frame[..])
    .bind(SystemClock.now().as_micros());
    match tx.run(insert).await {
        Ok(_) => Ok(()),
        Err(e) if e.is_duplicate() => Err(StoreError::Conflict(format!(
            "the frame at {} of queue {} was set aside before",
            frame.position, frame.queue
        ))),
        Err(e) => Err(e.into()),
    }
}

/// Notes what became of a frame that was tried again. After an error the transaction must be dropped.
pub(super) async fn replayed(
    tx: &mut Transaction<'_>,
    partition: Partition,
    replayed: &Replayed,
) -> Result<(), StoreError> {
    let (update, held) = match &replayed.outcome {
        ReplayOutcome::Counted => (
            "UPDATE quarantine SET state = 'counted'
             WHERE partition = ?1 AND queue = ?2 AND position = ?3 AND state IN ('held', 'replay')",
            None,
        ),
        ReplayOutcome::Held { reason, awaits_poll } => (
            "UPDATE quarantine SET state = 'held', reason = ?4, awaits_poll = ?5
             WHERE partition = ?1 AND queue = ?2 AND position = ?3 AND state IN ('held', 'replay')",
            Some((reason, *awaits_poll)),
        ),
    };
    let mut update =
        sqlx::query(update).bind(partition.0).bind(&replayed.queue.0[..]).bind(replayed.position.as_bytes());
    if let Some((reason, awaits_poll)) = held {
        update = update.bind(reason).bind(awaits_poll);
    }
    // Somebody may have rejected it since the lane asked for it, or it was counted already.
    if tx.run(update).await?.rows_affected() != 1 {
        return Err(StoreError::Conflict(format!(
            "the frame at {} of queue {} is not set aside, or was decided about",
            replayed.position, replayed.queue
        )));
    }
    Ok(())
}
