//! A process ends with its holder, however the holder ends.

use std::env;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use vote_testkit::Child;

const HOLDER: &str = "VOTE_TESTKIT_HOLDER";

fn shell(script: &str) -> Child {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    Child::start(&command, tempfile::tempdir().unwrap().keep(), "KILL")
}

fn runs(pid: u32) -> bool {
    let mut kill = Command::new("sh");
    kill.args(["-c", "kill -0 \"$1\"", "kill", &pid.to_string()]).stderr(Stdio::null());
    kill.status().unwrap().success()
}

fn wait_until_gone(pid: u32, dir: &Path) {
    let start = Instant::now();
    while runs(pid) || dir.exists() {
        assert!(start.elapsed() < Duration::from_secs(20), "process {pid} or {} still exists", dir.display());
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_process_does_not_outlive_its_handle() {
    let child = shell("exec sleep 600");
    let (pid, dir) = (child.pid(), child.dir().to_path_buf());
    assert!(runs(pid) && dir.exists());

    drop(child);

    assert!(!runs(pid), "the process still exists");
    assert!(!dir.exists(), "its directory still exists");
}

#[test]
fn a_frozen_process_does_not_outlive_its_handle() {
    let child = shell("exec sleep 600");
    let pid = child.pid();
    assert!(child.signal("STOP"));

    drop(child);

    assert!(!runs(pid));
}

#[test]
fn a_process_does_not_outlive_a_killed_holder() {
    let mut holder = Command::new(env::current_exe().unwrap());
    holder.args(["--exact", "process::holder", "--ignored", "--nocapture"]).env(HOLDER, "1");
    let mut holder = holder.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(holder.stdout.take().unwrap()).lines().map_while(Result::ok);
    let held = lines.find_map(|line| line.split_once("held: ").map(|(_, held)| held.to_owned())).unwrap();
    let (pid, dir) = held.split_once(' ').unwrap();
    let (pid, dir) = (pid.parse().unwrap(), PathBuf::from(dir));
    assert!(runs(pid) && dir.exists());

    // SIGKILL: no code of the holder can run any more.
    holder.kill().unwrap();
    holder.wait().unwrap();

    wait_until_gone(pid, &dir);
}

#[test]
#[ignore = "it is the process that a_process_does_not_outlive_a_killed_holder kills"]
fn holder() {
    if env::var_os(HOLDER).is_none() {
        return;
    }
    let child = shell("exec sleep 600");
    println!("held: {} {}", child.pid(), child.dir().display());
    std::thread::sleep(Duration::from_secs(600));
}

#[test]
fn exit_codes_and_signals_are_distinguished() {
    let exited = shell("exit 78").wait_exit(Duration::from_secs(20)).unwrap();
    // Not INT: a shell starts background processes with SIGINT ignored, and these tests may be one.
    let killed = shell("exec sleep 600").stop("TERM");

    assert_eq!((exited.code(), exited.signal(), exited.success()), (Some(78), None, false));
    assert_eq!((killed.code(), killed.signal(), killed.success()), (None, Some(15), false));
}

#[test]
fn a_process_that_has_ended_gets_no_signal() {
    let child = shell("exit 0");
    child.wait_exit(Duration::from_secs(20)).unwrap();

    assert!(!child.signal("TERM"));
}

#[test]
fn a_replacement_has_the_same_directory() {
    let mut child = shell("echo kept > file; echo one; exec sleep 600");
    while !child.log().ends_with("one\n") {
        std::thread::sleep(Duration::from_millis(5));
    }
    let first = child.pid();

    child.replace(Command::new("cat").arg("file"));
    child.wait_exit(Duration::from_secs(20)).unwrap();

    assert!(!runs(first));
    assert!(child.log().starts_with("one\n") && child.log().ends_with("kept\n"), "{}", child.log());
}

#[test]
fn a_missing_program_is_in_the_log() {
    let child = Child::start(&Command::new("no-such-program"), tempfile::tempdir().unwrap().keep(), "KILL");

    // 127, or 126 if a folder on the search path is not accessible.
    assert!(matches!(child.wait_exit(Duration::from_secs(20)).unwrap().code(), Some(126 | 127)));
    assert!(child.tail().contains("no-such-program"));
}
