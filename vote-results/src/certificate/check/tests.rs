use serde_json::Value;

use super::*;
use crate::certificate::sample::{certificate, counted, forced};

fn json(certificate: &Certificate) -> Vec<u8> {
    serde_json::to_vec_pretty(certificate).unwrap()
}

fn all(certificate: &Certificate) -> Result<(), String> {
    definition(certificate)?;
    result(certificate, &counted())?;
    status(certificate)?;
    audit(certificate)?;
    Ok(())
}

/// What is said of the certificate with something in it changed.
fn changed(path: &str, value: Value) -> String {
    let mut json = serde_json::to_value(certificate()).unwrap();
    *json.pointer_mut(path).expect("there is such a field") = value;
    all(&serde_json::from_value(json).unwrap()).expect_err(path)
}

#[test]
fn a_certificate_is_read_as_it_was_written() {
    for certificate in [certificate(), forced()] {
        assert_eq!(parse(&json(&certificate)).unwrap(), certificate);
    }
}

#[test]
fn figures_that_agree_are_told_one_by_one() {
    let certificate = certificate();
    assert_eq!(all(&certificate), Ok(()));
    assert_eq!(result(&certificate, &counted()).unwrap()[0], "7 ballots, each voter once");
    assert_eq!(
        audit(&certificate).unwrap(),
        [
            "in each of 2 queues, accepted votes = new voters + superseded + quarantined",
            "together 7 accepted = 5 new voters + 1 superseded + 1 quarantined",
            "5 new voters + 2 from what was left of cut queues = 7 ballots",
        ]
    );
}

#[test]
fn any_figure_that_is_another_is_found() {
    let poll = "/audit/polls/0";
    for (path, found) in [
        ("/result/total", "result: the sum of the options"),
        ("/result/options/0/votes", "result: ballots for cats: 4, where the certificate says 1"),
        ("/ballots/count", "ballots.csv: ballots: 7, where the certificate says 1"),
        (&format!("{poll}/tally"), "audit: standing votes by the tally"),
        (&format!("{poll}/rows"), "audit: rows"),
        (&format!("{poll}/accepted"), "audit: all queues together"),
        (&format!("{poll}/reread"), "audit: the sum of reread over the queues"),
        (&format!("{poll}/reread_new"), "audit: the sum of new among the reread"),
        (&format!("{poll}/reread_quarantined"), "audit: the sum of quarantined of the reread"),
        (&format!("{poll}/queued"), "audit: the sum of queued"),
        (
            &format!("{poll}/queues/0/accepted"),
            "audit: queue 00000000000000000000000000000001: 1 accepted votes",
        ),
        (&format!("{poll}/queues/0/new_voters"), "audit: queue 0000"),
        (&format!("{poll}/queues/1/superseded"), "audit: queue 0000"),
    ] {
        let e = changed(path, 1.into());
        assert!(e.starts_with(found), "{path}: {e}");
    }
}

#[test]
fn ballots_that_are_moved_from_one_queue_to_another_are_no_matter_but_lost_ones_are() {
    let mut certificate = certificate();
    let poll = &mut certificate.audit.polls[0];
    poll.queues[0].figures.accepted -= 1;
    poll.queues[0].figures.new_voters -= 1;
    poll.total.accepted -= 1;
    poll.total.new_voters -= 1;
    let e = audit(&certificate).unwrap_err();
    assert_eq!(e, "audit: new voters, those of remains among them: 6, where the certificate says 7");
}

#[test]
fn votes_may_be_missing_of_a_queue_that_was_written_off_and_of_no_other() {
    let lose = |queue: usize| {
        let mut certificate = certificate();
        let poll = &mut certificate.audit.polls[0];
        poll.queues[queue].figures.accepted += 3;
        poll.total.accepted += 3;
        audit(&certificate)
    };
    assert_eq!(
        lose(1).unwrap()[1],
        "together 10 accepted = 5 new voters + 1 superseded + 1 quarantined + 3 written off"
    );
    assert!(
        lose(0).unwrap_err().starts_with("audit: queue 00000000000000000000000000000001: 8 accepted votes")
    );
}

#[test]
fn figures_too_large_to_add_are_no_crash() {
    let mut certificate = certificate();
    for queue in &mut certificate.audit.polls[0].queues {
        queue.figures = Figures { accepted: u64::MAX, new_voters: u64::MAX, ..Figures::default() };
    }
    assert!(audit(&certificate).unwrap_err().contains("sum of accepted"));
    certificate.result.options.iter_mut().for_each(|option| option.votes = u64::MAX);
    assert!(result(&certificate, &counted()).is_err());
}

#[test]
fn the_options_are_those_of_the_poll_each_once() {
    assert!(changed("/result/options/0/option", "birds".into()).contains("not those of the poll"));
    let mut twice = certificate();
    twice.poll.options[1] = twice.poll.options[0].clone();
    twice.result.options[1] = twice.result.options[0];
    assert_eq!(definition(&twice).unwrap_err(), "poll: option cats is there twice");
}

#[test]
fn a_file_elsewhere_is_not_read() {
    assert!(changed("/ballots/file", "../ballots.csv".into()).contains("where the file is ballots.csv"));
}

#[test]
fn what_is_not_known_to_the_format_is_refused_by_its_place() {
    for (place, named) in [
        ("", "unknown field `more`"),
        ("/poll", "unknown field `more`"),
        ("/audit", "audit.more is not known to format 2"),
        ("/audit/polls/0", "audit.polls.0.more is not known to format 2"),
        ("/audit/polls/0/queues/1", "audit.polls.0.queues.1.more is not known to format 2"),
    ] {
        let mut json = serde_json::to_value(certificate()).unwrap();
        json.pointer_mut(place).unwrap().as_object_mut().unwrap().insert("more".to_owned(), 1.into());
        let e = parse(&serde_json::to_vec(&json).unwrap()).unwrap_err();
        assert!(e.contains(named), "{place}: {e}");
    }
}

#[test]
fn another_format_is_refused_before_its_fields_are() {
    let e = parse(br#"{"format": 3, "whatever": 1}"#).unwrap_err();
    assert!(e.contains("is of format 3, and this version of the program knows format 2 only"), "{e}");
}

#[test]
fn what_is_too_long_is_refused() {
    assert!(parse(&vec![b' '; MAX_CERTIFICATE + 1]).unwrap_err().contains("is longer than"));
}

#[test]
fn a_forced_certificate_says_nothing_of_an_end() {
    assert_eq!(status(&forced()), Ok(Vec::new()));
}

#[test]
fn books_that_did_not_add_up_are_wrong_though_the_certificate_was_forced() {
    let mut certificate = forced();
    certificate.problems = vec!["1 vote is missing".to_owned()];
    let e = status(&certificate).unwrap_err();
    assert!(e.ends_with("when this certificate was forced: 1 vote is missing"), "{e}");
}

#[test]
fn what_is_said_to_be_final_must_be_so_in_every_part() {
    assert!(changed("/outstanding", serde_json::json!(["a queue"])).contains("and also: a queue"));
    assert!(changed("/audit/verdict", "not-drained".into()).contains("its audit does not"));
    assert!(changed("/audit/polls/0/state", "closed".into()).contains("its audit does not"));
    assert!(changed("/final_at", Value::Null).contains("its audit does not"));
}
