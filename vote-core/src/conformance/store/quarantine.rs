//! Clauses about quarantined votes and their replay.

use super::*;
use crate::{
    PollSlug,
    count::{Decision, QuarantineKey, QuarantineState, QuarantinedVotes, ReplayOutcome, Replayed},
};

/// The key of a frame at the start of queue 1.
const PLACE: QuarantineKey =
    QuarantineKey { queue: queue_id(1), partition: PARTITION, position: Position::START };

fn key(position: u8) -> QuarantineKey {
    QuarantineKey { position: at(position), ..PLACE }
}

fn cars() -> PollSlug {
    "cars".parse().expect("a slug")
}

fn reason(awaits_poll: bool) -> StoredReason {
    let code = if awaits_poll { ReasonCode::PollNotRegistered } else { ReasonCode::MalformedFrame };
    StoredReason { code, text: "a test".to_owned() }
}

fn no_such_option() -> StoredReason {
    StoredReason { code: ReasonCode::UnknownOption, text: "no such option".to_owned() }
}

/// Returns a frame of two votes that is quarantined as a whole.
fn quarantined(position: u8, poll: PollSlug, awaits_poll: bool) -> QuarantinedFrame {
    QuarantinedFrame {
        queue: queue_id(1),
        position: at(position),
        poll: poll.to_string(),
        accounted: 2,
        quarantined: QuarantinedVotes::All,
        reason: reason(awaits_poll),
        frame: Bytes::from_static(b"\xff\x00"),
    }
}

/// Returns a frame of five votes, of which those at these indices are quarantined.
fn partly(position: u8, indices: &[u32]) -> QuarantinedFrame {
    let votes = QuarantinedVotes::At(indices.to_vec());
    QuarantinedFrame { accounted: 5, quarantined: votes, ..quarantined(position, poll(), false) }
}

/// Returns the ledger entry of a frame of two votes.
fn account(poll: PollSlug, quarantined: i64, new_voters: u64) -> LedgerEntry {
    LedgerEntry {
        queue: queue_id(1),
        poll: poll.to_string(),
        accepted: 2,
        new_voters,
        superseded: 0,
        quarantined,
    }
}

/// Returns a store in which a frame of that poll is quarantined at position 1.
async fn with_a_frame(
    harness: &dyn StoreHarness,
    poll: PollSlug,
    awaits_poll: bool,
) -> (Arc<dyn Store>, Box<dyn Session>) {
    let store = prepared(harness).await;
    let mut session = store.open_session().await.expect("a session");
    let mut plan = inserts(acquire(&mut *session).await.version, 1, &[]);
    plan.ledger = vec![account(poll, 2, 0)];
    plan.quarantine = vec![quarantined(1, poll, awaits_poll)];
    session.commit(&plan).await.expect("a commit");
    (store, session)
}

async fn replays(session: &mut dyn Session) -> Vec<QuarantinedFrame> {
    session.replays(PARTITION, 10).await.expect("an answer")
}

fn replayed(tried: QuarantinedVotes, outcome: ReplayOutcome) -> Replayed {
    Replayed { queue: queue_id(1), position: at(1), tried, outcome }
}

/// Returns the outcome of a replay in which these votes stay quarantined, for options that their poll does not have.
fn still_quarantined(votes: QuarantinedVotes) -> ReplayOutcome {
    ReplayOutcome::Quarantined { votes, reason: no_such_option() }
}

/// Returns a plan that records the outcome of a replay of the whole frame at position 1.
fn outcome(version: u64, outcome: ReplayOutcome, votes: &[Vote]) -> CommitPlan {
    let mut plan = inserts(version, 1, votes);
    let released = if outcome == ReplayOutcome::Counted { -2 } else { 0 };
    plan.ledger = vec![account(poll(), released, votes.len() as u64)];
    plan.replayed = vec![replayed(QuarantinedVotes::All, outcome)];
    plan
}

/// Returns key, state and reason of each frame.
async fn states(store: &dyn Store) -> Vec<(QuarantineKey, QuarantineState, StoredReason)> {
    let rows = store.quarantine(None, 100).await.expect("the quarantine");
    rows.into_iter().map(|row| (row.key(), row.state, row.frame.reason)).collect()
}

