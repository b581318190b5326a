//! Signals, sent to a separate process: this test program, started again.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

#[test]
#[ignore = "waits for signals that the next test sends"]
fn waits_for_signals() {
    let shutdown = vote_service::shutdown::on_signals().unwrap();
    println!("\nstate: waiting");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(shutdown.requested());
    println!("\nstate: finishing");
    std::thread::sleep(crate::support::PATIENCE);
}

#[test]
fn the_first_signal_requests_a_shutdown_and_the_second_ends_the_process() {
    for (signal, code) in [("-TERM", 143), ("-INT", 130)] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "signals::waits_for_signals", "--nocapture"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = child.id().to_string();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut kill_at = |state: &str| {
            lines.find(|line| line.as_ref().unwrap() == state).unwrap().unwrap();
            assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        };
        kill_at("state: waiting");
        kill_at("state: finishing");
        assert_eq!(child.wait().unwrap().code(), Some(code), "{signal}");
    }
}
