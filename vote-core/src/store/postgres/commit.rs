//! The statements of a commit, each for one table. The session puts them between `BEGIN` and `COMMIT`, after the one
//! that raises the version.

use sqlx::PgConnection;

use super::{Moment, Uuid, copy, damaged, quarantine::indices};
use crate::{
    OptionSlug, Partition,
    count::{Ballot, CommitPlan, PollPlan, QuarantineState, ReplayOutcome, StoredReason},
    store::{StoreError, no_option},
};

/// The numbers of a poll and its options in the table of votes.
#[derive(Debug, Clone)]
pub(super) struct PollNumbers {
    pub(super) poll: i16,
    pub(super) options: Vec<(i16, OptionSlug)>,
}

impl PollNumbers {
    /// Returns the number of an option.
    pub(super) fn number(&self, option: OptionSlug) -> Result<i16, StoreError> {
        let found = self.options.iter().find(|(_, slug)| *slug == option);
        found.map(|(number, _)| *number).ok_or_else(|| no_option(option))
    }

    /// Returns the option of a number.
    pub(super) fn option(&self, number: i16) -> Result<OptionSlug, StoreError> {
        let found = self.options.iter().find(|(n, _)| *n == number);
        found.map(|(_, slug)| *slug).ok_or_else(|| damaged("option"))
    }
}

/// Error of a call, before its meaning for the caller is known.
pub(super) enum Failure {
    Store(StoreError),
    Sqlx(sqlx::Error),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Sqlx(error)
    }
}

/// Inserts the new ballots of all polls.
pub(super) async fn insert(
    connection: &mut PgConnection,
    polls: &[(PollNumbers, &PollPlan)],
) -> Result<(), Failure> {
    let ballots: usize = polls.iter().map(|(_, poll)| poll.inserts.len()).sum();
    if ballots == 0 {
        return Ok(());
    }
    let rows = polls.iter().flat_map(|(numbers, poll)| {
        let row = |ballot: &Ballot| Ok((numbers.poll, numbers.number(ballot.option)?, *ballot));
        poll.inserts.iter().map(row)
    });
    let bytes = copy::encode(ballots, rows)?;
    let mut copy = connection
        .copy_in_raw("COPY votes (poll, voter, option, cast_at) FROM STDIN (FORMAT binary)")
        .await?;
    copy.send(bytes).await?;
    let copied = copy.finish().await?;
    if copied != ballots as u64 {
        return Err(StoreError::Conflict(format!("{copied} of {ballots} rows were copied")).into());
    }
    Ok(())
}

/// Replaces effective ballots, each only if it is the one that the plan expects.
pub(super) async fn replace(
    connection: &mut PgConnection,
    numbers: &PollNumbers,
    replacements: &[(Ballot, Ballot)],
) -> Result<(), Failure> {
    if replacements.is_empty() {
        return Ok(());
    }
    let options = |side: fn(&(Ballot, Ballot)) -> Ballot| {
        replacements.iter().map(|pair| numbers.number(side(pair).option)).collect::<Result<Vec<_>, _>>()
    };
    let times = |side: fn(&(Ballot, Ballot)) -> Ballot| {
        replacements.iter().map(|pair| Moment(side(pair).cast_at)).collect::<Vec<_>>()
    };
    let replaced = sqlx::query(
        "UPDATE votes v SET option = r.option, cast_at = r.cast_at
         FROM unnest($2::uuid[], $3::smallint[], $4::timestamptz[], $5::smallint[], $6::timestamptz[])
              AS r (voter, old_option, old_cast_at, option, cast_at)
         WHERE v.poll = $1 AND v.voter = r.voter AND v.option = r.old_option AND v.cast_at = r.old_cast_at",
    )
    .bind(numbers.poll)
    .bind(replacements.iter().map(|(old, _)| Uuid(old.voter.0)).collect::<Vec<_>>())
    .bind(options(|pair| pair.0)?)
    .bind(times(|pair| pair.0))
    .bind(options(|pair| pair.1)?)
    .bind(times(|pair| pair.1))
    .execute(connection)
    .await?
    .rows_affected();
    if replaced != replacements.len() as u64 {
        return Err(StoreError::Conflict(format!(
            "of {} ballots to be replaced, {replaced} are those that the plan expects",
            replacements.len()
        ))
        .into());
    }
    Ok(())
}

/// Adds the changes of all polls to the tally of a partition.
pub(super) async fn add_to_tally(
    connection: &mut PgConnection,
    partition: Partition,
    polls: &[(PollNumbers, &PollPlan)],
) -> Result<(), Failure> {
    let (mut numbers, mut options, mut votes) = (Vec::new(), Vec::new(), Vec::new());
    for (poll, plan) in polls {
        for (option, n) in &plan.tally {
            numbers.push(poll.poll);
            options.push(poll.number(*option)?);
            votes.push(*n);
        }
    }
    if votes.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO tally (partition, poll, option, n, changed_at)
         SELECT $1, *, clock_timestamp() FROM unnest($2::smallint[], $3::smallint[], $4::bigint[])
         ON CONFLICT (poll, option, partition) DO UPDATE SET n = tally.n + excluded.n,
             changed_at = greatest(tally.changed_at, excluded.changed_at)",
    )
    .bind(partition.0 as i16)
    .bind(numbers)
    .bind(options)
    .bind(votes)
    .execute(connection)
    .await?;
    Ok(())
}

