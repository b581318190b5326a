//! Votes that were quarantined, and tried again.

use super::*;
use crate::{
    PollSlug,
    store::{Decision, QuarantineKey, QuarantineState, QuarantinedVotes, ReplayOutcome, Replayed},
};

const PLACE: QuarantineKey =
    QuarantineKey { queue: queue_id(1), partition: PARTITION, position: Position::START };

fn key(position: u8) -> QuarantineKey {
    QuarantineKey { position: at(position), ..PLACE }
}

fn cars() -> PollSlug {
    "cars".parse().expect("a slug")
}

fn set_aside(position: u8, poll: PollSlug, awaits_poll: bool) -> QuarantinedFrame {
    QuarantinedFrame {
        queue: queue_id(1),
        position: at(position),
        poll: poll.to_string(),
        accounted: 2,
        quarantined: QuarantinedVotes::All,
        reason: "a test".to_owned(),
        awaits_poll,
        frame: Bytes::from_static(b"\xff\x00"),
    }
}

/// A frame of five votes, of which those at these indices are quarantined.
fn partly(position: u8, indices: &[u32]) -> QuarantinedFrame {
    let quarantined = QuarantinedVotes::At(indices.to_vec());
    QuarantinedFrame { accounted: 5, quarantined, ..set_aside(position, poll(), false) }
}

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

/// A store with a frame of that poll set aside at position 1.
async fn with_a_frame(
    harness: &dyn StoreHarness,
    poll: PollSlug,
    awaits_poll: bool,
) -> (Arc<dyn Store>, Box<dyn Lane>) {
    let store = prepared(harness).await;
    let mut lane = store.open_lane().await.expect("a lane");
    let mut plan = inserts(acquire(&mut *lane).await.version, 1, &[]);
    plan.ledger = vec![account(poll, 2, 0)];
    plan.quarantine = vec![set_aside(1, poll, awaits_poll)];
    lane.commit(&plan).await.expect("a commit");
    (store, lane)
}

async fn replays(lane: &mut dyn Lane) -> Vec<QuarantinedFrame> {
    lane.replays(PARTITION, 10).await.expect("an answer")
}

fn replayed(tried: QuarantinedVotes, outcome: ReplayOutcome) -> Replayed {
    Replayed { queue: queue_id(1), position: at(1), tried, outcome }
}

fn held(votes: QuarantinedVotes, reason: &str) -> ReplayOutcome {
    ReplayOutcome::Held { votes, reason: reason.to_owned(), awaits_poll: false }
}

/// A plan that says what became of the frame at position 1.
fn outcome(version: u64, outcome: ReplayOutcome, votes: &[Vote]) -> CommitPlan {
    let mut plan = inserts(version, 1, votes);
    let released = if outcome == ReplayOutcome::Counted { -2 } else { 0 };
    plan.ledger = vec![account(poll(), released, votes.len() as u64)];
    plan.replayed = vec![replayed(QuarantinedVotes::All, outcome)];
    plan
}

async fn states(store: &dyn Store) -> Vec<(QuarantineKey, QuarantineState, String)> {
    let rows = store.quarantine(None, 100).await.expect("the quarantine");
    rows.into_iter().map(|row| (row.key(), row.state, row.frame.reason)).collect()
}

pub(super) async fn frames_that_were_set_aside_are_listed_in_order(harness: &dyn StoreHarness) {
    let store = prepared(harness).await;
    let mut lane = store.open_lane().await.expect("a lane");
    let mut plan = inserts(acquire(&mut *lane).await.version, 9, &[]);
    plan.quarantine = [3, 1, 2, 5, 4].map(|position| set_aside(position, cars(), position == 2)).into();
    lane.commit(&plan).await.expect("a commit");
    let first = store.quarantine(None, 3).await.expect("a page");
    assert_eq!(
        first.iter().map(crate::store::QuarantineRow::key).collect::<Vec<_>>(),
        [key(1), key(2), key(3)]
    );
    assert_eq!(first[1].frame, set_aside(2, cars(), true), "as it was set aside");
    assert_eq!((first[1].partition, first[1].state), (PARTITION, QuarantineState::Held));
    let rest = store.quarantine(Some(key(3)), 3).await.expect("a page");
    assert_eq!(rest.iter().map(crate::store::QuarantineRow::key).collect::<Vec<_>>(), [key(4), key(5)]);
}

pub(super) async fn a_frame_awaits_its_poll(harness: &dyn StoreHarness) {
    let (store, mut lane) = with_a_frame(harness, cars(), true).await;
    assert_eq!(replays(&mut *lane).await, [], "its poll is not registered");
    let registered = Poll { slug: cars(), ..pets(Keep::First) };
    store.register_poll(&registered).await.expect("a poll can be registered");
    assert_eq!(replays(&mut *lane).await, [set_aside(1, cars(), true)]);
    assert_eq!(lane.replays(Partition(1), 10).await.expect("an answer"), [], "not of another partition");
}

