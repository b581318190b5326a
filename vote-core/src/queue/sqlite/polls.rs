//! Rows that hold what a queue knows of polls.

use super::log::CurrentQueue;
use crate::{
    PollDigest, PollSlug, Timestamp,
    queue::{PollRecord, PollState, PollStates, polls::DroppedPoll},
    sqlite::{Failure, Transaction},
};

fn digest(tx: &Transaction<'_>, bytes: Vec<u8>) -> Result<PollDigest, Failure> {
    bytes.try_into().map(PollDigest).map_err(|_| tx.damaged("the digest of a poll"))
}

fn timestamp(tx: &Transaction<'_>, micros: Option<i64>) -> Result<Option<Timestamp>, Failure> {
    micros.map(Timestamp::from_micros).transpose().map_err(|e| tx.damaged(e))
}

impl CurrentQueue {
    /// Returns the states of all polls that the queue knows.
    pub(super) async fn polls(&self, tx: &mut Transaction<'_>) -> Result<PollStates, Failure> {
        let query = sqlx::query_as("SELECT poll, digest, closes_at, sealed FROM polls WHERE queue = ?1");
        type Row = (String, Option<Vec<u8>>, Option<i64>, bool);
        let rows: Vec<Row> = tx.all(query.bind(self.number)).await?;
        let mut polls = PollStates::new();
        for (poll, digest, closes_at, sealed) in rows {
            let state = match digest {
                _ if sealed => PollState::Sealed,
                None => return Err(tx.damaged("the digest of a poll")),
                Some(digest) => PollState::Recorded {
                    digest: self::digest(tx, digest)?,
                    closes_at: timestamp(tx, closes_at)?,
                },
            };
            polls.insert(poll.parse().map_err(|e| tx.damaged(e))?, state);
        }
        Ok(polls)
    }

    /// Records polls; returns those that the queue holds with another digest, or whose digest it dropped last for a
    /// withdrawal that the record does not show as undone.
    pub(super) async fn record(
        &self,
        tx: &mut Transaction<'_>,
        records: &[PollRecord],
    ) -> Result<Vec<PollSlug>, Failure> {
        let mut polls = self.polls(tx).await?;
        let mut others = Vec::new();
        for record in records {
            if !polls.contains_key(&record.poll)
                && self.dropped(tx, record.poll).await?.is_some_and(|dropped| dropped.refuses(record))
            {
                others.push(record.poll);
                continue;
            }
            let Some(state) = PollState::record(polls.get(&record.poll).copied(), record) else {
                others.push(record.poll);
                continue;
            };
            if polls.insert(record.poll, state) == Some(state) {
                continue;
            }
            let upsert = sqlx::query(
                "INSERT INTO polls (queue, poll, digest, closes_at) VALUES (?1, ?2, ?3, ?4)
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

    /// Drops a definition of a poll, unless the queue has votes for it or the poll is sealed; returns whether the
    /// queue accepts no votes for it now.
    pub(super) async fn drop_poll(
        &self,
        tx: &mut Transaction<'_>,
        poll: PollSlug,
        digest: PollDigest,
        withdrawn_at: Timestamp,
    ) -> Result<bool, Failure> {
        let query = sqlx::query_as("SELECT count(*) FROM accepted WHERE queue = ?1 AND poll = ?2");
        let with_votes: Option<(i64,)> = tx.one(query.bind(self.number).bind(poll.as_str())).await?;
        match self.polls(tx).await?.get(&poll) {
            Some(PollState::Sealed) => return Ok(false),
            Some(PollState::Recorded { digest: found, .. }) if *found != digest => return Ok(true),
            _ if with_votes.is_some_and(|(n,)| n > 0) => return Ok(false),
            _ => {}
        }
        let delete = sqlx::query("DELETE FROM polls WHERE queue = ?1 AND poll = ?2");
        tx.run(delete.bind(self.number).bind(poll.as_str())).await?;
        let dropped = DroppedPoll { digest, withdrawn_at: Some(withdrawn_at) };
        let dropped = dropped.after(self.dropped(tx, poll).await?);
        let upsert = sqlx::query(
            "INSERT INTO dropped_polls (queue, poll, digest, withdrawn_at) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO UPDATE SET digest = excluded.digest, withdrawn_at = excluded.withdrawn_at",
        )
        .bind(self.number)
        .bind(poll.as_str())
        .bind(&dropped.digest.0[..])
        .bind(dropped.withdrawn_at.map(Timestamp::as_micros));
        tx.run(upsert).await?;
        Ok(true)
    }

    /// Returns the definition of a poll that the queue dropped last.
    async fn dropped(
        &self,
        tx: &mut Transaction<'_>,
        poll: PollSlug,
    ) -> Result<Option<DroppedPoll>, Failure> {
        let query =
            sqlx::query_as("SELECT digest, withdrawn_at FROM dropped_polls WHERE queue = ?1 AND poll = ?2");
        let found: Option<(Vec<u8>, Option<i64>)> =
            tx.one(query.bind(self.number).bind(poll.as_str())).await?;
        let Some((digest, withdrawn_at)) = found else { return Ok(None) };
        Ok(Some(DroppedPoll {
            digest: self::digest(tx, digest)?,
            withdrawn_at: timestamp(tx, withdrawn_at)?,
        }))
    }

    /// Seals a poll.
    pub(super) async fn seal(&self, tx: &mut Transaction<'_>, poll: PollSlug) -> Result<(), Failure> {
        let upsert = sqlx::query(
            "INSERT INTO polls (queue, poll, sealed) VALUES (?1, ?2, 1) ON CONFLICT DO UPDATE SET sealed = 1",
        );
        tx.run(upsert.bind(self.number).bind(poll.as_str())).await?;
        Ok(())
    }
}
