//! The fault injection, and that its check can fail: with a rule of the pipeline broken, loss or double counting is found.
//!
//! Each mode of sabotage comes with faults that are certain to show it.

use std::process::{Command, Output, Stdio};

use serde_json::Value;
use vote_testkit::Service;

use crate::world::report;

/// Runs the example.
fn faults(arguments: &[&str]) -> Output {
    run(Command::new(Service::example("faults")).args(arguments))
}

fn run(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output().unwrap();
    println!("{}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Runs it with something broken; its report, which must not be exact.
#[track_caller]
fn broken(arguments: &[&str]) -> Value {
    // The logs that it keeps are of no use where it is meant to fail.
    let temporary = tempfile::tempdir().unwrap();
    let mut command = Command::new(Service::example("faults"));
    let output = run(command.args(arguments).env("TMPDIR", temporary.path()));
    let report = report(&output);
    assert_eq!(output.status.code(), Some(1), "{report}");
    assert_eq!(report["exact"], false, "{report}");
    report
}

fn count(report: &Value, field: &str) -> u64 {
    report[field].as_u64().unwrap_or_else(|| panic!("no {field} in {report}"))
}

const COMMITS_FAIL: [&str; 8] = [
    "--duration",
    "15s",
    "--fault-every",
    "2s",
    "--only",
    "kill-worker,terminate-sessions",
    "--drain",
    "15s",
];

#[test]
fn every_kind_of_fault_loses_nothing_and_counts_nothing_twice() {
    let output = faults(&["--seed", "1", "--duration", "60s", "--fault-every", "3s"]);
    let report = report(&output);
    assert!(output.status.success() && report["exact"] == true, "{report}");
    for wrong in ["lost", "double_counted", "wrongly_counted", "audit_failures"] {
        assert_eq!(count(&report, wrong), 0, "{report}");
    }
    assert!(count(&report, "fault_count") >= 15 && count(&report, "acknowledged") > 2000, "{report}");
}

#[test]
fn trimming_before_the_commit_loses_votes() {
    let report = broken(&[&["--seed", "2", "--sabotage", "trim-first"], &COMMITS_FAIL[..]].concat());
    assert!(count(&report, "lost") > 0, "{report}");
}

#[test]
fn a_position_that_is_not_in_the_transaction_books_votes_again() {
    let report = broken(&[&["--seed", "3", "--sabotage", "forget-position"], &COMMITS_FAIL[..]].concat());
    assert!(count(&report, "audit_failures") + count(&report, "double_counted") > 0, "{report}");
}

#[test]
fn without_the_version_two_owners_of_a_partition_book_votes_twice() {
    let report = broken(&[&["--seed", "4", "--sabotage", "ignore-version"], &COMMITS_FAIL[..]].concat());
    assert!(count(&report, "audit_failures") + count(&report, "double_counted") > 0, "{report}");
}

#[test]
fn with_the_version_two_owners_of_a_partition_do_no_harm() {
    let output = faults(&[&["--seed", "4", "--sabotage", "share-partitions"], &COMMITS_FAIL[..]].concat());
    let report = report(&output);
    assert!(output.status.success() && report["exact"] == true, "{report}");
}

#[test]
fn an_entry_deleted_by_hand_is_noticed() {
    let report = broken(&[
        "--seed",
        "5",
        "--sabotage",
        "delete-entry",
        "--duration",
        "10s",
        "--fault-every",
        "4s",
        "--only",
        "kill-results",
        "--drain",
        "15s",
    ]);
    assert!(count(&report, "audit_failures") > 0, "{report}");
}

#[test]
fn a_redis_that_does_not_sync_each_write_loses_votes_when_power_fails() {
    let report = broken(&[
        "--seed",
        "6",
        "--everysec",
        "--duration",
        "15s",
        "--fault-every",
        "3s",
        "--only",
        "cut-back",
        "--drain",
        "15s",
    ]);
    assert!(count(&report, "lost") > 0, "{report}");
}
