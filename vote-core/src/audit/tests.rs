use std::collections::BTreeMap;

use super::*;
use crate::{
    Keep, Timestamp,
    poll::{ResultsFrom, Voters},
    queue::Seal,
    store::{LedgerEntry, QuarantineTotal, RegisteredPoll, TallyRow},
};

const A: QueueId = QueueId([1; 16]);
const B: QueueId = QueueId([2; 16]);
const LEFT: QueueId = QueueId([9; 16]);

fn pets() -> PollSlug {
    "pets".parse().unwrap()
}

/// The books as read at another time.
fn as_of(books: &Books, seconds: i64) -> Books {
    Books { taken_at: second(seconds), ..books.clone() }
}

fn second(n: i64) -> Timestamp {
    Timestamp::MIN.saturating_add(n * 1_000_000)
}

fn at(n: u8) -> Position {
    Position::from_bytes(&[n]).unwrap()
}

fn record(id: QueueId, seen_at: i64, accepted: u64) -> QueueRecord {
    QueueRecord {
        accepted: [("pets".to_owned(), accepted)].into(),
        ends: vec![at(5), Position::START],
        ..QueueRecord::new(id, format!("redis://{}", id.0[0]), second(seen_at))
    }
}

fn ledger(queue: QueueId, [accepted, new_voters, superseded, quarantined]: [u64; 4]) -> LedgerRow {
    let poll = "pets".to_owned();
    let quarantined = quarantined as i64;
    let entry = LedgerEntry { queue, poll, accepted, new_voters, superseded, quarantined };
    LedgerRow { partition: Partition(0), entry }
}

fn seal(queue: QueueId, accepted: u64) -> SealRecord {
    let seal = Seal { ends: vec![at(5), Position::START], accepted: vec![accepted, 0] };
    SealRecord { queue, poll: pets(), seal }
}

fn row(option: &str, votes: i64) -> TallyRow {
    TallyRow { poll: pets(), option: option.parse().unwrap(), partition: Partition(0), votes }
}

/// Two queues, all read: 10 + 5 votes, 12 voters, 3 votes superseded.
fn books() -> Books {
    let poll = RegisteredPoll {
        slug: pets(),
        options: vec!["cats".parse().unwrap(), "dogs".parse().unwrap()],
        keep: Keep::First,
        voters: Voters::Cookie,
        results: ResultsFrom::Live,
        closes_at: None,
        reschedules: Vec::new(),
        closed_at: None,
        final_at: None,
    };
    let rows = [("cats", 8), ("dogs", 4)].map(|(option, n)| ((pets(), option.parse().unwrap()), n));
    Books {
        taken_at: second(110),
        revision: 2,
        completions: BTreeMap::new(),
        polls: vec![poll],
        versions: [(Partition(0), 3), (Partition(1), 0)].into(),
        queues: vec![record(A, 100, 10), record(B, 100, 5)],
        positions: [((A, Partition(0)), at(5)), ((B, Partition(0)), at(5))].into(),
        ledger: vec![ledger(A, [10, 8, 2, 0]), ledger(B, [5, 4, 1, 0])],
        seals: Vec::new(),
        tally: vec![row("cats", 8), row("dogs", 4)],
        rows: Some(BTreeMap::from(rows)),
        quarantine: Vec::new(),
    }
}

fn closed(mut books: Books) -> Books {
    books.polls[0].closed_at = Some(second(90));
    books.seals = vec![seal(A, 10), seal(B, 5)];
    books
}

fn audited(books: &Books) -> Audit {
    audit(books, None)
}

/// Changes the books, and says what the audit finds then.
fn broken_by(change: impl FnOnce(&mut Books)) -> String {
    let mut books = closed(books());
    change(&mut books);
    let audit = audited(&books);
    assert_eq!(audit.verdict, Verdict::Broken, "{audit:?}");
    assert!(!obstacles(&books, pets()).is_empty(), "nor can it be final");
    audit.problems.join("\n")
}

#[test]
fn books_that_add_up_hold() {
    let audit = audited(&books());
    assert_eq!((audit.verdict, &*audit.problems, &*audit.outstanding), (Verdict::Holds, &[][..], &[][..]));
    let [poll] = &*audit.polls else { panic!("{audit:?}") };
    assert_eq!((poll.total.accepted, poll.total.new_voters, poll.total.superseded), (15, 12, 3));
    assert_eq!((poll.tally, poll.rows, poll.state), (12, Some(12), PollState::Open));
    assert!(poll.total.is_conserved() && poll.queues.len() == 2);
}

