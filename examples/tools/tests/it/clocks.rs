//! Tests with wrong clocks: the store's clock decides when a poll closes, and nothing else depends on the clock of a
//! service.

use std::time::Duration;

use serde_json::Value;
use vote_core::{Clock, SystemClock};
use vote_testkit::{SkewedClock, http};

use crate::world::{Process, World, cookie, eventually, report, vote};

const TEN_MINUTES: i64 = 600;
/// Time that workers wait after a poll's closing time before they close it.
const GRACE: Duration = Duration::from_secs(5);
/// Time that workers may take to close a poll after that.
const CLOSED_WITHIN: Duration = Duration::from_secs(10);

/// The example poll, with a closing time this many seconds from now.
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

/// Steps the clock of a worker once it is ready, that is, once it has seen its clock right.
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
    eventually("the poll is closed", within, || state(&world) != "open");
}

#[test]
fn a_worker_whose_clock_is_off_by_a_minute_is_not_ready_and_names_the_clock() {
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
    // The clock is right again.
    worker.wait_until_ready();
}

#[test]
fn votes_are_accepted_and_counted_while_the_clock_of_one_of_two_workers_is_wrong() {
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
        // Longer than the maximum age of its snapshot.
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
fn votes_at_a_frontend_whose_clock_jumps_are_counted_exactly() {
    let mut world = World::start(2);
    let _worker = world.worker("2");
    let clock = SkewedClock::new(0);
    world.frontends[0] = world.frontend_of(&world.redis[0].socket_url(), &clock.environment());
    world.wait_until_ready();
    let load = ["--voters", "6000", "--double-votes", "30", "--connections", "4", "--rate", "800"];
    // The clocks decide which of two votes is the first, so the load generator can't predict the tally.
    let load = world.load(&[&load[..], &["--timeout-seconds", "5"]].concat());
    for seconds in [TEN_MINUTES, -TEN_MINUTES, 30, 0, -TEN_MINUTES, TEN_MINUTES] {
        std::thread::sleep(Duration::from_secs(1));
        clock.step(seconds);
    }
    let report = report(&load.wait_with_output().unwrap());
    assert_eq!((&report["acked"], &report["unknown"]), (&7800.into(), &0.into()), "{report}");
    eventually("one vote per voter is counted", Duration::from_secs(20), || world.total() == 6000);
    world.assert_audit_holds();
    world.assert_conserved();
}

#[test]
fn a_frontend_whose_clock_is_wrong_warns_and_stays_ready() {
    let mut world = World::start(1);
    let _worker = world.worker("1");
    let clock = SkewedClock::new(0);
    world.frontends[0] = world.frontend_of(&world.redis[0].socket_url(), &clock.environment());
    world.wait_until_ready();
    for (seconds, shown) in [(TEN_MINUTES, "by 600."), (-60, "by -60.")] {
        clock.step(seconds);
        eventually("readyz names the clock", Duration::from_secs(20), || {
            let (status, text) = world.frontends[0].readiness();
            status == 200 && text.contains("clock") && text.contains(shown)
        });
        assert_votes_are_counted(&world);
        // The metric is updated once a second, the readiness at each request.
        eventually("the metric shows the difference", Duration::from_secs(5), || {
            let figure = world.frontends[0].metric("vote_frontend_clock_difference_seconds");
            (figure - seconds as f64).abs() < 2.0
        });
    }
    clock.step(0);
    eventually("the warning is gone", Duration::from_secs(20), || {
        world.frontends[0].readiness() == (200, "ready\n".to_owned())
    });
}

/// A pipeline whose second queue has been down for so long that the audit reports it as not heard from.
fn with_a_dead_queue() -> (World, Process) {
    let mut world = World::start(2);
    let worker = world.worker("1");
    world.wait_until_ready();
    for frontend in &world.frontends {
        assert_eq!(vote(frontend.public, "cats", &cookie(frontend.public)).status, 202);
    }
    eventually("both votes are counted", Duration::from_secs(10), || world.total() == 2);
    world.assert_audit_holds();
    drop(world.frontends.pop());
    world.redis[1].kill9();
    std::thread::sleep(Duration::from_secs(15));
    (world, worker)
}

#[test]
fn an_audit_with_a_slow_clock_still_reports_a_dead_queue() {
    let (world, _worker) = with_a_dead_queue();
    let dead = format!(":{}", world.redis[1].port());

    let (code, audit) = world.audit_with(&SkewedClock::new(-60).environment());

    assert_eq!(code, 2, "{audit:#}");
    assert!(audit["outstanding"].to_string().contains(&dead), "{audit:#}");
}

#[test]
fn an_audit_with_a_fast_clock_reports_no_living_queue() {
    let world = World::start(2);
    let _worker = world.worker("1");
    world.wait_until_ready();
    world.assert_audit_holds();

    let (code, audit) = world.audit_with(&SkewedClock::new(60).environment());

    assert_eq!(code, 0, "{audit:#}");
}
