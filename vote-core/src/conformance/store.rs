//! The conformance suite of [`Store`]: what every implementation must do.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::missing_panics_doc)] // A failed clause is a panic.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use bytes::Bytes;

use super::{StoreHarness, ballot, frames, layout, poll, queue_id, registered_poll, suite, vote};
use crate::{
    Keep, OptionSlug, Partition, Partitions, PepperFingerprint, Poll, Polls, Position, Queue, QueueId,
    Session, Store, Timestamp, Vote, VoterKey,
    count::{
        self, Accounts, Ballot, Batch, CommitPlan, Delivery, LedgerEntry, LedgerRow, PollPlan,
        QuarantinedFrame, QuarantinedVotes, QueueRecord, QueueState, ReasonCode, RegisteredPoll,
        StoredReason,
    },
    poll::ResultsFrom,
    queue::{Layout, MemoryQueue},
    store::{Acquired, Lookup, StoreError},
};

suite!(StoreHarness, StoreFault, store_conformance, store, {
    a_new_store_is_empty: InventsALayout,
    the_layout_is_written_once: AcceptsAnyLayout,
    a_registered_poll_keeps_its_definition: ReplacesPolls,
    a_registered_poll_keeps_its_results_setting: PublishesAllResults,
    a_partition_has_one_owner: SharesPartitions,
    a_dropped_session_frees_its_partitions: KeepsPartitionsOfDroppedSessions,
    partitions_without_an_owner_are_listed: ListsNoFreePartition,
    a_commit_stores_the_ballots: DropsAVote,
    a_commit_updates_the_tally: DropsTheTally,
    a_commit_updates_the_ledger: DropsTheLedger,
    a_commit_updates_the_positions: ForgetsThePosition,
    all_positions_cover_every_queue_and_partition: LeavesOutPositions,
    a_commit_stores_quarantined_frames: DropsTheQuarantine,
    a_stale_version_changes_nothing: IgnoresTheVersion,
    a_session_that_lost_its_partition_changes_nothing: IgnoresTheVersion,
    a_second_insert_of_a_voter_changes_nothing: TurnsInsertsIntoReplacements,
    a_replacement_of_another_ballot_changes_nothing: ReplacesAnyBallot,
    a_replacement_updates_ballot_and_tally: DropsReplacements,
    the_accepted_count_is_replaced_and_the_others_are_added: AddsUpTheAcceptedCount,
    a_lookup_finds_every_effective_ballot: LooksUpHalf,
    a_restart_loses_nothing: ForgetsOnRestart,
    a_diverged_queue_stays_diverged: RevivesDivergedQueues,
    the_latest_report_of_a_queue_counts: KeepsTheFirstReport,
    any_delivery_gives_the_tally_of_the_set_of_votes: KeepsTheFirstBallot,
    a_closed_poll_stays_closed: ReopensPolls,
    a_final_poll_stays_final: FinishesTwice,
    a_poll_is_final_only_when_every_partition_is_complete: FinishesIncompletePolls,
    an_open_poll_is_never_final: FinishesOpenPolls,
    a_final_poll_counts_no_more_votes: CountsVotesOfFinalPolls,
    a_partition_is_complete_only_when_read_to_every_seal: CompletesWhatWasNotRead,
    a_new_queue_outdates_completions: IgnoresNewQueues,
    a_higher_seal_outdates_completions: IgnoresHigherSeals,
    a_poll_closes_by_time_only_if_both_clocks_agree: ClosesByTheCallersClock,
    a_closing_time_changes_by_command_only: FollowsTheFile,
    a_closed_poll_is_not_rescheduled: ReschedulesClosedPolls,
    a_poll_with_votes_is_not_withdrawn: WithdrawsPollsWithVotes,
    a_withdrawn_poll_is_replaced_once_every_queue_gave_it_up: ForgetsWhoGaveUp,
    a_withdrawn_poll_waits_for_every_queue: RegistersTooEarly,
    a_plan_by_a_replaced_definition_changes_nothing: KeepsPlansByReplacedPolls,
    a_withdrawal_can_be_undone: NeverKeepsPolls,
    a_plan_for_an_unregistered_poll_changes_nothing: SkipsUnregisteredPolls,
    a_plan_for_an_unknown_option_changes_nothing: SkipsUnknownOptions,
    a_lookup_in_an_unregistered_poll_finds_nothing: RefusesUnregisteredPolls,
    a_session_needs_a_prepared_store: OpensUnpreparedStores,
    live_workers_are_listed: ForgetsWorkers,
    a_queue_seen_in_the_future_counts_as_seen_long_ago: KeepsFutureTimes,
    the_catalog_holds_what_is_on_record: LeavesQueuesOutOfTheCatalog,
    the_highest_seal_is_kept: OverwritesSeals,
    a_retired_queue_stays_retired: RevivesRetiredQueues,
    quarantined_frames_are_listed_in_order: ListsOnePage,
    a_frame_is_replayed_once_its_poll_is_registered: NeverReplays,
    a_frame_of_a_final_poll_is_not_replayed: ReplaysFinalPolls,
    a_frame_counted_later_leaves_the_quarantine: KeepsCountedFrames,
    a_frame_that_fails_again_gets_the_new_reason: ForgetsTheNewReason,
    a_replayed_frame_is_counted_once: CountsReplaysTwice,
    a_rejected_frame_is_not_replayed: ReplaysRejectedFrames,
    votes_of_a_frame_are_quarantined_by_index: QuarantinesWholeFrames,
    a_partial_replay_keeps_the_rest: ForgetsTheRest,
    a_replay_of_counted_votes_changes_nothing: ReplaysFromAnyState,
    totals_count_quarantined_votes_not_whole_frames: AddsUpWholeFrames,
    accounts_are_of_one_moment: ReadsAccountsLate,
    accounts_hold_everything: LeavesOutQuarantine,
    ballots_come_in_the_order_of_their_voters: RepeatsTheLastBallot,
});

