//! Clocks that are wrong: the store's clock decides when a poll closes, and nothing else depends on a service's own.

use std::time::Duration;

use serde_json::Value;
use vote_core::{Clock, SystemClock};
use vote_testkit::{SkewedClock, http};

use crate::world::{Process, World, cookie, eventually, report, vote};

const TEN_MINUTES: i64 = 600;
/// What workers wait after a poll's closing time, and how long they may then take to close it.
const GRACE: Duration = Duration::from_secs(5);
const CLOSED_WITHIN: Duration = Duration::from_secs(10);

/// The example poll, closing so many seconds from now.
fn closing_in(seconds: i64) -> String {
    let closes_at = SystemClock.now().saturating_add(seconds * 1_000_000);
    format!(
        r#"
        [[poll]]
        slug = "pets"
        title = "Cats or dogs?"
        options = [{{ slug = "cats", label = "Cats" }}, {{ slug = "dogs", label = "Dogs" }}]
        closes_at = "{closes_at}"
        "#
    )
}

fn with_clock(world: &World, clock: &SkewedClock) -> Process {
    let queues = world.redis.iter().map(vote_testkit::Redis::url).collect::<Vec<_>>().join(",");
    world.worker_of(&queues, "1", &clock.environment())
}

fn state(world: &World) -> Value {
    world.audit().1["polls"][0]["state"].clone()
}

#[track_caller]
fn assert_votes_are_counted(world: &World) {
    let before = world.total();
    let frontend = world.frontends[0].public;
    assert_eq!(vote(frontend, "cats", &cookie(frontend)).status, 202);
    eventually("the vote is counted", Duration::from_secs(15), || world.total() == before + 1);
}

/// Waits until a worker that is to be wrong has seen that all is well, and then steps its clock.
fn step(worker: &Process, clock: &SkewedClock, seconds: i64) {
    worker.wait_until_ready();
    clock.step(seconds);
}

#[test]
fn a_worker_whose_clock_steps_ahead_closes_no_poll_before_its_time() {
    let world = World::with_polls(1, &closing_in(9 * 60));
    let clock = SkewedClock::new(0);
    let (_right, wrong) = (world.worker("1"), with_clock(&world, &clock));
    world.wait_until_ready();

    step(&wrong, &clock, TEN_MINUTES);
    std::thread::sleep(Duration::from_secs(10));

    assert_eq!(state(&world), "open");
    assert_votes_are_counted(&world);
}

#[test]
fn a_worker_that_starts_with_its_clock_ahead_closes_no_poll_before_its_time() {
    let world = World::with_polls(1, &closing_in(9 * 60));
    let clock = SkewedClock::new(TEN_MINUTES);
    let (_right, _wrong) = (world.worker("1"), with_clock(&world, &clock));
    world.wait_until_ready();

    std::thread::sleep(Duration::from_secs(10));

    assert_eq!(state(&world), "open");
    assert_votes_are_counted(&world);
}

#[test]
fn a_worker_whose_clock_is_behind_does_not_keep_a_due_poll_open() {
    let due_in = 8;
    let world = World::with_polls(1, &closing_in(due_in));
    let clock = SkewedClock::new(-TEN_MINUTES);
    let (_wrong, _right) = (with_clock(&world, &clock), world.worker("1"));
    world.wait_until_ready();

    let within = Duration::from_secs(due_in.unsigned_abs()) + GRACE + CLOSED_WITHIN;
    eventually("it is closed", within, || state(&world) != "open");
}

#[test]
fn a_worker_whose_clock_is_off_by_a_minute_is_not_ready_and_says_why() {
    let world = World::start(1);
    let clock = SkewedClock::new(0);
    let worker = with_clock(&world, &clock);
    for seconds in [60, -60] {
        step(&worker, &clock, seconds);
        eventually("readyz names the clock", Duration::from_secs(20), || {
            let (status, text) = worker.readiness();
            status == 503 && text.contains("clock")
        });
        clock.step(0);
    }
    // It is no reason to stay so.
    worker.wait_until_ready();
}

