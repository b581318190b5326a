//! Quarantined votes in a SQLite store.

use sqlx::{Sqlite, query::QueryAs, sqlite::SqliteArguments};

use super::{
    accounts::{Scope, scoped},
    json::json,
    position, queue_id, timestamp,
};
use crate::{
    Clock, Partition, SystemClock,
    count::{
        Decision, QuarantineKey, QuarantineRow, QuarantineState, QuarantineTotal, QuarantinedFrame,
        QuarantinedVotes, ReasonCode, ReplayOutcome, Replayed, StoredReason,
    },
    sqlite::{Failure, Transaction, signed},
    store::StoreError,
};

/// partition, queue, position, poll, accounted, indices, reason_code, reason, rejection, frame, state, quarantined_at
type Row = (
    u16,
    Vec<u8>,
    Vec<u8>,
    String,
    u64,
    Option<String>,
    String,
    String,
    Option<String>,
    Vec<u8>,
    String,
    i64,
);

/// A query of rows of the quarantine.
macro_rules! select {
    ($which:literal) => {
        sqlx::query_as(concat!(
            "SELECT partition, queue, position, poll, accounted,
                 iif(indices IS NULL, NULL, (SELECT coalesce(group_concat(value), '') FROM json_each(indices))),
                 reason_code, reason, rejection, frame, state, quarantined_at
             FROM quarantine ",
            $which
        ))
    };
}

async fn rows(
    tx: &mut Transaction<'_>,
    query: QueryAs<'_, Sqlite, Row, SqliteArguments>,
) -> Result<Vec<QuarantineRow>, Failure> {
    let rows = tx.all(query).await?;
    rows.into_iter().map(|row| quarantined(tx, row)).collect()
}

fn quarantined(tx: &Transaction<'_>, row: Row) -> Result<QuarantineRow, Failure> {
    let (partition, queue, at, poll, accounted, indices, code, text, rejection, frame, state, quarantined_at) =
        row;
    let known = QuarantineState::ALL.into_iter().find(|known| known.as_str() == state);
    let listed = |list: String| list.split(',').map(str::parse).collect::<Result<Vec<u32>, _>>();
    let indices =
        indices.map(listed).transpose().map_err(|e| tx.damaged(format!("an index in a frame: {e}")))?;
    Ok(QuarantineRow {
        partition: Partition(partition),
        frame: QuarantinedFrame {
            queue: queue_id(tx, queue)?,
            position: position(tx, &at)?,
            poll,
            accounted,
            quarantined: indices.map_or(QuarantinedVotes::All, QuarantinedVotes::At),
            reason: StoredReason { code: ReasonCode::from_stored(&code), text },
            frame: frame.into(),
        },
        state: known.ok_or_else(|| tx.damaged(format!("the state {state:?} of a quarantined frame")))?,
        rejection,
        quarantined_at: timestamp(tx, quarantined_at)?,
    })
}

/// Returns the value of the column `indices`.
fn indices(votes: &QuarantinedVotes) -> Option<String> {
    votes.indices().map(|indices| json(indices, u32::to_string))
}

/// Returns up to `limit` frames in the order of their keys: those after a key, or the first ones.
pub(super) async fn page(
    tx: &mut Transaction<'_>,
    after: Option<QuarantineKey>,
    limit: usize,
) -> Result<Vec<QuarantineRow>, Failure> {
    let query = select!(
        "WHERE (queue, partition, position) > (?1, ?2, ?3)
         ORDER BY queue, partition, position LIMIT ?4"
    )
    // The empty value sorts before every identity.
    .bind(after.as_ref().map_or(&[][..], |key| &key.queue.0))
    .bind(after.as_ref().map_or(0, |key| key.partition.0))
    .bind(after.as_ref().map_or(&[][..], |key| key.position.as_bytes()))
    .bind(signed(limit as u64));
    rows(tx, query).await
}

/// Returns the frame with this key, unless all of its votes are counted.
pub(super) async fn one(
    tx: &mut Transaction<'_>,
    key: QuarantineKey,
) -> Result<Option<QuarantineRow>, Failure> {
    let query = select!("WHERE queue = ?1 AND partition = ?2 AND position = ?3 AND state <> 'counted'")
        .bind(&key.queue.0[..])
        .bind(key.partition.0)
        .bind(key.position.as_bytes());
    Ok(rows(tx, query).await?.pop())
}

/// Returns frames of a partition whose quarantined votes are to be replayed.
pub(super) async fn replays(
    tx: &mut Transaction<'_>,
    partition: Partition,
    limit: usize,
) -> Result<Vec<QuarantinedFrame>, Failure> {
    // The first condition is, word for word, that of the index; SQLite would not use the index otherwise.
    let query = select!(
        "WHERE partition = ?1 AND (state = 'replay' OR (state = 'quarantined' AND awaits_poll))
           AND (state = 'replay' OR EXISTS (
               SELECT 1 FROM polls WHERE slug = quarantine.poll AND final_at IS NULL))
         ORDER BY queue, position LIMIT ?2"
    );
    let found = rows(tx, query.bind(partition.0).bind(signed(limit as u64))).await?;
    Ok(found.into_iter().map(|row| row.frame).collect())
}

