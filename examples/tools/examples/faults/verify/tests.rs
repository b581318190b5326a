//! Tests that the check finds each kind of problem, and none in an exact run.

use super::*;
use crate::electorate::Electorate;

const VOTER: VoterKey = VoterKey([7; 16]);

/// A vote that was sent and answered at these times, with this outcome.
fn cast(option: &str, from: i64, until: i64, outcome: Outcome) -> Cast {
    let option = option.parse().unwrap();
    Cast { option, from, until: Some(until), after: None, outcome, frontend: 0, answer: String::new() }
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

/// These rows with their tally.
fn counted(rows: &[Row]) -> Counted {
    let mut counted = Counted { rows: rows.to_vec(), tally: BTreeMap::new() };
    for row in rows {
        *counted.tally.entry((row.poll.clone(), row.option.clone())).or_default() += 1;
    }
    counted
}

fn check(poll: &str, casts: &[Cast], counted: &Counted) -> (u64, u64, u64) {
    check_during(&Circumstances::default(), poll, casts, counted)
}

fn check_during(during: &Circumstances, poll: &str, casts: &[Cast], counted: &Counted) -> (u64, u64, u64) {
    let polls = Electorate::new(1).unwrap().polls;
    let journal = HashMap::from([((poll.parse().unwrap(), VOTER), casts.to_vec())]);
    let findings = verify(&polls, &journal, counted, during);
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
fn an_acknowledged_vote_must_be_counted() {
    let casts = [acknowledged("a", 10, 20)];
    assert_eq!(check("keep-first", &casts, &counted(&[row("keep-first", "a", 15)])), FINE);
    assert_eq!(check("keep-first", &casts, &counted(&[])), LOST);
}

#[test]
fn of_two_acknowledged_votes_the_rule_of_the_poll_decides() {
    let casts = [acknowledged("a", 10, 20), acknowledged("b", 30, 40)];
    assert_eq!(check("keep-first", &casts, &counted(&[row("keep-first", "a", 20)])), FINE);
    assert_eq!(check("keep-first", &casts, &counted(&[row("keep-first", "b", 35)])), LOST);
    let casts = [acknowledged("x", 10, 20), acknowledged("y", 30, 40)];
    assert_eq!(check("keep-last", &casts, &counted(&[row("keep-last", "y", 30)])), FINE);
    assert_eq!(check("keep-last", &casts, &counted(&[row("keep-last", "x", 15)])), LOST);
}

#[test]
fn of_two_votes_at_the_same_time_either_may_be_effective() {
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
fn an_unknown_vote_may_be_counted_or_not() {
    assert_eq!(check("keep-first", &[unknown("a", 10, 20)], &counted(&[])), FINE);
    assert_eq!(check("keep-first", &[unknown("a", 10, 20)], &counted(&[row("keep-first", "a", 15)])), FINE);
    let casts = [unknown("a", 10, 20), acknowledged("b", 30, 40)];
    for (option, cast_at) in [("a", 15), ("b", 35)] {
        assert_eq!(check("keep-first", &casts, &counted(&[row("keep-first", option, cast_at)])), FINE);
    }
    assert_eq!(check("keep-first", &casts, &counted(&[])), LOST);
}

/// A run in which the clock of the first frontend is an hour ahead from the first minute on.
fn an_hour_ahead() -> Circumstances {
    let mut during = Circumstances::default();
    during.clocks[0].step(60_000_000, 60_000_000, 3600);
    during
}

const MINUTE: i64 = 60_000_000;

#[test]
fn a_vote_has_the_time_of_the_clock_of_its_frontend() {
    let casts = [acknowledged("a", 2 * MINUTE, 3 * MINUTE)];
    let check = |minute: i64| {
        check_during(
            &an_hour_ahead(),
            "keep-first",
            &casts,
            &counted(&[row("keep-first", "a", minute * MINUTE)]),
        )
    };
    assert_eq!((check(62), check(63)), (FINE, FINE));
    assert_eq!((check(2), check(64)), (WRONG, WRONG));
}

#[test]
fn the_clocks_of_the_frontends_decide_which_vote_is_earlier() {
    let later = Cast { frontend: 1, ..acknowledged("b", 4 * MINUTE, 5 * MINUTE) };
    let casts = [acknowledged("a", 2 * MINUTE, 3 * MINUTE), later];
    let check = |poll: &str, option: &str, minute: i64| {
        check_during(&an_hour_ahead(), poll, &casts, &counted(&[row(poll, option, minute * MINUTE)]))
    };
    assert_eq!(check("keep-first", "b", 4), FINE, "it is the first by the clock of its frontend");
    assert_eq!(check("keep-first", "a", 62), LOST);
    assert_eq!(check("keep-last", "a", 62), FINE);
    assert_eq!(check("keep-last", "b", 4), LOST);
}

#[test]
fn a_vote_is_later_than_the_previous_one_in_the_cookie() {
    let later = Cast { frontend: 1, after: Some(62 * MINUTE), ..acknowledged("b", 4 * MINUTE, 5 * MINUTE) };
    let casts = [acknowledged("a", 2 * MINUTE, 3 * MINUTE), later];
    let check = |poll: &str, option: &str, at: i64| {
        check_during(&an_hour_ahead(), poll, &casts, &counted(&[row(poll, option, at)]))
    };
    assert_eq!(check("keep-first", "a", 62 * MINUTE), FINE);
    assert_eq!(check("keep-last", "b", 62 * MINUTE + 1), FINE);
    assert_eq!(check("keep-last", "b", 4 * MINUTE), WRONG, "the clock of its frontend alone does not decide");
    assert_eq!(check("keep-last", "a", 62 * MINUTE), LOST);
}

/// The findings of a run in which the first frontend had a differing file from 10 or 20 until 40 or 50.
fn with_another_file(poll: &str, cast: Cast) -> Findings {
    let polls = Electorate::new(1).unwrap().polls;
    let differing = vec![Differing { frontend: 0, starts: (10, 20), ends: Some((40, 50)) }];
    let during = Circumstances { differing, ..Circumstances::default() };
    let rows = match cast.outcome {
        Outcome::Acknowledged => vec![row(poll, cast.option.as_str(), cast.from)],
        _ => vec![],
    };
    let journal = HashMap::from([((poll.parse().unwrap(), VOTER), vec![cast])]);
    verify(&polls, &journal, &counted(&rows), &during)
}

#[test]
fn a_vote_accepted_with_a_differing_file_is_found() {
    let accepted = |poll: &str, option: &str, from: i64, until: i64| {
        with_another_file(poll, acknowledged(option, from, until)).wrongly_taken
    };
    assert_eq!(accepted("keep-first", "a", 20, 40), 1);
    assert_eq!(accepted("keep-last", "x", 20, 40), 0, "another poll");
    assert_eq!(accepted("keep-first", "a", 19, 40), 0, "it may have been accepted before");
    assert_eq!(accepted("keep-first", "a", 20, 41), 0, "it may have been accepted afterwards");
}

#[test]
fn a_vote_refused_for_an_option_that_exists_is_found() {
    let answer = "422 unknown-option".to_owned();
    let refused = Cast { answer, ..cast("c", 20, 40, Outcome::Refused) };
    assert_eq!(with_another_file("keep-first", refused).wrongly_refused, 1);
}

#[test]
fn a_vote_refused_for_a_difference_that_does_not_exist_is_found() {
    let refused = |poll: &str, option: &str, from: i64, until: i64| {
        let answer = format!("503 {DIFFERS}");
        with_another_file(poll, Cast { answer, ..cast(option, from, until, Outcome::Refused) })
            .wrongly_refused
    };
    assert_eq!(refused("keep-first", "a", 20, 40), 0);
    assert_eq!(refused("keep-first", "a", 5, 10), 0, "the frontend may have had the file already");
    assert_eq!(refused("keep-first", "a", 50, 60), 0, "the frontend may still have had the file");
    assert_eq!(refused("keep-first", "a", 5, 9), 1, "before");
    assert_eq!(refused("keep-first", "a", 51, 60), 1, "afterwards");
    assert_eq!(refused("keep-last", "x", 20, 40), 1, "another poll");
}

#[test]
fn a_vote_without_an_answer_may_be_cast_later() {
    let casts = [Cast { until: None, ..unknown("x", 10, 20) }, acknowledged("y", 30, 40)];
    assert_eq!(check("keep-last", &casts, &counted(&[row("keep-last", "x", 99)])), FINE);
    assert_eq!(check("keep-last", &casts, &counted(&[row("keep-last", "x", 29)])), LOST, "y is later");
}

#[test]
fn a_refused_vote_must_not_be_counted() {
    for outcome in [Outcome::Refused, Outcome::NotStored] {
        let casts = [cast("a", 10, 20, outcome)];
        assert_eq!(check("keep-first", &casts, &counted(&[])), FINE);
        assert_eq!(check("keep-first", &casts, &counted(&[row("keep-first", "a", 15)])), WRONG);
    }
}

#[test]
fn a_counted_vote_that_was_not_sent_is_found() {
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
fn an_example_contains_all_that_is_known_about_the_voter() {
    let polls = Electorate::new(1).unwrap().polls;
    let casts = vec![acknowledged("a", 10, 20), unknown("b", 30, 40)];
    let journal = HashMap::from([(("keep-first".parse().unwrap(), VOTER), casts)]);
    let findings = verify(&polls, &journal, &counted(&[]), &Circumstances::default());
    let text = &findings.examples[0];
    for part in ["07070707", "keep-first", "sent a at", "sent b at", "Unknown", "counted nothing"] {
        assert!(text.contains(part), "{part} in {text}");
    }
}
