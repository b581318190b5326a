//! The summary of a store, and its balances: [`Summary::of`] and [`Balances::of`] in SQL, so that only sums leave the
//! server. The transaction that they are read in makes each of them one of one moment.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{PgConnection, Row, postgres::PgRow};

use super::{Moment, Uuid, accounts, commit::Failure, damaged, polls, rows};
use crate::{
    OptionSlug, PollSlug, QueueId, Timestamp,
    count::{Balance, Balances, PollSummary, QueueState, QueueSummary, Summary, Sums, audit::Residual},
    queue::Counters,
    store::{StoreError, withdrawal},
};

const MOMENT: &str = "SELECT now() AS now,
     CASE WHEN pg_is_in_recovery() THEN pg_last_xact_replay_timestamp() END AS replayed_at";

/// The tally of each option. A sum of integers has more digits than an integer, so it is sent as text.
const TALLY: &str =
    "SELECT p.slug, o.slug AS option_slug, sum(t.n)::text AS votes, max(t.changed_at) AS changed_at
     FROM tally t JOIN polls p USING (poll) JOIN options o USING (poll, option) GROUP BY p.slug, o.slug";

const QUEUES: &str =
    "SELECT queue, original_id, address, seen_at, accepted::text, queued::text, state, reason
     FROM queues ORDER BY queue";

/// What is still to be read from some queues: whether a queue is a replaced one and read to the ends that were last
/// reported, and whether it is sealed for, and read to the seal of, every poll that is not final.
const REST: &str = "SELECT q.queue,
         CASE WHEN q.original_id IS NULL OR cardinality(q.ends) = 0 THEN false ELSE NOT EXISTS (
             SELECT FROM unnest(q.ends) WITH ORDINALITY AS e (position, n)
             LEFT JOIN checkpoints c ON c.queue = q.queue AND c.partition = e.n - 1
             WHERE e.position > coalesce(c.position, '')) END AS is_reread,
         NOT EXISTS (
             SELECT FROM polls p
             WHERE p.final_at IS NULL AND position('#' in p.slug) = 0 AND NOT (
                 EXISTS (SELECT FROM seals s WHERE s.queue = q.queue AND s.poll = p.slug)
                 AND NOT EXISTS (
                     SELECT FROM seals s LEFT JOIN checkpoints c USING (queue, partition)
                     WHERE s.queue = q.queue AND s.poll = p.slug AND s.position > coalesce(c.position, ''))
             )) AS is_complete
     FROM queues q WHERE q.queue = ANY ($1)";

/// Whether a row of the ledger violates the conservation invariant, or may: where a number is negative, or so large that
/// a sum may overflow, the row is damaged or has to be looked at more closely. The largest number allowed is 2^62 - 1.
macro_rules! violates {
    () => {
        "CASE WHEN accepted >= 0 AND new_voters >= 0 AND superseded BETWEEN 0 AND 4611686018427387903
                   AND quarantined BETWEEN 0 AND 4611686018427387903
              THEN accepted - new_voters <> superseded + quarantined ELSE true END"
    };
}

/// Sums of the ledger by poll, and whether a row violates the conservation invariant or may. The other sums follow from
/// these and from the [rows that differ](VIOLATIONS): each sum of this many rows takes a sixth of the statement's time.
const LEDGER: &str = concat!(
    "SELECT poll, sum(accepted)::text AS accepted, sum(new_voters)::text AS new_voters, bool_or(",
    violates!(),
    ") AS may_violate FROM ledger GROUP BY poll"
);

