//! Rows of the table `quarantine`.

use sqlx::{
    Postgres, Row,
    postgres::{PgArguments, PgRow},
    query::Query,
};

use super::{Moment, PostgresStore, Uuid, damaged, position, rows};
use crate::{
    QueueId,
    count::{
        Decision, QuarantineKey, QuarantineRow, QuarantineState, QuarantinedFrame, QuarantinedVotes,
        ReasonCode, StoredReason,
    },
    store::StoreError,
};

/// Query of up to `limit` rows in the order of their keys: those after a key, or the first ones.
pub(super) fn page(after: Option<QuarantineKey>, limit: usize) -> Query<'static, Postgres, PgArguments> {
    sqlx::query(
        "SELECT * FROM quarantine
         WHERE $1::uuid IS NULL OR (queue, partition, position) > ($1, $2, $3)
         ORDER BY queue, partition, position LIMIT $4",
    )
    .bind(after.map(|key| Uuid(key.queue.0)))
    .bind(after.map(|key| key.partition.0 as i16))
    .bind(after.map(|key| key.position.as_bytes().to_vec()))
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
}

/// Query of the frames of a partition whose quarantined votes are to be replayed.
pub(super) const REPLAYS: &str = "SELECT * FROM quarantine q
     WHERE partition = $1 AND state IN ('quarantined', 'replay')
       AND (state = 'replay' OR awaits_poll
            AND EXISTS (SELECT FROM polls p WHERE p.slug = q.poll AND p.final_at IS NULL))
     ORDER BY queue, position LIMIT $2";

impl PostgresStore {
    pub(super) async fn record_decision(
        &self,
        frames: &[QuarantineKey],
        decision: &Decision,
    ) -> Result<u64, StoreError> {
        let (state, rejection) = match decision {
            Decision::Replay => (QuarantineState::Replay, None),
            Decision::Reject(reason) => (QuarantineState::Rejected, Some(reason)),
        };
        self.execute(
            sqlx::query(
                "UPDATE quarantine q SET state = $4, rejection = $5
                 FROM unnest($1::uuid[], $2::smallint[], $3::bytea[]) AS k (queue, partition, position)
                 WHERE q.queue = k.queue AND q.partition = k.partition AND q.position = k.position
                   AND q.state IN ('quarantined', 'replay')",
            )
            .bind(frames.iter().map(|key| Uuid(key.queue.0)).collect::<Vec<_>>())
            .bind(frames.iter().map(|key| key.partition.0 as i16).collect::<Vec<_>>())
            .bind(frames.iter().map(|key| key.position.as_bytes().to_vec()).collect::<Vec<_>>())
            .bind(state.as_str())
            .bind(rejection),
        )
        .await
    }
}

/// Returns the value of the column `indices`, in Postgres' notation of arrays: an array of arrays of different lengths
/// can't be sent.
pub(super) fn indices(votes: &QuarantinedVotes) -> Option<String> {
    let indices: Vec<String> = votes.indices()?.iter().map(u32::to_string).collect();
    Some(format!("{{{}}}", indices.join(",")))
}

fn votes(row: &PgRow) -> Result<QuarantinedVotes, StoreError> {
    let Some(indices) = row.get::<Option<Vec<i32>>, _>("indices") else { return Ok(QuarantinedVotes::All) };
    let indices: Result<_, _> = indices.into_iter().map(u32::try_from).collect();
    indices.map(QuarantinedVotes::At).map_err(|_| damaged("index in quarantine"))
}

/// Reads the frame of a row. Rows written by versions that could only quarantine whole frames have no `accounted`.
pub(super) fn frame(row: &PgRow) -> Result<QuarantinedFrame, StoreError> {
    let accounted = match row.get::<Option<i64>, _>("accounted") {
        Some(_) => rows::count(row, "accounted")?,
        None => rows::count(row, "votes")?,
    };
    Ok(QuarantinedFrame {
        queue: QueueId(row.get::<Uuid, _>("queue").0),
        position: position(row.get("position"))?,
        poll: row.get("poll"),
        accounted,
        quarantined: votes(row)?,
        reason: StoredReason {
            code: ReasonCode::from_stored(row.get("reason_code")),
            text: row.get("reason"),
        },
        frame: row.get::<Vec<u8>, _>("frame").into(),
    })
}

pub(super) fn row(row: &PgRow) -> Result<QuarantineRow, StoreError> {
    let state: &str = row.get("state");
    Ok(QuarantineRow {
        partition: rows::partition(row),
        frame: frame(row)?,
        state: QuarantineState::ALL
            .into_iter()
            .find(|known| known.as_str() == state)
            .ok_or_else(|| damaged("state in quarantine"))?,
        rejection: row.get("rejection"),
        quarantined_at: row.try_get::<Moment, _>("quarantined_at").map_err(|_| damaged("time"))?.0,
    })
}

/// Query of the totals of quarantined votes, without those that were counted since.
pub(super) const TOTALS: &str = "SELECT queue, partition, poll, sum(votes)::bigint AS votes,
         count(*) FILTER (WHERE state IN ('quarantined', 'replay')) AS pending
     FROM quarantine WHERE state <> 'counted' GROUP BY queue, partition, poll";
