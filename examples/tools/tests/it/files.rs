//! Tests of services whose files of polls differ: the store's definition of a poll counts.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use serde_json::Value;
use vote_core::{Clock, SystemClock};
use vote_testkit::http;

use crate::world::{Polls, Process, World, cookie, eventually, vote, vote_in};

const HOUR: i64 = 3600;
/// Time that workers wait after a poll's closing time before they close it.
const GRACE: Duration = Duration::from_secs(5);
/// Time that workers may take to close a poll after that.
const CLOSED_WITHIN: Duration = Duration::from_secs(10);

/// The time this many seconds from now, in the format of files and commands.
fn time(seconds: i64) -> String {
    SystemClock.now().saturating_add(seconds * 1_000_000).to_string()
}

/// A poll with these options.
fn poll(slug: &str, options: &[&str], more: &str) -> String {
    let option = |slug: &&str| format!("{{ slug = \"{slug}\", label = \"{slug}\" }}");
    let options = options.iter().map(option).collect::<Vec<_>>().join(", ");
    format!("[[poll]]\nslug = \"{slug}\"\ntitle = \"{slug}?\"\noptions = [{options}]\n{more}\n")
}

fn closing_at(closes_at: &str) -> String {
    poll("pets", &["cats", "dogs"], &format!("closes_at = \"{closes_at}\""))
}

fn state(world: &World) -> Value {
    world.audit().1["polls"][0]["state"].clone()
}

/// Restarts a worker, which reads the current file of polls.
fn restart(world: &World, worker: Process) -> Process {
    drop(worker);
    let worker = world.worker("1");
    worker.wait_until_ready();
    worker
}

fn reschedule(world: &World, closes_at: &str) {
    let reason = "the broadcast runs late";
    world.must("vote-worker", &["polls", "reschedule", "pets", "--closes-at", closes_at, "--reason", reason]);
}

#[test]
fn a_worker_restarted_with_an_old_file_does_not_close_the_poll() {
    let world = World::with_polls(1, &closing_at(&time(2 * HOUR)));
    let (_right, old) = (world.worker("1"), world.worker("1"));
    world.wait_until_ready();
    old.wait_until_ready();

    world.set_polls(&closing_at(&time(-10)));
    drop(old);
    let _old = world.worker("1");
    thread::sleep(Duration::from_secs(12));

    assert_eq!(state(&world), "open");
    let frontend = world.frontends[0].public;
    assert_eq!(vote(frontend, "cats", &cookie(frontend)).status, 202);
}

#[test]
fn a_file_with_a_later_time_does_not_keep_a_poll_open() {
    let due_in = 12;
    let world = World::with_polls(1, &closing_at(&time(due_in)));
    let worker = world.worker("1");
    world.wait_until_ready();

    world.set_polls(&closing_at(&time(2 * HOUR)));
    let _worker = restart(&world, worker);

    let within = Duration::from_secs(due_in.unsigned_abs()) + GRACE + CLOSED_WITHIN;
    eventually("the poll is closed", within, || state(&world) != "open");
}

#[test]
fn a_poll_closes_at_the_time_set_by_the_command() {
    let world = World::with_polls(1, &closing_at(&time(2 * HOUR)));
    let _worker = world.worker("1");
    world.wait_until_ready();

    reschedule(&world, &time(3));

    let within = Duration::from_secs(3) + GRACE + CLOSED_WITHIN;
    eventually("the poll is closed", within, || state(&world) != "open");
}

#[test]
fn a_poll_postponed_by_the_command_stays_open_past_the_time_in_the_file() {
    let due_in = 10;
    let world = World::with_polls(1, &closing_at(&time(due_in)));
    let worker = world.worker("1");
    world.wait_until_ready();

    reschedule(&world, &time(2 * HOUR));
    // A worker that starts with that file does not restore its closing time.
    let _worker = restart(&world, worker);
    thread::sleep(Duration::from_secs(due_in.unsigned_abs()) + GRACE + Duration::from_secs(2));

    assert_eq!(state(&world), "open");
}

