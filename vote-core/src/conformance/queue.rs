//! The conformance suite of [`Queue`]: what every implementation must do.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::missing_panics_doc)] // A failed clause is a panic.

use std::{collections::BTreeMap, sync::Arc};

use super::{QueueHarness, activate, digest, frames, layout, one_frame, poll, record, suite, vote};
use crate::{
    Clock, Partition, Partitions, PepperFingerprint, PollSlug, Position, Queue, QueueId, SystemClock,
    queue::{
        AppendError, Appended, Frame, LAYOUT_VERSION, Layout, PollRecord, QueueError, QueueStatus, Read,
    },
};

suite!(QueueHarness, QueueFault, queue_conformance, queue, {
    an_address_without_a_queue_has_no_status: CreatesUnasked,
    a_new_queue_is_empty_and_not_active: ActivatesItself,
    a_queue_keeps_its_identity_and_layout: CreatesAnotherQueue,
    a_queue_is_replaced_only_by_its_id: ReplacesAnyQueue,
    a_queue_that_is_not_active_accepts_no_votes: AcceptsWhileInactive,
    an_append_with_an_old_id_stores_nothing: IgnoresTheIdentity,
    calls_with_an_old_id_are_refused: ReadsAnyQueue,
    frames_are_read_as_they_were_appended: Reorders,
    a_read_removes_nothing: ReadsDestructively,
    a_read_continues_after_a_position: ForgetsThePosition,
    a_read_is_limited: IgnoresTheLimit,
    the_count_is_returned_only_at_the_end_of_the_log: CountsTooEarly,
    the_count_is_of_votes_by_partition_and_poll: CountsFrames,
    a_look_shows_the_queue_its_server_and_counts: LooksAtOnePartition,
    a_trim_keeps_the_entry_at_the_position: TrimsTheAnchor,
    a_trim_keeps_entries_after_the_position: TrimsEverything,
    a_trim_to_a_missing_entry_changes_nothing: TrimsBlindly,
    positions_keep_rising_after_everything_was_trimmed: RestartsPositions,
    a_queue_that_lost_an_entry_has_diverged: HidesDivergence,
    a_reused_order_number_is_no_anchor: IgnoresTheCheck,
    recorded_polls_are_in_the_status: ForgetsThePolls,
    frames_of_an_unrecorded_poll_are_refused: AcceptsAnyPoll,
    frames_for_another_definition_are_refused: IgnoresTheDigest,
    a_digest_is_recorded_once: HidesAnotherDigest,
    a_poll_without_votes_is_dropped: PretendsToDrop,
    a_poll_with_votes_or_a_seal_is_not_dropped: DropsPollsWithVotes,
    another_definition_is_not_dropped: DropsAnyDefinition,
    a_dropped_poll_is_recorded_again_once_its_withdrawal_is_undone: IgnoresUndoneWithdrawals,
    a_record_from_before_a_drop_is_refused: TakesAnyWithdrawalForUndone,
    the_latest_closing_time_counts: KeepsTheFirstClosingTime,
    the_latest_clock_difference_counts: KeepsTheFirstClock,
    a_poll_is_sealed_whether_it_was_recorded_or_not: SealsRecordedPollsOnly,
    a_sealed_poll_is_never_recorded_again: Unseals,
    a_refused_frame_does_not_affect_others: RefusesTheRest,
    a_sealed_poll_accepts_no_more_votes: IgnoresTheSeal,
    a_seal_returns_ends_and_counts: SealsWithoutCounts,
    an_unknown_partition_is_refused: AcceptsAnyPartition,
    concurrent_flushes_all_count: LosesAFlush,
    a_restart_loses_nothing: ForgetsOnRestart,
    a_replaced_queue_is_read_to_its_end: ForgetsReplacedQueues,
    a_replaced_queue_has_no_count_and_accepts_no_votes: CountsReplacedQueues,
    a_replaced_queue_trimmed_to_its_end_is_forgotten: KeepsReplacedQueues,
    the_backlog_is_counted_from_the_entries: ForgetsTheBacklog,
});

