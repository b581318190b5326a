//! Tests of which entries of the ledger a plan changes.

use std::collections::BTreeMap;

use bytes::Bytes;
use vote_core::{
    Partition, Partitions, Position, QueueId, Vote,
    conformance::{one_frame, registered_poll, vote},
    count::{
        Batch, Checkpoint, Delivery, LedgerEntry, QuarantinedFrame, QuarantinedVotes, ReasonCode,
        StoredReason,
    },
    queue::{Counters, Entry, Read},
};

const QUEUE: QueueId = QueueId([1; 16]);

fn at(n: u8) -> Position {
    Position::from_bytes(&[n]).unwrap()
}

/// Returns a checkpoint after 10 votes for pets and 7 for cars.
fn checkpoint() -> Checkpoint {
    Checkpoint { position: at(1), accepted: counters(10, 7) }
}

fn counters(pets: u64, cars: u64) -> Counters {
    [("pets".to_owned(), pets), ("cars".to_owned(), cars)].into()
}

/// Returns an entry with two votes for pets.
fn pets(position: u8) -> Entry {
    Entry { position: at(position), poll: "pets".to_owned(), votes: 2, frame: frame() }
}

fn frame() -> Bytes {
    let votes: Vec<Vote> = (0..2).map(|n| vote(n, 0, 1)).collect();
    one_frame(registered_poll().slug, Partition(0), &votes).bytes
}

/// Returns an entry of the poll cars, which is not registered.
fn cars(position: u8) -> Entry {
    Entry { poll: "cars".to_owned(), ..pets(position) }
}

fn read(entries: Vec<Entry>, accepted: Option<Counters>) -> Delivery {
    Delivery::new(
        QUEUE,
        &checkpoint(),
        Read { entries, at_end: accepted.is_some(), accepted, ..Read::default() },
    )
}

/// Returns the entries that a plan changes, as poll, accepted, new voters, and quarantined.
fn planned(delivery: Delivery, replays: Vec<QuarantinedFrame>) -> Vec<(String, u64, u64, i64)> {
    let one = Partitions::new(1).unwrap();
    let batch = Batch::decode(Partition(0), one, &[registered_poll()], vec![delivery], replays);
    let plan = batch.plan(0, &BTreeMap::new());
    let entry = |entry: LedgerEntry| (entry.poll, entry.accepted, entry.new_voters, entry.quarantined);
    plan.ledger.into_iter().map(entry).collect()
}

#[test]
fn only_polls_of_which_something_was_read_are_in_a_plan() {
    let changed = [("pets".to_owned(), 12, 2, 0)];
    assert_eq!(planned(read(vec![pets(2)], None), vec![]), changed);
    assert_eq!(planned(read(vec![pets(2)], Some(counters(12, 7))), vec![]), changed);
    assert_eq!(planned(read(vec![], Some(counters(10, 7))), vec![]), []);
}

#[test]
fn a_read_that_follows_another_one_adds_its_polls() {
    let mut delivery = read(vec![pets(2)], None);
    let after = delivery.checkpoint.clone();
    delivery.extend(Delivery::new(QUEUE, &after, Read { entries: vec![cars(3)], ..Read::default() }));
    assert_eq!(planned(delivery, vec![]), [("cars".to_owned(), 9, 0, 2), ("pets".to_owned(), 12, 2, 0)]);
}

#[test]
fn a_count_that_its_entries_do_not_explain_is_in_the_plan() {
    let lost = ("cars".to_owned(), 8, 0, 0);
    assert_eq!(planned(read(vec![], Some(counters(10, 8))), vec![]), [lost]);
    let forgotten = Counters::from([("pets".to_owned(), 10)]);
    assert_eq!(planned(read(vec![], Some(forgotten)), vec![]), [("cars".to_owned(), 0, 0, 0)]);
}

#[test]
fn a_replay_keeps_the_number_of_accepted_votes() {
    let replay = QuarantinedFrame {
        queue: QUEUE,
        position: at(1),
        poll: "pets".to_owned(),
        accounted: 2,
        quarantined: QuarantinedVotes::All,
        reason: StoredReason { code: ReasonCode::PollNotRegistered, text: String::new() },
        frame: frame(),
    };
    let nothing_new = Delivery::nothing_new(QUEUE, checkpoint());
    let counted = |accepted| [("pets".to_owned(), accepted, 2, -2)];
    assert_eq!(planned(nothing_new, vec![replay.clone()]), counted(10));
    assert_eq!(planned(read(vec![cars(2)], None), vec![replay.clone()])[1..], counted(10));
}