const SNACK: [&str; 2] = ["crisps", "popcorn"];

/// Two frontends, the second of which was restarted with a file in which the poll "pets" has one more option than the
/// registered definition.
fn with_an_additional_option() -> (World, Process, Polls) {
    let snack = poll("snack", &SNACK, "");
    let mut world = World::with_polls(2, &(poll("pets", &["cats", "dogs"], "") + &snack));
    let worker = world.worker("2");
    world.wait_until_ready();
    let file = Polls::new(&(poll("pets", &["cats", "dogs", "birds"], "") + &snack));
    drop(world.frontends.pop());
    let other = world.frontend_of(&world.redis[1].socket_url(), &[("VOTE_POLLS", &file.path())]);
    other.wait_until_ready();
    world.frontends.push(other);
    (world, worker, file)
}

#[test]
fn a_frontend_with_an_additional_option_refuses_all_votes_for_that_poll() {
    let (world, _worker, _file) = with_an_additional_option();
    let frontend = world.frontends[1].public;
    // This frontend's page of the poll is a refusal as well and sets no cookie.
    let voter = cookie(world.frontends[0].public);
    for option in ["cats", "dogs", "birds"] {
        let answer = vote(frontend, option, &voter);
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        assert_eq!(answer.status, 503, "{option}: {}", answer.text());
        assert!(body["error"].is_string(), "{option}: {}", answer.text());
    }
}

#[test]
fn a_frontend_with_an_additional_option_stays_ready_and_names_the_poll() {
    let (world, _worker, _file) = with_an_additional_option();
    eventually("the frontend is ready and names the poll", Duration::from_secs(10), || {
        let (status, text) = world.frontends[1].readiness();
        status == 200 && text.contains("pets")
    });
}

#[test]
fn a_frontend_with_an_additional_option_accepts_votes_for_other_polls() {
    let (world, _worker, _file) = with_an_additional_option();
    let frontend = world.frontends[1].public;
    let page = http(frontend, "GET", "/polls/snack", &[], b"").unwrap();
    let voter = page.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    assert_eq!(vote_in(frontend, "snack", "crisps", &voter).unwrap().status, 202);
    eventually("the vote is counted", Duration::from_secs(10), || world.results_json("snack")["total"] == 1);
}

#[test]
fn an_additional_option_keeps_no_acknowledged_vote_from_being_counted() {
    let (world, _worker, _file) = with_an_additional_option();
    let [right, wrong] = [0, 1].map(|n| world.frontends[n].public);
    let (acknowledged, at_the_right_one) = (AtomicU64::new(0), AtomicU64::new(0));
    let stop = AtomicBool::new(false);
    let cast = |frontend: SocketAddr| {
        for n in 0.. {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            // A few votes are for the unregistered option: frames hold votes of several voters.
            let option = if frontend == wrong && n % 10 == 0 { "birds" } else { ["cats", "dogs"][n % 2] };
            if vote(frontend, option, &cookie(right)).status == 202 {
                acknowledged.fetch_add(1, Ordering::Relaxed);
                at_the_right_one.fetch_add(u64::from(frontend == right), Ordering::Relaxed);
            }
        }
    };
    thread::scope(|scope| {
        for frontend in [right, wrong].repeat(8) {
            let cast = &cast;
            scope.spawn(move || cast(frontend));
        }
        thread::sleep(Duration::from_secs(8));
        stop.store(true, Ordering::Relaxed);
    });
    assert!(at_the_right_one.into_inner() > 100, "the frontend with the right file accepts votes");
    let acknowledged = acknowledged.into_inner();
    eventually("all votes are read", Duration::from_secs(15), || {
        world.audit().1["polls"][0]["accepted"].as_u64() == Some(acknowledged)
    });
    let (_, audit) = world.audit();
    assert_eq!(audit["polls"][0]["quarantined"], 0, "{audit:#}");
    eventually("all votes are counted", Duration::from_secs(5), || world.total() == acknowledged);
    world.assert_audit_holds();
}
