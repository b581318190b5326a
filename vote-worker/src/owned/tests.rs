use vote_core::{Position, queue::Entry};

use super::*;

const QUEUE: QueueId = QueueId([1; 16]);
/// Votes to read ahead in a partition.
const MOST: u64 = 40_000;

fn owned() -> OwnedPartition {
    OwnedPartition::new(Partition(0), 0, Acquired { version: 0, checkpoints: BTreeMap::new() })
}

fn read(positions: &[u8], accepted: Option<u64>) -> Read {
    let entry = |position: &u8| Entry {
        position: Position::from_bytes(&[*position]).unwrap(),
        poll: "pets".to_owned(),
        votes: 10,
        frame: Vec::new().into(),
    };
    Read {
        entries: positions.iter().map(entry).collect(),
        at_end: accepted.is_some(),
        accepted: accepted.map(|n| [("pets".to_owned(), n)].into()),
        server: String::new(),
    }
}

/// Starts the read of a queue that accepted this number of votes, if one is due.
fn start(owned: &mut OwnedPartition, accepted: u64) -> Option<(Checkpoint, usize)> {
    owned.note(QUEUE, Held::Votes(accepted));
    owned.start_read(1, MOST, VERIFY_EVERY, Instant::now(), |_| None).map(|(_, from, limit)| (from, limit))
}

/// Starts a read and adds its result.
fn add(owned: &mut OwnedPartition, accepted: u64, read: Read) -> ReadOutcome {
    let (from, _) = start(owned, accepted).unwrap();
    owned.end_read(QUEUE);
    owned.add_read(QUEUE, &from, read, Instant::now())
}

fn next_position(owned: &mut OwnedPartition, accepted: u64) -> Option<Position> {
    start(owned, accepted).map(|(from, _)| from.position)
}

#[test]
fn reads_continue_after_what_waits() {
    let mut owned = owned();
    let (from, _) = start(&mut owned, 40).unwrap();
    assert_eq!(next_position(&mut owned, 40), None, "one read of a queue at a time");
    owned.end_read(QUEUE);
    owned.add_read(QUEUE, &from, read(&[1, 2], None), Instant::now());
    assert_eq!(next_position(&mut owned, 40), Position::from_bytes(&[2]));
    assert_eq!(owned.waiting().unwrap().votes, 20);
}

#[test]
fn reads_of_many_queues_together_return_a_bounded_number_of_votes() {
    let mut owned = owned();
    (0..200).for_each(|n| owned.note(QueueId([n; 16]), Held::Votes(1_000_000)));
    let next = || owned.start_read(200, MOST, VERIFY_EVERY, Instant::now(), |_| None);
    let entries: Vec<usize> = std::iter::from_fn(next).map(|(_, _, limit)| limit).collect();
    let expected = entries.iter().sum::<usize>() * frame::MAX_VOTES;
    assert!(
        expected as u64 <= MOST + 16 * frame::MAX_VOTES as u64,
        "{expected} votes from {} queues",
        entries.len()
    );
    assert!(entries.iter().all(|limit| *limit == 16), "{entries:?}");
}

#[test]
fn the_fewer_partitions_a_lane_has_the_more_votes_of_each_may_wait() {
    let most = [0, 1, 8, 16, 32, 64, 1024].map(max_waiting);
    assert_eq!(most, [160_000, 160_000, 160_000, 80_000, 40_000, 20_000, 20_000]);
}

#[test]
fn a_queue_with_nothing_new_is_not_read() {
    let mut owned = owned();
    add(&mut owned, 20, read(&[1, 2], Some(20)));
    assert_eq!(next_position(&mut owned, 20), None);
    assert!(next_position(&mut owned, 21).is_some());
}

#[test]
fn a_falling_count_is_detected() {
    let from = Checkpoint { accepted: [("pets".to_owned(), 30)].into(), ..Checkpoint::default() };
    let acquired = Acquired { version: 0, checkpoints: [(QUEUE, from.clone())].into() };
    let mut owned = OwnedPartition::new(Partition(0), 0, acquired);
    let taken = add(&mut owned, 30, read(&[], Some(29)));
    assert!(matches!(taken, ReadOutcome::Contradicts(_)), "{taken:?}");
    assert_eq!(owned.add_read(QUEUE, &from, read(&[], Some(30)), Instant::now()), ReadOutcome::Drained);
}

#[test]
fn missing_entries_are_detected_by_a_read_from_the_start() {
    let mut owned = owned();
    let taken = add(&mut owned, 80, read(&[7, 8], Some(80)));
    let ReadOutcome::Contradicts(reason) = taken else { panic!("{taken:?}") };
    assert!(reason.contains("counts 80 votes for poll pets, but 20"), "{reason}");
    assert_eq!(owned.waiting(), None, "none of it waits to be committed");
}