/// Records a decision about frames; returns the number of frames that were pending.
pub(super) async fn decide(
    tx: &mut Transaction<'_>,
    frames: &[QuarantineKey],
    decision: &Decision,
) -> Result<u64, Failure> {
    let mut decided = 0;
    for key in frames {
        let (update, rejection) = match decision {
            Decision::Replay => (
                "UPDATE quarantine SET state = 'replay'
                 WHERE partition = ?1 AND queue = ?2 AND position = ?3 AND state IN ('quarantined', 'replay')",
                None,
            ),
            Decision::Reject(reason) => (
                "UPDATE quarantine SET state = 'rejected', rejection = ?4
                 WHERE partition = ?1 AND queue = ?2 AND position = ?3 AND state IN ('quarantined', 'replay')",
                Some(reason),
            ),
        };
        let mut update =
            sqlx::query(update).bind(key.partition.0).bind(&key.queue.0[..]).bind(key.position.as_bytes());
        if let Some(rejection) = rejection {
            update = update.bind(rejection);
        }
        decided += tx.run(update).await?.rows_affected();
    }
    Ok(decided)
}

/// Returns the totals of quarantined votes, without those that were counted since.
pub(super) async fn totals(tx: &mut Transaction<'_>, of: Scope) -> Result<Vec<QuarantineTotal>, Failure> {
    let sql = "SELECT queue, partition, poll, sum(votes), count(*) FILTER (WHERE state IN ('quarantined', 'replay'))
         FROM quarantine WHERE state <> 'counted' AND partition {partition} AND poll {poll}
         GROUP BY queue, partition, poll";
    let rows: Vec<(Vec<u8>, u16, String, u64, u64)> = tx.all(scoped(sql, of)).await?;
    rows.into_iter()
        .map(|(queue, partition, poll, votes, pending)| {
            let queue = queue_id(tx, queue)?;
            Ok(QuarantineTotal { queue, partition: Partition(partition), poll, votes, pending })
        })
        .collect()
}

/// Quarantines votes of a frame. After an error, drop the transaction.
pub(super) async fn insert(
    tx: &mut Transaction<'_>,
    partition: Partition,
    frame: &QuarantinedFrame,
) -> Result<(), StoreError> {
    let insert = sqlx::query(
        "INSERT INTO quarantine
             (partition, queue, position, poll, votes, indices, accounted, reason_code, reason, awaits_poll,
              frame, state, quarantined_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, 'quarantined', ?12)",
    )
    .bind(partition.0)
    .bind(&frame.queue.0[..])
    .bind(frame.position.as_bytes())
    .bind(&frame.poll)
    .bind(signed(frame.votes()))
    .bind(indices(&frame.quarantined))
    .bind(signed(frame.accounted))
    .bind(frame.reason.code.as_str())
    .bind(&frame.reason.text)
    .bind(frame.reason.awaits_poll())
    .bind(&frame.frame[..])
    .bind(SystemClock.now().as_micros());
    match tx.run(insert).await {
        Ok(_) => Ok(()),
        Err(e) if e.is_duplicate() => Err(StoreError::Conflict(format!(
            "votes of the frame at {} of queue {} are quarantined already",
            frame.position, frame.queue
        ))),
        Err(e) => Err(e.into()),
    }
}

/// Records what became of votes that were replayed. After an error, drop the transaction.
pub(super) async fn replayed(
    tx: &mut Transaction<'_>,
    partition: Partition,
    replayed: &Replayed,
) -> Result<(), StoreError> {
    let (state, votes, kept) = match &replayed.outcome {
        ReplayOutcome::Counted => (QuarantineState::Counted, &replayed.tried, None),
        ReplayOutcome::Quarantined { votes, reason } => (QuarantineState::Quarantined, votes, Some(reason)),
    };
    let update = sqlx::query(
        "UPDATE quarantine SET state = ?5, indices = ?6, votes = coalesce(json_array_length(?6), accounted),
             reason = coalesce(?7, reason), awaits_poll = ?8, reason_code = coalesce(?9, reason_code)
         WHERE partition = ?1 AND queue = ?2 AND position = ?3 AND state IN ('quarantined', 'replay') AND indices IS ?4",
    )
    .bind(partition.0)
    .bind(&replayed.queue.0[..])
    .bind(replayed.position.as_bytes())
    .bind(indices(&replayed.tried))
    .bind(state.as_str())
    .bind(indices(votes))
    .bind(kept.map(|reason| reason.text.as_str()))
    .bind(kept.is_some_and(StoredReason::awaits_poll))
    .bind(kept.map(|reason| reason.code.as_str()));
    // Since the session read the frame, an operator may have rejected its votes, or some of them may have been counted.
    if tx.run(update).await?.rows_affected() != 1 {
        return Err(StoreError::Conflict(format!(
            "the quarantined votes of the frame at {} of queue {} are not those that were replayed, or an operator has \
             decided about them",
            replayed.position, replayed.queue
        )));
    }
    Ok(())
}
