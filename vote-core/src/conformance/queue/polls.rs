//! Clauses about the polls for which a queue accepts votes.

use super::*;
use crate::{
    Keep, PollDigest, Timestamp,
    conformance::{digest, record},
    poll::Voters,
    queue::PollState,
};

/// Creates an active queue that knows no polls.
async fn without_polls(harness: &dyn QueueHarness) -> (Arc<dyn Queue>, QueueId) {
    let queue = harness.fresh().await;
    let id = queue.create(layout(), None).await.expect("a queue can be created");
    queue.activate(id).await.expect("a queue can be activated");
    (queue, id)
}

/// Returns the digest of the suite's poll with another rule.
fn other_digest() -> PollDigest {
    let options = ["cats", "dogs"].map(|slug| slug.parse().expect("a slug"));
    PollDigest::of(poll(), options, Keep::Last, Voters::Cookie)
}

async fn polls_of(queue: &dyn Queue) -> Vec<(PollSlug, PollState)> {
    queue.status().await.expect("a status").expect("a queue").polls.into_iter().collect()
}

fn recorded(closes_at: Option<Timestamp>) -> PollState {
    PollState::Recorded { digest: digest(poll()), closes_at }
}

fn time(seconds: i64) -> Timestamp {
    Timestamp::MIN.saturating_add(seconds * 1_000_000)
}

fn at(seconds: i64) -> Option<Timestamp> {
    Some(time(seconds))
}

pub(super) async fn recorded_polls_are_in_the_status(harness: &dyn QueueHarness) {
    let queue = harness.fresh().await;
    let id = queue.create(layout(), None).await.expect("a queue can be created");
    let records = [PollRecord { closes_at: at(5), ..record(poll()) }, record(other_poll())];
    assert_eq!(queue.record_polls(id, &records).await, Ok(vec![]), "before the queue is activated");
    let expected = [
        (other_poll(), PollState::Recorded { digest: digest(other_poll()), closes_at: None }),
        (poll(), recorded(at(5))),
    ];
    assert_eq!(polls_of(&*queue).await, expected);
    assert_eq!(queue.record_polls(id, &records).await, Ok(vec![]), "a repeated call");
    let queue = harness.reopen(queue).await;
    assert_eq!(polls_of(&*queue).await, expected, "a restart forgets no poll");
}

async fn assert_holds_nothing(queue: &dyn Queue, id: QueueId) {
    let nothing = read(queue, id, Position::START, ALL).await;
    let (entries, accepted) = (nothing.entries.len(), nothing.accepted);
    assert_eq!((entries, accepted), (0, Some(counters(&[]))), "the frame is neither stored nor counted");
}

pub(super) async fn frames_of_an_unrecorded_poll_are_refused(harness: &dyn QueueHarness) {
    let (queue, id) = without_polls(harness).await;
    let flush = some_frames(2);
    assert_eq!(queue.append(id, &flush[..1]).await, Ok(vec![Appended::UnknownPoll]));
    assert_holds_nothing(&*queue, id).await;
    queue.record_polls(id, &[record(poll())]).await.expect("a poll can be recorded");
    append(&*queue, id, &flush[1..]).await;
    assert_eq!(
        read(&*queue, id, Position::START, ALL).await.entries.len(),
        1,
        "the frame is accepted once its poll is recorded"
    );
}

pub(super) async fn frames_for_another_definition_are_refused(harness: &dyn QueueHarness) {
    let (queue, id) = open(harness).await;
    let flush = [Frame { digest: other_digest(), ..some_frames(1)[0].clone() }];
    assert_eq!(queue.append(id, &flush).await, Ok(vec![Appended::DifferentDefinition]));
    assert_holds_nothing(&*queue, id).await;
}

pub(super) async fn a_digest_is_recorded_once(harness: &dyn QueueHarness) {
    let (queue, id) = without_polls(harness).await;
    queue.record_polls(id, &[record(poll())]).await.expect("a poll can be recorded");
    let other = PollRecord { digest: other_digest(), closes_at: at(5), ..record(poll()) };
    let records = [record(other_poll()), other];
    assert_eq!(queue.record_polls(id, &records).await, Ok(vec![poll()]), "it returns the poll that differs");
    let polls = queue.status().await.expect("a status").expect("a queue").polls;
    assert_eq!(polls.get(&poll()), Some(&recorded(None)), "the record of the poll is unchanged");
    assert!(polls.contains_key(&other_poll()), "the other poll is recorded");
    let flush = some_frames(2);
    let flush = [flush[0].clone(), Frame { digest: other_digest(), ..flush[1].clone() }];
    let appended = queue.append(id, &flush).await.expect("one outcome for each frame");
    assert!(matches!(appended[..], [Appended::Stored(_), Appended::DifferentDefinition]), "{appended:?}");
}