mod closing;
mod quarantine;
mod snapshot;
mod unknown;
mod withdrawal;

use closing::*;
use quarantine::*;
use snapshot::*;
use unknown::*;
use withdrawal::*;

/// Returns a prepared store with the suite's poll.
async fn prepared(harness: &dyn StoreHarness) -> Arc<dyn Store> {
    let store = harness.fresh().await;
    store.prepare(layout()).await.expect("an empty store accepts any layout");
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

/// The partition of most clauses, which is that of voter 0.
const PARTITION: Partition = Partition(0);

/// Returns the voters of [`PARTITION`].
fn voters() -> impl Iterator<Item = u64> {
    (0..).filter(|voter| layout().partitions.of(vote(*voter, 0, 0).voter) == PARTITION)
}

/// Acquires [`PARTITION`], which must be free.
async fn acquire(session: &mut dyn Session) -> Acquired {
    session.acquire(PARTITION).await.expect("an answer").expect("a free partition can be acquired")
}

fn at(position: u8) -> Position {
    Position::from_bytes(&[position]).expect("one byte fits")
}

/// Returns a plan that inserts these votes, as if they were read from queue 1 up to a position.
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

async fn accounts(store: &dyn Store) -> Accounts {
    store.snapshot().await.expect("a snapshot").accounts(true).await.expect("the accounts")
}

async fn ledger(store: &dyn Store) -> Vec<LedgerRow> {
    accounts(store).await.ledger
}

async fn tally(store: &dyn Store) -> Vec<(OptionSlug, u64)> {
    accounts(store).await.tally_of(poll())
}

/// Returns everything that a commit changes, to check that a refused one has changed nothing.
async fn everything(store: &dyn Store, voters: &[Vote]) -> impl PartialEq + std::fmt::Debug + use<> {
    let mut ballots = Vec::new();
    for vote in voters {
        ballots.push(store.ballot(poll(), vote.voter).await.expect("an answer"));
    }
    let position = store.position(queue_id(1), PARTITION).await.expect("a position");
    (ballots, tally(store).await, ledger(store).await, position)
}

async fn a_new_store_is_empty(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    assert_eq!(store.layout().await.expect("an answer"), None);
    assert_eq!(store.polls().await.expect("an answer"), []);
    assert_eq!(ledger(&*store).await, []);
    assert_eq!(store.queues().await.expect("an answer"), []);
    assert_eq!(tally(&*store).await, [], "an unregistered poll has no tally");
    assert_eq!(store.position(queue_id(1), PARTITION).await.expect("an answer"), Position::START);
}

async fn the_layout_is_written_once(harness: &dyn StoreHarness) {
    let store = prepared(harness).await;
    store.prepare(layout()).await.expect("the same layout is accepted again");
    let more = Layout { partitions: Partitions::new(32).expect("32"), ..layout() };
    assert!(matches!(store.prepare(more).await, Err(StoreError::Layout(_))), "another number of partitions");
    let pepper = Layout { fingerprint: PepperFingerprint([8; 8]), ..layout() };
    assert!(matches!(store.prepare(pepper).await, Err(StoreError::Layout(_))), "another pepper");
    assert_eq!(store.layout().await.expect("an answer"), Some(layout()));
}

async fn a_registered_poll_keeps_its_definition(harness: &dyn StoreHarness) {
    let store = prepared(harness).await;
    let mut changed = pets(Keep::Last);
    changed.options.reverse();
    changed.results = ResultsFrom::AfterClose;
    changed.closes_at = Some(Timestamp::MAX);
    assert_eq!(store.register_poll(&changed).await.expect("an answer"), registered_poll());
    assert_eq!(store.polls().await.expect("an answer"), [registered_poll()]);
    assert_eq!(tally(&*store).await, [(cats(), 0), (dogs(), 0)]);
}

async fn a_registered_poll_keeps_its_results_setting(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    store.prepare(layout()).await.expect("an empty store accepts any layout");
    let withheld = Poll { results: ResultsFrom::AfterClose, ..pets(Keep::First) };
    let expected = RegisteredPoll::from(&withheld);
    assert_eq!(store.register_poll(&withheld).await.expect("an answer"), expected);
    let again = store.register_poll(&pets(Keep::First)).await.expect("an answer");
    assert_eq!(again, expected, "a later definition does not change the registered one");
    let store = harness.reopen(store).await;
    assert_eq!(store.polls().await.expect("an answer"), std::slice::from_ref(&expected));
    assert_eq!(accounts(&*store).await.polls, [expected]);
}

async fn a_partition_has_one_owner(harness: &dyn StoreHarness) {
    let store = prepared(harness).await;
    let (mut one, mut two) =
        (store.open_session().await.expect("a session"), store.open_session().await.expect("a session"));
    let acquired = acquire(&mut *one).await;
    assert_eq!(two.acquire(PARTITION).await.expect("an answer"), None, "another session owns it");
    assert_eq!(acquire(&mut *one).await, acquired, "the owner may ask again");
    one.release(PARTITION).await.expect("a release");
    assert_eq!(acquire(&mut *two).await, acquired);
}

async fn a_dropped_session_frees_its_partitions(harness: &dyn StoreHarness) {
    let store = prepared(harness).await;
    let (mut one, mut two) =
        (store.open_session().await.expect("a session"), store.open_session().await.expect("a session"));
    acquire(&mut *one).await;
    drop(one);
    for _ in 0..100 {
        if two.acquire(PARTITION).await.expect("an answer").is_some() {
            return;
        }
        // A server may need a moment to notice that a connection is gone.
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("10 s after its session was dropped, the partition is still not free");
}

async fn partitions_without_an_owner_are_listed(harness: &dyn StoreHarness) {
    let store = prepared(harness).await;
    let all: Vec<_> = layout().partitions.iter().collect();
    let (mut one, mut two) =
        (store.open_session().await.expect("a session"), store.open_session().await.expect("a session"));
    assert_eq!(one.unowned().await.expect("an answer"), all, "no session owns any");
    acquire(&mut *one).await;
    two.acquire(Partition(3)).await.expect("an answer").expect("a free partition can be acquired");
    let rest: Vec<_> = all.iter().copied().filter(|p| ![PARTITION, Partition(3)].contains(p)).collect();
    assert_eq!(one.unowned().await.expect("an answer"), rest);
    assert_eq!(two.unowned().await.expect("an answer"), rest);
    one.release(PARTITION).await.expect("a release");
    assert!(two.unowned().await.expect("an answer").contains(&PARTITION));
}

/// Returns a store with one commit, a session, and the votes of the commit: three, two of them for cats.
async fn committed(harness: &dyn StoreHarness) -> (Arc<dyn Store>, Box<dyn Session>, Vec<Vote>) {
    let store = prepared(harness).await;
    let mut session = store.open_session().await.expect("a session");
    let acquired = acquire(&mut *session).await;
    let votes: Vec<_> =
        voters().take(3).enumerate().map(|(i, voter)| vote(voter, (i % 2) as u8, 5)).collect();
    session.commit(&inserts(acquired.version, 1, &votes)).await.expect("a commit");
    (store, session, votes)
}

async fn a_commit_stores_the_ballots(harness: &dyn StoreHarness) {
    let (store, _session, votes) = committed(harness).await;
    for vote in &votes {
        let found = store.ballot(poll(), vote.voter).await.expect("an answer");
        assert_eq!(found, Some(ballot(vote)));
    }
    let missing = store.ballot(poll(), VoterKey([0xff; 16])).await.expect("an answer");
    assert_eq!(missing, None, "this voter has no ballot");
}

async fn a_commit_updates_the_tally(harness: &dyn StoreHarness) {
    let (store, _session, _votes) = committed(harness).await;
    assert_eq!(tally(&*store).await, [(cats(), 2), (dogs(), 1)]);
}

async fn a_commit_updates_the_ledger(harness: &dyn StoreHarness) {
    let (store, _session, _votes) = committed(harness).await;
    let ledger = ledger(&*store).await;
    assert_eq!(ledger.len(), 1);
    assert_eq!((ledger[0].partition, &ledger[0].entry), (PARTITION, &ledger_entry(3, 3, 0)));
}

async fn a_commit_updates_the_positions(harness: &dyn StoreHarness) {
    let (store, mut session, _votes) = committed(harness).await;
    assert_eq!(store.position(queue_id(1), PARTITION).await.expect("a position"), at(1));
    assert_eq!(store.position(queue_id(1), Partition(1)).await.expect("a position"), Position::START);
    let checkpoints = acquire(&mut *session).await.checkpoints;
    assert_eq!(checkpoints.len(), 1);
    assert_eq!(checkpoints[&queue_id(1)].position, at(1));
    assert_eq!(checkpoints[&queue_id(1)].accepted, BTreeMap::from([(poll().to_string(), 3)]));
}

async fn all_positions_cover_every_queue_and_partition(harness: &dyn StoreHarness) {
    let (store, mut session, _votes) = committed(harness).await;
    let other = Partition(1);
    let acquired = session.acquire(other).await.expect("an answer").expect("a free partition");
    let mut plan = CommitPlan { partition: other, ..inserts(acquired.version, 1, &[]) };
    plan.positions = vec![(queue_id(1), at(2)), (queue_id(2), at(3))];
    plan.ledger.clear();
    session.commit(&plan).await.expect("a commit");
    let expected =
        [((queue_id(1), PARTITION), at(1)), ((queue_id(1), other), at(2)), ((queue_id(2), other), at(3))];
    assert_eq!(store.all_positions().await.expect("positions"), BTreeMap::from(expected));
}

fn damaged() -> StoredReason {
    StoredReason { code: ReasonCode::DamagedFrame, text: "damaged".to_owned() }
}

async fn a_commit_stores_quarantined_frames(harness: &dyn StoreHarness) {
    let store = prepared(harness).await;
    let mut session = store.open_session().await.expect("a session");
    let mut plan = inserts(acquire(&mut *session).await.version, 1, &[]);
    plan.quarantine.push(QuarantinedFrame {
        queue: queue_id(1),
        position: at(1),
        poll: "no slug".to_owned(),
        accounted: 4,
        quarantined: QuarantinedVotes::All,
        reason: damaged(),
        frame: Bytes::from_static(b"\xff\x00"),
    });
    session.commit(&plan).await.expect("a commit");
    let row = |position| store.quarantined(queue_id(1), PARTITION, at(position));
    assert_eq!(row(1).await.expect("an answer").expect("a quarantined frame").frame.reason, damaged());
    assert_eq!(row(2).await.expect("an answer"), None);
}

async fn a_stale_version_changes_nothing(harness: &dyn StoreHarness) {
    let (store, mut session, _) = committed(harness).await;
    let version = acquire(&mut *session).await.version;
    let late: Vec<_> = voters().skip(3).take(2).map(|voter| vote(voter, 0, 6)).collect();
    // From another queue, so that only the version shows that the plan is stale.
    let mut plan = inserts(version - 1, 1, &late);
    plan.positions = vec![(queue_id(2), at(1))];
    plan.ledger[0].queue = queue_id(2);
    let before = everything(&*store, &late).await;
    let result = session.commit(&plan).await;
    assert!(matches!(result, Err(StoreError::StaleVersion(PARTITION))), "{result:?}");
    drop(session);
    assert_eq!(everything(&*store, &late).await, before);
}

async fn a_session_that_lost_its_partition_changes_nothing(harness: &dyn StoreHarness) {
    let store = prepared(harness).await;
    let (mut one, mut two) =
        (store.open_session().await.expect("a session"), store.open_session().await.expect("a session"));
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
    let (store, mut session, votes) = committed(harness).await;
    let version = acquire(&mut *session).await.version;
    // One voter that has a ballot already, among others that have none.
    let mut second: Vec<_> = voters().skip(3).take(4).map(|voter| vote(voter, 0, 7)).collect();
    second.push(Vote { option: dogs(), ..votes[0] });
    let before = everything(&*store, &second).await;
    let result = session.commit(&inserts(version, 2, &second)).await;
    assert!(matches!(result, Err(StoreError::Conflict(_))), "{result:?}");
    drop(session);
    assert_eq!(everything(&*store, &second).await, before);
}

/// Returns a plan that replaces one ballot.
fn replacement(version: u64, old: &Vote, new: &Vote) -> CommitPlan {
    let mut plan = inserts(version, 2, &[]);
    plan.polls[0].replacements = vec![(ballot(old), ballot(new))];
    plan.polls[0].tally = BTreeMap::from([(old.option, -1), (new.option, 1)]);
    plan.ledger = vec![ledger_entry(4, 0, 1)];
    plan
}

async fn a_replacement_of_another_ballot_changes_nothing(harness: &dyn StoreHarness) {
    let (store, mut session, votes) = committed(harness).await;
    let version = acquire(&mut *session).await.version;
    let other = Vote { cast_at: votes[0].cast_at.saturating_add(1), ..votes[0] };
    let before = everything(&*store, &votes).await;
    let result = session.commit(&replacement(version, &other, &Vote { option: dogs(), ..votes[0] })).await;
    assert!(matches!(result, Err(StoreError::Conflict(_))), "{result:?}");
    drop(session);
    assert_eq!(everything(&*store, &votes).await, before);
}

async fn a_replacement_updates_ballot_and_tally(harness: &dyn StoreHarness) {
    let (store, mut session, votes) = committed(harness).await;
    let version = acquire(&mut *session).await.version;
    let new = Vote { option: dogs(), cast_at: votes[0].cast_at.saturating_add(1), ..votes[0] };
    session.commit(&replacement(version, &votes[0], &new)).await.expect("a commit");
    assert_eq!(store.ballot(poll(), new.voter).await.expect("an answer"), Some(ballot(&new)));
    assert_eq!(tally(&*store).await, [(cats(), 1), (dogs(), 2)]);
}

async fn the_accepted_count_is_replaced_and_the_others_are_added(harness: &dyn StoreHarness) {
    let (store, mut session, votes) = committed(harness).await;
    let version = acquire(&mut *session).await.version;
    let new = Vote { option: dogs(), ..votes[0] };
    session.commit(&replacement(version, &votes[0], &new)).await.expect("a commit");
    let ledger = ledger(&*store).await;
    assert_eq!(ledger.len(), 1);
    assert_eq!(ledger[0].entry, ledger_entry(4, 3, 1));
}

async fn a_lookup_finds_every_effective_ballot(harness: &dyn StoreHarness) {
    let (store, session, votes) = committed(harness).await;
    // A session that did not commit the ballots itself, and so knows only what it reads from the store.
    drop(session);
    let mut session = store.open_session().await.expect("a session");
    for _ in 0..100 {
        if session.acquire(PARTITION).await.expect("an answer").is_some() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let mut asked: Vec<_> = voters().take(10).map(|voter| vote(voter, 0, 0).voter).collect();
    asked.sort_unstable();
    let mut expected: Vec<_> = votes.iter().map(ballot).collect();
    expected.sort_by_key(|ballot| ballot.voter);
    for lookup in [Lookup::Filtered, Lookup::Exhaustive, Lookup::Filtered] {
        let mut found = session.lookup(PARTITION, poll(), &asked, lookup).await.expect("a lookup");
        found.sort_by_key(|ballot| ballot.voter);
        assert_eq!(found, expected, "{lookup:?}");
    }
    let none = session.lookup(PARTITION, poll(), &[], Lookup::Filtered).await.expect("a lookup");
    assert_eq!(none, [], "no voter was asked for");
}

async fn a_restart_loses_nothing(harness: &dyn StoreHarness) {
    let (store, session, votes) = committed(harness).await;
    drop(session);
    let before = everything(&*store, &votes).await;
    let store = harness.reopen(store).await;
    store.prepare(layout()).await.expect("the same layout");
    assert_eq!(everything(&*store, &votes).await, before);
    assert_eq!(store.polls().await.expect("polls"), [registered_poll()]);
    let mut session = store.open_session().await.expect("a session");
    for _ in 0..100 {
        if let Some(acquired) = session.acquire(PARTITION).await.expect("an answer") {
            assert_eq!((acquired.version, acquired.checkpoints[&queue_id(1)].position), (1, at(1)));
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("the partition was not freed");
}

/// Returns a report of queue 1, in which everything depends on the time of the report in seconds. After 100 s the queue
/// is a replaced one.
fn record(seconds: i64, state: QueueState) -> QueueRecord {
    let votes = BTreeMap::from([(poll().to_string(), seconds as u64)]);
    QueueRecord {
        id: queue_id(1),
        original_id: (seconds > 100).then(|| queue_id(2)),
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

async fn a_diverged_queue_stays_diverged(harness: &dyn StoreHarness) {
    let store = prepared(harness).await;
    store.report(&[record(1, QueueState::Active)]).await.expect("a report");
    store.report(&[record(2, QueueState::Diverged)]).await.expect("a report");
    store.report(&[record(3, QueueState::Active)]).await.expect("a report");
    let diverged = QueueRecord { reason: "noticed at 2".to_owned(), ..record(3, QueueState::Diverged) };
    assert_eq!(store.queues().await.expect("queues"), std::slice::from_ref(&diverged));
    store.report(&[record(1, QueueState::Active)]).await.expect("a report");
    assert_eq!(store.queues().await.expect("queues"), [diverged], "a late report changes nothing");
}

async fn the_latest_report_of_a_queue_counts(harness: &dyn StoreHarness) {
    let store = prepared(harness).await;
    for seconds in [1, 3, 2] {
        store.report(&[record(seconds, QueueState::Active)]).await.expect("a report");
    }
    assert_eq!(store.queues().await.expect("queues"), [record(3, QueueState::Active)]);
    let future = QueueRecord { seen_at: Timestamp::MAX, ..record(4, QueueState::Active) };
    store.report(&[future]).await.expect("a report");
    store.report(&[record(5, QueueState::Active)]).await.expect("a report");
    let queues = store.queues().await.expect("queues");
    assert_eq!(queues, [record(5, QueueState::Active)], "a report from the future does not count as later");
}

/// Sends double votes through two queues, reads them in pieces, and acquires the partition again before each piece.
async fn any_delivery_gives_the_tally_of_the_set_of_votes(harness: &dyn StoreHarness) {
    for keep in [Keep::First, Keep::Last] {
        let store = harness.fresh().await;
        store.prepare(layout()).await.expect("a layout");
        let registered = store.register_poll(&pets(keep)).await.expect("a poll");
        let votes: Vec<Vote> =
            (0..400_u64).map(|n| vote(n % 90, (n * 7 % 3) as u8, 1 + (n * 37 % 11) as i64)).collect();
        let queues = [filled(&votes[..200]).await, filled(&votes[200..]).await];
        let mut session = store.open_session().await.expect("a session");
        for partition in layout().partitions.iter() {
            drain(&mut *session, partition, &registered, &queues).await;
        }
        let mut effective: HashMap<VoterKey, Ballot> = HashMap::new();
        for vote in &votes {
            let ballot = ballot(vote);
            effective.entry(vote.voter).and_modify(|b| *b = count::merge(keep, *b, ballot)).or_insert(ballot);
        }
        for expected in effective.values() {
            let found = store.ballot(poll(), expected.voter).await.expect("an answer");
            assert_eq!(found, Some(*expected), "{keep:?}");
        }
        let count = |option| effective.values().filter(|ballot| ballot.option == option).count() as u64;
        assert_eq!(tally(&*store).await, [(cats(), count(cats())), (dogs(), count(dogs()))], "{keep:?}");
        let ledger = ledger(&*store).await;
        for row in &ledger {
            assert_eq!(row.entry.unaccounted(false), 0, "{row:?}");
        }
        assert_eq!(ledger.iter().map(|row| row.entry.accepted).sum::<u64>(), votes.len() as u64);
        assert_eq!(ledger.iter().map(|row| row.entry.new_voters).sum::<u64>(), effective.len() as u64);
    }
}

/// Returns a queue in memory with these votes.
async fn filled(votes: &[Vote]) -> (QueueId, MemoryQueue) {
    let queue = MemoryQueue::new();
    let id = queue.create(layout(), None).await.expect("a queue");
    super::activate(&queue, id, &[poll()]).await.expect("a queue");
    for flush in votes.chunks(16) {
        queue.append(id, &frames(flush)).await.expect("frames");
    }
    (id, queue)
}

/// Reads a partition of the queues to its end in pieces of up to three entries, each with a commit of its own.
async fn drain(
    session: &mut dyn Session,
    partition: Partition,
    registered: &RegisteredPoll,
    queues: &[(QueueId, MemoryQueue)],
) {
    for piece in 0.. {
        // A worker that does not know the outcome of its commit acquires the partition again, too.
        let acquired = session.acquire(partition).await.expect("an answer").expect("a free partition");
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
        let mut effective = BTreeMap::new();
        for (poll, voters) in batch.voters() {
            let found = session.lookup(partition, poll, &voters, Lookup::Filtered).await.expect("a lookup");
            effective.insert(poll, found);
        }
        session.commit(&batch.plan(acquired.version, &effective)).await.expect("a commit");
    }
}