/// Quarantines frames.
pub(super) async fn quarantine(connection: &mut PgConnection, plan: &CommitPlan) -> Result<(), Failure> {
    if plan.quarantine.is_empty() {
        return Ok(());
    }
    let frames = &plan.quarantine;
    let number = |votes: u64| i64::try_from(votes).unwrap_or(i64::MAX);
    sqlx::query(
        "INSERT INTO quarantine
             (partition, queue, position, poll, votes, accounted, indices, reason, awaits_poll, frame, reason_code)
         SELECT $1, queue, position, poll, votes, accounted, indices::integer[], reason, awaits_poll, frame, reason_code
         FROM unnest(
             $2::uuid[], $3::bytea[], $4::text[], $5::bigint[], $6::bigint[], $7::text[], $8::text[], $9::boolean[],
             $10::bytea[], $11::text[])
             AS f (queue, position, poll, votes, accounted, indices, reason, awaits_poll, frame, reason_code)",
    )
    .bind(plan.partition.0 as i16)
    .bind(frames.iter().map(|frame| Uuid(frame.queue.0)).collect::<Vec<_>>())
    .bind(frames.iter().map(|frame| frame.position.as_bytes()).collect::<Vec<_>>())
    .bind(frames.iter().map(|frame| frame.poll.as_str()).collect::<Vec<_>>())
    .bind(frames.iter().map(|frame| number(frame.votes())).collect::<Vec<_>>())
    .bind(frames.iter().map(|frame| number(frame.accounted)).collect::<Vec<_>>())
    .bind(frames.iter().map(|frame| indices(&frame.quarantined)).collect::<Vec<_>>())
    .bind(frames.iter().map(|frame| frame.reason.text.as_str()).collect::<Vec<_>>())
    .bind(frames.iter().map(|frame| frame.reason.awaits_poll()).collect::<Vec<_>>())
    .bind(frames.iter().map(|frame| &*frame.frame).collect::<Vec<_>>())
    .bind(frames.iter().map(|frame| frame.reason.code.as_str()).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// Records what became of votes that were replayed. A row is changed only if it still holds exactly the votes that
/// were replayed, and they are still pending: otherwise some of them may be counted already.
pub(super) async fn replayed(connection: &mut PgConnection, plan: &CommitPlan) -> Result<(), Failure> {
    if plan.replayed.is_empty() {
        return Ok(());
    }
    let outcomes = plan.replayed.iter().map(|replayed| match &replayed.outcome {
        ReplayOutcome::Counted => (QuarantineState::Counted, &replayed.tried, None),
        ReplayOutcome::Quarantined { votes, reason } => (QuarantineState::Quarantined, votes, Some(reason)),
    });
    let outcomes: Vec<_> = outcomes.collect();
    let reasons = outcomes.iter().map(|(.., reason)| *reason);
    let recorded = sqlx::query(
        "UPDATE quarantine q SET state = r.state, reason = coalesce(r.reason, q.reason), awaits_poll = r.awaits_poll,
             reason_code = coalesce(r.reason_code, q.reason_code),
             indices = r.indices::integer[], accounted = coalesce(q.accounted, q.votes),
             votes = coalesce(cardinality(r.indices::integer[]), q.accounted, q.votes)
         FROM unnest(
             $2::uuid[], $3::bytea[], $4::text[], $5::text[], $6::text[], $7::text[], $8::boolean[], $9::text[])
             AS r (queue, position, tried, state, indices, reason, awaits_poll, reason_code)
         WHERE q.partition = $1 AND q.queue = r.queue AND q.position = r.position AND q.state IN ('quarantined', 'replay')
           AND q.indices IS NOT DISTINCT FROM r.tried::integer[]",
    )
    .bind(plan.partition.0 as i16)
    .bind(plan.replayed.iter().map(|replayed| Uuid(replayed.queue.0)).collect::<Vec<_>>())
    .bind(plan.replayed.iter().map(|replayed| replayed.position.as_bytes()).collect::<Vec<_>>())
    .bind(plan.replayed.iter().map(|replayed| indices(&replayed.tried)).collect::<Vec<_>>())
    .bind(outcomes.iter().map(|(state, ..)| state.as_str()).collect::<Vec<_>>())
    .bind(outcomes.iter().map(|(_, votes, ..)| indices(votes)).collect::<Vec<_>>())
    .bind(reasons.clone().map(|reason| Some(reason?.text.as_str())).collect::<Vec<_>>())
    .bind(reasons.clone().map(|reason| reason.is_some_and(StoredReason::awaits_poll)).collect::<Vec<_>>())
    .bind(reasons.map(|reason| Some(reason?.code.as_str())).collect::<Vec<_>>())
    .execute(connection)
    .await?
    .rows_affected();
    if recorded != plan.replayed.len() as u64 {
        return Err(StoreError::Conflict(format!(
            "of {} frames that were replayed, {recorded} have the same votes in quarantine",
            plan.replayed.len()
        ))
        .into());
    }
    Ok(())
}