mod polls;
mod replaced;
use polls::*;
use replaced::*;

const ALL: usize = usize::MAX >> 1;

/// Creates an active queue that accepts votes for both polls.
async fn open(harness: &dyn QueueHarness) -> (Arc<dyn Queue>, QueueId) {
    let queue = harness.fresh().await;
    let id = queue.create(layout(), None).await.expect("a queue can be created");
    activate(&*queue, id, &[poll(), other_poll()]).await.expect("a queue can be activated");
    (queue, id)
}

async fn append(queue: &dyn Queue, id: QueueId, frames: &[Frame]) -> Vec<Position> {
    let appended = queue.append(id, frames).await.expect("an active queue accepts frames");
    assert_eq!(appended.len(), frames.len(), "one outcome for each frame");
    appended
        .into_iter()
        .map(|appended| match appended {
            Appended::Stored(position) => position,
            refused => panic!("its poll is recorded and not sealed: {refused:?}"),
        })
        .collect()
}

async fn read(queue: &dyn Queue, id: QueueId, after: Position, limit: usize) -> Read {
    queue.read(id, PARTITION, after, limit).await.expect("a queue can be read")
}

const PARTITION: Partition = Partition(0);

/// Returns `count` frames of one vote each, all in [`PARTITION`].
fn some_frames(count: usize) -> Vec<Frame> {
    let votes = (0..).map(|voter| vote(voter, 0, 1)).filter(|v| layout().partitions.of(v.voter) == PARTITION);
    votes.take(count).map(|vote| one_frame(poll(), PARTITION, &[vote])).collect()
}

fn other_poll() -> PollSlug {
    "cars".parse().expect("a slug")
}

fn counters(counts: &[(PollSlug, u64)]) -> BTreeMap<String, u64> {
    counts.iter().map(|(poll, n)| (poll.to_string(), *n)).collect()
}

async fn an_address_without_a_queue_has_no_status(harness: &dyn QueueHarness) {
    let queue = harness.fresh().await;
    assert_eq!(queue.status().await.expect("a status"), None, "no queue was created yet");
}

async fn a_new_queue_is_empty_and_not_active(harness: &dyn QueueHarness) {
    let queue = harness.fresh().await;
    let id = queue.create(layout(), None).await.expect("a queue can be created");
    let status = queue.status().await.expect("a status").expect("a queue");
    assert_eq!((status.id, status.version, status.layout), (id, LAYOUT_VERSION, layout()));
    assert!(!status.active, "no worker activated it");
    assert!(status.accepted.is_empty() && status.polls.is_empty());
    assert_eq!(status.entries, vec![0; usize::from(layout().partitions.count())]);
}

async fn a_queue_keeps_its_identity_and_layout(harness: &dyn QueueHarness) {
    let (queue, id) = open(harness).await;
    let other = Layout { partitions: Partitions::new(4).expect("4"), fingerprint: PepperFingerprint([9; 8]) };
    assert_eq!(queue.create(other, None).await, Ok(id), "an existing queue stays");
    assert_eq!(queue.status().await.expect("a status").expect("a queue").layout, layout());
}

async fn a_queue_is_replaced_only_by_its_id(harness: &dyn QueueHarness) {
    let (queue, first) = open(harness).await;
    let second = queue.create(layout(), Some(first)).await.expect("a queue can be replaced");
    assert_ne!(first, second, "the new queue has an id of its own");
    assert_eq!(
        queue.create(layout(), Some(first)).await,
        Ok(second),
        "a late caller gets the queue that is there"
    );
    let status = queue.status().await.expect("a status").expect("a queue");
    assert_eq!((status.id, status.active), (second, false), "the new queue is not active");
    assert!(status.polls.is_empty(), "the new queue knows no polls: {:?}", status.polls);
}

