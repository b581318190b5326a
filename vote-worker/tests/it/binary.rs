//! The binary: settings and help.

use std::process::{Command, Output};

const SECRET: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vote-worker"))
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied())
        .output()
        .unwrap()
}

fn good() -> Vec<(&'static str, &'static str)> {
    vec![
        ("VOTE_QUEUES", "redis://127.0.0.1:1,dns+redis://user:secret-word@tasks.redis:6379"),
        ("VOTE_STORE", "postgres://vote:secret-word@127.0.0.1:1/votes"),
        ("VOTE_PEPPER", SECRET),
    ]
}

#[track_caller]
fn assert_wrong(environment: &[(&str, &str)], expected: &[&str]) {
    for arguments in [&[][..], &["check-config"]] {
        let output = run(arguments, environment);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{text}");
        for expected in expected {
            assert!(text.contains(expected), "{expected} in: {text}");
        }
        assert!(!text.contains("secret-word"), "{text}");
    }
}

#[test]
fn a_valid_configuration_passes_the_check() {
    let output = run(&["check-config"], &good());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn every_invalid_setting_is_named_before_the_service_listens() {
    assert_wrong(&[], &["VOTE_QUEUES", "VOTE_STORE", "VOTE_PEPPER"]);
    let mut environment = good();
    environment[0].1 = "http://user:secret-word@host";
    environment[1].1 = "mysql://user:secret-word@host";
    environment.extend([("VOTE_LANES", "none"), ("VOTE_TRIM_DELAY", "soon"), ("VOTE_PARTITIONS", "3")]);
    assert_wrong(
        &environment,
        &["VOTE_QUEUES", "VOTE_STORE", "VOTE_LANES", "VOTE_TRIM_DELAY", "VOTE_PARTITIONS"],
    );
}

#[test]
fn every_address_of_a_witness_must_name_a_server() {
    let witness = "postgres://vote:secret-word@10.0.0.2/votes";
    let (two, file) = (format!("{witness}, {witness}"), format!("{witness},sqlite:votes.db"));
    let mut environment: Vec<(&str, &str)> = good();
    environment.push(("VOTE_STORE_WITNESS", &two));
    let output = run(&["check-config"], &environment);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let invalid =
        [(file.as_str(), "standby"), ("mysql://user:secret-word@host", "postgres://"), (",", "at least one")];
    for (value, expected) in invalid {
        environment[3].1 = value;
        assert_wrong(&environment, &["VOTE_STORE_WITNESS", expected]);
    }
}

#[test]
fn an_address_to_be_resolved_needs_a_name() {
    let mut environment = good();
    environment[0].1 = "dns+redis://:6379";
    assert_wrong(&environment, &["VOTE_QUEUES", "tasks.redis"]);
}

#[test]
fn a_missing_file_of_polls_is_named() {
    let mut environment = good();
    environment.push(("VOTE_POLLS", "/nowhere/polls.toml"));
    assert_wrong(&environment, &["VOTE_POLLS", "/nowhere/polls.toml"]);
}

#[test]
fn help_names_every_setting_and_command() {
    let output = run(&["--help"], &[]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success());
    for expected in [
        "VOTE_QUEUES",
        "--queues",
        "VOTE_STORE_WITNESS",
        "--store-witness-file",
        "VOTE_TRIM_DELAY",
        "migrate",
        "capacity",
        "check-config",
        "healthcheck",
    ] {
        assert!(text.contains(expected), "{expected} in: {text}");
    }
}

#[test]
fn a_schema_that_can_not_be_one_exits_with_78() {
    let mut environment = good();
    environment.extend([("VOTE_STORE_SCHEMA", "no such; name"), ("VOTE_ADMIN_LISTEN", "127.0.0.1:0")]);
    for arguments in [&[][..], &["polls", "list"], &["migrate"]] {
        let output = run(arguments, &environment);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{arguments:?}: {text}");
        assert!(text.contains("no such; name") && !text.contains("secret-word"), "{text}");
    }
}
