//! Polls in Postgres: registered, rescheduled, closed, final.

use std::{collections::BTreeSet, time::Duration};

use sqlx::{Row, postgres::PgRow};

use super::{Moment, PostgresStore, Uuid, damaged, rows};
use crate::{
    Poll, PollSlug, QueueId, StoreReader, Timestamp,
    count::{RegisteredPoll, Reschedule, Withdrawal},
    store::{MAX_CLOCK_DIFFERENCE, StoreError, is_closed, withdrawal},
};

/// Query of all polls with their options, in the order of registration.
pub(super) const ALL: &str = "SELECT p.slug, p.keep, p.voters, p.results, p.closes_at, p.closed_at, p.final_at,
         p.withdrawn_at, p.withdrawn_reason, p.undone_withdrawal,
         (SELECT array_agg(o.slug ORDER BY o.option) FROM options o WHERE o.poll = p.poll) AS options,
         (SELECT coalesce(json_agg(json_build_object('at', at, 'from', \"from\", 'to', \"to\", 'reason', reason)
              ORDER BY reschedule), '[]')::text
          FROM (SELECT reschedule, poll, (extract(epoch FROM at) * 1000000)::bigint AS at,
                       (extract(epoch FROM \"from\") * 1000000)::bigint AS \"from\",
                       (extract(epoch FROM \"to\") * 1000000)::bigint AS \"to\", reason FROM reschedules) r
          WHERE r.poll = p.poll) AS reschedules
     FROM polls p ORDER BY p.poll";

/// Reads a row of [`ALL`]: the name it has in the table, and the poll.
pub(super) fn registered(row: &PgRow) -> Result<(String, RegisteredPoll), StoreError> {
    let text = |column| row.try_get::<String, _>(column).map_err(|_| damaged("poll"));
    let options: Vec<String> = row.try_get("options").map_err(|_| damaged("poll"))?;
    let moment = |column| row.try_get::<Option<Moment>, _>(column).map_err(|_| damaged("poll"));
    let name = text("slug")?;
    let withdrawal = match moment("withdrawn_at")? {
        Some(at) => Some(Withdrawal { at: at.0, reason: text("withdrawn_reason")? }),
        None => None,
    };
    let poll = RegisteredPoll {
        slug: withdrawal::slug(&name).map_err(|_| damaged("poll"))?,
        options: options
            .iter()
            .map(|slug| slug.parse())
            .collect::<Result<_, _>>()
            .map_err(|_| damaged("poll"))?,
        keep: text("keep")?.parse().map_err(|_| damaged("poll"))?,
        voters: text("voters")?.parse().map_err(|_| damaged("poll"))?,
        results: text("results")?.parse().map_err(|_| damaged("poll"))?,
        closes_at: moment("closes_at")?.map(|at| at.0),
        reschedules: serde_json::from_str::<Vec<Reschedule>>(&text("reschedules")?)
            .map_err(|_| damaged("poll"))?,
        closed_at: moment("closed_at")?.map(|at| at.0),
        final_at: moment("final_at")?.map(|at| at.0),
        withdrawal,
        undone_withdrawal: moment("undone_withdrawal")?.map(|at| at.0),
        earlier: Vec::new(),
    };
    Ok((name, poll))
}

impl PostgresStore {
    pub(super) async fn find(&self, poll: PollSlug) -> Result<Option<RegisteredPoll>, StoreError> {
        Ok(self.polls().await?.into_iter().find(|registered| registered.slug == poll))
    }

    pub(super) async fn register(&self, poll: &Poll) -> Result<RegisteredPoll, StoreError> {
        if self.find(poll.slug).await?.is_some_and(|found| found.makes_way_for(poll)) {
            // Two statements, since one can't move a name from a row to another. Between them the store has no such
            // poll; if this call ends there, the next registration adds it.
            self.make_way(poll.slug).await?;
        }
        let options: Vec<&str> = poll.options.iter().map(|option| option.slug.as_str()).collect();
        // Inserted only if it is missing: every attempt to insert uses up a number, and the numbers end at 32,767.
        self.execute(
            sqlx::query(
                "WITH poll AS (
                     INSERT INTO polls (slug, keep, voters, closes_at, results)
                     SELECT $1, $2, $3, $4, $6 WHERE NOT EXISTS (SELECT FROM polls WHERE slug = $1)
                       -- A withdrawn definition is not registered again, not even between the two statements.
                       AND NOT EXISTS (
                           SELECT FROM polls e WHERE slug LIKE $1 || '#%' AND keep = $2 AND voters = $3
                             AND (SELECT array_agg(o.slug ORDER BY o.slug) FROM options o WHERE o.poll = e.poll)
                               = (SELECT array_agg(n ORDER BY n) FROM unnest($5::text[]) n))
                     ON CONFLICT DO NOTHING RETURNING poll
                 )
                 INSERT INTO options SELECT poll.poll, o.n - 1, o.slug
                 FROM poll, unnest($5::text[]) WITH ORDINALITY AS o (slug, n)",
            )
            .bind(poll.slug.as_str())
            .bind(poll.keep.as_str())
            .bind(poll.voters.as_str())
            .bind(poll.closes_at.map(Moment))
            .bind(options)
            .bind(poll.results.as_str()),
        )
        .await?;
        self.find(poll.slug).await?.ok_or_else(|| withdrawal::not_again(poll.slug))
    }

    pub(super) async fn close(&self, poll: PollSlug) -> Result<Option<RegisteredPoll>, StoreError> {
        let update = "UPDATE polls SET closed_at = clock_timestamp() WHERE slug = $1 AND closed_at IS NULL
             AND withdrawn_at IS NULL";
        self.execute(sqlx::query(update).bind(poll.as_str())).await?;
        self.find(poll).await
    }

    pub(super) async fn close_due(
        &self,
        grace: Duration,
        now: Timestamp,
    ) -> Result<Vec<PollSlug>, StoreError> {
        let query = sqlx::query(
            "UPDATE polls SET closed_at = clock_timestamp()
             WHERE closed_at IS NULL AND withdrawn_at IS NULL
               AND closes_at + $1 * interval '1 microsecond' <= clock_timestamp()
               AND abs(extract(epoch FROM clock_timestamp() - $2)) <= $3
             RETURNING slug",
        )
        .bind(i64::try_from(grace.as_micros()).unwrap_or(i64::MAX) as f64)
        .bind(Moment(now))
        .bind(MAX_CLOCK_DIFFERENCE.as_secs_f64());
        self.rows(query).await?.iter().map(|row| rows::slug(row, "slug")).collect()
    }

    pub(super) async fn reschedule(
        &self,
        poll: PollSlug,
        closes_at: Option<Timestamp>,
        reason: &str,
    ) -> Result<Option<RegisteredPoll>, StoreError> {
        // One statement that locks the row when it reads the old time, so that every change is in the record.
        let query = sqlx::query(
            "WITH old AS (SELECT poll, closes_at FROM polls WHERE slug = $1 AND closed_at IS NULL FOR UPDATE),
                  moved AS (UPDATE polls p SET closes_at = $2 FROM old WHERE p.poll = old.poll)
             INSERT INTO reschedules (poll, at, \"from\", \"to\", reason)
             SELECT poll, clock_timestamp(), closes_at, $2, $3 FROM old",
        )
        .bind(poll.as_str())
        .bind(closes_at.map(Moment))
        .bind(reason);
        let moved = self.execute(query).await?;
        match self.find(poll).await? {
            Some(found) if moved == 0 => Err(is_closed(found.slug)),
            found => Ok(found),
        }
    }

    pub(super) async fn finish(&self, poll: PollSlug) -> Result<bool, StoreError> {
        // The lock makes a queue that is recorded at the same time wait: it is recorded either after the poll is final,
        // or before, and then it has raised the revision.
        let query = sqlx::query(
            "WITH m AS (SELECT revision FROM meta FOR UPDATE)
             UPDATE polls p SET final_at = clock_timestamp() FROM m
             WHERE slug = $1 AND closed_at IS NOT NULL AND final_at IS NULL
               AND (SELECT count(*) FROM completions c WHERE c.poll = p.poll AND c.revision = m.revision)
                 = (SELECT count(*) FROM partitions)",
        );
        self.execute(query.bind(poll.as_str())).await?;
        let is_final = sqlx::query("SELECT FROM polls WHERE slug = $1 AND final_at IS NOT NULL");
        Ok(!self.rows(is_final.bind(poll.as_str())).await?.is_empty())
    }

    /// Returns each queue with a recorded seal of a poll that is closed and not final, and that poll.
    pub(super) async fn sealed(&self) -> Result<BTreeSet<(QueueId, PollSlug)>, StoreError> {
        let query = sqlx::query(
            // Each seal has a row for each partition, one of which is enough.
            "SELECT s.queue, s.poll FROM seals s JOIN polls p ON p.slug = s.poll
             WHERE s.partition = 0 AND p.closed_at IS NOT NULL AND p.final_at IS NULL",
        );
        self.rows(query).await?.iter().map(queue_and_poll).collect()
    }
}

pub(super) fn queue_and_poll(row: &PgRow) -> Result<(QueueId, PollSlug), StoreError> {
    Ok((QueueId(row.get::<Uuid, _>("queue").0), rows::slug(row, "poll")?))
}
