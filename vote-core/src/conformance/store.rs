//! What every [`Store`] must do.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::missing_panics_doc)] // A failed clause is a panic.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use bytes::Bytes;

use super::{StoreHarness, ballot, frames, layout, poll, queue_id, registered_poll, suite, vote};
use crate::{
    Keep, Lane, OptionSlug, Partition, Partitions, PepperFingerprint, Poll, Polls, Position, Queue, QueueId,
    Store, Timestamp, Vote, VoterKey,
    dedup::{self, Batch, Delivery},
    poll::ResultsFrom,
    queue::{Layout, MemoryQueue},
    store::{
        Acquired, Ballot, Books, CommitPlan, LedgerEntry, LedgerRow, Lookup, PollPlan, QuarantinedFrame,
        QuarantinedVotes, QueueRecord, QueueState, RegisteredPoll, StoreError,
    },
};

suite!(StoreHarness, StoreFault, store_conformance, store, {
    a_new_store_knows_nothing: InventsALayout,
    the_layout_is_written_once: TakesAnyLayout,
    a_poll_keeps_what_it_was_registered_with: ReplacesPolls,
    a_poll_keeps_when_its_results_may_be_shown: PublishesAllResults,
    a_partition_has_one_owner: SharesPartitions,
    a_lane_that_ends_frees_its_partitions: KeepsPartitionsOfTheDead,
    partitions_without_an_owner_are_named: NamesNoFreePartition,
    a_commit_moves_the_votes: DropsAVote,
    a_commit_moves_the_tally: DropsTheTally,
    a_commit_moves_the_ledger: DropsTheLedger,
    a_commit_moves_the_positions: ForgetsThePosition,
    all_positions_are_those_of_every_queue_and_partition: LeavesOutPositions,
    a_commit_moves_the_quarantine: DropsTheQuarantine,
    a_stale_version_changes_nothing: IgnoresTheVersion,
    a_lane_that_lost_its_partition_changes_nothing: IgnoresTheVersion,
    a_second_insert_of_a_voter_changes_nothing: UpsertsByItself,
    a_replacement_of_what_does_not_stand_changes_nothing: ReplacesWithoutLooking,
    a_replacement_moves_vote_and_tally: DropsReplacements,
    the_count_of_accepted_votes_is_replaced_and_the_rest_added: AddsUpTheAcceptedCount,
    a_lookup_finds_all_that_stands: LooksUpHalf,
    a_restart_resumes_where_it_was: ForgetsOnRestart,
    a_queue_that_was_cut_stays_so: RevivesCutQueues,
    the_latest_report_of_a_queue_stands: KeepsTheFirstReport,
    any_delivery_gives_the_tally_of_the_set_of_votes: Reorders,
    a_closed_poll_stays_closed: ReopensPolls,
    a_final_poll_stays_final: FinishesTwice,
    a_poll_is_final_only_when_every_partition_is_complete: FinishesIncompletePolls,
    an_open_poll_is_never_final: FinishesOpenPolls,
    a_final_poll_takes_no_more_votes: CountsAfterTheEnd,
    a_partition_is_complete_only_when_it_was_read_to_every_seal: CompletesWhatWasNotRead,
    a_new_queue_outdates_what_was_complete: IgnoresNewQueues,
    a_higher_seal_outdates_what_was_complete: IgnoresHigherSeals,
    a_poll_closes_by_time_when_both_clocks_say_so: ClosesByTheCallersClock,
    a_closing_time_moves_by_command_only: FollowsTheFile,
    a_closed_poll_is_not_rescheduled: ReschedulesClosedPolls,
    workers_that_give_a_sign_of_life_are_listed: ForgetsWorkers,
    a_queue_seen_in_the_future_is_one_not_seen_lately: KeepsTimesAhead,
    the_catalog_holds_what_is_on_record: LeavesQueuesOutOfTheCatalog,
    the_highest_seal_stays: OverwritesSeals,
    a_queue_that_was_written_off_stays_so: RevivesRetiredQueues,
    frames_that_were_set_aside_are_listed_in_order: ListsOnePage,
    a_frame_awaits_its_poll: NeverReplays,
    a_frame_of_a_final_poll_awaits_nothing: ReplaysFinalPolls,
    a_frame_counted_later_leaves_the_quarantine: KeepsWhatWasCounted,
    a_frame_that_fails_again_stays_with_its_new_reason: ForgetsTheNewReason,
    a_frame_is_counted_once_when_tried_again: CountsReplaysTwice,
    a_rejected_frame_is_not_tried_again: ReplaysWhatWasRejected,
    votes_of_a_frame_are_quarantined_by_index: QuarantinesWholeFrames,
    a_partial_replay_keeps_the_rest: ForgetsTheRest,
    a_replay_of_votes_that_were_counted_meanwhile_changes_nothing: ReplaysFromAnyState,
    totals_count_quarantined_votes_and_not_whole_frames: AddsUpWholeFrames,
    books_are_of_one_moment: ReadsBooksLate,
    books_hold_everything: LeavesOutQuarantine,
    ballots_come_in_the_order_of_their_voters: RepeatsTheLastBallot,
});

