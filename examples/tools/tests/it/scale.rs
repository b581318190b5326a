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

/// Asserts by which factor the rate of some calls grows between two runs.
#[track_caller]
fn assert_growth(runs: &[Value; 2], calls: &[&str], expected: std::ops::RangeInclusive<f64>) {
    for name in calls {
        let [before, after] = [0, 1].map(|run| runs[run]["calls_per_second"][name].as_f64().unwrap());
        let growth = after / before;
        assert!(
            expected.contains(&growth),
            "{name} grows from {before} to {after}, by {growth:.2}: {:#} {:#}",
            runs[0]["calls_per_second"],
            runs[1]["calls_per_second"]
        );
    }
}

/// What is done for each queue by its reporter.
const REPORTS: [&str; 3] = ["queue.status", "queue.backlog", "store.report rows"];

#[test]
fn the_work_of_reports_doubles_with_the_queues() {
    let runs =
        scale(["steady --queues 20 --settle 5 --seconds 12", "steady --queues 40 --settle 5 --seconds 12"]);
    assert_growth(&runs, &REPORTS, 1.8..=2.2);
}

#[test]
fn the_work_of_reports_does_not_grow_with_the_workers() {
    let runs = scale([
        "steady --queues 40 --workers 1 --settle 15 --seconds 12",
        "steady --queues 40 --workers 2 --settle 15 --seconds 12",
    ]);
    assert_growth(&runs, &REPORTS, 0.9..=1.1);
    assert_growth(&runs, &["queue.look", "store.catalog", "store.heartbeat"], 1.5..=2.2);
    let catalogs = runs.map(|run| run["calls_per_second"]["store.catalog queues"].as_f64().unwrap_or(0.0));
    assert_eq!(catalogs, [0.0; 2], "nothing new is not read again");
}

#[test]
fn votes_in_many_queues_and_polls_give_the_exact_result() {
    let [report] = scale(["exact --queues 40 --workers 2 --polls 3 --votes 3000 --within 60"]);
    assert_eq!(report["exact"], true, "{report:#}");
    assert_eq!(report["double_votes"], 142, "{report:#}");
}
