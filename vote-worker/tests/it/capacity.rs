//! `vote-worker capacity`, and the page that shows its output.

use std::{path::Path, process::Command};

use vote_worker::commands::capacity::{
    BALANCER_CONNECTIONS, CONNECTIONS, Costs, DNS_BYTES, KEEP_ALIVE_SECONDS, PLACES,
};

/// Runs the command without any setting, and returns its exit code and its output.
fn capacity(arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vote-worker"));
    let output = command.arg("capacity").args(arguments).env_clear().output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Returns the number after a text in a file.
fn number(name: &str, after: &str) -> f64 {
    let text = file(name);
    let (_, rest) = text.split_once(after).unwrap_or_else(|| panic!("{name} has no {after:?}"));
    let digits: String = rest.trim_start().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

#[test]
fn the_page_shows_what_the_command_prints() {
    let page = file("docs/capacity.md");
    let blocks: Vec<&str> = page.split("\n    $ vote-worker capacity ").skip(1).collect();
    assert!(blocks.len() >= 3, "the page has {} examples", blocks.len());
    for block in blocks {
        let (arguments, rest) = block.split_once('\n').unwrap();
        let shown = rest.lines().take_while(|line| line.is_empty() || line.starts_with("    "));
        let shown: Vec<&str> = shown.map(|line| line.strip_prefix("    ").unwrap_or(line)).collect();
        let (code, printed) = capacity(&arguments.split(' ').collect::<Vec<_>>());
        assert_eq!(code, 0, "{printed}");
        assert_eq!(shown.join("\n").trim(), printed.trim(), "vote-worker capacity {arguments}");
    }
}

#[test]
fn the_page_lists_the_costs_that_the_command_uses() {
    let page = file("docs/capacity.md");
    let costs = serde_json::to_value(Costs::MEASURED).unwrap();
    for (name, cost) in costs.as_object().unwrap() {
        let row = page.lines().find(|line| line.starts_with(&format!("| `{name}` |")));
        let row = row.unwrap_or_else(|| panic!("the page does not list {name}"));
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let expected = match cost.as_object() {
            Some(unit) => ["client", "server"].map(|part| unit[part].to_string()).to_vec(),
            None => vec![cost.to_string()],
        };
        for number in expected {
            let number = number.trim_end_matches(".0");
            assert!(number == "0" || cells.contains(&number), "{number} of {name} in {row}");
        }
    }
}

#[test]
fn the_limits_are_those_of_the_deployment() {
    assert_eq!(PLACES, number("deploy/haproxy/haproxy.cfg", "presetenv LB_FRONTENDS "));
    assert_eq!(DNS_BYTES, number("deploy/haproxy/haproxy.cfg", "accepted_payload_size "));
    assert_eq!(KEEP_ALIVE_SECONDS, number("deploy/haproxy/haproxy.cfg", "timeout http-keep-alive "));
    assert_eq!(BALANCER_CONNECTIONS, number("deploy/stack.yml", "${VOTE_LB_MAXCONN:-"));
    assert_eq!(CONNECTIONS, number("deploy/postgres/postgresql.conf", "max_connections = "));
}

#[test]
fn invalid_arguments_are_usage_errors() {
    for arguments in [
        &["--minutes", "3"][..],
        &["--voters", "10"],
        &["--voters", "0", "--minutes", "3"],
        &["--voters", "10", "--minutes", "0"],
        &["--voters", "10", "--minutes", "3", "--peak", "0.5"],
        &["--voters", "10", "--minutes", "NaN"],
    ] {
        let (code, text) = capacity(arguments);
        assert_eq!(code, 64, "{arguments:?}: {text}");
    }
}

#[test]
fn the_partitions_are_those_of_the_setting() {
    let arguments = ["--voters", "1000", "--minutes", "3", "--partitions"];
    let (code, text) = capacity(&[&arguments[..], &["64"]].concat());
    assert!(code == 0 && text.contains("partitions: 64"), "{text}");
    let (code, text) = capacity(&[&arguments[..], &["63"]].concat());
    assert!(code == 78 && text.contains("VOTE_PARTITIONS"), "{code}: {text}");
}

#[test]
fn costs_come_from_a_file_if_one_is_given() {
    let twice = Costs { ballot_bytes: 2.0 * Costs::MEASURED.ballot_bytes, ..Costs::MEASURED };
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("costs.json");
    std::fs::write(&path, serde_json::to_string(&twice).unwrap()).unwrap();
    let arguments = ["--voters", "1000000", "--minutes", "3", "--json"];
    let table = |more: &[&str]| {
        let (code, text) = capacity(&[&arguments[..], more].concat());
        assert_eq!(code, 0, "{text}");
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        json["table_bytes"].as_f64().unwrap()
    };
    assert_eq!(table(&["--costs", path.to_str().unwrap()]), 2.0 * table(&[]));
}

#[test]
fn a_file_that_holds_no_costs_is_named() {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("no-costs.json");
    std::fs::write(&path, r#"{"vote": 3}"#).unwrap();
    let missing = path.with_extension("missing");
    for path in [path, missing] {
        let path = path.to_str().unwrap();
        let (code, text) = capacity(&["--voters", "10", "--minutes", "3", "--costs", path]);
        assert!(code == 1 && text.contains(path), "{code}: {text}");
    }
}
