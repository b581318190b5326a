//! The catalog: what workers act on. It is read again only if its version has changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use sqlx::Row;

use super::{Moment, PostgresStore, Uuid, damaged, queues};
use crate::{
    QueueId, StoreReader,
    count::FUTURE,
    store::{Catalog, LATE_AFTER, StoreError},
};

/// What changes without a new version: time, version and revision, and the late queues with the times when they were
/// last seen. A queue that was seen in the future was seen before the clock was set back.
const HEAD: &str = "WITH late AS (
         SELECT queue, seen_at FROM queues
         WHERE state = 'active' AND original_id IS NULL
           AND extract(epoch FROM clock_timestamp() - seen_at) NOT BETWEEN -$2 AND $1)
     SELECT clock_timestamp() AS now, (SELECT revision FROM meta) AS revision, (SELECT catalog FROM meta) AS catalog,
         (SELECT array_agg(queue ORDER BY queue) FROM late) AS late,
         (SELECT array_agg(seen_at ORDER BY queue) FROM late) AS late_seen_at";

const QUEUES: &str = "SELECT queue, original_id, address, server, reporter, state, reason FROM queues";

impl PostgresStore {
    pub(super) async fn read_catalog(&self, known: Option<&Catalog>) -> Result<Catalog, StoreError> {
        // Single statements, in the order that makes their results safe to act on together: see `Catalog`. Version and
        // revision first: what is recorded after them has a later one.
        let head = sqlx::query(HEAD).bind(LATE_AFTER.as_secs_f64()).bind(FUTURE.as_secs_f64());
        let rows = self.rows(head).await?;
        let row = rows.first().ok_or_else(|| damaged("revision"))?;
        let taken_at = row.try_get::<Moment, _>("now").map_err(|_| damaged("time"))?.0;
        let revision: Option<i64> = row.get("revision");
        let version = row.get::<Option<i64>, _>("catalog").unwrap_or_default() as u64;
        let late: Vec<Uuid> = row.get::<Option<_>, _>("late").unwrap_or_default();
        let seen_at: Option<Vec<Moment>> = row.try_get("late_seen_at").map_err(|_| damaged("time"))?;
        let seen_at = seen_at.unwrap_or_default().into_iter().map(|at| at.0);
        let late: BTreeMap<_, _> = late.iter().map(|id| QueueId(id.0)).zip(seen_at).collect();

        let unchanged = known.filter(|known| known.version == version);
        let (queues, polls, dropped) = match unchanged {
            Some(known) => (Arc::clone(&known.queues), Arc::clone(&known.polls), Arc::clone(&known.dropped)),
            None => {
                let rows = self.rows(sqlx::query(QUEUES)).await?;
                let queues: BTreeMap<_, _> =
                    rows.iter().map(queues::catalog_queue).collect::<Result<_, _>>()?;
                let polls = self.polls().await?;
                let any_withdrawn = polls.iter().any(|poll| poll.withdrawal.is_some());
                let dropped = if any_withdrawn { self.dropped().await? } else { BTreeSet::new() };
                (Arc::new(queues), Arc::new(polls), Arc::new(dropped))
            }
        };
        let any_closing = polls.iter().any(|poll| poll.closed_at.is_some() && poll.final_at.is_none());
        Ok(Catalog {
            taken_at,
            version,
            revision: revision.unwrap_or_default() as u64,
            sealed: if any_closing { self.sealed().await? } else { BTreeSet::new() },
            queues,
            polls,
            dropped,
            late,
            workers: self.workers().await?,
        })
    }
}