#[test]
fn an_empty_store_holds() {
    assert_eq!(audited(&Books::default()).verdict, Verdict::Holds);
}

#[test]
fn every_figure_that_does_not_fit_is_found() {
    let text = broken_by(|books| books.ledger[0].entry.accepted = 11);
    assert!(text.contains("11 votes were accepted, but 8 new voters, 2 superseded"), "a lost vote: {text}");
    let text = broken_by(|books| books.ledger[0].entry.superseded = 3);
    assert!(text.contains("10 votes were accepted, but 8 new voters, 3 superseded"), "a vote twice: {text}");
    let text = broken_by(|books| books.tally[0].votes = 9);
    assert!(text.contains("12 votes added a voter, the tally holds 13"), "{text}");
    assert!(text.contains("option cats has 8 rows, the tally says 9"), "{text}");
    let text = broken_by(|books| {
        books.tally[0].votes = 9;
        books.tally[1].votes = 3;
    });
    assert!(text.contains("option dogs has 4 rows, the tally says 3"), "the sum alone fits: {text}");
    let text = broken_by(|books| books.tally.clear());
    assert!(text.contains("option cats has 8 rows, the tally says 0"), "{text}");
    let text = broken_by(|books| books.ledger[0].entry.queue = QueueId([7; 16]));
    assert!(text.contains("which was never reported"), "{text}");
    let text = broken_by(|books| {
        books.ledger[0] = ledger(A, [10, 8, 1, 1]);
    });
    assert!(text.contains("1 votes are quarantined by the ledger, 0 are in quarantine"), "{text}");
}

#[test]
fn votes_added_or_missing_after_a_seal_are_found() {
    let text = broken_by(|books| books.seals[0].seal.accepted[0] = 9);
    assert!(text.contains("9 votes were accepted when the poll was sealed, 10 were read"), "{text}");
    let text = broken_by(|books| books.seals[0].seal.accepted[0] = 11);
    assert!(text.contains("11 votes were accepted when the poll was sealed, 10 were read"), "{text}");
    let text = broken_by(|books| {
        books.seals[1].seal.accepted[1] = 2;
    });
    assert!(text.contains("partition 1, poll pets: 2 votes were accepted"), "no row at all: {text}");
}

#[test]
fn what_waits_is_outstanding_and_no_loss() {
    let mut books = books();
    books.queues[0].ends[0] = at(9);
    books.queues[0].queued = [("pets".to_owned(), 7)].into();
    let audit = audited(&books);
    assert_eq!(audit.verdict, Verdict::NotDrained);
    assert!(audit.outstanding[0].contains("has 7 votes queued"), "{:?}", audit.outstanding);
    books.queues[0].queued_complete = false;
    assert!(
        audited(&books).outstanding[0].contains("at least 7 votes"),
        "a deep backlog is not counted to its end"
    );
}

#[test]
fn a_queue_not_heard_of_is_outstanding_with_what_it_last_reported() {
    let mut books = books();
    books.queues[1].seen_at = second(10);
    let audit = audited(&books);
    assert_eq!(audit.verdict, Verdict::NotDrained);
    assert!(audit.outstanding[0].contains("not heard of since"), "{:?}", audit.outstanding);
    assert!(audit.outstanding[0].contains("5 accepted votes"), "{:?}", audit.outstanding);
}

#[test]
fn a_queue_that_nobody_looked_at_is_not_drained() {
    let mut books = books();
    books.queues[1].ends.clear();
    assert_eq!(audited(&books).verdict, Verdict::NotDrained);
}

#[test]
fn a_queue_that_is_gone_after_it_was_sealed_and_read_is_not_missed() {
    let mut books = closed(books());
    books.queues[1].seen_at = second(10);
    assert_eq!(audited(&books).verdict, Verdict::Holds);
    assert_eq!(obstacles(&books, pets()), [""; 0]);
}

#[test]
fn a_cut_queue_fails_the_audit_until_it_is_written_off() {
    let mut books = books();
    books.queues[1].state = QueueState::Cut;
    books.queues[1].reason = "it counts fewer votes".to_owned();
    let audit = audited(&books);
    assert_eq!(audit.verdict, Verdict::Broken);
    assert!(audit.problems[0].contains("it counts fewer votes"), "{:?}", audit.problems);
    assert!(audit.problems[0].contains("vote-worker queues retire 0202"), "{:?}", audit.problems);
    books.queues[1].state = QueueState::Retired;
    assert_eq!(audited(&books).verdict, Verdict::Holds);
}

