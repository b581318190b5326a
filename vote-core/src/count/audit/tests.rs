use std::collections::BTreeMap;

use super::*;
use crate::{
    Keep, Partition, Position, Timestamp,
    count::{LedgerEntry, LedgerRow, QuarantineTotal, RegisteredPoll, SealRecord, TallyRow},
    poll::{ResultsFrom, Voters},
    queue::Seal,
};

mod random;
mod reference;

const A: QueueId = QueueId([1; 16]);
const B: QueueId = QueueId([2; 16]);
const REPLACED: QueueId = QueueId([9; 16]);

fn pets() -> PollSlug {
    "pets".parse().unwrap()
}

/// The accounts as taken at another time.
fn as_of(accounts: &Accounts, seconds: i64) -> Accounts {
    Accounts { taken_at: second(seconds), ..accounts.clone() }
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

/// Accounts of two queues, both read to the end: 10 + 5 votes, 12 voters, 3 votes superseded.
fn accounts() -> Accounts {
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
        withdrawal: None,
        undone_withdrawal: None,
        earlier: Vec::new(),
    };
    let rows = [("cats", 8), ("dogs", 4)].map(|(option, n)| ((pets(), option.parse().unwrap()), n));
    Accounts {
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
        tally_changed_at: BTreeMap::from([(pets(), second(105))]),
        rows: Some(BTreeMap::from(rows)),
        quarantine: Vec::new(),
    }
}

fn closed(mut accounts: Accounts) -> Accounts {
    accounts.polls[0].closed_at = Some(second(90));
    accounts.seals = vec![seal(A, 10), seal(B, 5)];
    accounts
}

/// Returns the codes of findings.
fn codes(findings: &[Finding]) -> Vec<&'static str> {
    findings.iter().map(Finding::code).collect()
}

fn audited(accounts: &Accounts) -> Audit {
    audit(accounts, None)
}

/// Changes the accounts, and returns the sentences of the problems that the audit finds then.
fn broken_by(change: impl FnOnce(&mut Accounts)) -> String {
    let mut accounts = closed(accounts());
    change(&mut accounts);
    let audit = audited(&accounts);
    assert_eq!(audit.verdict, Verdict::Broken, "{audit:?}");
    assert!(!obstacles(&accounts, pets()).is_empty(), "nor can it be final");
    audit.problems.iter().map(|problem| format!("{problem}\n")).collect()
}

#[test]
fn consistent_accounts_hold() {
    let audit = audited(&accounts());
    assert_eq!((audit.verdict, &*audit.problems, &*audit.outstanding), (Verdict::Holds, &[][..], &[][..]));
    let [poll] = &*audit.polls else { panic!("{audit:?}") };
    assert_eq!((poll.total.accepted, poll.total.new_voters, poll.total.superseded), (15, 12, 3));
    assert_eq!((poll.tally, poll.rows, poll.state), (12, Some(12), PollStage::Open));
    assert!(poll.total.unaccounted(false) == 0 && poll.queues.len() == 2);
}

#[test]
fn an_empty_store_holds() {
    assert_eq!(audited(&Accounts::default()).verdict, Verdict::Holds);
}

#[test]
fn every_inconsistent_figure_is_found() {
    let text = broken_by(|accounts| accounts.ledger[0].entry.accepted = 11);
    assert!(text.contains("11 votes were accepted, but 8 new voters, 2 superseded"), "a lost vote: {text}");
    let text = broken_by(|accounts| accounts.ledger[0].entry.superseded = 3);
    assert!(text.contains("10 votes were accepted, but 8 new voters, 3 superseded"), "a vote twice: {text}");
    let text = broken_by(|accounts| accounts.tally[0].votes = 9);
    assert!(text.contains("12 votes added a voter, the tally holds 13"), "{text}");
    assert!(text.contains("option cats has 8 rows, the tally says 9"), "{text}");
    let text = broken_by(|accounts| {
        accounts.tally[0].votes = 9;
        accounts.tally[1].votes = 3;
    });
    assert!(text.contains("option dogs has 4 rows, the tally says 3"), "the sum alone fits: {text}");
    let text = broken_by(|accounts| accounts.tally.clear());
    assert!(text.contains("option cats has 8 rows, the tally says 0"), "{text}");
    let text = broken_by(|accounts| accounts.ledger[0].entry.queue = QueueId([7; 16]));
    assert!(text.contains("which was never reported"), "{text}");
    let text = broken_by(|accounts| {
        accounts.ledger[0] = ledger(A, [10, 8, 1, 1]);
    });
    assert!(text.contains("1 votes are quarantined by the ledger, 0 are in quarantine"), "{text}");
}