async fn a_queue_that_is_not_active_accepts_no_votes(harness: &dyn QueueHarness) {
    let queue = harness.fresh().await;
    let id = queue.create(layout(), None).await.expect("a queue can be created");
    queue.record_polls(id, &[record(poll())]).await.expect("a poll can be recorded");
    assert_eq!(queue.append(id, &some_frames(1)).await, Err(AppendError::NotActivated));
    assert_eq!(read(&*queue, id, Position::START, ALL).await.entries, [], "nothing was stored");
}

async fn an_append_with_an_old_id_stores_nothing(harness: &dyn QueueHarness) {
    let (queue, first) = open(harness).await;
    let second = queue.create(layout(), Some(first)).await.expect("a queue can be replaced");
    activate(&*queue, second, &[poll()]).await.expect("a queue can be activated");
    assert_eq!(queue.append(first, &some_frames(1)).await, Err(AppendError::Replaced));
    assert_eq!(read(&*queue, second, Position::START, ALL).await.entries, [], "nothing was stored");
}

async fn calls_with_an_old_id_are_refused(harness: &dyn QueueHarness) {
    let (queue, first) = open(harness).await;
    queue.create(layout(), Some(first)).await.expect("a queue can be replaced");
    assert_eq!(queue.read(first, PARTITION, Position::START, ALL).await, Err(QueueError::Replaced));
    assert_eq!(queue.activate(first).await, Err(QueueError::Replaced));
    assert_eq!(queue.record_polls(first, &[record(poll())]).await, Err(QueueError::Replaced));
    assert_eq!(queue.trim(first, PARTITION, Position::START).await, Err(QueueError::Replaced));
    assert_eq!(queue.seal(first, poll()).await, Err(QueueError::Replaced));
}

async fn frames_are_read_as_they_were_appended(harness: &dyn QueueHarness) {
    let (queue, id) = open(harness).await;
    let frames = some_frames(5);
    let mut positions = append(&*queue, id, &frames[..3]).await;
    positions.extend(append(&*queue, id, &frames[3..]).await);
    assert!(positions.is_sorted_by(|a, b| a < b), "positions rise: {positions:?}");
    let found = read(&*queue, id, Position::START, ALL).await.entries;
    let found: Vec<_> = found.into_iter().map(|e| (e.position, e.poll, e.votes, e.frame)).collect();
    let expected: Vec<_> = positions
        .into_iter()
        .zip(&frames)
        .map(|(at, f)| (at, f.poll.to_string(), 1, f.bytes.clone()))
        .collect();
    assert_eq!(found, expected);
}

async fn a_read_removes_nothing(harness: &dyn QueueHarness) {
    let (queue, id) = open(harness).await;
    append(&*queue, id, &some_frames(3)).await;
    let first = read(&*queue, id, Position::START, ALL).await;
    assert_eq!(first.entries.len(), 3);
    assert_eq!(read(&*queue, id, Position::START, ALL).await, first);
}

async fn a_read_continues_after_a_position(harness: &dyn QueueHarness) {
    let (queue, id) = open(harness).await;
    let positions = append(&*queue, id, &some_frames(4)).await;
    let found = read(&*queue, id, positions[1], ALL).await.entries;
    assert_eq!(found.iter().map(|e| e.position).collect::<Vec<_>>(), positions[2..]);
    assert_eq!(read(&*queue, id, positions[3], ALL).await.entries, []);
}

async fn a_read_is_limited(harness: &dyn QueueHarness) {
    let (queue, id) = open(harness).await;
    let positions = append(&*queue, id, &some_frames(4)).await;
    let found = read(&*queue, id, positions[0], 2).await.entries;
    assert_eq!(found.iter().map(|e| e.position).collect::<Vec<_>>(), positions[1..3]);
}

async fn the_count_is_returned_only_at_the_end_of_the_log(harness: &dyn QueueHarness) {
    let (queue, id) = open(harness).await;
    let positions = append(&*queue, id, &some_frames(3)).await;
    assert_eq!(read(&*queue, id, Position::START, 2).await.accepted, None, "one entry was not read");
    let three = Some(counters(&[(poll(), 3)]));
    assert_eq!(read(&*queue, id, positions[0], ALL).await.accepted, three);
    assert_eq!(read(&*queue, id, positions[2], 1).await.accepted, three, "all entries were read");
}

