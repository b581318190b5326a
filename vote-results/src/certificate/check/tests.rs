use serde_json::Value;

use super::*;
use crate::certificate::sample::{certificate, counted, forced, queued};

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

/// Returns the error of the certificate with one value changed.
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
fn each_check_that_passes_is_reported() {
    let certificate = certificate();
    assert_eq!(all(&certificate), Ok(()));
    assert_eq!(result(&certificate, &counted()).unwrap()[0], "7 ballots, each voter once");
    assert_eq!(
        audit(&certificate).unwrap(),
        [
            "in each of 2 queues, accepted votes = new voters + superseded + quarantined",
            "in total, 7 accepted = 5 new voters + 1 superseded + 1 quarantined",
            "5 new voters + 2 reread from replaced queues = 7 ballots",
        ]
    );
}

#[test]
fn any_changed_figure_is_detected() {
    let poll = "/audit/polls/0";
    for (path, found) in [
        ("/result/total", "result: the sum of the options"),
        ("/result/options/0/votes", "result: ballots for cats: 4, where the certificate says 1"),
        ("/ballots/count", "ballots.csv: ballots: 7, where the certificate says 1"),
        (&format!("{poll}/tally"), "audit: tally"),
        (&format!("{poll}/rows"), "audit: rows of ballots"),
        (&format!("{poll}/accepted"), "audit: all queues"),
        (&format!("{poll}/reread"), "audit: the sum of reread over the queues"),
        (&format!("{poll}/reread_new"), "audit: the sum of reread new"),
        (&format!("{poll}/reread_quarantined"), "audit: the sum of reread quarantined"),
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
fn new_voters_missing_from_the_audit_are_detected() {
    let mut certificate = certificate();
    let poll = &mut certificate.audit.polls[0];
    poll.queues[0].figures.accepted -= 1;
    poll.queues[0].figures.new_voters -= 1;
    poll.total.accepted -= 1;
    poll.total.new_voters -= 1;
    let e = audit(&certificate).unwrap_err();
    assert_eq!(e, "audit: new voters, with those reread: 6, where the certificate says 7");
}

#[test]
fn votes_may_be_missing_only_from_a_retired_queue() {
    let lose = |queue: usize| {
        let mut certificate = certificate();
        let poll = &mut certificate.audit.polls[0];
        poll.queues[queue].figures.accepted += 3;
        poll.total.accepted += 3;
        audit(&certificate)
    };
    assert_eq!(
        lose(1).unwrap()[1],
        "in total, 10 accepted = 5 new voters + 1 superseded + 1 quarantined + 3 lost in retired queues"
    );
    assert!(
        lose(0).unwrap_err().starts_with("audit: queue 00000000000000000000000000000001: 8 accepted votes")
    );
}

#[test]
fn overflowing_sums_are_detected_without_a_panic() {
    let mut certificate = certificate();
    for queue in &mut certificate.audit.polls[0].queues {
        queue.figures = Figures { accepted: u64::MAX, new_voters: u64::MAX, ..Figures::default() };
    }
    assert!(audit(&certificate).unwrap_err().contains("sum of accepted"));
    certificate.result.options.iter_mut().for_each(|option| option.votes = u64::MAX);
    assert!(result(&certificate, &counted()).is_err());
}

#[test]
fn the_options_must_be_those_of_the_poll_each_once() {
    assert!(changed("/result/options/0/option", "birds".into()).contains("differ from those of the poll"));
    let mut twice = certificate();
    twice.poll.options[1] = twice.poll.options[0].clone();
    twice.result.options[1] = twice.result.options[0];
    assert_eq!(definition(&twice).unwrap_err(), "poll: option cats is listed twice");
}

#[test]
fn files_outside_the_folder_are_not_read() {
    assert!(changed("/ballots/file", "../ballots.csv".into()).contains("which must be ballots.csv"));
}

#[test]
fn unknown_fields_are_refused_with_their_path() {
    for (place, named) in [
        ("", "unknown field `more`"),
        ("/poll", "unknown field `more`"),
        ("/audit", "audit.more is not part of format 3"),
        ("/audit/polls/0", "audit.polls.0.more is not part of format 3"),
        ("/audit/polls/0/queues/1", "audit.polls.0.queues.1.more is not part of format 3"),
    ] {
        let mut json = serde_json::to_value(certificate()).unwrap();
        json.pointer_mut(place).unwrap().as_object_mut().unwrap().insert("more".to_owned(), 1.into());
        let e = parse(&serde_json::to_vec(&json).unwrap()).unwrap_err();
        assert!(e.contains(named), "{place}: {e}");
    }
}

#[test]
fn a_finding_may_be_worded_differently_but_not_hold_more_or_less() {
    let reparsed = |change: fn(&mut serde_json::Map<String, Value>)| {
        let mut json = serde_json::to_value(forced()).unwrap();
        change(json.pointer_mut("/outstanding/0").unwrap().as_object_mut().unwrap());
        parse(&serde_json::to_vec(&json).unwrap())
    };
    assert_eq!(reparsed(|finding| finding["text"] = "other words".into()), Ok(forced()));
    let e = reparsed(|finding| finding["text"] = 1.into()).unwrap_err();
    assert!(e.contains("outstanding.0.text is not part of format 3"), "{e}");
    let e = reparsed(|finding| assert!(finding.remove("text").is_some())).unwrap_err();
    assert!(e.contains("outstanding.0.text is not part of format 3"), "{e}");
    let e = reparsed(|finding| assert!(finding.insert("more".to_owned(), 1.into()).is_none())).unwrap_err();
    assert!(e.contains("outstanding.0.more is not part of format 3"), "{e}");
    assert!(reparsed(|finding| finding["code"] = "another".into()).is_err());
}

#[test]
fn another_format_is_refused_before_its_fields_are_read() {
    let e = parse(br#"{"format": 2, "whatever": 1}"#).unwrap_err();
    assert!(e.contains("has format 2, but this version of the program reads only format 3"), "{e}");
}

#[test]
fn a_certificate_that_is_too_long_is_refused() {
    assert!(parse(&vec![b' '; MAX_CERTIFICATE + 1]).unwrap_err().contains("is longer than"));
}

#[test]
fn a_forced_certificate_does_not_claim_to_be_final() {
    assert_eq!(status(&forced()), Ok(Vec::new()));
}

#[test]
fn accounting_errors_invalidate_even_a_forced_certificate() {
    let mut certificate = forced();
    certificate.problems = vec![queued("redis://one")];
    let e = status(&certificate).unwrap_err();
    assert!(e.ends_with(&format!("when this certificate was forced: {}", queued("redis://one"))), "{e}");
}

#[test]
fn a_final_certificate_must_be_final_in_every_part() {
    assert!(
        changed("/outstanding", serde_json::json!([queued("one")])).contains("lists as outstanding: queue ")
    );
    assert!(changed("/audit/verdict", "not-drained".into()).contains("its audit does not"));
    assert!(changed("/audit/polls/0/state", "closed".into()).contains("its audit does not"));
    assert!(changed("/final_at", Value::Null).contains("its audit does not"));
}
