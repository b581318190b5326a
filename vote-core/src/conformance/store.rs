//! The conformance suite of [`Store`]: what every implementation must do.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::missing_panics_doc)] // A failed clause is a panic.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;

use super::{StoreHarness, ballot, layout, poll, queue_id, registered_poll, suite, vote};
use crate::{
    Keep, OptionSlug, Partition, Partitions, PepperFingerprint, Poll, Polls, Position, QueueId, Session,
    Store, Timestamp, Vote, VoterKey,
    count::{
        Accounts, Ballot, Checkpoint, CommitPlan, LedgerEntry, LedgerRow, PollPlan, QuarantinedFrame,
        QueueRecord, QueueState, ReasonCode, RegisteredPoll, StoredReason,
    },
    poll::ResultsFrom,
    queue::Layout,
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
    positions_are_found_by_queue_and_by_partition: LeavesOutPositions,
    a_commit_stores_quarantined_frames: DropsTheQuarantine,
    a_stale_version_changes_nothing: IgnoresTheVersion,
    a_session_that_lost_its_partition_changes_nothing: IgnoresTheVersion,
    a_second_insert_of_a_voter_changes_nothing: TurnsInsertsIntoReplacements,
    a_replacement_of_another_ballot_changes_nothing: ReplacesAnyBallot,
    a_replacement_updates_ballot_and_tally: DropsReplacements,
    the_accepted_count_is_replaced_and_the_others_are_added: AddsUpTheAcceptedCount,
    a_commit_leaves_other_entries_of_the_ledger: ResetsOtherEntries,
    a_lookup_finds_every_effective_ballot: LooksUpHalf,
    a_restart_loses_nothing: ForgetsOnRestart,
    a_diverged_queue_stays_diverged: RevivesDivergedQueues,
    the_latest_report_of_a_queue_counts: KeepsTheFirstReport,
    one_call_reports_several_queues: ReportsOneQueue,
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
    a_withdrawn_poll_is_replaced_once_every_queue_dropped_it: ForgetsWhoDroppedPolls,
    a_withdrawn_poll_waits_for_every_queue: RegistersTooEarly,
    a_plan_by_a_replaced_definition_changes_nothing: KeepsPlansByReplacedPolls,
    a_withdrawal_can_be_undone: NeverUndoesWithdrawals,
    an_undone_withdrawal_is_remembered: ForgetsUndoneWithdrawals,
    a_plan_for_an_unregistered_poll_changes_nothing: SkipsUnregisteredPolls,
    a_plan_for_an_unknown_option_changes_nothing: SkipsUnknownOptions,
    a_lookup_in_an_unregistered_poll_finds_nothing: RefusesUnregisteredPolls,
    a_session_needs_a_prepared_store: OpensUnpreparedStores,
    live_workers_are_listed: ForgetsWorkers,
    a_queue_seen_in_the_future_counts_as_seen_long_ago: KeepsFutureTimes,
    the_catalog_holds_what_is_on_record: LeavesQueuesOutOfTheCatalog,
    a_catalog_read_again_has_what_has_changed: MissesChanges,
    a_queue_is_found_by_its_identity: FindsAnyQueue,
    active_queues_without_a_recent_report_are_late: ForgetsLateQueues,
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
    the_summary_is_that_of_the_accounts: MissesNoQueue,
    the_balances_are_those_of_the_accounts: ForgetsWhatWasRetired,
    a_change_of_the_tally_is_dated: NeverDatesTheTally,
    ballots_come_in_the_order_of_their_voters: RepeatsTheLastBallot,
});

mod catalog;
mod closing;
mod commit;
mod delivery;
mod owner;
mod quarantine;
mod snapshot;
mod summary;
mod unknown;
mod withdrawal;

use catalog::*;
use closing::*;
use commit::*;
use delivery::*;
use owner::*;
use quarantine::*;
use snapshot::*;
use summary::*;
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

/// Acquires [`PARTITION`], whose owner was dropped.
async fn acquire_once_free(session: &mut dyn Session) -> Acquired {
    for _ in 0..100 {
        if let Some(acquired) = session.acquire(PARTITION).await.expect("an answer") {
            return acquired;
        }
        // A server may need a moment to notice that a connection is gone.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("10 s after its session was dropped, the partition is still not free");
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

fn damaged() -> StoredReason {
    StoredReason { code: ReasonCode::DamagedFrame, text: "damaged".to_owned() }
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

async fn a_lookup_finds_every_effective_ballot(harness: &dyn StoreHarness) {
    let (store, session, votes) = committed(harness).await;
    // A session that did not commit the ballots itself, and so knows only what it reads from the store.
    drop(session);
    let mut session = store.open_session().await.expect("a session");
    acquire_once_free(&mut *session).await;
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
    let acquired = acquire_once_free(&mut *session).await;
    assert_eq!((acquired.version, acquired.checkpoints[&queue_id(1)].position), (1, at(1)));
}

/// Returns a report of queue 1, in which everything depends on the time of the report in seconds. After 100 s the queue
/// is a replaced one.
fn record(seconds: i64, state: QueueState) -> QueueRecord {
    let votes = BTreeMap::from([(poll().to_string(), seconds as u64)]);
    QueueRecord {
        id: queue_id(1),
        original_id: (seconds > 100).then(|| queue_id(2)),
        address: format!("redis://host-{seconds}"),
        server: format!("server {seconds}"),
        reporter: Some(crate::WorkerId([seconds as u8; 16])),
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

async fn one_call_reports_several_queues(harness: &dyn StoreHarness) {
    let store = prepared(harness).await;
    let before = store.catalog(None).await.expect("the catalog").revision;
    let of = |n: u8, record: QueueRecord| QueueRecord { id: queue_id(n), ..record };
    let alone = QueueRecord { original_id: None, ends: Vec::new(), ..record(7, QueueState::Diverged) };
    let reports = [
        of(3, alone.clone()),
        record(1, QueueState::Active),
        of(2, record(101, QueueState::Active)),
        // The same queue, as monitors of two addresses may see it.
        record(2, QueueState::Active),
    ];
    store.report(&reports).await.expect("a report");
    let expected = [record(2, QueueState::Active), of(2, record(101, QueueState::Active)), of(3, alone)];
    assert_eq!(store.queues().await.expect("queues"), expected);
    let after = store.catalog(None).await.expect("the catalog").revision;
    assert!(after > before, "new queues raise the revision");
    store.report(&expected).await.expect("a report");
    store.report(&[]).await.expect("a report of nothing");
    assert_eq!(store.catalog(None).await.expect("the catalog").revision, after, "nothing is new");
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
