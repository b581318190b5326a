//! A store that went back to a backup from which the queues kept nothing: the audit calls the queue cut, whatever the
//! backup knew of it, and a queue that is retired ends the matter.

use std::{fs::File, process::Stdio, time::Duration};

use serde_json::Value;
use tempfile::TempDir;
use vote_testkit::{Postgres, http};

use crate::world::{Process, World, cookie, eventually, vote};

/// A dump of the store, as the handbook makes it.
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

    /// Puts it into the place of the store, which nobody uses by now.
    fn restore(&self) {
        let (postgres, database) = (Postgres::shared(), &self.database);
        postgres.psql("postgres", &format!("ALTER DATABASE {database} RENAME TO {database}_before"));
        let file = File::open(self.folder.path().join("votes.dump")).unwrap();
        let mut command = postgres.client("pg_restore");
        command.args(["--dbname=postgres", "--create"]).stdin(file).stdout(Stdio::null());
        assert!(command.status().unwrap().success());
    }
}

/// Casts votes of new voters; their receipts.
fn cast(world: &World, votes: u64) -> Vec<String> {
    let frontend = world.frontends[0].public;
    let cast_one = |_| {
        let voter = cookie(frontend);
        let mut receipt = None;
        // A server whose queue was replaced refuses a vote before it looks again.
        eventually("the vote is taken", Duration::from_secs(15), || {
            let taken = vote(frontend, "cats", &voter);
            let json: Value = serde_json::from_slice(&taken.body).unwrap_or_default();
            receipt = json["receipt"].as_str().map(str::to_owned);
            taken.status == 202
        });
        receipt.unwrap()
    };
    (0..votes).map(cast_one).collect()
}

#[track_caller]
fn counted(world: &World, votes: u64) {
    eventually(&format!("{votes} are counted"), Duration::from_secs(20), || world.total() == votes);
}

/// A pipeline whose store forgot votes that are in no queue any more.
struct Restored {
    world: World,
    /// Receipts of votes that are in the queue, and of which the store never knew.
    left: Vec<String>,
    _worker: Process,
}

/// The dump is made after so many votes.
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
    // What is committed is trimmed and reported by now.
    std::thread::sleep(Duration::from_secs(4));

    // Frontends go on, and votes wait.
    for process in [&worker, &world.results] {
        process.service.signal("TERM");
        process.service.wait_exit(Duration::from_secs(20)).expect("it ends");
    }
    let left = cast(&world, 10);
    dump.restore();
    let worker = world.worker("2");
    world.results = world.results_of(&[]);
    world.results.wait_until_ready();
    Restored { world, left, _worker: worker }
}

/// Whether an audit says that the one queue lost votes, and nothing else.
fn names_the_queue_only(audit: &Value) -> bool {
    let problems = audit["problems"].as_array().unwrap();
    let broken = &audit["polls"][0]["queues"].as_array().unwrap()[..];
    let is_lost = |queue: &&Value| !["active", "retired"].map(Value::from).contains(&queue["state"]);
    let Some(queue) = broken.iter().find(is_lost) else { return false };
    problems.len() == 1 && problems[0].as_str().unwrap().contains(queue["queue"].as_str().unwrap())
}

#[track_caller]
fn assert_the_queue_is_cut(world: &World) -> Value {
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
    let said = audit["problems"].to_string();
    for contradiction in ["add up", "were accepted, but"] {
        assert!(!said.contains(contradiction), "{audit:#}");
    }
    audit
}

/// Retires the queue that lost votes, after which the audit must hold.
#[track_caller]
fn retire(world: &World, audit: &Value) {
    let queues = audit["polls"][0]["queues"].as_array().unwrap().iter();
    for queue in queues.filter(|queue| queue["state"] != "active") {
        let id = queue["queue"].as_str().unwrap();
        // Not before what is left of it is read.
        eventually("it can be retired", Duration::from_secs(45), || {
            let command = ["queues", "retire", id, "--reason", "restored from the backup of 03:00"];
            world.command("vote-worker", &command).status.success()
        });
    }
    world.assert_audit_holds();
}

/// Waits until the results service says of each receipt that its vote is counted.
#[track_caller]
fn assert_counted(world: &World, receipts: &[String]) {
    let is_counted = |receipt: &String| {
        let (path, headers) = (format!("/receipts/{receipt}"), [("accept", "application/json")]);
        let told = http(world.results.public, "GET", &path, &headers, b"").unwrap();
        serde_json::from_slice(&told.body).is_ok_and(|told: Value| told["state"] == "counted")
    };
    eventually("all are counted", Duration::from_secs(20), || receipts.iter().all(is_counted));
}

#[test]
fn a_store_restored_to_before_the_first_vote_names_the_queue_and_no_contradiction() {
    let Restored { world, _worker, .. } = restored_to(0);
    assert_the_queue_is_cut(&world);
}

#[test]
fn a_store_restored_to_the_midst_of_a_poll_names_the_queue_and_no_contradiction() {
    let Restored { world, _worker, .. } = restored_to(100);
    assert_the_queue_is_cut(&world);
}

#[test]
fn after_a_restore_to_before_the_first_vote_the_queue_can_be_retired_and_what_it_held_is_counted() {
    let Restored { world, left, _worker } = restored_to(0);
    let audit = assert_the_queue_is_cut(&world);
    retire(&world, &audit);
    assert_counted(&world, &left);
    assert_counted(&world, &cast(&world, 1));
    world.assert_audit_holds();
}

#[test]
fn after_a_restore_to_the_midst_of_a_poll_the_queue_can_be_retired_and_what_it_held_is_counted() {
    let Restored { world, left, _worker } = restored_to(100);
    let audit = assert_the_queue_is_cut(&world);
    retire(&world, &audit);
    assert_counted(&world, &left);
    assert_counted(&world, &cast(&world, 1));
    world.assert_audit_holds();
}
