//! Tests that the handbook's figures and steps for large sites fit the files of the deployment.

use std::{path::Path, process::Command};

use vote_testkit::Service;

use crate::world::SECRET;

fn path(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name)
}

fn file(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Returns what the stack says about updates of a service.
fn update_config(service: &str) -> String {
    let stack = file("deploy/stack.yml");
    let (_, service) = stack.split_once(&format!("\n  {service}:\n")).expect("the stack has the service");
    let line = service.lines().find(|line| line.trim_start().starts_with("update_config:")).unwrap();
    line.to_owned()
}

fn seconds(config: &str, name: &str) -> usize {
    let (_, rest) = config.split_once(&format!("{name}: ")).unwrap();
    rest.split_once('s').unwrap().0.parse().unwrap()
}

#[test]
fn a_hundred_nodes_are_updated_in_ten_minutes_and_the_handbook_says_in_how_many() {
    const REPLACEMENT: usize = 9;
    let page = file("docs/operations.md");
    for (service, variable) in
        [("frontend", "VOTE_UPDATE_PARALLELISM"), ("redis", "VOTE_REDIS_UPDATE_PARALLELISM")]
    {
        let config = update_config(service);
        assert!(config.contains(&format!("${{{variable}:-1}}")), "{config}");
        let (pause, watch) = (seconds(&config, "delay"), seconds(&config, "monitor"));
        let minutes = [(100, 1), (100, 5), (1000, 50)].map(|(nodes, at_a_time): (usize, usize)| {
            let time = nodes.div_ceil(at_a_time) * (REPLACEMENT + pause) + watch;
            time.div_ceil(60)
        });
        assert!(minutes[1] <= 10, "{service}: {minutes:?}");
        let [one, five, fifty] = minutes;
        let row = format!("| {service} | {pause} s | {watch} s | {one} min | {five} min | {fifty} min |");
        assert!(page.contains(&row), "docs/operations.md has no row `{row}`");
    }
}

#[test]
fn with_several_cells_workers_accept_an_address_for_each_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let made = Command::new(path("deploy/make-secrets"))
        .arg(folder.path())
        .env("VOTE_REDIS_NAMES", "tasks.vote_redis tasks.vote2_redis")
        .env("VOTE_RESULTS_POSTGRES", "standby:5432")
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let secret = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    let password = secret("redis_worker_password");
    let queues = secret("worker_queues");
    let of = |name: &str| format!("dns+redis://worker:{password}@{name}:6379");
    assert_eq!(queues, [of("tasks.vote_redis"), of("tasks.vote2_redis")].join(","));
    assert!(secret("results_store").ends_with("@standby:5432/votes"));
    assert!(secret("worker_store").ends_with("@postgres:5432/votes"));
    let checked = Command::new(Service::binary("vote-worker"))
        .arg("check-config")
        .env_clear()
        .env("VOTE_QUEUES_FILE", folder.path().join("worker_queues"))
        .env("VOTE_STORE_FILE", folder.path().join("worker_store"))
        .env("VOTE_PEPPER", SECRET)
        .output()
        .unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}
