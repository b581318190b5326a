//! Tests of how the work of a pipeline grows, as counts, and of a result from many queues: runs of the example `scale`.

use std::process::Command;

use serde_json::Value;
use vote_testkit::Service;

/// Runs the example in each of these ways at the same time, and returns the reports. Each run must succeed.
fn scale<const N: usize>(runs: [&str; N]) -> [Value; N] {
    std::thread::scope(|scope| {
        let started = runs.map(|arguments| scope.spawn(move || run(arguments)));
        started.map(|run| run.join().expect("the run succeeds"))
    })
}

fn run(arguments: &str) -> Value {
    let output = Command::new(Service::example("scale")).args(arguments.split(' ')).output().unwrap();
    assert!(
        output.status.success(),
        "{arguments}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    crate::world::report(&output)
}

/// Asserts by which factor a rate grows between two runs.
#[track_caller]
fn assert_growth(runs: &[Value; 2], rate: &str, expected: std::ops::RangeInclusive<f64>) {
    let [before, after] = [0, 1].map(|run| runs[run][rate].as_f64().unwrap());
    let growth = after / before;
    assert!(
        expected.contains(&growth),
        "{rate} grows from {before} to {after}, by {growth:.2}: {:#} {:#}",
        runs[0]["calls_per_second"],
        runs[1]["calls_per_second"]
    );
}

#[test]
fn the_work_of_the_store_doubles_with_the_queues() {
    let runs =
        scale(["steady --queues 20 --settle 5 --seconds 12", "steady --queues 40 --settle 5 --seconds 12"]);
    assert_growth(&runs, "rows_per_second", 1.8..=2.2);
}

#[test]
#[ignore = "each worker reports every queue"]
fn the_work_of_the_store_does_not_grow_with_the_workers() {
    let runs = scale([
        "steady --queues 40 --workers 1 --settle 5 --seconds 12",
        "steady --queues 40 --workers 2 --settle 5 --seconds 12",
    ]);
    assert_growth(&runs, "rows_per_second", 0.9..=1.1);
}

#[test]
fn votes_in_many_queues_and_polls_give_the_exact_result() {
    let [report] = scale(["exact --queues 40 --workers 2 --polls 3 --votes 3000 --within 60"]);
    assert_eq!(report["exact"], true, "{report:#}");
    assert_eq!(report["double_votes"], 142, "{report:#}");
}