mod closing;
mod quarantine;
mod snapshot;

use closing::*;
use quarantine::*;
use snapshot::*;

async fn prepared(harness: &dyn StoreHarness) -> Arc<dyn Store> {
    let store = harness.fresh().await;
    store.prepare(layout()).await.expect("an empty store takes any layout");
    store.register_poll(&pets(Keep::First)).await.expect("a poll can be registered");
    store
}

fn pets(keep: Keep) -> Poll {
    Poll { keep, ..Polls::example().get("pets").expect("the example").clone() }
}

fn cats() -> OptionSlug {
    vote(0, 0, 0).option
}

fn dogs() -> OptionSlug {
    vote(0, 1, 0).option
}

/// The partition of voter 0, and voters of it.
const PARTITION: Partition = Partition(0);

fn voters() -> impl Iterator<Item = u64> {
    (0..).filter(|voter| layout().partitions.of(vote(*voter, 0, 0).voter) == PARTITION)
}

async fn acquire(lane: &mut dyn Lane) -> Acquired {
    lane.acquire(PARTITION).await.expect("an answer").expect("a free partition can be acquired")
}

fn at(position: u8) -> Position {
    Position::from_bytes(&[position]).expect("one byte fits")
}

/// A plan that inserts these votes as if read from queue 1 up to a position.
fn inserts(version: u64, position: u8, votes: &[Vote]) -> CommitPlan {
    let mut ballots: Vec<_> = votes.iter().map(ballot).collect();
    ballots.sort_by_key(|ballot| ballot.voter);
    let mut tally = BTreeMap::new();
    for ballot in &ballots {
        *tally.entry(ballot.option).or_insert(0) += 1;
    }
    let n = ballots.len() as u64;
    CommitPlan {
        partition: PARTITION,
        version,
        polls: vec![PollPlan { poll: poll(), inserts: ballots, replacements: Vec::new(), tally }],
        ledger: vec![ledger_entry(n, n, 0)],
        positions: vec![(queue_id(1), at(position))],
        quarantine: Vec::new(),
        replayed: Vec::new(),
    }
}

fn ledger_entry(accepted: u64, new_voters: u64, superseded: u64) -> LedgerEntry {
    LedgerEntry {
        queue: queue_id(1),
        poll: poll().to_string(),
        accepted,
        new_voters,
        superseded,
        quarantined: 0,
    }
}

async fn books(store: &dyn Store) -> Books {
    store.snapshot().await.expect("a snapshot").books(true).await.expect("the books")
}

async fn ledger(store: &dyn Store) -> Vec<LedgerRow> {
    books(store).await.ledger
}

async fn tally(store: &dyn Store) -> Vec<(OptionSlug, u64)> {
    store.tally(poll()).await.expect("a tally")
}

/// Everything that a commit moves, so that a refused one can be seen to have moved nothing.
async fn everything(store: &dyn Store, voters: &[Vote]) -> impl PartialEq + std::fmt::Debug + use<> {
    let mut ballots = Vec::new();
    for vote in voters {
        ballots.push(store.ballot(poll(), vote.voter).await.expect("a look"));
    }
    let position = store.position(queue_id(1), PARTITION).await.expect("a position");
    (ballots, tally(store).await, ledger(store).await, position)
}