pub(super) async fn the_latest_closing_time_counts(harness: &dyn QueueHarness) {
    let (queue, id) = open(harness).await;
    for closes_at in [at(9), at(5), None, at(7)] {
        let record = PollRecord { closes_at, ..record(poll()) };
        assert_eq!(queue.record_polls(id, &[record]).await, Ok(vec![]));
        let polls = queue.status().await.expect("a status").expect("a queue").polls;
        assert_eq!(polls.get(&poll()), Some(&recorded(closes_at)));
    }
    append(&*queue, id, &some_frames(1)).await;
}

pub(super) async fn a_poll_is_sealed_whether_it_was_recorded_or_not(harness: &dyn QueueHarness) {
    let (queue, id) = without_polls(harness).await;
    queue.record_polls(id, &[record(poll())]).await.expect("a poll can be recorded");
    for poll in [poll(), other_poll()] {
        queue.seal(id, poll).await.expect("a seal");
    }
    let expected = [(other_poll(), PollState::Sealed), (poll(), PollState::Sealed)];
    assert_eq!(polls_of(&*queue).await, expected);
    let cars = Frame { poll: other_poll(), digest: digest(other_poll()), ..some_frames(1)[0].clone() };
    let appended = queue.append(id, &[some_frames(1)[0].clone(), cars]).await;
    assert_eq!(appended, Ok(vec![Appended::Sealed, Appended::Sealed]));
}

pub(super) async fn a_sealed_poll_is_never_recorded_again(harness: &dyn QueueHarness) {
    let (queue, id) = open(harness).await;
    queue.seal(id, poll()).await.expect("a seal");
    let records = [record(poll()), PollRecord { digest: other_digest(), ..record(poll()) }];
    assert_eq!(queue.record_polls(id, &records).await, Ok(vec![]), "a sealed poll is not returned");
    let status = queue.status().await.expect("a status").expect("a queue");
    assert!(status.is_sealed(poll()), "{:?}", status.polls);
    assert_eq!(queue.append(id, &some_frames(1)).await, Ok(vec![Appended::Sealed]));
}

pub(super) async fn a_refused_frame_does_not_affect_others(harness: &dyn QueueHarness) {
    let (queue, id) = open(harness).await;
    queue.seal(id, other_poll()).await.expect("a seal");
    let good = some_frames(3);
    let of = |name: &str| Frame { poll: name.parse().expect("a slug"), ..good[0].clone() };
    let other = Frame { digest: other_digest(), ..good[0].clone() };
    let flush = [of("cars"), good[0].clone(), of("tea"), good[1].clone(), other, good[2].clone()];
    let appended = queue.append(id, &flush).await.expect("one outcome for each frame");
    assert!(
        matches!(
            appended[..],
            [
                Appended::Sealed,
                Appended::Stored(_),
                Appended::UnknownPoll,
                Appended::Stored(_),
                Appended::DifferentDefinition,
                Appended::Stored(_)
            ]
        ),
        "{appended:?}"
    );
    let found = read(&*queue, id, Position::START, ALL).await;
    let positions = appended.iter().filter_map(|appended| match appended {
        Appended::Stored(position) => Some(*position),
        _ => None,
    });
    assert!(found.entries.iter().map(|entry| entry.position).eq(positions), "{appended:?}");
    assert_eq!(found.accepted, Some(counters(&[(poll(), 3)])));
}