#[test]
fn votes_added_or_missing_after_a_seal_are_found() {
    let text = broken_by(|accounts| accounts.seals[0].seal.accepted[0] = 9);
    assert!(text.contains("9 votes were accepted when the poll was sealed, 10 were read"), "{text}");
    let text = broken_by(|accounts| accounts.seals[0].seal.accepted[0] = 11);
    assert!(text.contains("11 votes were accepted when the poll was sealed, 10 were read"), "{text}");
    let text = broken_by(|accounts| {
        accounts.seals[1].seal.accepted[1] = 2;
    });
    assert!(text.contains("partition 1, poll pets: 2 votes were accepted"), "no row at all: {text}");
}

#[test]
fn queued_votes_are_outstanding_and_not_lost() {
    let mut accounts = accounts();
    accounts.queues[0].ends[0] = at(9);
    accounts.queues[0].queued = [("pets".to_owned(), 7)].into();
    let audit = audited(&accounts);
    assert_eq!(audit.verdict, Verdict::NotDrained);
    assert!(audit.outstanding[0].to_string().contains("has 7 votes queued"), "{:?}", audit.outstanding);
    accounts.queues[0].queued_complete = false;
    assert!(
        audited(&accounts).outstanding[0].to_string().contains("at least 7 votes"),
        "a deep backlog is not counted to its end"
    );
}

#[test]
fn a_queue_not_heard_from_is_outstanding_with_its_last_report() {
    let mut accounts = accounts();
    accounts.queues[1].seen_at = second(10);
    let audit = audited(&accounts);
    assert_eq!(audit.verdict, Verdict::NotDrained);
    assert!(
        matches!(audit.outstanding[0], Finding::NotHeardFrom { queue: B, accepted: 5, .. }),
        "{:?}",
        audit.outstanding
    );
}

#[test]
fn a_queue_that_was_never_inspected_is_not_drained() {
    let mut accounts = accounts();
    accounts.queues[1].ends.clear();
    assert_eq!(audited(&accounts).verdict, Verdict::NotDrained);
}

#[test]
fn a_queue_that_is_gone_after_it_was_sealed_and_read_is_not_outstanding() {
    let mut accounts = closed(accounts());
    accounts.queues[1].seen_at = second(10);
    assert_eq!(audited(&accounts).verdict, Verdict::Holds);
    assert_eq!(obstacles(&accounts, pets()), []);
}

#[test]
fn a_diverged_queue_fails_the_audit_until_it_is_retired() {
    let mut accounts = accounts();
    accounts.queues[1].state = QueueState::Diverged;
    accounts.queues[1].reason = "it counts fewer votes".to_owned();
    let audit = audited(&accounts);
    assert_eq!(audit.verdict, Verdict::Broken);
    let text = audit.problems[0].to_string();
    assert!(text.contains("has diverged: it counts fewer votes"), "{text}");
    assert!(text.contains("vote-worker queues retire 0202"), "{text}");
    accounts.queues[1].state = QueueState::Retired;
    assert_eq!(audited(&accounts).verdict, Verdict::Holds);
}

/// Accounts in which queue B diverged, and 3 votes were read from the replaced queue, of which 1 added a voter.
fn with_replaced() -> Accounts {
    let mut accounts = accounts();
    accounts.queues[1].state = QueueState::Diverged;
    accounts.queues.push(QueueRecord { original_id: Some(B), ..record(REPLACED, 100, 0) });
    accounts.ledger.push(ledger(REPLACED, [3, 1, 2, 0]));
    accounts.positions.insert((REPLACED, Partition(0)), at(5));
    accounts.tally[0].votes += 1;
    for votes in accounts.rows.iter_mut().flat_map(BTreeMap::values_mut).take(1) {
        *votes += 1;
    }
    accounts
}

#[test]
fn votes_read_from_a_replaced_queue_are_separate_from_the_invariant() {
    let audit = audited(&with_replaced());
    let [diverged] = &*audit.problems else { panic!("nothing but the diverged queue is wrong: {audit:?}") };
    assert_eq!((diverged.code(), diverged.queue()), ("diverged", Some(B)));
    let total = audit.polls[0].total;
    assert_eq!((total.accepted, total.reread, total.reread_new), (15, 3, 1));
    assert_eq!(audit.polls[0].queues.len(), 2, "replaced queues have no line of their own");
}