/// The violations by poll, found in the rows with quarantined votes, which an index has, and in those that may violate the
/// conservation invariant, if the argument is true. `unaccounted` is
/// [`LedgerEntry::unaccounted`](crate::count::LedgerEntry::unaccounted) in SQL.
const VIOLATIONS: &str = concat!(
    "WITH found AS (
         SELECT queue, partition, poll, sum(votes) AS votes FROM quarantine WHERE state <> 'counted'
         GROUP BY queue, partition, poll
     ), odd AS (
         SELECT * FROM ledger WHERE quarantined <> 0
         UNION SELECT l.* FROM found f JOIN ledger l USING (queue, partition, poll)
         UNION SELECT * FROM ledger WHERE $1 AND ",
    violates!(),
    "
     ), differences AS (
         SELECT o.*, o.quarantined - coalesce(f.votes, 0) AS missing,
                o.accepted - (o.new_voters::numeric + o.superseded + o.quarantined) AS difference,
                EXISTS (SELECT FROM queues q WHERE q.queue = o.queue AND q.state = 'retired') AS is_retired
         FROM odd o LEFT JOIN found f USING (queue, partition, poll)
     ), violations AS (
         SELECT *, CASE WHEN is_retired THEN least(difference, 0) ELSE difference END AS unaccounted FROM differences
     )
     SELECT poll, sum(quarantined)::text AS quarantined, sum(difference)::text AS difference,
            sum(unaccounted)::text AS unaccounted, sum(abs(unaccounted))::text AS violating,
            sum(abs(missing))::text AS missing, bool_or(least(accepted, new_voters, superseded) < 0) AS is_damaged
     FROM violations GROUP BY poll"
);

const TALLIES: &str = "SELECT p.slug AS poll, coalesce(sum(t.n), 0)::text AS votes
     FROM polls p LEFT JOIN options o USING (poll) LEFT JOIN tally t USING (poll, option)
     WHERE position('#' in p.slug) = 0 GROUP BY p.slug";

const QUARANTINE: &str = "SELECT poll, sum(votes)::text AS votes,
         count(*) FILTER (WHERE state IN ('quarantined', 'replay')) AS pending
     FROM quarantine WHERE state <> 'counted' GROUP BY poll";

/// The names of polls with seals. Each step looks up the next one in the index, instead of reading all rows.
const SEALED: &str = "WITH RECURSIVE names AS (
         SELECT min(poll) AS poll FROM seals
         UNION ALL SELECT (SELECT min(s.poll) FROM seals s WHERE s.poll > names.poll) FROM names
         WHERE names.poll IS NOT NULL)
     SELECT poll FROM names WHERE poll IS NOT NULL";

/// Reads the summary.
pub(super) async fn summary(connection: &mut PgConnection) -> Result<Summary, Failure> {
    let row = sqlx::query(MOMENT).fetch_one(&mut *connection).await?;
    let (taken_at, replayed_at) = (moment(&row, "now")?, row.try_get::<Option<Moment>, _>("replayed_at"));
    let registered = all(connection, polls::ALL, polls::registered).await?;
    let mut tallies = tallies(connection).await?;
    let polls: Vec<PollSummary> = withdrawal::fold(registered)
        .into_iter()
        .map(|poll| {
            let (votes, tally_changed_at) = tallies.remove(&poll.slug).unwrap_or_default();
            let tally = poll.options.iter().map(|option| (*option, votes.get(option).copied().unwrap_or(0)));
            PollSummary { tally: tally.collect(), poll, tally_changed_at }
        })
        .collect();
    let (mut queues, mut reported, mut late) = (Vec::new(), BTreeSet::new(), Vec::new());
    for row in sqlx::query(QUEUES).fetch_all(&mut *connection).await? {
        let (queue, names) = queue(&row)?;
        if queue.is_late(taken_at) {
            let is_unknown = |name: &String| polls.iter().all(|known| known.poll.slug.as_str() != name);
            late.push((queues.len(), polls.is_empty() || names.accepted.keys().any(is_unknown)));
        }
        queues.push(queue);
        reported.extend(names.accepted.into_keys().chain(names.queued.into_keys()));
    }
    if !late.is_empty() {
        mark_not_heard_from(connection, &mut queues, &late).await?;
    }
    let replayed_at = replayed_at.map_err(|_| damaged("time"))?.map(|at| at.0);
    Ok(Summary { taken_at, replayed_at, polls, queues, reported })
}

/// The tally of one poll: votes by option, and the time of the last change.
type Tally = (BTreeMap<OptionSlug, u64>, Option<Timestamp>);

