//! Clauses about replaced queues and the backlog.

use super::*;
use crate::queue::{Backlog, ReplacedQueue};

/// Creates a queue with three entries in [`PARTITION`] and replaces it; returns the id of the new queue, the replaced
/// one and the positions of its entries.
async fn replaced(harness: &dyn QueueHarness) -> (Arc<dyn Queue>, QueueId, ReplacedQueue, Vec<Position>) {
    let (queue, first) = open(harness).await;
    let positions = append(&*queue, first, &some_frames(3)).await;
    let second = queue.create(layout(), Some(first)).await.expect("a queue can be replaced");
    let replaced = queue.status().await.expect("a status").expect("a queue").replaced;
    let [replaced] = &*replaced else { panic!("expected one replaced queue: {replaced:?}") };
    assert_eq!(replaced.of, first);
    assert!(replaced.id != first && replaced.id != second, "a replaced queue has an id of its own");
    (queue, second, *replaced, positions)
}

pub(super) async fn a_replaced_queue_is_read_to_its_end(harness: &dyn QueueHarness) {
    let (queue, second, replaced, positions) = replaced(harness).await;
    let start = vec![Position::START; usize::from(layout().partitions.count())];
    let ends = queue.backlog(replaced.id, &start, 1).await.expect("a backlog");
    assert_eq!(ends[0].end, positions[2]);
    assert!(ends[1..].iter().all(|backlog| backlog.end == Position::START), "other partitions are empty");
    let all = read(&*queue, replaced.id, Position::START, ALL).await;
    assert_eq!(all.entries.iter().map(|entry| entry.position).collect::<Vec<_>>(), positions);
    let nowhere = Position::from_bytes(&[0; 8]).expect("8 bytes fit");
    assert_eq!(
        read(&*queue, replaced.id, nowhere, 2).await.entries.len(),
        2,
        "no entry is needed at the position"
    );
    assert!(!read(&*queue, replaced.id, positions[0], 1).await.at_end);
    assert!(read(&*queue, replaced.id, positions[0], 2).await.at_end);
    assert_eq!(read(&*queue, second, Position::START, ALL).await.entries, [], "the new queue is empty");
}

pub(super) async fn a_replaced_queue_has_no_count_and_accepts_no_votes(harness: &dyn QueueHarness) {
    let (queue, _, replaced, positions) = replaced(harness).await;
    let at_end = read(&*queue, replaced.id, positions[2], ALL).await;
    assert_eq!((at_end.at_end, at_end.accepted), (true, None));
    assert_eq!(queue.append(replaced.id, &some_frames(1)).await, Err(AppendError::Replaced));
    assert_eq!(queue.seal(replaced.id, poll()).await, Err(QueueError::Replaced));
}

pub(super) async fn a_replaced_queue_trimmed_to_its_end_is_forgotten(harness: &dyn QueueHarness) {
    let (queue, second, replaced, positions) = replaced(harness).await;
    queue.trim(replaced.id, PARTITION, positions[1]).await.expect("a trim");
    let rest = read(&*queue, replaced.id, Position::START, ALL).await.entries;
    assert_eq!(rest.iter().map(|entry| entry.position).collect::<Vec<_>>(), positions[2..]);
    queue.trim(replaced.id, PARTITION, positions[2]).await.expect("a trim");
    let status = queue.status().await.expect("a status").expect("a queue");
    assert_eq!((status.id, status.replaced), (second, vec![]), "the replaced queue is gone");
    let found = queue.read(replaced.id, PARTITION, Position::START, ALL).await;
    assert_eq!(found, Err(QueueError::Replaced));
}

pub(super) async fn the_backlog_is_counted_from_the_entries(harness: &dyn QueueHarness) {
    let (queue, id) = open(harness).await;
    let mut frames = some_frames(4);
    (frames[3].poll, frames[3].digest) = (other_poll(), digest(other_poll()));
    let positions = append(&*queue, id, &frames).await;
    let count = usize::from(layout().partitions.count());
    let mut after = vec![Position::START; count];
    let backlog = queue.backlog(id, &after, 10).await.expect("a backlog");
    assert_eq!(backlog.len(), count, "one answer for each partition");
    let expected = counters(&[(poll(), 3), (other_poll(), 1)]);
    // Not every kind of queue records when an entry was appended.
    let oldest = backlog[0].oldest;
    assert_eq!(backlog[0], Backlog { end: positions[3], votes: expected, complete: true, oldest });
    assert!(backlog[1..].iter().all(|backlog| *backlog == Backlog { complete: true, ..Backlog::default() }));
    let some = queue.backlog(id, &after, 2).await.expect("a backlog");
    assert_eq!(
        some[0],
        Backlog { end: positions[3], votes: counters(&[(poll(), 2)]), complete: false, oldest }
    );
    after[0] = positions[2];
    let last = queue.backlog(id, &after, 1).await.expect("a backlog");
    let votes = counters(&[(other_poll(), 1)]);
    let later = last[0].oldest;
    assert!(
        later.is_some() == oldest.is_some() && later >= oldest,
        "the time of the first entry behind the position"
    );
    assert_eq!(last[0], Backlog { end: positions[3], votes, complete: true, oldest: later });
    after[0] = positions[3];
    let nothing = queue.backlog(id, &after, 10).await.expect("a backlog");
    assert_eq!(nothing[0], Backlog { end: positions[3], complete: true, ..Backlog::default() });
}