async fn a_new_store_knows_nothing(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    assert_eq!(store.layout().await.expect("an answer"), None);
    assert_eq!(store.polls().await.expect("an answer"), []);
    assert_eq!(ledger(&*store).await, []);
    assert_eq!(store.queues().await.expect("an answer"), []);
    assert_eq!(tally(&*store).await, [], "a poll that is not registered has no tally");
    assert_eq!(store.position(queue_id(1), PARTITION).await.expect("an answer"), Position::START);
}

async fn the_layout_is_written_once(harness: &dyn StoreHarness) {
    let store = prepared(harness).await;
    store.prepare(layout()).await.expect("the same layout again is fine");
    let more = Layout { partitions: Partitions::new(32).expect("32"), ..layout() };
    assert!(matches!(store.prepare(more).await, Err(StoreError::Layout(_))), "other partitions");
    let pepper = Layout { fingerprint: PepperFingerprint([8; 8]), ..layout() };
    assert!(matches!(store.prepare(pepper).await, Err(StoreError::Layout(_))), "another pepper");
    assert_eq!(store.layout().await.expect("an answer"), Some(layout()));
}

async fn a_poll_keeps_what_it_was_registered_with(harness: &dyn StoreHarness) {
    let store = prepared(harness).await;
    let mut changed = pets(Keep::Last);
    changed.options.reverse();
    changed.results = ResultsFrom::AfterClose;
    changed.closes_at = Some(Timestamp::MAX);
    assert_eq!(store.register_poll(&changed).await.expect("an answer"), registered_poll());
    assert_eq!(store.polls().await.expect("an answer"), [registered_poll()]);
    assert_eq!(tally(&*store).await, [(cats(), 0), (dogs(), 0)]);
}

async fn a_poll_keeps_when_its_results_may_be_shown(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    store.prepare(layout()).await.expect("an empty store takes any layout");
    let secret = Poll { results: ResultsFrom::AfterClose, ..pets(Keep::First) };
    let expected = RegisteredPoll::from(&secret);
    assert_eq!(store.register_poll(&secret).await.expect("an answer"), expected);
    let again = store.register_poll(&pets(Keep::First)).await.expect("an answer");
    assert_eq!(again, expected, "the first registration stands, whatever a file says later");
    let store = harness.reopen(store).await;
    assert_eq!(store.polls().await.expect("an answer"), std::slice::from_ref(&expected));
    assert_eq!(books(&*store).await.polls, [expected]);
}

async fn a_partition_has_one_owner(harness: &dyn StoreHarness) {
    let store = prepared(harness).await;
    let (mut one, mut two) =
        (store.open_lane().await.expect("a lane"), store.open_lane().await.expect("a lane"));
    let acquired = acquire(&mut *one).await;
    assert_eq!(two.acquire(PARTITION).await.expect("an answer"), None, "another lane has it");
    assert_eq!(acquire(&mut *one).await, acquired, "the owner may ask again");
    one.release(PARTITION).await.expect("a release");
    assert_eq!(acquire(&mut *two).await, acquired);
}