async fn tallies(connection: &mut PgConnection) -> Result<BTreeMap<PollSlug, Tally>, Failure> {
    let mut tallies: BTreeMap<PollSlug, Tally> = BTreeMap::new();
    for row in sqlx::query(TALLY).fetch_all(connection).await? {
        let (votes, changed_at) = tallies.entry(rows::slug(&row, "slug")?).or_default();
        votes.insert(accounts::option(&row)?, u64::try_from(number(&row, "votes")?).unwrap_or(0));
        *changed_at = (*changed_at).max(Some(moment(&row, "changed_at")?));
    }
    Ok(tallies)
}

/// The counters in the last report of a queue.
struct Reported {
    accepted: Counters,
    queued: Counters,
}

fn queue(row: &PgRow) -> Result<(QueueSummary, Reported), StoreError> {
    let counters = |column| serde_json::from_str::<Counters>(row.get(column)).map_err(|_| damaged("queue"));
    let sum = |counters: &Counters| counters.values().fold(0, |sum: u64, n| sum.saturating_add(*n));
    let reported = Reported { accepted: counters("accepted")?, queued: counters("queued")? };
    let state: &str = row.get("state");
    let queue = QueueSummary {
        id: QueueId(row.get::<Uuid, _>("queue").0),
        original_id: row.get::<Option<Uuid>, _>("original_id").map(|id| QueueId(id.0)),
        address: row.get("address"),
        seen_at: moment(row, "seen_at")?,
        accepted: sum(&reported.accepted),
        queued: sum(&reported.queued),
        state: QueueState::ALL
            .into_iter()
            .find(|known| known.as_str() == state)
            .ok_or_else(|| damaged("queue"))?,
        reason: row.get("reason"),
        is_not_heard_from: false,
    };
    Ok((queue, reported))
}

/// Marks those of the late queues that are not heard from, as
/// [`not_heard_from`](crate::count::audit::not_heard_from) does. Each is given by its place, and whether it may hold
/// votes for a poll that is not registered.
async fn mark_not_heard_from(
    connection: &mut PgConnection,
    queues: &mut [QueueSummary],
    late: &[(usize, bool)],
) -> Result<(), Failure> {
    let ids: Vec<Uuid> = late.iter().map(|(place, _)| Uuid(queues[*place].id.0)).collect();
    let rows = sqlx::query(REST).bind(ids).fetch_all(connection).await?;
    let of = |row: &PgRow| (row.get("is_reread"), row.get("is_complete"));
    let rest: BTreeMap<QueueId, (bool, bool)> =
        rows.iter().map(|row| (QueueId(row.get::<Uuid, _>("queue").0), of(row))).collect();
    for (place, holds_others) in late {
        let queue = &mut queues[*place];
        let (is_reread, is_complete) = rest.get(&queue.id).copied().unwrap_or_default();
        queue.is_not_heard_from = !is_reread && (!is_complete || *holds_others);
    }
    Ok(())
}