pub(super) async fn quarantined_frames_are_listed_in_order(harness: &dyn StoreHarness) {
    let store = prepared(harness).await;
    let mut session = store.open_session().await.expect("a session");
    let mut plan = inserts(acquire(&mut *session).await.version, 9, &[]);
    plan.quarantine = [3, 1, 2, 5, 4].map(|position| quarantined(position, cars(), position == 2)).into();
    session.commit(&plan).await.expect("a commit");
    let first = store.quarantine(None, 3).await.expect("a page");
    assert_eq!(
        first.iter().map(crate::count::QuarantineRow::key).collect::<Vec<_>>(),
        [key(1), key(2), key(3)]
    );
    assert_eq!(first[1].frame, quarantined(2, cars(), true), "as it was quarantined");
    assert_eq!((first[1].partition, first[1].state), (PARTITION, QuarantineState::Quarantined));
    let rest = store.quarantine(Some(key(3)), 3).await.expect("a page");
    assert_eq!(rest.iter().map(crate::count::QuarantineRow::key).collect::<Vec<_>>(), [key(4), key(5)]);
}

pub(super) async fn a_frame_is_replayed_once_its_poll_is_registered(harness: &dyn StoreHarness) {
    let (store, mut session) = with_a_frame(harness, cars(), true).await;
    assert_eq!(replays(&mut *session).await, [], "its poll is not registered");
    let registered = Poll { slug: cars(), ..pets(Keep::First) };
    store.register_poll(&registered).await.expect("a poll can be registered");
    assert_eq!(replays(&mut *session).await, [quarantined(1, cars(), true)]);
    assert_eq!(session.replays(Partition(1), 10).await.expect("an answer"), [], "another partition has none");
}

pub(super) async fn a_frame_of_a_final_poll_is_not_replayed(harness: &dyn StoreHarness) {
    let store = prepared(harness).await;
    let mut session = store.open_session().await.expect("a session");
    store.close_poll(poll()).await.expect("an answer");
    for partition in layout().partitions.iter() {
        let version = session.acquire(partition).await.expect("an answer").expect("a free partition").version;
        assert_eq!(session.complete(partition, version, poll()).await.expect("an answer"), []);
    }
    assert!(store.finalize_poll(poll()).await.expect("an answer"), "there are no queues and no votes");
    let mut plan = inserts(acquire(&mut *session).await.version, 1, &[]);
    (plan.polls, plan.quarantine) = (Vec::new(), vec![quarantined(1, poll(), true)]);
    session.commit(&plan).await.expect("a late frame can be quarantined");
    assert_eq!(replays(&mut *session).await, []);
}

pub(super) async fn a_frame_counted_later_leaves_the_quarantine(harness: &dyn StoreHarness) {
    let (store, mut session) = with_a_frame(harness, poll(), false).await;
    assert_eq!(replays(&mut *session).await, [], "no operator decided so");
    assert_eq!(store.decide(&[key(1), key(9)], &Decision::Replay).await.expect("a decision"), 1);
    assert_eq!(replays(&mut *session).await, [quarantined(1, poll(), false)]);
    let votes: Vec<_> = voters().take(2).map(|voter| vote(voter, 0, 5)).collect();
    let version = acquire(&mut *session).await.version;
    session.commit(&outcome(version, ReplayOutcome::Counted, &votes)).await.expect("a commit");
    assert_eq!(replays(&mut *session).await, []);
    assert_eq!(store.quarantined(queue_id(1), PARTITION, at(1)).await.expect("an answer"), None);
    let accounts = accounts(&*store).await;
    assert_eq!(accounts.quarantine, []);
    assert_eq!(accounts.ledger[0].entry, account(poll(), 0, 2));
    assert_eq!(states(&*store).await[0].1, QuarantineState::Counted);
}