async fn the_count_is_of_votes_by_partition_and_poll(harness: &dyn QueueHarness) {
    let (queue, id) = open(harness).await;
    let pets: Vec<_> = (0..200).map(|voter| vote(voter, 0, 1)).collect();
    let cars: Vec<_> = pets[..50].iter().map(|v| crate::Vote { poll: other_poll(), ..*v }).collect();
    let mut all = frames(&pets);
    all.extend(frames(&cars));
    append(&*queue, id, &all).await;
    let status = queue.status().await.expect("a status").expect("a queue");
    for partition in layout().partitions.iter() {
        let mut expected = BTreeMap::new();
        for frame in all.iter().filter(|frame| frame.partition == partition) {
            *expected.entry(frame.poll.to_string()).or_insert(0) += u64::from(frame.votes);
        }
        let found = queue.read(id, partition, Position::START, ALL).await.expect("a read");
        assert_eq!(found.accepted, Some(expected.clone()), "partition {partition}, in a read");
        let in_status = status.accepted.iter().filter(|(of, ..)| *of == partition);
        let in_status = in_status.map(|(_, poll, votes)| (poll.to_owned(), votes)).collect();
        assert_eq!(expected, in_status, "partition {partition}, in the status");
        assert_eq!(status.entries[usize::from(partition.0)], found.entries.len() as u64);
    }
}

async fn a_look_shows_the_queue_its_server_and_counts(harness: &dyn QueueHarness) {
    let queue = harness.fresh().await;
    assert_eq!(queue.look(&[PARTITION]).await.expect("a look"), None, "no queue was created yet");
    let (queue, id) = open(harness).await;
    let votes: Vec<_> = (0..200).map(|voter| vote(voter, 0, 1)).collect();
    let cars: Vec<_> = votes[..50].iter().map(|v| crate::Vote { poll: other_poll(), ..*v }).collect();
    append(&*queue, id, &frames(&votes)).await;
    append(&*queue, id, &frames(&cars)).await;
    let status = queue.status().await.expect("a status").expect("a queue");
    let read = read(&*queue, id, Position::START, ALL).await;
    assert_eq!(read.server, status.server, "a read names the server");
    let asked = [Partition(3), PARTITION, Partition(15)];
    let look = queue.look(&asked).await.expect("a look").expect("a queue");
    assert_eq!((look.id, &look.server, look.is_replica), (id, &status.server, status.is_replica));
    let expected: Vec<u64> = asked.iter().map(|asked| status.accepted.in_partition(*asked)).collect();
    assert_eq!(look.accepted, expected, "in the order asked for");
    let look = queue.look(&[]).await.expect("a look").expect("a queue");
    assert_eq!((look.id, look.accepted), (id, Vec::new()), "nothing was asked for");
}

async fn a_trim_keeps_the_entry_at_the_position(harness: &dyn QueueHarness) {
    let (queue, id) = open(harness).await;
    let positions = append(&*queue, id, &some_frames(3)).await;
    queue.trim(id, PARTITION, positions[2]).await.expect("a trim");
    let rest = read(&*queue, id, positions[2], ALL).await;
    assert_eq!(rest.entries, [], "only the anchor is left");
    assert_eq!(rest.accepted, Some(counters(&[(poll(), 3)])), "trimmed votes still count");
    queue.trim(id, PARTITION, positions[2]).await.expect("a repeated trim changes nothing");
    read(&*queue, id, positions[2], ALL).await;
}

async fn a_trim_keeps_entries_after_the_position(harness: &dyn QueueHarness) {
    let (queue, id) = open(harness).await;
    let positions = append(&*queue, id, &some_frames(4)).await;
    queue.trim(id, PARTITION, positions[1]).await.expect("a trim");
    let rest = read(&*queue, id, positions[1], ALL).await.entries;
    assert_eq!(rest.iter().map(|e| e.position).collect::<Vec<_>>(), positions[2..]);
}

