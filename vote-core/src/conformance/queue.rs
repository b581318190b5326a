//! What every [`Queue`] must do.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::missing_panics_doc)] // A failed clause is a panic.

use std::{collections::BTreeMap, sync::Arc};

use super::{QueueHarness, activate, digest, frames, layout, one_frame, poll, record, suite, vote};
use crate::{
    Partition, Partitions, PepperFingerprint, PollSlug, Position, Queue, QueueId,
    queue::{
        AppendError, Appended, Frame, LAYOUT_VERSION, Layout, PollRecord, QueueError, QueueStatus, Read,
    },
};

suite!(QueueHarness, QueueFault, queue_conformance, queue, {
    a_queue_without_a_box_says_so: MakesABoxUnasked,
    a_new_box_is_empty_and_not_registered: RegistersItself,
    a_box_keeps_its_identity_and_layout: MakesAnotherBox,
    a_box_is_replaced_only_by_its_name: ReplacesAnyBox,
    an_unregistered_box_takes_no_votes: TakesUnregistered,
    another_box_takes_no_votes: IgnoresTheIdentity,
    another_box_is_not_read: ReadsAnyBox,
    frames_are_read_as_they_were_appended: Reorders,
    a_read_removes_nothing: ReadsDestructively,
    a_read_goes_on_after_a_position: ForgetsThePosition,
    a_read_is_limited: IgnoresTheLimit,
    the_count_comes_only_with_the_end_of_the_log: CountsTooEarly,
    the_count_is_of_votes_by_partition_and_poll: CountsFrames,
    a_trim_keeps_the_entry_at_the_position: TrimsTheAnchor,
    a_trim_keeps_what_was_not_read: TrimsEverything,
    a_trim_to_an_entry_that_is_not_there_changes_nothing: TrimsBlindly,
    positions_go_on_after_everything_was_trimmed: RestartsPositions,
    a_lost_entry_is_a_cut: HidesACut,
    an_id_that_is_used_again_is_no_anchor: IgnoresTheCheck,
    what_is_recorded_is_in_the_status: ForgetsThePolls,
    a_poll_that_is_not_recorded_is_refused: TakesAnyPoll,
    another_definition_of_a_poll_is_refused: IgnoresTheDigest,
    a_digest_is_written_once: HidesAnotherDigest,
    a_closing_time_follows: KeepsTheFirstClosingTime,
    a_poll_is_sealed_whether_it_was_recorded_or_not: SealsRecordedPollsOnly,
    a_sealed_poll_is_never_recorded_again: Unseals,
    a_refused_frame_holds_up_no_other: RefusesTheRest,
    a_sealed_poll_takes_no_more_votes: IgnoresTheSeal,
    a_seal_says_what_there_is: SealsWithoutCounts,
    an_unknown_partition_is_refused: TakesAnyPartition,
    flushes_at_once_all_count: LosesAFlush,
    a_restart_loses_nothing: ForgetsOnRestart,
    remains_are_read_to_their_end: ForgetsTheRemains,
    remains_have_no_count_and_take_no_votes: CountsRemains,
    remains_trimmed_to_their_end_are_forgotten: KeepsTheRemains,
    what_is_unread_is_counted_from_the_entries: ForgetsWhatIsUnread,
});

mod polls;
mod remains;
use polls::*;
use remains::*;

const ALL: usize = usize::MAX >> 1;

/// A queue with a registered box that takes votes for both polls.
async fn open(harness: &dyn QueueHarness) -> (Arc<dyn Queue>, QueueId) {
    let queue = harness.fresh().await;
    let id = queue.create(layout(), None).await.expect("a box can be made");
    activate(&*queue, id, &[poll(), other_poll()]).await.expect("a box can be registered");
    (queue, id)
}

async fn append(queue: &dyn Queue, id: QueueId, frames: &[Frame]) -> Vec<Position> {
    let appended = queue.append(id, frames).await.expect("a registered box takes frames");
    assert_eq!(appended.len(), frames.len(), "an answer for each frame");
    appended
        .into_iter()
        .map(|appended| match appended {
            Appended::Stored(position) => position,
            refused => panic!("its poll is recorded, and not sealed: {refused:?}"),
        })
        .collect()
}