#[test]
fn uncounted_entries_are_detected() {
    let mut owned = owned();
    let taken = add(&mut owned, 10, read(&[1, 2], Some(10)));
    assert!(matches!(taken, ReadOutcome::Contradicts(_)), "{taken:?}");
}

#[test]
fn a_read_that_stops_before_the_end_does_not_check_the_count() {
    let mut owned = owned();
    assert_eq!(add(&mut owned, 30, read(&[1, 2], None)), ReadOutcome::Fine);
    assert_eq!(add(&mut owned, 30, read(&[3], Some(30))), ReadOutcome::Fine);
}

/// Records that what waits was committed.
fn commit(owned: &mut OwnedPartition) {
    let deliveries = owned.take_deliveries();
    let committed = deliveries.into_iter().map(|delivery| (delivery.queue, delivery.checkpoint));
    owned.record_commit(committed, Instant::now());
}

#[test]
fn everything_up_to_a_time_is_committed_once_a_later_read_to_the_end_is() {
    let mut owned = owned();
    let before = Instant::now();
    let [pets, other] = ["pets", "other"].map(|slug| slug.parse().unwrap());
    let has_committed_of =
        |owned: &OwnedPartition, at, poll| owned.seems_to_have_committed_all_held_at(at, poll, before);
    let has_committed = |owned: &OwnedPartition, at| has_committed_of(owned, at, pets);
    let (from, _) = start(&mut owned, 20).unwrap();
    owned.end_read(QUEUE);
    assert!(!has_committed(&owned, before), "it is not read yet");
    owned.add_read(QUEUE, &from, read(&[1, 2], Some(20)), Instant::now());
    assert!(!has_committed(&owned, before), "it is not committed yet");
    assert!(has_committed_of(&owned, before, other), "what waits is of the other poll");
    commit(&mut owned);
    assert!(has_committed(&owned, before));
    assert!(!has_committed(&owned, Instant::now() + VERIFY_EVERY), "more may have been appended since");
}

#[test]
fn everything_seems_committed_once_counts_that_are_known_by_then_show_nothing_more() {
    let mut owned = owned();
    add(&mut owned, 20, read(&[1, 2], Some(20)));
    let (closed, pets) = (Instant::now() + VERIFY_EVERY, "pets".parse().unwrap());
    let seems_so = |owned: &OwnedPartition, after| {
        owned.seems_to_have_committed_all_held_at(closed, pets, closed + after)
    };
    assert!(!seems_so(&owned, COUNT_KNOWN_AFTER), "it is not committed yet");
    commit(&mut owned);
    assert!(seems_so(&owned, COUNT_KNOWN_AFTER));
    assert!(!seems_so(&owned, COUNT_KNOWN_AFTER / 2), "the count may be older");
    owned.note(QUEUE, Held::Votes(21));
    assert!(!seems_so(&owned, COUNT_KNOWN_AFTER));
}

#[test]
fn uncommitted_entries_of_a_diverged_queue_are_discarded() {
    let mut owned = owned();
    add(&mut owned, 20, read(&[1], None));
    let (after, _) = start(&mut owned, 20).unwrap();
    owned.forget(QUEUE);
    assert_eq!(owned.waiting(), None);
    owned.end_read(QUEUE);
    owned.add_read(QUEUE, &after, read(&[2], None), Instant::now());
    assert_eq!(owned.waiting(), None, "entries of a read that started after them are discarded, too");
    assert_eq!(owned.reading, 0);
}

#[test]
fn a_replaced_queue_is_read_to_its_end() {
    let (mut owned, end) = (owned(), Position::from_bytes(&[2]).unwrap());
    let mut next = |read: Read| {
        owned.note(QUEUE, Held::UpTo(end));
        let next = owned.start_read(1, MOST, VERIFY_EVERY, Instant::now(), |_| None);
        next.map(|(_, from, _)| {
            owned.end_read(QUEUE);
            owned.add_read(QUEUE, &from, read, Instant::now())
        })
    };
    let at_end = |positions: &[u8]| Read { at_end: true, ..read(positions, None) };
    assert_eq!(next(read(&[1], None)), Some(ReadOutcome::Fine));
    assert_eq!(next(at_end(&[2])), Some(ReadOutcome::Fine));
    assert_eq!(next(at_end(&[])), None, "all of it is read");
}