async fn a_lane_that_ends_frees_its_partitions(harness: &dyn StoreHarness) {
    let store = prepared(harness).await;
    let (mut one, mut two) =
        (store.open_lane().await.expect("a lane"), store.open_lane().await.expect("a lane"));
    acquire(&mut *one).await;
    drop(one);
    for _ in 0..100 {
        if two.acquire(PARTITION).await.expect("an answer").is_some() {
            return;
        }
        // A server may take a moment to notice that a connection is gone.
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("10 s after its lane was dropped, the partition is still not free");
}

async fn partitions_without_an_owner_are_named(harness: &dyn StoreHarness) {
    let store = prepared(harness).await;
    let all: Vec<_> = layout().partitions.iter().collect();
    let (mut one, mut two) =
        (store.open_lane().await.expect("a lane"), store.open_lane().await.expect("a lane"));
    assert_eq!(one.unowned().await.expect("an answer"), all, "nobody owns any");
    acquire(&mut *one).await;
    two.acquire(Partition(3)).await.expect("an answer").expect("a free partition can be acquired");
    let rest: Vec<_> = all.iter().copied().filter(|p| ![PARTITION, Partition(3)].contains(p)).collect();
    assert_eq!(one.unowned().await.expect("an answer"), rest);
    assert_eq!(two.unowned().await.expect("an answer"), rest);
    one.release(PARTITION).await.expect("a release");
    assert!(two.unowned().await.expect("an answer").contains(&PARTITION));
}

/// A store with one commit: three votes, two for cats.
async fn committed(harness: &dyn StoreHarness) -> (Arc<dyn Store>, Box<dyn Lane>, Vec<Vote>) {
    let store = prepared(harness).await;
    let mut lane = store.open_lane().await.expect("a lane");
    let acquired = acquire(&mut *lane).await;
    let votes: Vec<_> =
        voters().take(3).enumerate().map(|(i, voter)| vote(voter, (i % 2) as u8, 5)).collect();
    lane.commit(&inserts(acquired.version, 1, &votes)).await.expect("a commit");
    (store, lane, votes)
}

async fn a_commit_moves_the_votes(harness: &dyn StoreHarness) {
    let (store, _lane, votes) = committed(harness).await;
    for vote in &votes {
        let found = store.ballot(poll(), vote.voter).await.expect("a look");
        assert_eq!(found, Some(ballot(vote)));
    }
    let nobody = store.ballot(poll(), VoterKey([0xff; 16])).await.expect("a look");
    assert_eq!(nobody, None);
}

async fn a_commit_moves_the_tally(harness: &dyn StoreHarness) {
    let (store, _lane, _votes) = committed(harness).await;
    assert_eq!(tally(&*store).await, [(cats(), 2), (dogs(), 1)]);
}

async fn a_commit_moves_the_ledger(harness: &dyn StoreHarness) {
    let (store, _lane, _votes) = committed(harness).await;
    let ledger = ledger(&*store).await;
    assert_eq!(ledger.len(), 1);
    assert_eq!((ledger[0].partition, &ledger[0].entry), (PARTITION, &ledger_entry(3, 3, 0)));
}

async fn a_commit_moves_the_positions(harness: &dyn StoreHarness) {
    let (store, mut lane, _votes) = committed(harness).await;
    assert_eq!(store.position(queue_id(1), PARTITION).await.expect("a position"), at(1));
    assert_eq!(store.position(queue_id(1), Partition(1)).await.expect("a position"), Position::START);
    let checkpoints = acquire(&mut *lane).await.checkpoints;
    assert_eq!(checkpoints.len(), 1);
    assert_eq!(checkpoints[&queue_id(1)].position, at(1));
    assert_eq!(checkpoints[&queue_id(1)].accepted, BTreeMap::from([(poll().to_string(), 3)]));
}

async fn all_positions_are_those_of_every_queue_and_partition(harness: &dyn StoreHarness) {
    let (store, mut lane, _votes) = committed(harness).await;
    let other = Partition(1);
    let acquired = lane.acquire(other).await.expect("an answer").expect("a free partition");
    let mut plan = CommitPlan { partition: other, ..inserts(acquired.version, 1, &[]) };
    plan.positions = vec![(queue_id(1), at(2)), (queue_id(2), at(3))];
    plan.ledger.clear();
    lane.commit(&plan).await.expect("a commit");
    let expected =
        [((queue_id(1), PARTITION), at(1)), ((queue_id(1), other), at(2)), ((queue_id(2), other), at(3))];
    assert_eq!(store.all_positions().await.expect("positions"), BTreeMap::from(expected));
}

async fn a_commit_moves_the_quarantine(harness: &dyn StoreHarness) {
    let store = prepared(harness).await;
    let mut lane = store.open_lane().await.expect("a lane");
    let mut plan = inserts(acquire(&mut *lane).await.version, 1, &[]);
    plan.quarantine.push(QuarantinedFrame {
        queue: queue_id(1),
        position: at(1),
        poll: "no slug".to_owned(),
        accounted: 4,
        quarantined: QuarantinedVotes::All,
        reason: "damaged".to_owned(),
        awaits_poll: false,
        frame: Bytes::from_static(b"\xff\x00"),
    });
    lane.commit(&plan).await.expect("a commit");
    let row = |position| store.quarantined(queue_id(1), PARTITION, at(position));
    assert_eq!(row(1).await.expect("a look").expect("it is there").frame.reason, "damaged");
    assert_eq!(row(2).await.expect("a look"), None);
}

async fn a_stale_version_changes_nothing(harness: &dyn StoreHarness) {
    let (store, mut lane, _) = committed(harness).await;
    let version = acquire(&mut *lane).await.version;
    let late: Vec<_> = voters().skip(3).take(2).map(|voter| vote(voter, 0, 6)).collect();
    // From another queue, so that nothing but the version can tell.
    let mut plan = inserts(version - 1, 1, &late);
    plan.positions = vec![(queue_id(2), at(1))];
    plan.ledger[0].queue = queue_id(2);
    let before = everything(&*store, &late).await;
    let result = lane.commit(&plan).await;
    assert!(matches!(result, Err(StoreError::StaleVersion(PARTITION))), "{result:?}");
    drop(lane);
    assert_eq!(everything(&*store, &late).await, before);
}

async fn a_lane_that_lost_its_partition_changes_nothing(harness: &dyn StoreHarness) {
    let store = prepared(harness).await;
    let (mut one, mut two) =
        (store.open_lane().await.expect("a lane"), store.open_lane().await.expect("a lane"));
    let old = acquire(&mut *one).await;
    one.release(PARTITION).await.expect("a release");
    let new = acquire(&mut *two).await;
    let votes: Vec<_> = voters().take(2).map(|voter| vote(voter, 0, 6)).collect();
    two.commit(&inserts(new.version, 1, &votes[..1])).await.expect("the owner commits");
    let before = everything(&*store, &votes).await;
    let result = one.commit(&inserts(old.version, 2, &votes[1..])).await;
    assert!(matches!(result, Err(StoreError::StaleVersion(PARTITION))), "{result:?}");
    assert_eq!(everything(&*store, &votes).await, before);
}

async fn a_second_insert_of_a_voter_changes_nothing(harness: &dyn StoreHarness) {
    let (store, mut lane, votes) = committed(harness).await;
    let version = acquire(&mut *lane).await.version;
    // One voter that has a vote already, among some that have none.
    let mut second: Vec<_> = voters().skip(3).take(4).map(|voter| vote(voter, 0, 7)).collect();
    second.push(Vote { option: dogs(), ..votes[0] });
    let before = everything(&*store, &second).await;
    let result = lane.commit(&inserts(version, 2, &second)).await;
    assert!(matches!(result, Err(StoreError::Conflict(_))), "{result:?}");
    drop(lane);
    assert_eq!(everything(&*store, &second).await, before);
}

fn replacement(version: u64, old: &Vote, new: &Vote) -> CommitPlan {
    let mut plan = inserts(version, 2, &[]);
    plan.polls[0].replacements = vec![(ballot(old), ballot(new))];
    plan.polls[0].tally = BTreeMap::from([(old.option, -1), (new.option, 1)]);
    plan.ledger = vec![ledger_entry(4, 0, 1)];
    plan
}

async fn a_replacement_of_what_does_not_stand_changes_nothing(harness: &dyn StoreHarness) {
    let (store, mut lane, votes) = committed(harness).await;
    let version = acquire(&mut *lane).await.version;
    let not_standing = Vote { cast_at: votes[0].cast_at.saturating_add(1), ..votes[0] };
    let before = everything(&*store, &votes).await;
    let result =
        lane.commit(&replacement(version, &not_standing, &Vote { option: dogs(), ..votes[0] })).await;
    assert!(matches!(result, Err(StoreError::Conflict(_))), "{result:?}");
    drop(lane);
    assert_eq!(everything(&*store, &votes).await, before);
}

async fn a_replacement_moves_vote_and_tally(harness: &dyn StoreHarness) {
    let (store, mut lane, votes) = committed(harness).await;
    let version = acquire(&mut *lane).await.version;
    let new = Vote { option: dogs(), cast_at: votes[0].cast_at.saturating_add(1), ..votes[0] };
    lane.commit(&replacement(version, &votes[0], &new)).await.expect("a commit");
    assert_eq!(store.ballot(poll(), new.voter).await.expect("a look"), Some(ballot(&new)));
    assert_eq!(tally(&*store).await, [(cats(), 1), (dogs(), 2)]);
}

async fn the_count_of_accepted_votes_is_replaced_and_the_rest_added(harness: &dyn StoreHarness) {
    let (store, mut lane, votes) = committed(harness).await;
    let version = acquire(&mut *lane).await.version;
    let new = Vote { option: dogs(), ..votes[0] };
    lane.commit(&replacement(version, &votes[0], &new)).await.expect("a commit");
    let ledger = ledger(&*store).await;
    assert_eq!(ledger.len(), 1);
    assert_eq!(ledger[0].entry, ledger_entry(4, 3, 1));
}

async fn a_lookup_finds_all_that_stands(harness: &dyn StoreHarness) {
    let (store, lane, votes) = committed(harness).await;
    // A lane that did not commit them itself, and so knows nothing but what the store tells it.
    drop(lane);
    let mut lane = store.open_lane().await.expect("a lane");
    for _ in 0..100 {
        if lane.acquire(PARTITION).await.expect("an answer").is_some() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let mut asked: Vec<_> = voters().take(10).map(|voter| vote(voter, 0, 0).voter).collect();
    asked.sort_unstable();
    let mut expected: Vec<_> = votes.iter().map(ballot).collect();
    expected.sort_by_key(|ballot| ballot.voter);
    for lookup in [Lookup::Filtered, Lookup::Exhaustive, Lookup::Filtered] {
        let mut found = lane.lookup(PARTITION, poll(), &asked, lookup).await.expect("a lookup");
        found.sort_by_key(|ballot| ballot.voter);
        assert_eq!(found, expected, "{lookup:?}");
    }
    let cars = lane.lookup(PARTITION, poll(), &[], Lookup::Filtered).await.expect("a lookup");
    assert_eq!(cars, [], "nobody asked for");
}

async fn a_restart_resumes_where_it_was(harness: &dyn StoreHarness) {
    let (store, lane, votes) = committed(harness).await;
    drop(lane);
    let before = everything(&*store, &votes).await;
    let store = harness.reopen(store).await;
    store.prepare(layout()).await.expect("the same layout");
    assert_eq!(everything(&*store, &votes).await, before);
    assert_eq!(store.polls().await.expect("polls"), [registered_poll()]);
    let mut lane = store.open_lane().await.expect("a lane");
    for _ in 0..100 {
        if let Some(acquired) = lane.acquire(PARTITION).await.expect("an answer") {
            assert_eq!((acquired.version, acquired.checkpoints[&queue_id(1)].position), (1, at(1)));
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("the partition did not get free");
}

fn record(seconds: i64, state: QueueState) -> QueueRecord {
    let votes = BTreeMap::from([(poll().to_string(), seconds as u64)]);
    QueueRecord {
        id: queue_id(1),
        remains_of: (seconds > 100).then(|| queue_id(2)),
        address: format!("redis://host-{seconds}"),
        seen_at: Timestamp::MIN.saturating_add(seconds * 1_000_000),
        accepted: votes.clone(),
        queued: votes,
        queued_complete: seconds % 2 == 0,
        ends: vec![at(seconds as u8), Position::START],
        backlog: 1,
        reason: if state == QueueState::Active { String::new() } else { format!("noticed at {seconds}") },
        state,
    }
}

async fn a_queue_that_was_cut_stays_so(harness: &dyn StoreHarness) {
    let store = prepared(harness).await;
    store.report(&[record(1, QueueState::Active)]).await.expect("a report");
    store.report(&[record(2, QueueState::Cut)]).await.expect("a report");
    store.report(&[record(3, QueueState::Active)]).await.expect("a report");
    let cut = QueueRecord { reason: "noticed at 2".to_owned(), ..record(3, QueueState::Cut) };
    assert_eq!(store.queues().await.expect("queues"), std::slice::from_ref(&cut));
    store.report(&[record(1, QueueState::Active)]).await.expect("a report");
    assert_eq!(store.queues().await.expect("queues"), [cut], "a late report changes nothing");
}

async fn the_latest_report_of_a_queue_stands(harness: &dyn StoreHarness) {
    let store = prepared(harness).await;
    for seconds in [1, 3, 2] {
        store.report(&[record(seconds, QueueState::Active)]).await.expect("a report");
    }
    assert_eq!(store.queues().await.expect("queues"), [record(3, QueueState::Active)]);
    let future = QueueRecord { seen_at: Timestamp::MAX, ..record(4, QueueState::Active) };
    store.report(&[future]).await.expect("a report");
    store.report(&[record(5, QueueState::Active)]).await.expect("a report");
    let stands = store.queues().await.expect("queues");
    assert_eq!(stands, [record(5, QueueState::Active)], "the clock was set back since the one before");
}

/// Double votes through two queues, read in pieces, some of them twice by a lane that lost its commit's answer.
async fn any_delivery_gives_the_tally_of_the_set_of_votes(harness: &dyn StoreHarness) {
    for keep in [Keep::First, Keep::Last] {
        let store = harness.fresh().await;
        store.prepare(layout()).await.expect("a layout");
        let registered = store.register_poll(&pets(keep)).await.expect("a poll");
        let votes: Vec<Vote> =
            (0..400_u64).map(|n| vote(n % 90, (n * 7 % 3) as u8, 1 + (n * 37 % 11) as i64)).collect();
        let queues = [filled(&votes[..200]).await, filled(&votes[200..]).await];
        let mut lane = store.open_lane().await.expect("a lane");
        for partition in layout().partitions.iter() {
            drain(&mut *lane, partition, &registered, &queues).await;
        }
        let mut stands: HashMap<VoterKey, Ballot> = HashMap::new();
        for vote in &votes {
            let ballot = ballot(vote);
            stands.entry(vote.voter).and_modify(|b| *b = dedup::stands(keep, *b, ballot)).or_insert(ballot);
        }
        for expected in stands.values() {
            let found = store.ballot(poll(), expected.voter).await.expect("a look");
            assert_eq!(found, Some(*expected), "{keep:?}");
        }
        let count = |option| stands.values().filter(|ballot| ballot.option == option).count() as u64;
        assert_eq!(tally(&*store).await, [(cats(), count(cats())), (dogs(), count(dogs()))], "{keep:?}");
        let ledger = ledger(&*store).await;
        for row in &ledger {
            assert!(row.entry.is_conserved(), "{row:?}");
        }
        assert_eq!(ledger.iter().map(|row| row.entry.accepted).sum::<u64>(), votes.len() as u64);
        assert_eq!(ledger.iter().map(|row| row.entry.new_voters).sum::<u64>(), stands.len() as u64);
    }
}

async fn filled(votes: &[Vote]) -> (QueueId, MemoryQueue) {
    let queue = MemoryQueue::new();
    let id = queue.create(layout(), None).await.expect("a box");
    super::activate(&queue, id, &[poll()]).await.expect("a box");
    for some in votes.chunks(16) {
        queue.append(id, &frames(some)).await.expect("frames");
    }
    (id, queue)
}

async fn drain(
    lane: &mut dyn Lane,
    partition: Partition,
    registered: &RegisteredPoll,
    queues: &[(QueueId, MemoryQueue)],
) {
    for piece in 0.. {
        // Acquiring anew each time is what a lane does that does not know what became of its commit.
        let acquired = lane.acquire(partition).await.expect("an answer").expect("nobody else is there");
        let mut deliveries = Vec::new();
        for (id, queue) in queues {
            let from = acquired.checkpoints.get(id).cloned().unwrap_or_default();
            let read = queue.read(*id, partition, from.position, 1 + piece % 3).await.expect("a read");
            deliveries.push(Delivery::new(*id, &from, read));
        }
        if deliveries.iter().all(|delivery| delivery.entries.is_empty()) {
            return;
        }
        let batch = Batch::decode(
            partition,
            layout().partitions,
            std::slice::from_ref(registered),
            deliveries,
            Vec::new(),
        );
        let mut standing = BTreeMap::new();
        for (poll, voters) in batch.voters() {
            let found = lane.lookup(partition, poll, &voters, Lookup::Filtered).await.expect("a lookup");
            standing.insert(poll, found);
        }
        lane.commit(&batch.plan(acquired.version, &standing)).await.expect("a commit");
    }
}