async fn read(queue: &dyn Queue, id: QueueId, after: Position, limit: usize) -> Read {
    queue.read(id, PARTITION, after, limit).await.expect("a box can be read")
}

const PARTITION: Partition = Partition(0);

/// `count` frames of one vote each, all of [`PARTITION`].
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

async fn a_queue_without_a_box_says_so(harness: &dyn QueueHarness) {
    let queue = harness.fresh().await;
    assert_eq!(queue.status().await.expect("a status"), None, "no box was made yet");
}

async fn a_new_box_is_empty_and_not_registered(harness: &dyn QueueHarness) {
    let queue = harness.fresh().await;
    let id = queue.create(layout(), None).await.expect("a box can be made");
    let status = queue.status().await.expect("a status").expect("a box");
    assert_eq!((status.id, status.version, status.layout), (id, LAYOUT_VERSION, layout()));
    assert!(!status.registered, "nobody registered it");
    assert!(status.accepted.is_empty() && status.polls.is_empty());
    assert_eq!(status.entries, vec![0; usize::from(layout().partitions.count())]);
}

async fn a_box_keeps_its_identity_and_layout(harness: &dyn QueueHarness) {
    let (queue, id) = open(harness).await;
    let other = Layout { partitions: Partitions::new(4).expect("4"), fingerprint: PepperFingerprint([9; 8]) };
    assert_eq!(queue.create(other, None).await, Ok(id), "a box that is there stays");
    assert_eq!(queue.status().await.expect("a status").expect("a box").layout, layout());
}

async fn a_box_is_replaced_only_by_its_name(harness: &dyn QueueHarness) {
    let (queue, first) = open(harness).await;
    let second = queue.create(layout(), Some(first)).await.expect("a box can be replaced");
    assert_ne!(first, second, "a replaced box has a new identity");
    assert_eq!(
        queue.create(layout(), Some(first)).await,
        Ok(second),
        "who comes late gets the box that is there"
    );
    let status = queue.status().await.expect("a status").expect("a box");
    assert_eq!((status.id, status.registered), (second, false), "the new box is not registered");
    assert!(status.polls.is_empty(), "it knows no polls: {:?}", status.polls);
}

async fn an_unregistered_box_takes_no_votes(harness: &dyn QueueHarness) {
    let queue = harness.fresh().await;
    let id = queue.create(layout(), None).await.expect("a box can be made");
    queue.record_polls(id, &[record(poll())]).await.expect("a poll can be recorded");
    assert_eq!(queue.append(id, &some_frames(1)).await, Err(AppendError::NotRegistered));
    assert_eq!(read(&*queue, id, Position::START, ALL).await.entries, [], "nothing was stored");
}

async fn another_box_takes_no_votes(harness: &dyn QueueHarness) {
    let (queue, first) = open(harness).await;
    let second = queue.create(layout(), Some(first)).await.expect("a box can be replaced");
    activate(&*queue, second, &[poll()]).await.expect("a box can be registered");
    assert_eq!(queue.append(first, &some_frames(1)).await, Err(AppendError::AnotherBox));
    assert_eq!(read(&*queue, second, Position::START, ALL).await.entries, [], "nothing was stored");
}