pub(super) async fn a_frame_that_fails_again_gets_the_new_reason(harness: &dyn StoreHarness) {
    let (store, mut session) = with_a_frame(harness, poll(), true).await;
    let version = acquire(&mut *session).await.version;
    let failed = still_quarantined(QuarantinedVotes::All);
    session.commit(&outcome(version, failed, &[])).await.expect("a commit");
    assert_eq!(replays(&mut *session).await, [], "it is not replayed forever");
    assert_eq!(states(&*store).await, [(key(1), QuarantineState::Quarantined, no_such_option())]);
    let found = row(&*store, 1).await.expect("a quarantined frame");
    assert_eq!(found.frame.reason, no_such_option());
    assert_eq!(ledger(&*store).await[0].entry, account(poll(), 2, 0));
}

pub(super) async fn a_replayed_frame_is_counted_once(harness: &dyn StoreHarness) {
    let (store, mut session) = with_a_frame(harness, poll(), true).await;
    let votes: Vec<_> = voters().take(4).map(|voter| vote(voter, 0, 5)).collect();
    let version = acquire(&mut *session).await.version;
    session.commit(&outcome(version, ReplayOutcome::Counted, &votes[..2])).await.expect("a commit");
    let before = everything(&*store, &votes).await;
    let result = session.commit(&outcome(version + 1, ReplayOutcome::Counted, &votes[2..])).await;
    assert!(matches!(result, Err(StoreError::Conflict(_))), "{result:?}");
    drop(session);
    assert_eq!(everything(&*store, &votes).await, before);
}

pub(super) async fn a_rejected_frame_is_not_replayed(harness: &dyn StoreHarness) {
    let (store, mut session) = with_a_frame(harness, poll(), true).await;
    let reject = Decision::Reject("damaged on the way".to_owned());
    assert_eq!(store.decide(&[key(1)], &reject).await.expect("a decision"), 1);
    assert_eq!(replays(&mut *session).await, []);
    let found = row(&*store, 1).await.expect("a quarantined frame");
    assert_eq!(found.state, QuarantineState::Rejected);
    assert_eq!((found.frame.reason, found.rejection.as_deref()), (reason(true), Some("damaged on the way")));
    let total = &accounts(&*store).await.quarantine[0];
    assert_eq!((total.votes, total.pending), (2, 0), "it stays quarantined, without being pending");
    assert_eq!(store.decide(&[key(1)], &Decision::Replay).await.expect("a decision"), 0, "never undone");
    assert_eq!(replays(&mut *session).await, []);
}

/// Returns a store with a frame of five votes, of which two are counted and three are quarantined.
async fn with_part_of_a_frame(harness: &dyn StoreHarness) -> (Arc<dyn Store>, Box<dyn Session>) {
    let store = prepared(harness).await;
    let mut session = store.open_session().await.expect("a session");
    let counted: Vec<_> = voters().take(2).map(|voter| vote(voter, 0, 5)).collect();
    let mut plan = inserts(acquire(&mut *session).await.version, 1, &counted);
    plan.ledger = vec![LedgerEntry { accepted: 5, ..account(poll(), 3, 2) }];
    plan.quarantine = vec![partly(1, &[0, 2, 4])];
    session.commit(&plan).await.expect("a commit");
    (store, session)
}

/// Returns a plan that counts these votes of the frame, and records the outcome of its replay.
fn partial(version: u64, votes: &[Vote], tried: &[u32], outcome: ReplayOutcome) -> CommitPlan {
    let mut plan = inserts(version, 1, votes);
    plan.ledger =
        vec![LedgerEntry { accepted: 5, ..account(poll(), -(votes.len() as i64), votes.len() as u64) }];
    plan.replayed = vec![replayed(QuarantinedVotes::At(tried.to_vec()), outcome)];
    plan
}

/// Returns the frame at a position if votes of it are quarantined.
async fn row(store: &dyn Store, position: u8) -> Option<crate::count::QuarantineRow> {
    store.quarantined(queue_id(1), PARTITION, at(position)).await.expect("an answer")
}

