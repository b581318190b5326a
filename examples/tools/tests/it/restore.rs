//! Tests of a store restored from a backup when the queues no longer have the later entries: the audit reports the
//! queue as diverged, whatever the backup knew of it, until an operator retires the queue.

use std::{fs::File, process::Stdio, time::Duration};

use serde_json::Value;
use tempfile::TempDir;
use vote_testkit::{Postgres, http};

use crate::world::{Process, World, cookie, eventually, vote};

/// A dump of the store, made as the handbook describes.
struct Dump {
    folder: TempDir,
    database: String,
}

impl Dump {
    fn of(world: &World) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = world.store_url().rsplit('/').next().unwrap().to_owned();
        let dump = Self { folder, database };
        let file = File::create(dump.folder.path().join("votes.dump")).unwrap();
        let mut command = Postgres::shared().client("pg_dump");
        assert!(command.args(["--format=custom", &dump.database]).stdout(file).status().unwrap().success());
        dump
    }

    /// Replaces the store by the dump. No worker and no results service may be running.
    fn restore(&self) {
        let (postgres, database) = (Postgres::shared(), &self.database);
        postgres.psql("postgres", &format!("ALTER DATABASE {database} RENAME TO {database}_before"));
        let file = File::open(self.folder.path().join("votes.dump")).unwrap();
        let mut command = postgres.client("pg_restore");
        command.args(["--dbname=postgres", "--create"]).stdin(file).stdout(Stdio::null());
        assert!(command.status().unwrap().success());
    }
}

/// Casts votes of new voters, and returns their receipts.
fn cast(world: &World, votes: u64) -> Vec<String> {
    let frontend = world.frontends[0].public;
    let cast_one = |_| {
        let voter = cookie(frontend);
        let mut receipt = None;
        // A frontend whose queue was replaced refuses votes until it has the new id.
        eventually("the vote is accepted", Duration::from_secs(15), || {
            let answer = vote(frontend, "cats", &voter);
            let json: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            receipt = json["receipt"].as_str().map(str::to_owned);
            answer.status == 202
        });
        receipt.unwrap()
    };
    (0..votes).map(cast_one).collect()
}

#[track_caller]
fn counted(world: &World, votes: u64) {
    eventually(&format!("{votes} votes are counted"), Duration::from_secs(20), || world.total() == votes);
}

/// A pipeline whose store lost votes that are no longer in any queue.
struct Restored {
    world: World,
    /// Receipts of votes that are in the queue and were never in the store.
    remaining: Vec<String>,
    _worker: Process,
}

/// Starts a pipeline and restores its store from a dump that was made after this number of votes.
fn restored_to(votes_before: u64) -> Restored {
    let mut world = World::start(1);
    let worker = world.worker("2");
    world.wait_until_ready();
    worker.wait_until_ready();
    cast(&world, votes_before);
    counted(&world, votes_before);
    let dump = Dump::of(&world);
    cast(&world, 200);
    counted(&world, votes_before + 200);
    // Long enough to trim committed entries and to report the queue.
    std::thread::sleep(Duration::from_secs(4));

    // The frontend keeps accepting votes, which stay in the queue.
    for process in [&worker, &world.results] {
        process.service.signal("TERM");
        process.service.wait_exit(Duration::from_secs(20)).expect("the service ends");
    }
    let remaining = cast(&world, 10);
    dump.restore();
    let worker = world.worker("2");
    world.results = world.results_of(&[]);
    world.results.wait_until_ready();
    Restored { world, remaining, _worker: worker }
}

/// Returns whether the only problem of an audit is the one queue that lost votes.
fn names_the_queue_only(audit: &Value) -> bool {
    let problems = audit["problems"].as_array().unwrap();
    let broken = &audit["polls"][0]["queues"].as_array().unwrap()[..];
    let is_lost = |queue: &&Value| !["active", "retired"].map(Value::from).contains(&queue["state"]);
    let Some(queue) = broken.iter().find(is_lost) else { return false };
    problems.len() == 1 && problems[0]["queue"] == queue["queue"]
}

#[track_caller]
fn assert_the_queue_has_diverged(world: &World) -> Value {
    let mut last = (0, Value::Null);
    for _ in 0..100 {
        last = world.audit();
        if last.0 == 1 && names_the_queue_only(&last.1) {
            break;
        }
        std::thread::sleep(Duration::from_millis(300));
    }
    let (code, audit) = last;
    assert!(code == 1 && names_the_queue_only(&audit), "exit code {code}: {audit:#}");
    assert_eq!(audit["problems"][0]["code"], "diverged", "no figures contradict each other: {audit:#}");
    audit
}

/// Retires the queue that lost votes, after which the audit must hold.
#[track_caller]
fn retire(world: &World, audit: &Value) {
    let queues = audit["polls"][0]["queues"].as_array().unwrap().iter();
    for queue in queues.filter(|queue| queue["state"] != "active") {
        let id = queue["queue"].as_str().unwrap();
        // Refused until its remaining entries are read.
        eventually("the queue can be retired", Duration::from_secs(45), || {
            let command = ["queues", "retire", id, "--reason", "restored from the backup of 03:00"];
            world.command("vote-worker", &command).status.success()
        });
    }
    world.assert_audit_holds();
}

/// Waits until the results service shows the vote of each receipt as counted.
#[track_caller]
fn assert_counted(world: &World, receipts: &[String]) {
    let is_counted = |receipt: &String| {
        let (path, headers) = (format!("/receipts/{receipt}"), [("accept", "application/json")]);
        let answer = http(world.results.public, "GET", &path, &headers, b"").unwrap();
        serde_json::from_slice(&answer.body).is_ok_and(|receipt: Value| receipt["state"] == "counted")
    };
    eventually("all votes are counted", Duration::from_secs(20), || receipts.iter().all(is_counted));
}

/// Asserts that the queue can be retired, and that its remaining entries and new votes are counted.
#[track_caller]
fn assert_usable_again(Restored { world, remaining, _worker }: Restored) {
    let audit = assert_the_queue_has_diverged(&world);
    retire(&world, &audit);
    assert_counted(&world, &remaining);
    assert_counted(&world, &cast(&world, 1));
    world.assert_audit_holds();
}

#[test]
fn after_a_restore_to_before_the_first_vote_the_audit_names_only_the_queue() {
    let Restored { world, _worker, .. } = restored_to(0);
    assert_the_queue_has_diverged(&world);
}

#[test]
fn after_a_restore_to_the_middle_of_a_poll_the_audit_names_only_the_queue() {
    let Restored { world, _worker, .. } = restored_to(100);
    assert_the_queue_has_diverged(&world);
}

#[test]
fn after_a_restore_to_before_the_first_vote_the_queue_can_be_retired_and_its_entries_are_counted() {
    assert_usable_again(restored_to(0));
}

#[test]
fn after_a_restore_to_the_middle_of_a_poll_the_queue_can_be_retired_and_its_entries_are_counted() {
    assert_usable_again(restored_to(100));
}
