//! Look-ups of effective ballots, which ask the database only for voters that may have one.

use std::collections::hash_map::Entry;

use sqlx::{PgConnection, Row};

use super::{
    Moment, Uuid,
    commit::{Failure, PollNumbers},
    damaged,
    filter::{Filter, Scanned},
    session::PostgresSession,
};
use crate::{Partition, PollSlug, VoterKey, count::Ballot, store::Lookup};

/// Number of voters that one look-up reads into a filter.
const SCAN_STEP: i64 = 100_000;

impl PostgresSession {
    /// Returns the numbers of a poll, which are read once in a session; `None` if the poll is not registered.
    pub(super) async fn numbers(
        &mut self,
        connection: &mut PgConnection,
        poll: PollSlug,
    ) -> Result<Option<PollNumbers>, Failure> {
        if let Some(numbers) = self.polls.get(&poll) {
            return Ok(Some(numbers.clone()));
        }
        let rows = sqlx::query(
            "SELECT poll, o.option, o.slug FROM polls p JOIN options o USING (poll) WHERE p.slug = $1",
        )
        .bind(poll.as_str())
        .fetch_all(connection)
        .await?;
        let Some(first) = rows.first() else { return Ok(None) };
        let mut numbers = PollNumbers { poll: first.get("poll"), options: Vec::with_capacity(rows.len()) };
        for row in &rows {
            let slug = row.get::<&str, _>("slug").parse().map_err(|_| damaged("option"))?;
            numbers.options.push((row.get("option"), slug));
        }
        self.polls.insert(poll, numbers.clone());
        Ok(Some(numbers))
    }

    /// Returns the effective ballots of those voters that have one.
    pub(super) async fn lookup_on(
        &mut self,
        connection: &mut PgConnection,
        partition: Partition,
        poll: PollSlug,
        voters: &[VoterKey],
        lookup: Lookup,
    ) -> Result<Vec<Ballot>, Failure> {
        if voters.is_empty() {
            return Ok(Vec::new());
        }
        let Some(numbers) = self.numbers(connection, poll).await? else { return Ok(Vec::new()) };
        let wanted: Vec<Uuid> = match lookup {
            Lookup::Exhaustive => voters.iter().map(|voter| Uuid(voter.0)).collect(),
            Lookup::Filtered => {
                self.fill_filter(connection, partition, poll, numbers.poll).await?;
                let filter = self.filters.get(&(partition, poll));
                let may_hold = |voter: &&VoterKey| filter.is_none_or(|filter| filter.may_hold(**voter));
                voters.iter().filter(may_hold).map(|voter| Uuid(voter.0)).collect()
            }
        };
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let rows =
            sqlx::query("SELECT voter, option, cast_at FROM votes WHERE poll = $1 AND voter = ANY ($2)")
                .bind(numbers.poll)
                .bind(wanted)
                .fetch_all(connection)
                .await?;
        let ballot = |row: &sqlx::postgres::PgRow| {
            Ok(Ballot {
                voter: VoterKey(row.get::<Uuid, _>("voter").0),
                option: numbers.option(row.get("option"))?,
                cast_at: row.try_get::<Moment, _>("cast_at").map_err(|_| damaged("time"))?.0,
            })
        };
        rows.iter().map(ballot).collect()
    }

    /// Reads the next step of the table into the filter of a partition and poll.
    async fn fill_filter(
        &mut self,
        connection: &mut PgConnection,
        partition: Partition,
        poll: PollSlug,
        number: i16,
    ) -> Result<(), Failure> {
        let filter = match self.filters.entry((partition, poll)) {
            Entry::Occupied(filter) => filter.into_mut(),
            Entry::Vacant(none) => {
                let counted: i64 = sqlx::query_scalar(
                    "SELECT coalesce(sum(n), 0)::bigint FROM tally WHERE poll = $1 AND partition = $2",
                )
                .bind(number)
                .bind(partition.0 as i16)
                .fetch_one(&mut *connection)
                .await?;
                none.insert(Filter::new(usize::try_from(counted).unwrap_or(0)))
            }
        };
        let range = self.partitions.range(partition);
        let (sql, from) = match filter.scanned() {
            Scanned::All => return Ok(()),
            Scanned::Nothing => (
                "SELECT voter FROM votes WHERE poll = $1 AND voter >= $2 AND voter <= $3 ORDER BY voter LIMIT $4",
                *range.start(),
            ),
            Scanned::UpTo(last) => (
                "SELECT voter FROM votes WHERE poll = $1 AND voter > $2 AND voter <= $3 ORDER BY voter LIMIT $4",
                last,
            ),
        };
        let voters: Vec<Uuid> = sqlx::query_scalar(sql)
            .bind(number)
            .bind(Uuid(from.0))
            .bind(Uuid(range.end().0))
            .bind(SCAN_STEP)
            .fetch_all(connection)
            .await?;
        for voter in &voters {
            filter.add(VoterKey(voter.0));
        }
        filter.set_scanned(match voters.last() {
            Some(last) if voters.len() as i64 == SCAN_STEP => Scanned::UpTo(VoterKey(last.0)),
            _ => Scanned::All,
        });
        Ok(())
    }
}