pub(super) async fn a_poll_without_votes_is_dropped(harness: &dyn QueueHarness) {
    let (queue, id) = open(harness).await;
    assert_eq!(queue.drop_poll(id, poll(), digest(poll()), time(5)).await, Ok(true));
    assert!(
        polls_of(&*queue).await.iter().all(|(known, _)| *known != poll()),
        "the poll is no longer recorded"
    );
    assert_eq!(queue.append(id, &some_frames(1)).await, Ok(vec![Appended::UnknownPoll]));
    assert_eq!(queue.drop_poll(id, poll(), digest(poll()), time(5)).await, Ok(true), "a repeated call");
    let again = queue.record_polls(id, &[record(poll())]).await;
    assert_eq!(again, Ok(vec![poll()]), "a worker that has not heard from it can't record it again");
    let queue = harness.reopen(queue).await;
    assert_eq!(queue.append(id, &some_frames(1)).await, Ok(vec![Appended::UnknownPoll]));
    let other = PollRecord { digest: other_digest(), ..record(poll()) };
    assert_eq!(queue.record_polls(id, &[other]).await, Ok(vec![]), "another definition can be recorded");
    let flush = [Frame { digest: other_digest(), ..some_frames(1)[0].clone() }];
    append(&*queue, id, &flush).await;
    let dropped = queue.drop_poll(id, poll(), digest(poll()), time(5)).await;
    assert_eq!(dropped, Ok(true), "the votes are for the other definition");
    append(&*queue, id, &flush).await;
    assert_eq!(
        queue.drop_poll(QueueId([9; 16]), poll(), digest(poll()), time(5)).await,
        Err(QueueError::Replaced)
    );
}

pub(super) async fn a_poll_with_votes_or_a_seal_is_not_dropped(harness: &dyn QueueHarness) {
    let (queue, id) = open(harness).await;
    let last = *append(&*queue, id, &some_frames(2)).await.last().expect("a position");
    queue.trim(id, PARTITION, last).await.expect("a trim");
    assert_eq!(queue.drop_poll(id, poll(), digest(poll()), time(5)).await, Ok(false), "it has votes");
    append(&*queue, id, &some_frames(1)).await;
    queue.seal(id, other_poll()).await.expect("a seal");
    assert_eq!(
        queue.drop_poll(id, other_poll(), digest(other_poll()), time(5)).await,
        Ok(false),
        "it is sealed"
    );
    let status = queue.status().await.expect("a status").expect("a queue");
    assert!(status.is_sealed(other_poll()));
}

pub(super) async fn another_definition_is_not_dropped(harness: &dyn QueueHarness) {
    let (queue, id) = open(harness).await;
    assert_eq!(
        queue.drop_poll(id, poll(), other_digest(), time(5)).await,
        Ok(true),
        "the queue accepts no votes for that definition"
    );
    append(&*queue, id, &some_frames(1)).await;
}

/// Returns a record of the suite's poll by a worker that knows that the withdrawal of this second was undone.
fn record_after_undoing(seconds: i64) -> PollRecord {
    PollRecord { undone_withdrawal: at(seconds), ..record(poll()) }
}

pub(super) async fn a_dropped_poll_is_recorded_again_once_its_withdrawal_is_undone(
    harness: &dyn QueueHarness,
) {
    for undone in [5, 6] {
        let (queue, id) = open(harness).await;
        assert_eq!(queue.drop_poll(id, poll(), digest(poll()), time(5)).await, Ok(true));
        let queue = harness.reopen(queue).await;
        assert_eq!(queue.record_polls(id, &[record_after_undoing(undone)]).await, Ok(vec![]));
        append(&*queue, id, &some_frames(1)).await;
    }
}

pub(super) async fn a_record_from_before_a_drop_is_refused(harness: &dyn QueueHarness) {
    let (queue, id) = open(harness).await;
    for withdrawn_at in [5, 3] {
        let dropped = queue.drop_poll(id, poll(), digest(poll()), time(withdrawn_at)).await;
        assert_eq!(dropped, Ok(true), "also for an earlier withdrawal");
    }
    for undone in [3, 4] {
        let result = queue.record_polls(id, &[record_after_undoing(undone)]).await;
        assert_eq!(result, Ok(vec![poll()]), "the poll was dropped for a later withdrawal");
    }
    assert_eq!(queue.append(id, &some_frames(1)).await, Ok(vec![Appended::UnknownPoll]));
    assert_eq!(queue.record_polls(id, &[record_after_undoing(5)]).await, Ok(vec![]));
    assert_eq!(queue.drop_poll(id, poll(), digest(poll()), time(8)).await, Ok(true), "it is withdrawn again");
    let result = queue.record_polls(id, &[record_after_undoing(5)]).await;
    assert_eq!(result, Ok(vec![poll()]), "only the first withdrawal was undone");
}