pub(super) async fn a_frame_of_a_final_poll_awaits_nothing(harness: &dyn StoreHarness) {
    let store = prepared(harness).await;
    let mut lane = store.open_lane().await.expect("a lane");
    store.close_poll(poll()).await.expect("an answer");
    for partition in layout().partitions.iter() {
        let version = lane.acquire(partition).await.expect("an answer").expect("it is free").version;
        assert_eq!(lane.complete(partition, version, poll()).await.expect("an answer"), Vec::<String>::new());
    }
    assert!(store.finish_poll(poll()).await.expect("an answer"), "no queue ever had a vote");
    let mut plan = inserts(acquire(&mut *lane).await.version, 1, &[]);
    (plan.polls, plan.quarantine) = (Vec::new(), vec![set_aside(1, poll(), true)]);
    lane.commit(&plan).await.expect("what comes late is set aside");
    assert_eq!(replays(&mut *lane).await, []);
}

pub(super) async fn a_frame_counted_later_leaves_the_quarantine(harness: &dyn StoreHarness) {
    let (store, mut lane) = with_a_frame(harness, poll(), false).await;
    assert_eq!(replays(&mut *lane).await, [], "nobody asked for it");
    assert_eq!(store.decide(&[key(1), key(9)], &Decision::Replay).await.expect("a decision"), 1);
    assert_eq!(replays(&mut *lane).await, [set_aside(1, poll(), false)]);
    let votes: Vec<_> = voters().take(2).map(|voter| vote(voter, 0, 5)).collect();
    let version = acquire(&mut *lane).await.version;
    lane.commit(&outcome(version, ReplayOutcome::Counted, &votes)).await.expect("a commit");
    assert_eq!(replays(&mut *lane).await, []);
    assert_eq!(store.quarantined(queue_id(1), PARTITION, at(1)).await.expect("a look"), None);
    let books = books(&*store).await;
    assert_eq!(books.quarantine, []);
    assert_eq!(books.ledger[0].entry, account(poll(), 0, 2));
    assert_eq!(states(&*store).await[0].1, QuarantineState::Counted);
}

pub(super) async fn a_frame_that_fails_again_stays_with_its_new_reason(harness: &dyn StoreHarness) {
    let (store, mut lane) = with_a_frame(harness, poll(), true).await;
    let version = acquire(&mut *lane).await.version;
    let held = held(QuarantinedVotes::All, "no such option");
    lane.commit(&outcome(version, held, &[])).await.expect("a commit");
    assert_eq!(replays(&mut *lane).await, [], "it is not tried for ever");
    assert_eq!(states(&*store).await, [(key(1), QuarantineState::Held, "no such option".to_owned())]);
    let row = store.quarantined(queue_id(1), PARTITION, at(1)).await.expect("a look").expect("it is there");
    assert_eq!(row.frame.reason, "no such option");
    assert_eq!(ledger(&*store).await[0].entry, account(poll(), 2, 0));
}

pub(super) async fn a_frame_is_counted_once_when_tried_again(harness: &dyn StoreHarness) {
    let (store, mut lane) = with_a_frame(harness, poll(), true).await;
    let votes: Vec<_> = voters().take(4).map(|voter| vote(voter, 0, 5)).collect();
    let version = acquire(&mut *lane).await.version;
    lane.commit(&outcome(version, ReplayOutcome::Counted, &votes[..2])).await.expect("a commit");
    let before = everything(&*store, &votes).await;
    let result = lane.commit(&outcome(version + 1, ReplayOutcome::Counted, &votes[2..])).await;
    assert!(matches!(result, Err(StoreError::Conflict(_))), "{result:?}");
    drop(lane);
    assert_eq!(everything(&*store, &votes).await, before);
}

pub(super) async fn a_rejected_frame_is_not_tried_again(harness: &dyn StoreHarness) {
    let (store, mut lane) = with_a_frame(harness, poll(), true).await;
    let reject = Decision::Reject("damaged on the way".to_owned());
    assert_eq!(store.decide(&[key(1)], &reject).await.expect("a decision"), 1);
    assert_eq!(replays(&mut *lane).await, []);
    let [(_, state, reason)] = &*states(&*store).await else { panic!("one frame") };
    assert_eq!(*state, QuarantineState::Rejected);
    assert!(reason.starts_with("a test") && reason.contains("damaged on the way"), "both reasons: {reason}");
    let total = &books(&*store).await.quarantine[0];
    assert_eq!((total.votes, total.pending), (2, 0), "it stays set aside, and decided");
    assert_eq!(store.decide(&[key(1)], &Decision::Replay).await.expect("a decision"), 0, "for good");
    assert_eq!(replays(&mut *lane).await, []);
}

/// A store with a frame of five votes, of which two are counted and three are quarantined.
async fn with_part_of_a_frame(harness: &dyn StoreHarness) -> (Arc<dyn Store>, Box<dyn Lane>) {
    let store = prepared(harness).await;
    let mut lane = store.open_lane().await.expect("a lane");
    let counted: Vec<_> = voters().take(2).map(|voter| vote(voter, 0, 5)).collect();
    let mut plan = inserts(acquire(&mut *lane).await.version, 1, &counted);
    plan.ledger = vec![LedgerEntry { accepted: 5, ..account(poll(), 3, 2) }];
    plan.quarantine = vec![partly(1, &[0, 2, 4])];
    lane.commit(&plan).await.expect("a commit");
    (store, lane)
}

