//! Tests of the fault injection, and of its check: if a rule of the pipeline is broken, the check finds loss or double
//! counting.
//!
//! Each mode of sabotage is combined with faults that are certain to expose it.

use std::process::{Command, Output, Stdio};

use serde_json::Value;
use vote_testkit::Service;

use crate::world::report;

/// Runs the example `faults`.
fn faults(arguments: &[&str]) -> Output {
    run(Command::new(Service::example("faults")).args(arguments))
}

fn run(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output().unwrap();
    println!("{}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Runs the example with a broken rule, and returns its report, which must not be exact.
#[track_caller]
fn broken(arguments: &[&str]) -> Value {
    // The run is expected to fail, so the logs that it keeps are removed with this folder.
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

const COMMITS_FAIL: [&str; 6] =
    ["--duration", "15s", "--fault-every", "2s", "--only", "kill-worker,terminate-sessions"];
/// For runs in which the audit must fail: they end after five failed audits in a row, and on a busy machine the first of
/// them may come late.
const UNTIL_THE_AUDIT_FAILS: [&str; 2] = ["--drain", "90s"];
/// For runs that need not drain, because a vote is lost or counted twice.
const NOT_DRAINED: [&str; 2] = ["--drain", "15s"];

#[test]
fn every_kind_of_fault_loses_nothing_and_counts_nothing_twice() {
    // The plan of this seed has each of the rare kinds.
    let output = faults(&["--seed", "2566", "--duration", "60s", "--fault-every", "2s"]);
    let report = report(&output);
    assert!(output.status.success() && report["exact"] == true, "{report}");
    for wrong in [
        "lost",
        "double_counted",
        "wrongly_counted",
        "wrongly_taken",
        "wrongly_refused",
        "audit_failures",
        "poll_failures",
    ] {
        assert_eq!(count(&report, wrong), 0, "{report}");
    }
    assert!(count(&report, "fault_count") >= 15 && count(&report, "acknowledged") > 2000, "{report}");
    for field in ["refused_for_the_file", "taken_beside", "final_votes"] {
        assert!(count(&report, field) > 0, "{report}");
    }
}

#[test]
fn trimming_before_the_commit_loses_votes() {
    let report =
        broken(&[&["--seed", "2", "--sabotage", "trim-first"], &COMMITS_FAIL[..], &NOT_DRAINED].concat());
    assert!(count(&report, "lost") > 0, "{report}");
}

#[test]
fn a_position_outside_the_transaction_counts_votes_twice() {
    let report = broken(
        &[&["--seed", "3", "--sabotage", "forget-position"], &COMMITS_FAIL[..], &NOT_DRAINED].concat(),
    );
    assert!(count(&report, "audit_failures") + count(&report, "double_counted") > 0, "{report}");
}

#[test]
fn without_the_version_two_owners_of_a_partition_count_votes_twice() {
    // On a busy machine two owners may not meet in the few seconds of a run.
    let found = ["4", "5", "6"].into_iter().any(|seed| {
        let output = faults(
            &[&["--seed", seed, "--sabotage", "ignore-version"], &COMMITS_FAIL[..], &NOT_DRAINED].concat(),
        );
        let report = report(&output);
        count(&report, "audit_failures") + count(&report, "double_counted") > 0
    });
    assert!(found, "three runs counted every vote once");
}

#[test]
fn with_the_version_two_owners_of_a_partition_do_no_harm() {
    let output = faults(&[&["--seed", "4", "--sabotage", "share-partitions"], &COMMITS_FAIL[..]].concat());
    let report = report(&output);
    assert!(output.status.success() && report["exact"] == true, "{report}");
}

#[test]
fn an_entry_deleted_by_hand_is_detected() {
    let plan = ["--seed", "5", "--duration", "10s", "--fault-every", "4s", "--only", "kill-results"];
    let report = broken(&[&plan[..], &["--sabotage", "delete-entry"], &UNTIL_THE_AUDIT_FAILS].concat());
    assert!(count(&report, "audit_failures") > 0, "{report}");
}

#[test]
fn a_rollback_of_the_store_loses_votes_if_committed_entries_are_trimmed_at_once() {
    let plan = ["--seed", "7", "--duration", "20s", "--fault-every", "4s", "--only", "roll-back-postgres"];
    let report = broken(&[&plan[..], &["--sabotage", "trim-at-once"], &UNTIL_THE_AUDIT_FAILS].concat());
    assert!(count(&report, "lost") > 0 && count(&report, "audit_failures") > 0, "{report}");
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
