//! The rows that say what a box knows of polls.

use super::log::CurrentBox;
use crate::{
    PollDigest, PollSlug, Timestamp,
    queue::{PollRecord, PollState, PollStates},
    sqlite::{Failure, Transaction},
};

impl CurrentBox {
    pub(super) async fn polls(&self, tx: &mut Transaction<'_>) -> Result<PollStates, Failure> {
        let query = sqlx::query_as("SELECT poll, digest, closes_at, sealed FROM polls WHERE box = ?1");
        type Row = (String, Option<Vec<u8>>, Option<i64>, bool);
        let rows: Vec<Row> = tx.all(query.bind(self.number)).await?;
        let mut polls = PollStates::new();
        for (poll, digest, closes_at, sealed) in rows {
            let state = match digest {
                _ if sealed => PollState::Sealed,
                None => return Err(tx.damaged("the digest of a poll")),
                Some(digest) => PollState::Recorded {
                    digest: PollDigest(digest.try_into().map_err(|_| tx.damaged("the digest of a poll"))?),
                    closes_at: closes_at
                        .map(Timestamp::from_micros)
                        .transpose()
                        .map_err(|e| tx.damaged(e))?,
                },
            };
            polls.insert(poll.parse().map_err(|e| tx.damaged(e))?, state);
        }
        Ok(polls)
    }

    /// Records polls; returns those that the box holds with another digest.
    pub(super) async fn record(
        &self,
        tx: &mut Transaction<'_>,
        records: &[PollRecord],
    ) -> Result<Vec<PollSlug>, Failure> {
        let mut polls = self.polls(tx).await?;
        let mut others = Vec::new();
        for record in records {
            let Some(state) = PollState::record(polls.get(&record.poll).copied(), record) else {
                others.push(record.poll);
                continue;
            };
            if polls.insert(record.poll, state) == Some(state) {
                continue;
            }
            let upsert = sqlx::query(
                "INSERT INTO polls (box, poll, digest, closes_at) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT DO UPDATE SET closes_at = excluded.closes_at",
            )
            .bind(self.number)
            .bind(record.poll.as_str())
            .bind(&record.digest.0[..])
            .bind(record.closes_at.map(Timestamp::as_micros));
            tx.run(upsert).await?;
        }
        Ok(others)
    }

    pub(super) async fn seal(&self, tx: &mut Transaction<'_>, poll: PollSlug) -> Result<(), Failure> {
        let upsert = sqlx::query(
            "INSERT INTO polls (box, poll, sealed) VALUES (?1, ?2, 1) ON CONFLICT DO UPDATE SET sealed = 1",
        );
        tx.run(upsert.bind(self.number).bind(poll.as_str())).await?;
        Ok(())
    }
}
