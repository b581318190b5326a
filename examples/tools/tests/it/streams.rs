//! Test of the tool that measures event streams.

use std::time::Duration;

use serde_json::Value;
use vote_testkit::Service;

#[test]
fn every_stream_of_every_service_receives_each_vote() {
    let arguments = ["--streams", "60", "--per-service", "30", "--votes", "2", "--idle-seconds", "1"];
    let tool = Service::start(&Service::example("streams"), &arguments, &[]);
    let exit = tool.wait_exit(Duration::from_secs(60)).expect("an end within a minute");
    assert!(exit.success(), "{}", tool.tail());
    let log = tool.log();
    let report: Value = serde_json::from_str(log.trim().lines().last().unwrap()).unwrap();
    assert_eq!((&report["streams"], &report["services"]), (&60.into(), &2.into()));
    assert_eq!(report["received_ms"].as_array().map(Vec::len), Some(2), "{report}");
}