/// Queue B was cut; of what is left of it 3 votes were read once more, of which 1 was new.
fn with_remains() -> Books {
    let mut books = books();
    books.queues[1].state = QueueState::Cut;
    books.queues.push(QueueRecord { remains_of: Some(B), ..record(LEFT, 100, 0) });
    books.ledger.push(ledger(LEFT, [3, 1, 2, 0]));
    books.positions.insert((LEFT, Partition(0)), at(5));
    books.tally[0].votes += 1;
    for votes in books.rows.iter_mut().flat_map(BTreeMap::values_mut).take(1) {
        *votes += 1;
    }
    books
}

#[test]
fn what_was_read_of_remains_stands_beside_the_law() {
    let audit = audited(&with_remains());
    let [cut] = &*audit.problems else { panic!("nothing but the cut queue is wrong: {audit:?}") };
    assert!(cut.contains("is cut"), "{cut}");
    let total = audit.polls[0].total;
    assert_eq!((total.accepted, total.reread, total.reread_new), (15, 3, 1));
    assert_eq!(audit.polls[0].queues.len(), 2, "remains have no line of their own");
}

#[test]
fn remains_have_to_be_read_to_their_end() {
    let mut books = with_remains();
    books.queues[1].state = QueueState::Retired;
    assert_eq!(audited(&books).verdict, Verdict::Holds);
    books.positions.insert((LEFT, Partition(0)), at(4));
    assert_eq!(audited(&books).verdict, Verdict::NotDrained);
    let mut books = closed(books);
    books.seals.pop();
    assert!(
        obstacles(&books, pets())[0].contains("is not read to its end"),
        "{:?}",
        obstacles(&books, pets())
    );
    books.positions.insert((LEFT, Partition(0)), at(5));
    assert_eq!(obstacles(&books, pets()), [""; 0]);
}

#[test]
fn a_poll_can_be_final_when_every_queue_is_sealed_and_read() {
    assert!(obstacles(&books(), pets())[0].contains("is not closed"));
    assert_eq!(obstacles(&closed(books()), pets()), [""; 0]);
    let unsealed = Books { seals: vec![seal(A, 10)], ..closed(books()) };
    assert!(obstacles(&unsealed, pets())[0].contains("is not sealed for poll pets"));
    let mut unread = closed(books());
    unread.positions.insert((B, Partition(0)), at(4));
    unread.ledger[1] = ledger(B, [4, 4, 0, 0]);
    let text = obstacles(&unread, pets()).join("\n");
    assert!(text.contains("is not read to the seal"), "{text}");
    let mut written_off = unread.clone();
    written_off.queues[1].state = QueueState::Retired;
    assert_eq!(obstacles(&written_off, pets()), [""; 0]);
}

#[test]
fn a_poll_is_not_final_while_frames_of_it_are_undecided() {
    let mut books = closed(books());
    books.ledger[0] = ledger(A, [10, 8, 0, 2]);
    let total = |pending| QuarantineTotal {
        queue: A,
        partition: Partition(0),
        poll: "pets".to_owned(),
        votes: 2,
        pending,
    };
    books.quarantine = vec![total(1)];
    assert!(obstacles(&books, pets())[0].contains("vote-worker quarantine list"));
    books.quarantine = vec![total(0)];
    assert_eq!(obstacles(&books, pets()), [""; 0], "it was decided");
}

#[test]
fn frames_that_nobody_decided_about_are_outstanding() {
    let mut books = books();
    books.ledger[0] = ledger(A, [10, 8, 0, 2]);
    let poll = "pets".to_owned();
    books.quarantine =
        vec![QuarantineTotal { queue: A, partition: Partition(0), poll, votes: 2, pending: 1 }];
    assert_eq!(audited(&books).verdict, Verdict::NotDrained);
    books.polls[0].closed_at = Some(second(90));
    books.polls[0].final_at = Some(second(100));
    assert_eq!(audited(&books).verdict, Verdict::NotDrained, "votes that came too late are not forgotten");
    books.quarantine[0].pending = 0;
    assert_eq!(audited(&books).verdict, Verdict::Holds);
}

#[test]
fn a_closed_poll_does_not_hold_before_it_could_be_final() {
    let mut books = closed(books());
    assert_eq!(audited(&books).verdict, Verdict::Holds);
    books.seals.pop();
    let audit = audited(&books);
    assert_eq!(audit.verdict, Verdict::NotDrained);
    assert!(audit.outstanding[0].contains("is not sealed for poll pets"), "{:?}", audit.outstanding);
}

