//! The check finds each kind of wrong, and nothing where nothing is.

use super::*;
use crate::electorate::Electorate;

const VOTER: VoterKey = VoterKey([7; 16]);

/// A vote that was sent and answered in this time, in this way.
fn cast(option: &str, from: i64, until: i64, outcome: Outcome) -> Cast {
    let option = option.parse().unwrap();
    Cast { option, from, until: Some(until), outcome, frontend: 0, answer: String::new() }
}

fn acknowledged(option: &str, from: i64, until: i64) -> Cast {
    cast(option, from, until, Outcome::Acknowledged)
}

fn unknown(option: &str, from: i64, until: i64) -> Cast {
    cast(option, from, until, Outcome::Unknown)
}

fn row(poll: &str, option: &str, cast_at: i64) -> Row {
    Row { poll: poll.to_owned(), voter: VOTER, option: option.to_owned(), cast_at }
}

/// These rows and the tally that belongs to them.
fn counted(rows: &[Row]) -> Counted {
    let mut counted = Counted { rows: rows.to_vec(), tally: BTreeMap::new() };
    for row in rows {
        *counted.tally.entry((row.poll.clone(), row.option.clone())).or_default() += 1;
    }
    counted
}

fn check(poll: &str, casts: &[Cast], counted: &Counted) -> (u64, u64, u64) {
    let polls = Electorate::new(1).unwrap().polls;
    let journal = HashMap::from([((poll.parse().unwrap(), VOTER), casts.to_vec())]);
    let findings = verify(&polls, &journal, counted);
    let numbers = (findings.lost, findings.double_counted, findings.wrongly_counted);
    assert_eq!(findings.is_exact(), numbers == (0, 0, 0));
    assert_eq!(findings.examples.is_empty(), findings.is_exact());
    numbers
}

const FINE: (u64, u64, u64) = (0, 0, 0);
const LOST: (u64, u64, u64) = (1, 0, 0);
const DOUBLE: (u64, u64, u64) = (0, 1, 0);
const WRONG: (u64, u64, u64) = (0, 0, 1);

#[test]
fn an_acknowledged_vote_stands() {
    let casts = [acknowledged("a", 10, 20)];
    assert_eq!(check("keep-first", &casts, &counted(&[row("keep-first", "a", 15)])), FINE);
    assert_eq!(check("keep-first", &casts, &counted(&[])), LOST);
}

#[test]
fn of_two_acknowledged_votes_the_rule_decides() {
    let casts = [acknowledged("a", 10, 20), acknowledged("b", 30, 40)];
    assert_eq!(check("keep-first", &casts, &counted(&[row("keep-first", "a", 20)])), FINE);
    assert_eq!(check("keep-first", &casts, &counted(&[row("keep-first", "b", 35)])), LOST);
    let casts = [acknowledged("x", 10, 20), acknowledged("y", 30, 40)];
    assert_eq!(check("keep-last", &casts, &counted(&[row("keep-last", "y", 30)])), FINE);
    assert_eq!(check("keep-last", &casts, &counted(&[row("keep-last", "x", 15)])), LOST);
}

#[test]
fn of_two_votes_at_the_same_time_either_may_stand() {
    let casts = [acknowledged("a", 10, 40), acknowledged("b", 20, 30)];
    for (option, cast_at) in [("a", 10), ("a", 30), ("b", 20), ("b", 30)] {
        assert_eq!(check("keep-first", &casts, &counted(&[row("keep-first", option, cast_at)])), FINE);
    }
    assert_eq!(
        check("keep-first", &casts, &counted(&[row("keep-first", "a", 31)])),
        LOST,
        "the other was earlier"
    );
}

#[test]
fn an_unknown_vote_may_stand_or_not() {
    assert_eq!(check("keep-first", &[unknown("a", 10, 20)], &counted(&[])), FINE);
    assert_eq!(check("keep-first", &[unknown("a", 10, 20)], &counted(&[row("keep-first", "a", 15)])), FINE);
    let casts = [unknown("a", 10, 20), acknowledged("b", 30, 40)];
    for (option, cast_at) in [("a", 15), ("b", 35)] {
        assert_eq!(check("keep-first", &casts, &counted(&[row("keep-first", option, cast_at)])), FINE);
    }
    assert_eq!(check("keep-first", &casts, &counted(&[])), LOST);
}

#[test]
fn a_vote_without_an_answer_may_be_cast_later() {
    let casts = [Cast { until: None, ..unknown("x", 10, 20) }, acknowledged("y", 30, 40)];
    assert_eq!(check("keep-last", &casts, &counted(&[row("keep-last", "x", 99)])), FINE);
    assert_eq!(check("keep-last", &casts, &counted(&[row("keep-last", "x", 29)])), LOST, "y came later");
}

#[test]
fn a_vote_that_was_said_not_to_be_stored_does_not_stand() {
    let casts = [cast("a", 10, 20, Outcome::Refused)];
    assert_eq!(check("keep-first", &casts, &counted(&[])), FINE);
    assert_eq!(check("keep-first", &casts, &counted(&[row("keep-first", "a", 15)])), WRONG);
}

#[test]
fn a_vote_that_nobody_sent_is_found() {
    let casts = [acknowledged("a", 10, 20)];
    assert_eq!(check("keep-first", &casts, &counted(&[row("keep-first", "b", 15)])), WRONG, "another option");
    assert_eq!(check("keep-first", &casts, &counted(&[row("keep-first", "a", 21)])), WRONG, "another time");
    let stranger = Row { voter: VoterKey([8; 16]), ..row("keep-first", "a", 15) };
    assert_eq!(check("keep-first", &casts, &counted(&[row("keep-first", "a", 15), stranger])), WRONG);
    let elsewhere = row("no-such-poll", "a", 15);
    assert_eq!(check("keep-first", &casts, &counted(&[row("keep-first", "a", 15), elsewhere])), WRONG);
}

#[test]
fn two_rows_of_one_voter_are_found() {
    let casts = [acknowledged("a", 10, 20)];
    let rows = [row("keep-first", "a", 15), row("keep-first", "a", 15)];
    assert_eq!(check("keep-first", &casts, &counted(&rows)), DOUBLE);
}

#[test]
fn a_tally_that_is_not_the_recount_is_found() {
    let casts = [acknowledged("a", 10, 20)];
    let tally = |n: i64| {
        let mut counted = counted(&[row("keep-first", "a", 15)]);
        counted.tally.insert(("keep-first".to_owned(), "a".to_owned()), n);
        counted
    };
    assert_eq!(check("keep-first", &casts, &tally(1)), FINE);
    assert_eq!(check("keep-first", &casts, &tally(2)), DOUBLE);
    assert_eq!(check("keep-first", &casts, &tally(0)), LOST);
    let mut moved = tally(0);
    moved.tally.insert(("keep-first".to_owned(), "b".to_owned()), 1);
    assert_eq!(check("keep-first", &casts, &moved), (1, 1, 0));
}

#[test]
fn an_example_tells_all_that_is_known_of_the_voter() {
    let polls = Electorate::new(1).unwrap().polls;
    let casts = vec![acknowledged("a", 10, 20), unknown("b", 30, 40)];
    let journal = HashMap::from([(("keep-first".parse().unwrap(), VOTER), casts)]);
    let findings = verify(&polls, &journal, &counted(&[]));
    let text = &findings.examples[0];
    for part in ["07070707", "keep-first", "sent a at", "sent b at", "Unknown", "counted nothing"] {
        assert!(text.contains(part), "{part} in {text}");
    }
}
