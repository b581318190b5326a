//! Services whose files of polls differ: what the store knows of a poll is what counts.

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
/// What workers wait after a poll's closing time, and how long they may then take to close it.
const GRACE: Duration = Duration::from_secs(5);
const CLOSED_WITHIN: Duration = Duration::from_secs(10);

/// So many seconds from now, as files and commands have it.
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

/// Has workers start again, with the file as it is now.
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
    eventually("it is closed", within, || state(&world) != "open");
}

#[test]
fn a_poll_closes_when_the_command_says() {
    let world = World::with_polls(1, &closing_at(&time(2 * HOUR)));
    let _worker = world.worker("1");
    world.wait_until_ready();

    reschedule(&world, &time(3));

    let within = Duration::from_secs(3) + GRACE + CLOSED_WITHIN;
    eventually("it is closed", within, || state(&world) != "open");
}

#[test]
fn a_poll_that_the_command_postponed_stays_open_past_the_time_in_the_file() {
    let due_in = 10;
    let world = World::with_polls(1, &closing_at(&time(due_in)));
    let worker = world.worker("1");
    world.wait_until_ready();

    reschedule(&world, &time(2 * HOUR));
    // Nor does a worker that starts with that file bring its time back.
    let _worker = restart(&world, worker);
    thread::sleep(Duration::from_secs(due_in.unsigned_abs()) + GRACE + Duration::from_secs(2));

    assert_eq!(state(&world), "open");
}

const SNACK: [&str; 2] = ["crisps", "popcorn"];

/// Two frontends of which the second was started again with a file in which the poll "pets" has an option more than
/// what is registered.
fn with_an_option_more() -> (World, Process, Polls) {
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
fn a_frontend_whose_file_has_an_option_more_refuses_all_votes_for_that_poll() {
    let (world, _worker, _file) = with_an_option_more();
    let frontend = world.frontends[1].public;
    // Its page of the poll is a refusal, too.
    let voter = cookie(world.frontends[0].public);
    for option in ["cats", "dogs", "birds"] {
        let answer = vote(frontend, option, &voter);
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        assert_eq!(answer.status, 503, "{option}: {}", answer.text());
        assert!(body["error"].is_string(), "{option}: {}", answer.text());
    }
}

#[test]
fn a_frontend_whose_file_has_an_option_more_stays_ready_and_names_the_poll() {
    let (world, _worker, _file) = with_an_option_more();
    eventually("it is ready and names the poll", Duration::from_secs(10), || {
        let (status, text) = world.frontends[1].readiness();
        status == 200 && text.contains("pets")
    });
}

#[test]
fn a_frontend_whose_file_has_an_option_more_takes_votes_for_its_other_polls() {
    let (world, _worker, _file) = with_an_option_more();
    let frontend = world.frontends[1].public;
    let page = http(frontend, "GET", "/polls/snack", &[], b"").unwrap();
    let voter = page.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    assert_eq!(vote_in(frontend, "snack", "crisps", &voter).unwrap().status, 202);
    eventually("the vote is counted", Duration::from_secs(10), || world.results_json("snack")["total"] == 1);
}

#[test]
fn a_file_with_an_option_more_takes_no_acknowledged_vote_from_the_count() {
    let (world, _worker, _file) = with_an_option_more();
    let [right, wrong] = [0, 1].map(|n| world.frontends[n].public);
    let (acknowledged, at_the_right_one) = (AtomicU64::new(0), AtomicU64::new(0));
    let stop = AtomicBool::new(false);
    let cast = |frontend: SocketAddr| {
        for n in 0.. {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            // A few are for the option that is not registered: frames hold votes of several voters.
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
    assert!(at_the_right_one.into_inner() > 100, "the frontend with the right file goes on");
    let acknowledged = acknowledged.into_inner();
    eventually("all are read", Duration::from_secs(15), || {
        world.audit().1["polls"][0]["accepted"].as_u64() == Some(acknowledged)
    });
    let (_, audit) = world.audit();
    assert_eq!(audit["polls"][0]["quarantined"], 0, "{audit:#}");
    eventually("all are counted", Duration::from_secs(5), || world.total() == acknowledged);
    world.assert_audit_holds();
}
