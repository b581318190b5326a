//! Commits of votes, as a worker makes them.

use std::collections::BTreeMap;

use vote_core::{
    Polls, QueueId, Store,
    conformance::{ballot, layout, poll, vote},
    count::{CommitPlan, LedgerEntry, PollPlan},
    store::{PostgresStore, StoreError},
};

/// The queue that the votes seem to come from.
const QUEUE: QueueId = QueueId([1; 16]);

/// Prepares a store for the example's poll.
pub(crate) async fn prepare(store: &PostgresStore) -> Result<(), StoreError> {
    store.migrate().await?;
    store.prepare(layout()).await?;
    for poll in &Polls::example() {
        store.register_poll(poll).await?;
    }
    Ok(())
}

/// Commits the vote of the voter with this number, who has not voted before.
pub(crate) async fn commit(store: &PostgresStore, voter: u64) -> Result<(), StoreError> {
    let vote = vote(voter, 0, 1);
    let partition = layout().partitions.of(vote.voter);
    // A session of its own, since the server ends idle ones.
    let mut session = store.open_session().await?;
    let acquired = session.acquire(partition).await?;
    let acquired =
        acquired.ok_or_else(|| StoreError::Conflict(format!("partition {partition} is not free")))?;
    let before = acquired.checkpoints.get(&QUEUE).and_then(|known| known.accepted.get(poll().as_str()));
    let entry = LedgerEntry {
        queue: QUEUE,
        poll: poll().to_string(),
        accepted: before.copied().unwrap_or(0) + 1,
        new_voters: 1,
        superseded: 0,
        quarantined: 0,
    };
    let tally = BTreeMap::from([(vote.option, 1)]);
    let counted = PollPlan { poll: poll(), inserts: vec![ballot(&vote)], replacements: Vec::new(), tally };
    let plan = CommitPlan {
        partition,
        version: acquired.version,
        polls: vec![counted],
        ledger: vec![entry],
        positions: Vec::new(),
        quarantine: Vec::new(),
        replayed: Vec::new(),
    };
    session.commit(&plan).await
}