#[test]
fn queues_are_looked_at_also_where_no_poll_is_registered() {
    let queues = vec![QueueRecord { state: QueueState::Cut, ..record(A, 100, 0) }, record(B, 100, 0)];
    let audit = audited(&Books { queues, ..Books::default() });
    assert_eq!((audit.verdict, audit.problems.len(), audit.outstanding.len()), (Verdict::Broken, 1, 1));
}

#[test]
fn what_is_missing_of_a_queue_that_was_written_off_is_known_and_what_is_too_much_is_not() {
    let mut books = books();
    books.queues[0].state = QueueState::Retired;
    books.ledger[0].entry.accepted = 12;
    assert_eq!(audited(&books).verdict, Verdict::Holds);
    books.ledger[0].entry.accepted = 9;
    assert_eq!(audited(&books).verdict, Verdict::Broken);
}

#[test]
fn a_final_poll_awaits_nothing() {
    let mut books = closed(books());
    books.polls[0].final_at = Some(second(100));
    books.seals.clear();
    books.queues[0].seen_at = second(1);
    let audit = audited(&books);
    assert_eq!((audit.verdict, audit.polls[0].state), (Verdict::Holds, PollState::Final));
}

#[test]
fn one_poll_can_be_audited_alone() {
    let mut books = books();
    let mut other = ledger(A, [3, 0, 0, 0]);
    other.entry.poll = "cars".to_owned();
    books.ledger.push(other);
    assert_eq!(audited(&books).verdict, Verdict::Broken, "three votes of cars are nowhere");
    let names: Vec<_> = audited(&books).polls.into_iter().map(|poll| (poll.poll, poll.state)).collect();
    let expected = [("pets".to_owned(), PollState::Open), ("cars".to_owned(), PollState::Unregistered)];
    assert_eq!(names, expected);
    assert_eq!(audit(&books, Some(pets())).verdict, Verdict::Holds);
}

#[test]
fn an_audit_survives_its_json_form() {
    let audit = audited(&with_remains());
    let toml = toml::to_string(&audit).unwrap();
    assert_eq!(toml::from_str::<Audit>(&toml).unwrap(), audit);
}

fn residual(change: impl FnOnce(&mut Books)) -> Residual {
    let mut books = books();
    change(&mut books);
    let residual = residuals(&books)["pets"];
    let broken = audited(&books).verdict == Verdict::Broken;
    assert_eq!(broken, !residual.is_zero(), "an audit finds what is left over, and nothing else here");
    residual
}

#[test]
fn books_that_add_up_leave_nothing_over() {
    assert!(residual(|_| ()).is_zero());
    assert!(residuals(&Books::default()).is_empty());
}

#[test]
fn a_lost_vote_does_not_hide_one_counted_twice() {
    let residual = residual(|books| {
        books.ledger[0].entry.accepted += 1;
        books.ledger[1].entry.superseded += 1;
    });
    assert_eq!(residual, Residual { accepted: 2, ..Residual::default() });
}

#[test]
fn what_the_tally_or_the_quarantine_lack_is_left_over() {
    let without_rows = |books: &mut Books| books.rows = None;
    let found = residual(|books| {
        without_rows(books);
        books.tally[0].votes -= 3;
    });
    assert_eq!(found, Residual { tally: 3, ..Residual::default() });
    let found = residual(|books| {
        books.ledger[0].entry.superseded -= 1;
        books.ledger[0].entry.quarantined += 1;
    });
    assert_eq!(found, Residual { quarantined: 1, ..Residual::default() });
}

#[test]
fn what_a_queue_lost_that_was_written_off_is_known() {
    let found = residual(|books| {
        books.ledger[0].entry.accepted += 5;
        books.queues[0].state = QueueState::Retired;
    });
    assert!(found.is_zero(), "{found:?}");
}

#[test]
fn figures_too_large_to_be_true_are_left_over() {
    let mut books = books();
    books.ledger[0].entry.accepted = u64::MAX;
    books.ledger[1].entry.accepted = u64::MAX;
    assert_eq!(residuals(&books)["pets"].accepted, u64::MAX);
}

#[test]
fn a_queue_is_missed_until_nothing_can_come_of_it() {
    let mut books = books();
    assert_eq!(not_heard_of(&as_of(&books, 110)), [], "10 s are no time");
    assert_eq!(not_heard_of(&as_of(&books, 111)), [A, B]);
    books.queues[0].state = QueueState::Cut;
    assert_eq!(not_heard_of(&as_of(&books, 111)), [B], "a cut one is named as such");
    books = closed(books);
    books.polls[0].final_at = Some(second(95));
    assert_eq!(not_heard_of(&as_of(&books, 111)), [], "its polls are final");
}