async fn a_trim_to_a_missing_entry_changes_nothing(harness: &dyn QueueHarness) {
    let (queue, id) = open(harness).await;
    let positions = append(&*queue, id, &some_frames(4)).await;
    // As after a rollback of the server to a state without that entry.
    let mut later = positions[3].as_bytes().to_vec();
    later[..8]
        .iter_mut()
        .rev()
        .find(|byte| **byte < 0xff)
        .map(|byte| *byte += 1)
        .expect("there is a later number");
    let later = Position::from_bytes(&later).expect("the same length fits");
    queue.trim(id, PARTITION, later).await.expect("a trim is only a hint");
    let rest = read(&*queue, id, Position::START, ALL).await.entries;
    assert_eq!(rest.iter().map(|e| e.position).collect::<Vec<_>>(), positions);
}

async fn positions_keep_rising_after_everything_was_trimmed(harness: &dyn QueueHarness) {
    let (queue, id) = open(harness).await;
    let before = append(&*queue, id, &some_frames(3)).await;
    queue.trim(id, PARTITION, before[2]).await.expect("a trim");
    let queue = harness.reopen(queue).await;
    let after = append(&*queue, id, &some_frames(1)).await;
    assert!(after[0] > before[2], "{:?} comes after {:?}", after[0], before[2]);
    assert_eq!(read(&*queue, id, before[2], ALL).await.entries.len(), 1);
}

async fn a_queue_that_lost_an_entry_has_diverged(harness: &dyn QueueHarness) {
    let (queue, id) = open(harness).await;
    let positions = append(&*queue, id, &some_frames(3)).await;
    queue.trim(id, PARTITION, positions[2]).await.expect("a trim");
    let found = queue.read(id, PARTITION, positions[0], ALL).await;
    assert_eq!(found, Err(QueueError::Diverged(positions[0])), "the last entry that was read is gone");
    let beyond = append(&*queue, id, &some_frames(1)).await[0];
    let queue = harness.fresh().await;
    let id = queue.create(layout(), None).await.expect("a queue can be created");
    let found = queue.read(id, PARTITION, beyond, ALL).await;
    assert_eq!(found, Err(QueueError::Diverged(beyond)), "the log ends before the last entry that was read");
}

/// Two queues stand for two histories of one queue: each may give its first entry the same order number.
async fn a_reused_order_number_is_no_anchor(harness: &dyn QueueHarness) {
    let frames = some_frames(2);
    let (queue, id) = open(harness).await;
    let committed = append(&*queue, id, &frames[..1]).await[0];
    let (queue, id) = open(harness).await;
    append(&*queue, id, &frames[1..]).await;
    let found = queue.read(id, PARTITION, committed, ALL).await;
    assert_eq!(found, Err(QueueError::Diverged(committed)), "another entry has this number");
}

async fn a_sealed_poll_accepts_no_more_votes(harness: &dyn QueueHarness) {
    let (queue, id) = open(harness).await;
    let pets = some_frames(2);
    let cars = Frame { poll: other_poll(), digest: digest(other_poll()), ..pets[1].clone() };
    append(&*queue, id, &pets[..1]).await;
    queue.seal(id, poll()).await.expect("a seal");
    let appended = queue.append(id, &[pets[1].clone(), cars]).await.expect("one outcome for each frame");
    assert_eq!(appended[0], Appended::Sealed);
    assert!(matches!(appended[1], Appended::Stored(_)), "other polls are not affected");
    let found = read(&*queue, id, Position::START, ALL).await;
    assert_eq!(found.accepted, Some(counters(&[(poll(), 1), (other_poll(), 1)])));
    assert_eq!(found.entries.len(), 2);
    let status = queue.status().await.expect("a status").expect("a queue");
    assert!(status.is_sealed(poll()) && !status.is_sealed(other_poll()), "{:?}", status.polls);
}