async fn another_box_is_not_read(harness: &dyn QueueHarness) {
    let (queue, first) = open(harness).await;
    queue.create(layout(), Some(first)).await.expect("a box can be replaced");
    assert_eq!(queue.read(first, PARTITION, Position::START, ALL).await, Err(QueueError::AnotherBox));
    assert_eq!(queue.register(first).await, Err(QueueError::AnotherBox));
    assert_eq!(queue.record_polls(first, &[record(poll())]).await, Err(QueueError::AnotherBox));
    assert_eq!(queue.trim(first, PARTITION, Position::START).await, Err(QueueError::AnotherBox));
    assert_eq!(queue.seal(first, poll()).await, Err(QueueError::AnotherBox));
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

async fn a_read_goes_on_after_a_position(harness: &dyn QueueHarness) {
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

async fn the_count_comes_only_with_the_end_of_the_log(harness: &dyn QueueHarness) {
    let (queue, id) = open(harness).await;
    let positions = append(&*queue, id, &some_frames(3)).await;
    assert_eq!(read(&*queue, id, Position::START, 2).await.accepted, None, "one entry is left");
    let three = Some(counters(&[(poll(), 3)]));
    assert_eq!(read(&*queue, id, positions[0], ALL).await.accepted, three);
    assert_eq!(read(&*queue, id, positions[2], 1).await.accepted, three, "nothing is left");
}

async fn the_count_is_of_votes_by_partition_and_poll(harness: &dyn QueueHarness) {
    let (queue, id) = open(harness).await;
    let pets: Vec<_> = (0..200).map(|voter| vote(voter, 0, 1)).collect();
    let cars: Vec<_> = pets[..50].iter().map(|v| crate::Vote { poll: other_poll(), ..*v }).collect();
    let mut all = frames(&pets);
    all.extend(frames(&cars));
    append(&*queue, id, &all).await;
    let status = queue.status().await.expect("a status").expect("a box");
    for partition in layout().partitions.iter() {
        let mut expected = BTreeMap::new();
        for frame in all.iter().filter(|frame| frame.partition == partition) {
            *expected.entry(frame.poll.to_string()).or_insert(0) += u64::from(frame.votes);
        }
        let found = queue.read(id, partition, Position::START, ALL).await.expect("a read");
        assert_eq!(found.accepted, Some(expected.clone()), "partition {partition}, by a read");
        assert_eq!(status.accepted.get(&partition), Some(&expected), "partition {partition}, by the status");
        assert_eq!(status.entries[usize::from(partition.0)], found.entries.len() as u64);
    }
}

async fn a_trim_keeps_the_entry_at_the_position(harness: &dyn QueueHarness) {
    let (queue, id) = open(harness).await;
    let positions = append(&*queue, id, &some_frames(3)).await;
    queue.trim(id, PARTITION, positions[2]).await.expect("a trim");
    let rest = read(&*queue, id, positions[2], ALL).await;
    assert_eq!(rest.entries, [], "the anchor is still there, nothing is after it");
    assert_eq!(rest.accepted, Some(counters(&[(poll(), 3)])), "what was trimmed still counts");
    queue.trim(id, PARTITION, positions[2]).await.expect("a trim again changes nothing");
    read(&*queue, id, positions[2], ALL).await;
}

async fn a_trim_keeps_what_was_not_read(harness: &dyn QueueHarness) {
    let (queue, id) = open(harness).await;
    let positions = append(&*queue, id, &some_frames(4)).await;
    queue.trim(id, PARTITION, positions[1]).await.expect("a trim");
    let rest = read(&*queue, id, positions[1], ALL).await.entries;
    assert_eq!(rest.iter().map(|e| e.position).collect::<Vec<_>>(), positions[2..]);
}

async fn a_trim_to_an_entry_that_is_not_there_changes_nothing(harness: &dyn QueueHarness) {
    let (queue, id) = open(harness).await;
    let positions = append(&*queue, id, &some_frames(4)).await;
    // As if the server had gone back to a state in which nothing was after the second entry.
    let mut later = positions[3].as_bytes().to_vec();
    later[..8]
        .iter_mut()
        .rev()
        .find(|byte| **byte < 0xff)
        .map(|byte| *byte += 1)
        .expect("there are later ones");
    let later = Position::from_bytes(&later).expect("as long as the one before");
    queue.trim(id, PARTITION, later).await.expect("it is only a hint");
    let rest = read(&*queue, id, Position::START, ALL).await.entries;
    assert_eq!(rest.iter().map(|e| e.position).collect::<Vec<_>>(), positions);
}

async fn positions_go_on_after_everything_was_trimmed(harness: &dyn QueueHarness) {
    let (queue, id) = open(harness).await;
    let before = append(&*queue, id, &some_frames(3)).await;
    queue.trim(id, PARTITION, before[2]).await.expect("a trim");
    let queue = harness.reopen(queue).await;
    let after = append(&*queue, id, &some_frames(1)).await;
    assert!(after[0] > before[2], "{:?} comes after {:?}", after[0], before[2]);
    assert_eq!(read(&*queue, id, before[2], ALL).await.entries.len(), 1);
}

async fn a_lost_entry_is_a_cut(harness: &dyn QueueHarness) {
    let (queue, id) = open(harness).await;
    let positions = append(&*queue, id, &some_frames(3)).await;
    queue.trim(id, PARTITION, positions[2]).await.expect("a trim");
    let found = queue.read(id, PARTITION, positions[0], ALL).await;
    assert_eq!(found, Err(QueueError::Cut(positions[0])), "the entry read last is gone");
    let beyond = append(&*queue, id, &some_frames(1)).await[0];
    let queue = harness.fresh().await;
    let id = queue.create(layout(), None).await.expect("a box can be made");
    let found = queue.read(id, PARTITION, beyond, ALL).await;
    assert_eq!(found, Err(QueueError::Cut(beyond)), "the log ends before what was read last");
}

/// Two queues are as two histories of one: each may give its first entry the same number.
async fn an_id_that_is_used_again_is_no_anchor(harness: &dyn QueueHarness) {
    let frames = some_frames(2);
    let (queue, id) = open(harness).await;
    let committed = append(&*queue, id, &frames[..1]).await[0];
    let (queue, id) = open(harness).await;
    append(&*queue, id, &frames[1..]).await;
    let found = queue.read(id, PARTITION, committed, ALL).await;
    assert_eq!(found, Err(QueueError::Cut(committed)), "another entry is there");
}

async fn a_sealed_poll_takes_no_more_votes(harness: &dyn QueueHarness) {
    let (queue, id) = open(harness).await;
    let pets = some_frames(2);
    let cars = Frame { poll: other_poll(), digest: digest(other_poll()), ..pets[1].clone() };
    append(&*queue, id, &pets[..1]).await;
    queue.seal(id, poll()).await.expect("a seal");
    let appended = queue.append(id, &[pets[1].clone(), cars]).await.expect("an answer for each frame");
    assert_eq!(appended[0], Appended::Sealed);
    assert!(matches!(appended[1], Appended::Stored(_)), "another poll goes on");
    let found = read(&*queue, id, Position::START, ALL).await;
    assert_eq!(found.accepted, Some(counters(&[(poll(), 1), (other_poll(), 1)])));
    assert_eq!(found.entries.len(), 2);
    let status = queue.status().await.expect("a status").expect("a box");
    assert!(status.is_sealed(poll()) && !status.is_sealed(other_poll()), "{:?}", status.polls);
}

async fn a_seal_says_what_there_is(harness: &dyn QueueHarness) {
    let (queue, id) = open(harness).await;
    let positions = append(&*queue, id, &some_frames(3)).await;
    let seal = queue.seal(id, poll()).await.expect("a seal");
    let count = usize::from(layout().partitions.count());
    let mut expected = (vec![Position::START; count], vec![0; count]);
    (expected.0[0], expected.1[0]) = (positions[2], 3);
    assert_eq!((seal.ends.clone(), seal.accepted.clone()), expected);
    assert_eq!(queue.seal(id, poll()).await, Ok(seal), "again, the same");
}

async fn an_unknown_partition_is_refused(harness: &dyn QueueHarness) {
    let (queue, id) = open(harness).await;
    let nowhere = Partition(layout().partitions.count());
    let read = queue.read(id, nowhere, Position::START, ALL).await;
    assert_eq!(read, Err(QueueError::NoPartition(nowhere)));
    let frames = [some_frames(1)[0].clone(), Frame { partition: nowhere, ..some_frames(1)[0].clone() }];
    let appended = queue.append(id, &frames).await;
    assert!(matches!(appended, Err(AppendError::NotStored(_))), "{appended:?}");
    let found = queue.read(id, PARTITION, Position::START, ALL).await.expect("a read");
    assert_eq!(found.entries, [], "an error stores no frame of the flush");
}

async fn flushes_at_once_all_count(harness: &dyn QueueHarness) {
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
    let status = queue.status().await.expect("a status");
    let entries = read(&*queue, id, Position::START, ALL).await;
    let queue = harness.reopen(queue).await;
    let again = queue.status().await.expect("a status").expect("a box");
    let server = again.server.clone();
    assert_eq!(Some(again), status.map(|status| QueueStatus { server, ..status }));
    assert_eq!(read(&*queue, id, Position::START, ALL).await, entries);
}