#[test]
fn a_queue_that_must_not_be_read_now_is_read_later() {
    let (mut owned, now) = (owned(), Instant::now());
    let later = now + Duration::from_secs(1);
    owned.note(QUEUE, Held::Votes(1));
    assert!(owned.start_read(1, MOST, VERIFY_EVERY, now, |_| Some(later)).is_none());
    assert!(owned.start_read(1, MOST, VERIFY_EVERY, now, |_| None).is_none());
    assert!(owned.start_read(1, MOST, VERIFY_EVERY, later, |_| None).is_some());
}

#[test]
fn an_idle_queue_is_verified_now_and_then_even_if_a_read_takes_long() {
    let (mut owned, start) = (owned(), Instant::now());
    let next = |owned: &mut OwnedPartition, after| {
        owned.start_read(2, MOST, VERIFY_EVERY, start + after, |_| None).map(|(_, from, _)| from)
    };
    owned.note(QUEUE, Held::Votes(0));
    let from = next(&mut owned, Duration::ZERO).unwrap();
    assert!(next(&mut owned, 2 * VERIFY_EVERY).is_none(), "the first read still runs");
    owned.end_read(QUEUE);
    owned.add_read(QUEUE, &from, read(&[], Some(0)), start + 2 * VERIFY_EVERY);
    assert!(next(&mut owned, 2 * VERIFY_EVERY).is_none());
    assert!(next(&mut owned, 3 * VERIFY_EVERY).is_some());
}

fn id(n: u16) -> QueueId {
    let mut id = [0; 16];
    id[..2].copy_from_slice(&n.to_be_bytes());
    QueueId(id)
}

/// Returns what a read of this many entries finds in a queue with a deep backlog.
fn deep(from: &Checkpoint, entries: usize, votes: u64) -> Read {
    let from = from.position.as_bytes().try_into().map_or(0, u64::from_be_bytes);
    let entry = |n: u64| Entry {
        position: Position::from_bytes(&n.to_be_bytes()).unwrap(),
        poll: "pets".to_owned(),
        votes,
        frame: Vec::new().into(),
    };
    Read { entries: (from + 1..).take(entries).map(entry).collect(), at_end: false, ..Read::default() }
}

#[test]
fn under_a_backlog_everywhere_the_slowest_queue_advances_at_least_half_as_far_as_the_mean() {
    const QUEUES: u16 = 1_000;
    for votes in [1, 8, 100] {
        let (mut owned, now) = (owned(), Instant::now());
        (0..QUEUES).for_each(|n| owned.note(id(n), Held::Votes(u64::MAX)));
        let mut read: BTreeMap<QueueId, usize> = (0..QUEUES).map(|n| (id(n), 0)).collect();
        let mut reads = Vec::new();
        while read.values().sum::<usize>() < 200 * usize::from(QUEUES) {
            while let Some(next) = owned.start_read(QUEUES.into(), MOST, VERIFY_EVERY, now, |_| None) {
                reads.push(next);
            }
            // The later half of the reads takes longer.
            for (queue, from, limit) in reads.drain(..reads.len().div_ceil(2)) {
                owned.end_read(queue);
                owned.add_read(queue, &from, deep(&from, limit, votes), now);
                *read.get_mut(&queue).unwrap() += limit;
            }
            if owned.waiting().is_some_and(|waiting| waiting.votes >= BATCH_VOTES) {
                commit(&mut owned);
            }
        }
        let (least, sum) = (read.values().min().unwrap(), read.values().sum::<usize>());
        assert!(least * 2 * read.len() >= sum, "{votes} votes an entry: {least} of {sum}");
    }
}

#[test]
fn of_a_thousand_queues_and_256_partitions_only_those_with_something_new_are_read() {
    let now = Instant::now();
    let mut all: Vec<OwnedPartition> = (0..256).map(|_| owned()).collect();
    let started = |all: &mut Vec<OwnedPartition>| {
        let mut started = Vec::new();
        for (number, owned) in all.iter_mut().enumerate() {
            while let Some((queue, from, _)) = owned.start_read(1_000, MOST, VERIFY_EVERY, now, |_| None) {
                owned.end_read(queue);
                let nothing = Read { at_end: true, accepted: Some(Counters::new()), ..Read::default() };
                owned.add_read(queue, &from, nothing, now);
                started.push((number, queue));
            }
        }
        started
    };
    for owned in &mut all {
        (0..1_000).for_each(|n| owned.note(id(n), Held::Votes(0)));
    }
    assert_eq!(started(&mut all).len(), 256_000, "each is read once when it is found");
    assert_eq!(started(&mut all), []);
    for (partition, queue) in [(3, 7), (3, 900), (200, 7)] {
        all[partition].note(id(queue), Held::Votes(1));
        all[partition].cursors.get_mut(&id(queue)).unwrap().held = Held::Votes(0);
    }
    assert_eq!(started(&mut all), [(3, id(7)), (3, id(900)), (200, id(7))]);
}