/// A plan that counts these votes of the frame, and says what becomes of the others.
fn partial(version: u64, votes: &[Vote], tried: &[u32], outcome: ReplayOutcome) -> CommitPlan {
    let mut plan = inserts(version, 1, votes);
    plan.ledger =
        vec![LedgerEntry { accepted: 5, ..account(poll(), -(votes.len() as i64), votes.len() as u64) }];
    plan.replayed = vec![replayed(QuarantinedVotes::At(tried.to_vec()), outcome)];
    plan
}

async fn row(store: &dyn Store, position: u8) -> Option<crate::store::QuarantineRow> {
    store.quarantined(queue_id(1), PARTITION, at(position)).await.expect("a look")
}

pub(super) async fn votes_of_a_frame_are_quarantined_by_index(harness: &dyn StoreHarness) {
    let (store, mut lane) = with_part_of_a_frame(harness).await;
    let found = row(&*store, 1).await.expect("votes of it are quarantined");
    assert_eq!((found.partition, found.state), (PARTITION, QuarantineState::Held));
    assert_eq!(found.frame, partly(1, &[0, 2, 4]));
    assert_eq!(store.quarantine(None, 9).await.expect("a page"), [found]);
    assert_eq!(row(&*store, 2).await, None, "nothing of another frame is");
    assert_eq!(store.decide(&[key(1)], &Decision::Replay).await.expect("a decision"), 1);
    assert_eq!(replays(&mut *lane).await, [partly(1, &[0, 2, 4])]);
}

pub(super) async fn a_partial_replay_keeps_the_rest(harness: &dyn StoreHarness) {
    let (store, mut lane) = with_part_of_a_frame(harness).await;
    let later: Vec<_> = voters().skip(2).take(3).map(|voter| vote(voter, 1, 5)).collect();
    let version = acquire(&mut *lane).await.version;
    let rest = held(QuarantinedVotes::At(vec![2]), "another reason");
    lane.commit(&partial(version, &later[..2], &[0, 2, 4], rest)).await.expect("a commit");
    let found = row(&*store, 1).await.expect("one is left");
    let left = QuarantinedFrame { reason: "another reason".to_owned(), ..partly(1, &[2]) };
    assert_eq!((&found.frame, found.state), (&left, QuarantineState::Held));
    let total = &books(&*store).await.quarantine[0];
    assert_eq!((total.votes, total.pending), (1, 1));

    store.decide(&[key(1)], &Decision::Replay).await.expect("a decision");
    assert_eq!(replays(&mut *lane).await, [left], "only what is left is tried again");
    lane.commit(&partial(version + 1, &later[2..], &[2], ReplayOutcome::Counted)).await.expect("a commit");
    assert_eq!(row(&*store, 1).await, None);
    let books = books(&*store).await;
    assert_eq!(books.quarantine, []);
    let expected = LedgerEntry { accepted: 5, ..account(poll(), 0, 5) };
    assert_eq!(books.ledger[0].entry, expected, "each vote is counted once");
}

pub(super) async fn a_replay_of_votes_that_were_counted_meanwhile_changes_nothing(
    harness: &dyn StoreHarness,
) {
    let (store, mut lane) = with_part_of_a_frame(harness).await;
    let later: Vec<_> = voters().skip(2).take(5).map(|voter| vote(voter, 1, 5)).collect();
    let version = acquire(&mut *lane).await.version;
    let rest = held(QuarantinedVotes::At(vec![2]), "another reason");
    lane.commit(&partial(version, &later[..2], &[0, 2, 4], rest)).await.expect("a commit");
    let before = (everything(&*store, &later).await, row(&*store, 1).await);
    // Planned from what was quarantined before, with other voters, so that nothing but that can tell.
    let again = partial(version + 1, &later[2..], &[0, 2, 4], ReplayOutcome::Counted);
    let result = lane.commit(&again).await;
    assert!(matches!(result, Err(StoreError::Conflict(_))), "{result:?}");
    drop(lane);
    assert_eq!((everything(&*store, &later).await, row(&*store, 1).await), before);
}

pub(super) async fn totals_count_quarantined_votes_and_not_whole_frames(harness: &dyn StoreHarness) {
    let (store, mut lane) = with_part_of_a_frame(harness).await;
    let mut plan = inserts(acquire(&mut *lane).await.version, 3, &[]);
    plan.ledger = vec![LedgerEntry { accepted: 12, ..account(poll(), 3, 4) }];
    plan.quarantine = vec![partly(2, &[3]), set_aside(3, poll(), false)];
    lane.commit(&plan).await.expect("a commit");
    let total = &books(&*store).await.quarantine[0];
    assert_eq!((total.votes, total.pending), (3 + 1 + 2, 3));
    let reject = Decision::Reject("a test".to_owned());
    assert_eq!(store.decide(&[key(1), key(3)], &reject).await.expect("a decision"), 2);
    let total = &books(&*store).await.quarantine[0];
    assert_eq!((total.votes, total.pending), (6, 1), "they stay quarantined");
}