#[test]
fn a_replaced_queue_must_be_read_to_its_end() {
    let mut accounts = with_replaced();
    accounts.queues[1].state = QueueState::Retired;
    assert_eq!(audited(&accounts).verdict, Verdict::Holds);
    accounts.positions.insert((REPLACED, Partition(0)), at(4));
    assert_eq!(audited(&accounts).verdict, Verdict::NotDrained);
    let mut accounts = closed(accounts);
    accounts.seals.pop();
    assert_eq!(codes(&obstacles(&accounts, pets())), ["not-reread"]);
    accounts.positions.insert((REPLACED, Partition(0)), at(5));
    assert_eq!(obstacles(&accounts, pets()), []);
}

#[test]
fn a_poll_can_be_final_when_every_queue_is_sealed_and_read() {
    assert_eq!(obstacles(&accounts(), pets())[0], Finding::PollNotClosed { poll: pets() });
    assert_eq!(obstacles(&closed(accounts()), pets()), []);
    let unsealed = Accounts { seals: vec![seal(A, 10)], ..closed(accounts()) };
    assert_eq!(obstacles(&unsealed, pets())[0].code(), "not-sealed");
    let mut backlog = closed(accounts());
    backlog.positions.insert((B, Partition(0)), at(4));
    backlog.ledger[1] = ledger(B, [4, 4, 0, 0]);
    let found = obstacles(&backlog, pets());
    assert!(codes(&found).contains(&"not-read-to-seal"), "{found:?}");
    let mut retired = backlog.clone();
    retired.queues[1].state = QueueState::Retired;
    assert_eq!(obstacles(&retired, pets()), []);
}

#[test]
fn a_poll_is_not_final_while_quarantined_frames_of_it_are_pending() {
    let mut accounts = closed(accounts());
    accounts.ledger[0] = ledger(A, [10, 8, 0, 2]);
    let total = |pending| QuarantineTotal {
        queue: A,
        partition: Partition(0),
        poll: "pets".to_owned(),
        votes: 2,
        pending,
    };
    accounts.quarantine = vec![total(1)];
    let pending = Finding::QuarantinePending { poll: "pets".to_owned(), frames: 1 };
    assert!(pending.to_string().contains("vote-worker quarantine list"));
    assert_eq!(obstacles(&accounts, pets()), [pending]);
    accounts.quarantine = vec![total(0)];
    assert_eq!(obstacles(&accounts, pets()), [], "it was decided");
}

#[test]
fn pending_frames_are_outstanding() {
    let mut accounts = accounts();
    accounts.ledger[0] = ledger(A, [10, 8, 0, 2]);
    let poll = "pets".to_owned();
    accounts.quarantine =
        vec![QuarantineTotal { queue: A, partition: Partition(0), poll, votes: 2, pending: 1 }];
    assert_eq!(audited(&accounts).verdict, Verdict::NotDrained);
    accounts.polls[0].closed_at = Some(second(90));
    accounts.polls[0].final_at = Some(second(100));
    assert_eq!(audited(&accounts).verdict, Verdict::NotDrained, "votes that came too late are not forgotten");
    accounts.quarantine[0].pending = 0;
    assert_eq!(audited(&accounts).verdict, Verdict::Holds);
}

#[test]
fn a_closed_poll_is_not_drained_until_it_can_be_final() {
    let mut accounts = closed(accounts());
    assert_eq!(audited(&accounts).verdict, Verdict::Holds);
    accounts.seals.pop();
    let audit = audited(&accounts);
    assert_eq!(audit.verdict, Verdict::NotDrained);
    assert!(
        matches!(audit.outstanding[0], Finding::NotSealed { queue: B, poll, .. } if poll == pets()),
        "{:?}",
        audit.outstanding
    );
}

#[test]
fn queues_are_audited_even_if_no_poll_is_registered() {
    let queues = vec![QueueRecord { state: QueueState::Diverged, ..record(A, 100, 0) }, record(B, 100, 0)];
    let audit = audited(&Accounts { queues, ..Accounts::default() });
    assert_eq!((audit.verdict, audit.problems.len(), audit.outstanding.len()), (Verdict::Broken, 1, 1));
}

