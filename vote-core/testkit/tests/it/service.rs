//! A service starts in a clean environment, and answers HTTP requests.

use std::env;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use vote_testkit::{Service, http, http_get};

#[test]
fn the_environment_is_clean() {
    let service = Service::start(Path::new("/usr/bin/env"), &[], &[("VOTE_LISTEN", "127.0.0.1:8080")]);
    service.wait_exit(Duration::from_secs(20)).unwrap();

    let log = service.log();
    let mut names: Vec<&str> =
        log.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    // If the shell is bash, it adds this variable to every program that it starts.
    names.retain(|name| *name != "_");
    names.sort_unstable();
    assert_eq!(names, ["HOME", "PATH", "VOTE_LISTEN"], "{log}");
}

#[test]
fn arguments_are_passed_unchanged() {
    let arguments = ["a b", "$HOME", "'\"\\", ""];
    let service = Service::start(Path::new("/usr/bin/printf"), &[&["%s|"][..], &arguments].concat(), &[]);
    service.wait_exit(Duration::from_secs(20)).unwrap();

    assert_eq!(service.log(), "a b|$HOME|'\"\\||");
}

#[test]
#[should_panic(expected = "the service ended before it was ready: exit code 78")]
fn a_service_that_ends_is_not_waited_for() {
    let service = Service::start(Path::new("/bin/sh"), &["-c", "echo no such poll; exit 78"], &[]);

    service.wait_http_ok("http://127.0.0.1:1/readyz");
}

#[test]
#[should_panic(expected = "is not built: cargo build --workspace --bins")]
fn a_missing_binary_is_a_panic_with_the_remedy() {
    Service::binary("no-such-binary");
}

#[test]
#[should_panic(expected = "is not built: cargo build --workspace --examples")]
fn a_missing_example_is_a_panic_with_the_remedy() {
    Service::example("no-such-example");
}

#[test]
fn a_built_file_is_found_in_the_folder_of_the_profile() {
    let test = env::current_exe().unwrap();
    let from_profile = Path::new("deps").join(test.file_name().unwrap());

    assert_eq!(Service::binary(from_profile.to_str().unwrap()), test);
}

/// Starts a server that answers one request with status 202 and the lines that it received. Returns its address.
fn echo_once() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
        let mut got: Vec<String> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
        if got.iter().any(|line| line == "Content-Length: 5") {
            got.extend(lines.next());
        }
        write!(stream, "HTTP/1.1 202 Accepted\r\n\r\n{}", got.join("\n")).unwrap();
    });
    address
}

#[test]
fn a_get_has_a_host_and_no_length() {
    let address = echo_once();

    let response = http_get(&address, "/polls");

    assert_eq!(response.status, 202);
    assert_eq!(response.text(), format!("GET /polls HTTP/1.1\nHost: {address}\nConnection: close"));
}

#[test]
fn a_post_carries_headers_and_body() {
    let address = echo_once();

    let response = http(&address, "POST", "/", &[("host", "vote.example")], b"cats\n").unwrap();

    assert_eq!(
        response.text(),
        "POST / HTTP/1.1\nConnection: close\nContent-Length: 5\nhost: vote.example\ncats"
    );
}