async fn a_seal_returns_ends_and_counts(harness: &dyn QueueHarness) {
    let (queue, id) = open(harness).await;
    let positions = append(&*queue, id, &some_frames(3)).await;
    let seal = queue.seal(id, poll()).await.expect("a seal");
    let count = usize::from(layout().partitions.count());
    let mut expected = (vec![Position::START; count], vec![0; count]);
    (expected.0[0], expected.1[0]) = (positions[2], 3);
    assert_eq!((seal.ends.clone(), seal.accepted.clone()), expected);
    assert_eq!(queue.seal(id, poll()).await, Ok(seal), "a repeated seal returns the same");
}

async fn the_latest_clock_difference_counts(harness: &dyn QueueHarness) {
    let (queue, id) = open(harness).await;
    let clock = async || queue.status().await.expect("a status").expect("a queue").clock;
    assert_eq!(clock().await.ahead, None, "no worker has compared them yet");
    for ahead in [600_000_000, -2_500_000] {
        queue.record_clock(id, ahead).await.expect("a record");
        assert_eq!(clock().await.ahead, Some(ahead));
    }
    let (before, now) = (clock().await.now, SystemClock.now());
    let apart = now.as_micros().abs_diff(before.as_micros());
    assert!(apart < 3_600_000_000, "a test and its server have about the same time: {before}, {now}");
    let other = QueueId([9; 16]);
    assert_eq!(queue.record_clock(other, 1).await, Err(QueueError::Replaced));
}

async fn an_unknown_partition_is_refused(harness: &dyn QueueHarness) {
    let (queue, id) = open(harness).await;
    let unknown = Partition(layout().partitions.count());
    let read = queue.read(id, unknown, Position::START, ALL).await;
    assert_eq!(read, Err(QueueError::NoPartition(unknown)));
    let frames = [some_frames(1)[0].clone(), Frame { partition: unknown, ..some_frames(1)[0].clone() }];
    let appended = queue.append(id, &frames).await;
    assert!(matches!(appended, Err(AppendError::NotStored(_))), "{appended:?}");
    let found = queue.read(id, PARTITION, Position::START, ALL).await.expect("a read");
    assert_eq!(found.entries, [], "after an error no frame of the flush is stored");
}

async fn concurrent_flushes_all_count(harness: &dyn QueueHarness) {
    let (queue, id) = open(harness).await;
    let flushes: Vec<_> = (0..8_u64)
        .map(|flush| {
            let queue = Arc::clone(&queue);
            tokio::spawn(async move {
                for i in 0..10 {
                    let votes: Vec<_> = (0..20).map(|n| vote(flush * 1000 + i * 20 + n, 0, 1)).collect();
                    append(&*queue, id, &frames(&votes)).await;
                }
            })
        })
        .collect();
    for flush in flushes {
        flush.await.expect("a flush succeeds");
    }
    let mut found = 0;
    for partition in layout().partitions.iter() {
        let read = queue.read(id, partition, Position::START, ALL).await.expect("a read");
        let votes: u64 = read.entries.iter().map(|entry| entry.votes).sum();
        assert_eq!(read.accepted, Some(counters(&[(poll(), votes)])), "partition {partition}");
        found += votes;
    }
    assert_eq!(found, 8 * 10 * 20);
}

async fn a_restart_loses_nothing(harness: &dyn QueueHarness) {
    let (queue, id) = open(harness).await;
    append(&*queue, id, &some_frames(3)).await;
    queue.seal(id, other_poll()).await.expect("a seal");
    queue.record_clock(id, 17).await.expect("a record");
    let status = queue.status().await.expect("a status");
    let entries = read(&*queue, id, Position::START, ALL).await;
    let queue = harness.reopen(queue).await;
    let again = queue.status().await.expect("a status").expect("a queue");
    assert_eq!(again.clock.ahead, Some(17));
    let (server, clock) = (again.server.clone(), again.clock);
    assert_eq!(Some(again), status.map(|status| QueueStatus { server, clock, ..status }));
    assert_eq!(read(&*queue, id, Position::START, ALL).await, entries);
}