#[test]
fn a_retired_queue_may_lack_votes_but_not_have_too_many() {
    let mut accounts = accounts();
    accounts.queues[0].state = QueueState::Retired;
    accounts.ledger[0].entry.accepted = 12;
    assert_eq!(audited(&accounts).verdict, Verdict::Holds);
    accounts.ledger[0].entry.accepted = 9;
    assert_eq!(audited(&accounts).verdict, Verdict::Broken);
}

#[test]
fn a_final_poll_has_nothing_outstanding() {
    let mut accounts = closed(accounts());
    accounts.polls[0].final_at = Some(second(100));
    accounts.seals.clear();
    accounts.queues[0].seen_at = second(1);
    let audit = audited(&accounts);
    assert_eq!((audit.verdict, audit.polls[0].state), (Verdict::Holds, PollStage::Final));
}

#[test]
fn one_poll_can_be_audited_alone() {
    let mut accounts = accounts();
    let mut other = ledger(A, [3, 0, 0, 0]);
    other.entry.poll = "cars".to_owned();
    accounts.ledger.push(other);
    assert_eq!(audited(&accounts).verdict, Verdict::Broken, "three votes of cars are nowhere");
    let names: Vec<_> = audited(&accounts).polls.into_iter().map(|poll| (poll.poll, poll.state)).collect();
    let expected = [("pets".to_owned(), PollStage::Open), ("cars".to_owned(), PollStage::Unregistered)];
    assert_eq!(names, expected);
    assert_eq!(audit(&accounts, Some(pets())).verdict, Verdict::Holds);
}

#[test]
fn an_audit_survives_serialization() {
    let audit = audited(&with_replaced());
    let toml = toml::to_string(&audit).unwrap();
    assert_eq!(toml::from_str::<Audit>(&toml).unwrap(), audit);
}

fn residual(change: impl FnOnce(&mut Accounts)) -> Residual {
    let mut accounts = accounts();
    change(&mut accounts);
    let residual = residuals(&accounts)["pets"];
    let broken = audited(&accounts).verdict == Verdict::Broken;
    assert_eq!(broken, !residual.is_zero(), "an audit finds what is left over, and nothing else here");
    residual
}

#[test]
fn consistent_accounts_have_no_residual() {
    assert!(residual(|_| ()).is_zero());
    assert!(residuals(&Accounts::default()).is_empty());
}

#[test]
fn a_lost_vote_does_not_hide_one_counted_twice() {
    let residual = residual(|accounts| {
        accounts.ledger[0].entry.accepted += 1;
        accounts.ledger[1].entry.superseded += 1;
    });
    assert_eq!(residual, Residual { accepted: 2, ..Residual::default() });
}

#[test]
fn votes_that_tally_or_quarantine_lack_are_a_residual() {
    let without_rows = |accounts: &mut Accounts| accounts.rows = None;
    let found = residual(|accounts| {
        without_rows(accounts);
        accounts.tally[0].votes -= 3;
    });
    assert_eq!(found, Residual { tally: 3, ..Residual::default() });
    let found = residual(|accounts| {
        accounts.ledger[0].entry.superseded -= 1;
        accounts.ledger[0].entry.quarantined += 1;
    });
    assert_eq!(found, Residual { quarantined: 1, ..Residual::default() });
}

#[test]
fn what_a_retired_queue_lost_is_no_residual() {
    let found = residual(|accounts| {
        accounts.ledger[0].entry.accepted += 5;
        accounts.queues[0].state = QueueState::Retired;
    });
    assert!(found.is_zero(), "{found:?}");
}

#[test]
fn impossible_figures_saturate_the_residual() {
    let mut accounts = accounts();
    accounts.ledger[0].entry.accepted = u64::MAX;
    accounts.ledger[1].entry.accepted = u64::MAX;
    assert_eq!(residuals(&accounts)["pets"].accepted, u64::MAX);
}

#[test]
fn a_late_queue_is_not_heard_from_until_no_votes_can_come_from_it() {
    let mut accounts = accounts();
    assert_eq!(not_heard_from(&as_of(&accounts, 110)), [], "10 s are no time");
    assert_eq!(not_heard_from(&as_of(&accounts, 111)), [A, B]);
    accounts.queues[0].state = QueueState::Diverged;
    assert_eq!(not_heard_from(&as_of(&accounts, 111)), [B], "a cut one is named as such");
    accounts = closed(accounts);
    accounts.polls[0].final_at = Some(second(95));
    assert_eq!(not_heard_from(&as_of(&accounts, 111)), [], "its polls are final");
}