#[test]
fn votes_are_taken_and_counted_while_the_clock_of_one_of_two_workers_is_wrong() {
    let world = World::start(1);
    let clock = SkewedClock::new(0);
    let (_right, wrong) = (world.worker("1"), with_clock(&world, &clock));
    world.wait_until_ready();
    for seconds in [TEN_MINUTES, -TEN_MINUTES] {
        step(&wrong, &clock, seconds);
        std::thread::sleep(Duration::from_secs(3));
        assert_votes_are_counted(&world);
        clock.step(0);
    }
    world.assert_audit_holds();
}

#[test]
fn the_results_site_stays_up_while_its_clock_is_wrong() {
    let mut world = World::start(1);
    let _worker = world.worker("1");
    world.wait_until_ready();
    let clock = SkewedClock::new(0);
    world.results = world.results_of(&clock.environment());
    world.results.wait_until_ready();
    for seconds in [TEN_MINUTES, -TEN_MINUTES] {
        clock.step(seconds);
        assert_votes_are_counted(&world);
        // Longer than its snapshot may be old.
        std::thread::sleep(Duration::from_secs(5));
        let (status, text) = world.results.readiness();
        assert_eq!(status, 200, "{seconds} s: {text}");
        for page in ["/polls/pets", "/polls/pets/results.json", "/polls/pets/results.csv", "/status"] {
            let answer = http(world.results.public, "GET", page, &[], b"").unwrap();
            assert_eq!(answer.status, 200, "{page} at {seconds} s");
        }
        clock.step(0);
    }
}

#[test]
fn a_frontend_whose_clock_jumps_takes_votes_that_are_counted_exactly() {
    let mut world = World::start(2);
    let _worker = world.worker("2");
    let clock = SkewedClock::new(0);
    world.frontends[0] = world.frontend_of(&world.redis[0].socket_url(), &clock.environment());
    world.wait_until_ready();
    let load = ["--voters", "6000", "--double-votes", "30", "--connections", "4", "--rate", "800"];
    // Which of two votes is the first is decided by clocks, so the load generator can't tell the tally.
    let load = world.load(&[&load[..], &["--timeout-seconds", "5"]].concat());
    for seconds in [TEN_MINUTES, -TEN_MINUTES, 30, 0, -TEN_MINUTES, TEN_MINUTES] {
        std::thread::sleep(Duration::from_secs(1));
        clock.step(seconds);
    }
    let report = report(&load.wait_with_output().unwrap());
    assert_eq!((&report["acked"], &report["unknown"]), (&7800.into(), &0.into()), "{report}");
    eventually("one vote a voter is counted", Duration::from_secs(20), || world.total() == 6000);
    world.assert_audit_holds();
    world.assert_conserved();
}

/// A pipeline whose second queue has been dead for so long that it is missed.
fn with_a_dead_queue() -> (World, Process) {
    let mut world = World::start(2);
    let worker = world.worker("1");
    world.wait_until_ready();
    for frontend in &world.frontends {
        assert_eq!(vote(frontend.public, "cats", &cookie(frontend.public)).status, 202);
    }
    eventually("both are counted", Duration::from_secs(10), || world.total() == 2);
    world.assert_audit_holds();
    drop(world.frontends.pop());
    world.redis[1].kill9();
    std::thread::sleep(Duration::from_secs(15));
    (world, worker)
}

#[test]
fn an_audit_by_a_clock_that_is_slow_misses_a_dead_queue_all_the_same() {
    let (world, _worker) = with_a_dead_queue();
    let dead = format!(":{}", world.redis[1].port());

    let (code, audit) = world.audit_with(&SkewedClock::new(-60).environment());

    assert_eq!(code, 2, "{audit:#}");
    assert!(audit["outstanding"].to_string().contains(&dead), "{audit:#}");
}

#[test]
fn an_audit_by_a_clock_that_is_fast_misses_no_living_queue() {
    let world = World::start(2);
    let _worker = world.worker("1");
    world.wait_until_ready();
    world.assert_audit_holds();

    let (code, audit) = world.audit_with(&SkewedClock::new(60).environment());

    assert_eq!(code, 0, "{audit:#}");
}