pub(super) async fn votes_of_a_frame_are_quarantined_by_index(harness: &dyn StoreHarness) {
    let (store, mut session) = with_part_of_a_frame(harness).await;
    let found = row(&*store, 1).await.expect("a quarantined frame");
    assert_eq!((found.partition, found.state), (PARTITION, QuarantineState::Quarantined));
    assert_eq!(found.rejection, None, "no operator has decided");
    assert_eq!(found.frame, partly(1, &[0, 2, 4]));
    assert_eq!(store.quarantine(None, 9).await.expect("a page"), [found]);
    assert_eq!(row(&*store, 2).await, None, "no other frame has quarantined votes");
    assert_eq!(store.decide(&[key(1)], &Decision::Replay).await.expect("a decision"), 1);
    assert_eq!(replays(&mut *session).await, [partly(1, &[0, 2, 4])]);
}

pub(super) async fn a_partial_replay_keeps_the_rest(harness: &dyn StoreHarness) {
    let (store, mut session) = with_part_of_a_frame(harness).await;
    let later: Vec<_> = voters().skip(2).take(3).map(|voter| vote(voter, 1, 5)).collect();
    let version = acquire(&mut *session).await.version;
    let rest = still_quarantined(QuarantinedVotes::At(vec![2]));
    session.commit(&partial(version, &later[..2], &[0, 2, 4], rest)).await.expect("a commit");
    let found = row(&*store, 1).await.expect("a vote is left");
    let left = QuarantinedFrame { reason: no_such_option(), ..partly(1, &[2]) };
    assert_eq!((&found.frame, found.state), (&left, QuarantineState::Quarantined));
    let total = &accounts(&*store).await.quarantine[0];
    assert_eq!((total.votes, total.pending), (1, 1));

    store.decide(&[key(1)], &Decision::Replay).await.expect("a decision");
    assert_eq!(replays(&mut *session).await, [left], "only the remaining vote is replayed");
    session.commit(&partial(version + 1, &later[2..], &[2], ReplayOutcome::Counted)).await.expect("a commit");
    assert_eq!(row(&*store, 1).await, None);
    let accounts = accounts(&*store).await;
    assert_eq!(accounts.quarantine, []);
    let expected = LedgerEntry { accepted: 5, ..account(poll(), 0, 5) };
    assert_eq!(accounts.ledger[0].entry, expected, "each vote is counted once");
}

pub(super) async fn a_replay_of_counted_votes_changes_nothing(harness: &dyn StoreHarness) {
    let (store, mut session) = with_part_of_a_frame(harness).await;
    let later: Vec<_> = voters().skip(2).take(5).map(|voter| vote(voter, 1, 5)).collect();
    let version = acquire(&mut *session).await.version;
    let rest = still_quarantined(QuarantinedVotes::At(vec![2]));
    session.commit(&partial(version, &later[..2], &[0, 2, 4], rest)).await.expect("a commit");
    let before = (everything(&*store, &later).await, row(&*store, 1).await);
    // From what was quarantined before, and with other voters, so that only the replayed votes show the conflict.
    let again = partial(version + 1, &later[2..], &[0, 2, 4], ReplayOutcome::Counted);
    let result = session.commit(&again).await;
    assert!(matches!(result, Err(StoreError::Conflict(_))), "{result:?}");
    drop(session);
    assert_eq!((everything(&*store, &later).await, row(&*store, 1).await), before);
}

pub(super) async fn totals_count_quarantined_votes_not_whole_frames(harness: &dyn StoreHarness) {
    let (store, mut session) = with_part_of_a_frame(harness).await;
    let mut plan = inserts(acquire(&mut *session).await.version, 3, &[]);
    plan.ledger = vec![LedgerEntry { accepted: 12, ..account(poll(), 3, 4) }];
    plan.quarantine = vec![partly(2, &[3]), quarantined(3, poll(), false)];
    session.commit(&plan).await.expect("a commit");
    let total = &accounts(&*store).await.quarantine[0];
    assert_eq!((total.votes, total.pending), (3 + 1 + 2, 3));
    let reject = Decision::Reject("a test".to_owned());
    assert_eq!(store.decide(&[key(1), key(3)], &reject).await.expect("a decision"), 2);
    let total = &accounts(&*store).await.quarantine[0];
    assert_eq!((total.votes, total.pending), (6, 1), "rejected votes stay quarantined");
}
