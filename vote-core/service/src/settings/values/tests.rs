use std::net::SocketAddr;

use vote_core::Partitions;

use super::*;
use crate::settings::{
    ALL, COOKIE_KEYS, LISTEN, PARTITIONS, PEPPER, QUEUE, RESULTS_URL, STORE, TLS, partitions,
};

fn settings<const N: usize>(env: [(&str, &str); N]) -> Settings {
    let declared = ALL.iter().map(|setting| Declared { setting, default: setting.default }).collect();
    Settings::new(declared, [], env.map(|(name, value)| (name.to_owned(), value.to_owned())))
}

fn problems(settings: Settings) -> String {
    settings.finish().unwrap_err().to_string()
}

fn text(text: &str) -> Result<String, String> {
    Ok(text.to_owned())
}

const HEX: &str = "abababababababababababababababababababababababababababababababab";

#[test]
fn every_problem_is_reported_at_once_with_its_name() {
    let mut s = settings([("VOTE_LISTEN", "here"), ("VOTE_PARTITIONS", "3"), ("VOTE_TLS", "maybe")]);
    s.required(&LISTEN, str::parse::<SocketAddr>);
    s.required(&PARTITIONS, partitions);
    s.flag(&TLS);
    s.secret(&PEPPER);
    s.required(&QUEUE, text);
    let e = problems(s);
    let names: Vec<&str> = e.lines().map(|line| line.split(':').next().unwrap()).collect();
    assert_eq!(names, ["VOTE_LISTEN", "VOTE_PARTITIONS", "VOTE_TLS", "VOTE_PEPPER", "VOTE_QUEUE"], "{e}");
}

#[test]
fn an_unknown_variable_is_a_problem_and_names_the_nearest() {
    let e = problems(settings([("VOTE_LISTNE", "x"), ("VOTE_PEPER_FILE", "y"), ("PATH", "z")]));
    assert_eq!(e.lines().count(), 2, "{e}");
    assert!(e.contains("VOTE_LISTNE") && e.contains("did you mean VOTE_LISTEN?"), "{e}");
    assert!(e.contains("did you mean VOTE_PEPPER_FILE?"), "{e}");
}

#[test]
fn a_variable_of_another_service_is_fine() {
    let declared = vec![Declared { setting: &LISTEN, default: LISTEN.default }];
    let s = Settings::new(declared, [], [("VOTE_LANES".to_owned(), "4".to_owned())]);
    s.finish().unwrap();
}

#[test]
fn an_empty_value_counts_as_not_given() {
    let mut s = settings([("VOTE_RESULTS_URL", ""), ("VOTE_PARTITIONS", "")]);
    assert!(!s.is_set(&PARTITIONS));
    assert_eq!(s.get(&RESULTS_URL, text), None);
    assert_eq!(s.required(&PARTITIONS, partitions), Some(Partitions::default()));
    s.finish().unwrap();
}

#[test]
fn a_secret_comes_from_its_variable_or_from_a_file_but_not_from_both() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(&file, format!("{HEX}\n")).unwrap();
    let path = file.path().to_str().unwrap();
    let mut s = settings([("VOTE_PEPPER_FILE", path)]);
    assert_eq!(s.secret(&PEPPER).unwrap().expose(), [0xab; 32]);
    s.finish().unwrap();

    let mut s = settings([("VOTE_PEPPER_FILE", path), ("VOTE_PEPPER", HEX)]);
    assert!(s.secret(&PEPPER).is_none());
    assert_eq!(problems(s), "VOTE_PEPPER: VOTE_PEPPER_FILE is set as well: set only one of the two");
}

#[test]
fn a_missing_file_is_named() {
    let mut s = settings([("VOTE_PEPPER_FILE", "/nowhere/pepper")]);
    s.secret(&PEPPER);
    let e = problems(s);
    assert!(e.starts_with("VOTE_PEPPER_FILE: can't read /nowhere/pepper: "), "{e}");
}

#[test]
fn secrets_are_never_shown() {
    let mut s = settings([("VOTE_PEPPER", "abcdef"), ("VOTE_COOKIE_KEYS", "feed,bead")]);
    s.secret(&PEPPER);
    s.secrets(&COOKIE_KEYS);
    let all = format!("{s:?}") + &problems(s);
    assert!(!all.contains("abcdef") && !all.contains("feed") && !all.contains("bead"), "{all}");
}

#[test]
fn a_password_in_an_address_is_not_shown() {
    let mut s = settings([("VOTE_STORE", "postgres://vote:hunter2@db")]);
    s.get(&STORE, |_| Err::<(), _>("not this one"));
    assert_eq!(problems(s), "VOTE_STORE: not this one");
}

#[test]
fn a_list_of_secrets_keeps_its_order() {
    let mut s = settings([("VOTE_COOKIE_KEYS", &format!("{}, {HEX}", "01".repeat(32)))]);
    let keys = s.secrets(&COOKIE_KEYS).unwrap();
    assert_eq!(keys.iter().map(|key| key.expose()[0]).collect::<Vec<_>>(), [1, 0xab]);
}

#[test]
fn polls_are_the_example_without_a_file_and_a_problem_with_an_invalid_one() {
    assert_eq!(settings([]).polls(), Some(Polls::example()));
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(&file, "[[poll]]\nslug = \"P\"\ntitle = \"\"\noptions = []\n").unwrap();
    let mut s = settings([("VOTE_POLLS", file.path().to_str().unwrap())]);
    assert!(s.polls().is_none());
    let e = problems(s);
    assert!(e.lines().count() >= 3 && e.lines().all(|line| line.starts_with("VOTE_POLLS: ")), "{e}");
}

#[test]
fn reading_an_undeclared_setting_is_a_bug() {
    let mut s = Settings::new(vec![], [], []);
    assert!(s.required(&LISTEN, text).is_none());
    assert!(problems(s).contains("bug"));
}
