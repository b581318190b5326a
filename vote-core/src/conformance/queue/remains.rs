//! What is left of replaced boxes, and what is unread.

use super::*;
use crate::queue::{Remains, Unread};

/// A box with three entries in [`PARTITION`], replaced; and what is left of it.
async fn replaced(harness: &dyn QueueHarness) -> (Arc<dyn Queue>, QueueId, Remains, Vec<Position>) {
    let (queue, first) = open(harness).await;
    let positions = append(&*queue, first, &some_frames(3)).await;
    let second = queue.create(layout(), Some(first)).await.expect("a box can be replaced");
    let remains = queue.status().await.expect("a status").expect("a box").remains;
    let [remains] = &*remains else { panic!("something is left of one box: {remains:?}") };
    assert_eq!(remains.of, first);
    assert!(remains.id != first && remains.id != second, "they have an identity of their own");
    (queue, second, *remains, positions)
}

pub(super) async fn remains_are_read_to_their_end(harness: &dyn QueueHarness) {
    let (queue, second, remains, positions) = replaced(harness).await;
    let start = vec![Position::START; usize::from(layout().partitions.count())];
    let ends = queue.unread(remains.id, &start, 1).await.expect("an answer");
    assert_eq!(ends[0].end, positions[2]);
    assert!(ends[1..].iter().all(|unread| unread.end == Position::START), "nothing is elsewhere");
    let all = read(&*queue, remains.id, Position::START, ALL).await;
    assert_eq!(all.entries.iter().map(|entry| entry.position).collect::<Vec<_>>(), positions);
    let nowhere = Position::from_bytes(&[0; 8]).expect("8 bytes fit");
    assert_eq!(read(&*queue, remains.id, nowhere, 2).await.entries.len(), 2, "from where there is no entry");
    assert!(!read(&*queue, remains.id, positions[0], 1).await.at_end);
    assert!(read(&*queue, remains.id, positions[0], 2).await.at_end);
    assert_eq!(read(&*queue, second, Position::START, ALL).await.entries, [], "the new box is empty");
}

pub(super) async fn remains_have_no_count_and_take_no_votes(harness: &dyn QueueHarness) {
    let (queue, _, remains, positions) = replaced(harness).await;
    let at_end = read(&*queue, remains.id, positions[2], ALL).await;
    assert_eq!((at_end.at_end, at_end.accepted), (true, None));
    assert_eq!(queue.append(remains.id, &some_frames(1)).await, Err(AppendError::AnotherBox));
    assert_eq!(queue.seal(remains.id, poll()).await, Err(QueueError::AnotherBox));
}

pub(super) async fn remains_trimmed_to_their_end_are_forgotten(harness: &dyn QueueHarness) {
    let (queue, second, remains, positions) = replaced(harness).await;
    queue.trim(remains.id, PARTITION, positions[1]).await.expect("a trim");
    let rest = read(&*queue, remains.id, Position::START, ALL).await.entries;
    assert_eq!(rest.iter().map(|entry| entry.position).collect::<Vec<_>>(), positions[2..]);
    queue.trim(remains.id, PARTITION, positions[2]).await.expect("a trim");
    let status = queue.status().await.expect("a status").expect("a box");
    assert_eq!((status.id, status.remains), (second, vec![]), "nothing is left");
    let found = queue.read(remains.id, PARTITION, Position::START, ALL).await;
    assert_eq!(found, Err(QueueError::AnotherBox));
}

pub(super) async fn what_is_unread_is_counted_from_the_entries(harness: &dyn QueueHarness) {
    let (queue, id) = open(harness).await;
    let mut frames = some_frames(4);
    (frames[3].poll, frames[3].digest) = (other_poll(), digest(other_poll()));
    let positions = append(&*queue, id, &frames).await;
    let count = usize::from(layout().partitions.count());
    let mut after = vec![Position::START; count];
    let unread = queue.unread(id, &after, 10).await.expect("an answer");
    assert_eq!(unread.len(), count, "an answer for each partition");
    let expected = counters(&[(poll(), 3), (other_poll(), 1)]);
    // Not every queue knows when something was appended.
    let oldest = unread[0].oldest;
    assert_eq!(unread[0], Unread { end: positions[3], votes: expected, complete: true, oldest });
    assert!(unread[1..].iter().all(|unread| *unread == Unread { complete: true, ..Unread::default() }));
    let some = queue.unread(id, &after, 2).await.expect("an answer");
    assert_eq!(
        some[0],
        Unread { end: positions[3], votes: counters(&[(poll(), 2)]), complete: false, oldest }
    );
    after[0] = positions[2];
    let last = queue.unread(id, &after, 1).await.expect("an answer");
    let votes = counters(&[(other_poll(), 1)]);
    let later = last[0].oldest;
    assert!(later.is_some() == oldest.is_some() && later >= oldest, "of the first entry that is asked for");
    assert_eq!(last[0], Unread { end: positions[3], votes, complete: true, oldest: later });
    after[0] = positions[3];
    let nothing = queue.unread(id, &after, 10).await.expect("an answer");
    assert_eq!(nothing[0], Unread { end: positions[3], complete: true, ..Unread::default() });
}