/// Reads the balances.
pub(super) async fn balances(connection: &mut PgConnection) -> Result<Balances, Failure> {
    let ledger = all(connection, LEDGER, ledger).await?;
    let quarantine = all(connection, QUARANTINE, |row| {
        Ok((row.get::<String, _>("poll"), count(row, "votes")?, rows::count(row, "pending")?))
    })
    .await?;
    let may_violate = ledger.iter().any(|(.., may_violate)| *may_violate);
    let rows = sqlx::query(VIOLATIONS).bind(may_violate).fetch_all(&mut *connection).await?;
    let violations = rows.iter().map(violations).collect::<Result<Vec<_>, _>>()?;
    let tallies =
        all(connection, TALLIES, |row| Ok((row.get::<String, _>("poll"), number(row, "votes")?))).await?;
    let mut named: BTreeSet<String> =
        all(connection, SEALED, |row| Ok(row.get("poll"))).await?.into_iter().collect();
    named.extend(ledger.iter().map(|(poll, ..)| poll.clone()));
    named.extend(quarantine.iter().map(|(poll, ..)| poll.clone()));

    let mut polls: BTreeMap<String, (Sums, Residual, i128)> = tallies
        .into_iter()
        .map(|(poll, votes)| (poll, (Sums::default(), Residual::default(), votes)))
        .collect();
    for (poll, sums, _) in ledger {
        polls.entry(poll).or_default().0 = sums;
    }
    for violations in violations {
        let (sums, residual, _) = polls.entry(violations.poll).or_default();
        sums.quarantined = violations.quarantined;
        // In all other rows, accepted = new voters + superseded.
        sums.superseded -= violations.quarantined + violations.difference;
        sums.unaccounted = violations.unaccounted;
        *residual = violations.residual;
    }
    let balance = |(poll, (sums, residual, votes)): (String, (Sums, Residual, i128))| {
        let tally = magnitude(sums.new_voters - votes);
        (poll, sums.balance(Residual { tally, ..residual }))
    };
    let sum = |sum: u64, n: u64| sum.saturating_add(n);
    Ok(Balances {
        polls: polls.into_iter().map(balance).collect::<BTreeMap<String, Balance>>(),
        quarantined: quarantine.iter().map(|(_, votes, _)| *votes).fold(0, sum),
        pending: quarantine.iter().map(|(.., pending)| *pending).fold(0, sum),
        named,
    })
}

/// Reads a row of [`LEDGER`], as if nothing differed.
fn ledger(row: &PgRow) -> Result<(String, Sums, bool), StoreError> {
    let (accepted, new_voters) = (number(row, "accepted")?, number(row, "new_voters")?);
    let sums =
        Sums { accepted, new_voters, superseded: accepted - new_voters, quarantined: 0, unaccounted: 0 };
    Ok((row.get("poll"), sums, row.get("may_violate")))
}

/// The rows of a poll with quarantined votes, and those that violate an invariant.
struct Violations {
    poll: String,
    quarantined: i128,
    /// Accepted votes that are not accounted for, also those that retired queues lost.
    difference: i128,
    unaccounted: i128,
    residual: Residual,
}

fn violations(row: &PgRow) -> Result<Violations, StoreError> {
    if row.get("is_damaged") {
        return Err(damaged("ledger"));
    }
    let of = |column| Ok::<_, StoreError>(magnitude(number(row, column)?));
    Ok(Violations {
        poll: row.get("poll"),
        quarantined: number(row, "quarantined")?,
        difference: number(row, "difference")?,
        unaccounted: number(row, "unaccounted")?,
        residual: Residual { accepted: of("violating")?, tally: 0, quarantined: of("missing")? },
    })
}

/// Returns the rows of a statement.
async fn all<T>(
    connection: &mut PgConnection,
    query: &'static str,
    read: impl Fn(&PgRow) -> Result<T, StoreError>,
) -> Result<Vec<T>, Failure> {
    let rows = sqlx::query(query).fetch_all(connection).await?;
    Ok(rows.iter().map(read).collect::<Result<_, _>>()?)
}

fn moment(row: &PgRow, column: &str) -> Result<Timestamp, StoreError> {
    Ok(row.try_get::<Moment, _>(column).map_err(|_| damaged("time"))?.0)
}

/// Reads a sum, which is sent as text.
fn number(row: &PgRow, column: &str) -> Result<i128, StoreError> {
    row.get::<&str, _>(column).parse().map_err(|_| damaged(column))
}

/// Reads a sum of counts, which is never negative.
fn count(row: &PgRow, column: &str) -> Result<u64, StoreError> {
    let sum = number(row, column)?;
    if sum < 0 { Err(damaged(column)) } else { Ok(u64::try_from(sum).unwrap_or(u64::MAX)) }
}

/// Returns the absolute value, saturating: impossible numbers come from damage, and must not wrap to 0.
fn magnitude(difference: i128) -> u64 {
    u64::try_from(difference.unsigned_abs()).unwrap_or(u64::MAX)
}
