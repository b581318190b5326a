//! Tests of workers that can't reach all queues: while the fault lasts, another worker counts the votes that one does
//! not reach.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use serde_json::Value;
use vote_testkit::{TcpProxy, http};

use crate::world::{Load, Process, World, cookie, eventually, vote};

/// How long a link is cut. Longer than any pause after which a worker may return to its previous behaviour.
const FAULT: Duration = Duration::from_secs(90);
/// Time within which an acknowledged vote must be counted meanwhile.
const COUNTED_WITHIN: Duration = Duration::from_secs(30);

/// Returns the address of a queue through a proxy.
fn by(proxy: &TcpProxy) -> String {
    format!("redis://127.0.0.1:{}", proxy.port())
}

fn worker(world: &World, queues: [String; 2]) -> Process {
    world.worker_of(&queues.join(","), "2", &[])
}

/// Casts about 300 votes per second at these frontends, for longer than the fault lasts.
fn voters(world: &World, frontends: &[&Process]) -> Load {
    world.load_at(frontends, "pets", &["--voters", "30000", "--connections", "4", "--rate", "300"])
}

/// Casts a vote of a new voter, and returns its receipt.
fn cast(frontend: &Process) -> String {
    let answer = vote(frontend.public, "cats", &cookie(frontend.public));
    let json: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    json["receipt"].as_str().unwrap_or_else(|| panic!("{}", answer.text())).to_owned()
}

fn is_counted(world: &World, receipt: &str) -> bool {
    let (path, headers) = (format!("/receipts/{receipt}"), [("accept", "application/json")]);
    let answer = http(world.results.public, "GET", &path, &headers, b"").unwrap();
    serde_json::from_slice(&answer.body).is_ok_and(|receipt: Value| receipt["state"] == "counted")
}

fn acknowledged(world: &World) -> u64 {
    world.frontends.iter().map(|frontend| frontend.metric("vote_frontend_accepted_total") as u64).sum()
}

/// Checks, for as long as the fault lasts, that votes are counted in time: all of them by their number, and some at
/// each of these frontends by their receipts.
#[track_caller]
fn assert_votes_are_counted_in_time(world: &World, frontends: &[&Process]) {
    let (start, first) = (Instant::now(), acknowledged(world));
    let mut pending = VecDeque::new();
    while start.elapsed() < FAULT {
        let receipts: Vec<_> =
            frontends.iter().flat_map(|frontend| [cast(frontend), cast(frontend)]).collect();
        pending.push_back((Instant::now(), acknowledged(world), receipts));
        while pending.front().is_some_and(|(at, ..)| at.elapsed() > COUNTED_WITHIN) {
            let (at, votes, receipts) = pending.pop_front().expect("it has a front");
            let uncounted = receipts.iter().filter(|receipt| !is_counted(world, receipt)).count();
            let when = format!("cast {} s into the fault, {:?} ago", (at - start).as_secs(), at.elapsed());
            assert_eq!(uncounted, 0, "not counted of {} votes {when}", receipts.len());
            let counted = world.total();
            assert!(
                counted >= votes,
                "{counted} votes are counted; {votes} were acknowledged by the time when some were {when}"
            );
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    assert!(acknowledged(world) > first + 100 * FAULT.as_secs(), "votes are accepted meanwhile");
}

/// Two workers on two queues. One of them reaches the second queue over a link that can be cut.
struct Workers {
    world: World,
    link: TcpProxy,
    one: Process,
    two: Process,
}

impl Workers {
    fn start() -> Self {
        let world = World::start(2);
        let [a, b] = [world.redis[0].url(), world.redis[1].url()];
        let link = TcpProxy::to(world.redis[1].port());
        let (one, two) = (worker(&world, [a.clone(), by(&link)]), worker(&world, [a, b]));
        world.wait_until_ready();
        [&one, &two].into_iter().for_each(Process::wait_until_ready);
        Self { world, link, one, two }
    }
}

#[test]
fn votes_in_a_queue_that_one_of_two_workers_does_not_reach_are_counted() {
    let Workers { world, link, one: _one, two: _two } = Workers::start();
    let b_only = [&world.frontends[1]];
    let _voters = voters(&world, &b_only);
    eventually("votes are counted", Duration::from_secs(20), || world.total() > 300);

    link.cut();

    assert_votes_are_counted_in_time(&world, &b_only);
}

#[test]
fn votes_in_a_queue_that_a_worker_never_reached_are_counted() {
    let world = World::start(2);
    let [a, b] = [world.redis[0].url(), world.redis[1].url()];
    let link = TcpProxy::to(world.redis[1].port());
    let _two = worker(&world, [a.clone(), b]);
    world.wait_until_ready();
    let b_only = [&world.frontends[1]];
    let _voters = voters(&world, &b_only);
    eventually("votes are counted", Duration::from_secs(20), || world.total() > 300);

    link.cut();
    let _one = worker(&world, [a, by(&link)]);

    assert_votes_are_counted_in_time(&world, &b_only);
}

#[test]
fn votes_are_counted_while_each_of_two_workers_reaches_a_different_queue() {
    let world = World::start(2);
    let [a, b] = [world.redis[0].url(), world.redis[1].url()];
    let [to_a, to_b] = [0, 1].map(|n| TcpProxy::to(world.redis[n].port()));
    let (one, two) = (worker(&world, [a, by(&to_b)]), worker(&world, [by(&to_a), b]));
    world.wait_until_ready();
    [&one, &two].into_iter().for_each(Process::wait_until_ready);
    let both: Vec<_> = world.frontends.iter().collect();
    let _voters = voters(&world, &both);
    eventually("votes are counted", Duration::from_secs(20), || world.total() > 300);

    to_a.cut();
    to_b.cut();

    assert_votes_are_counted_in_time(&world, &both);
}

#[test]
fn a_worker_that_does_not_reach_a_queue_is_not_ready_and_names_it_until_it_does() {
    let Workers { world, link, one, two } = Workers::start();

    link.cut();

    // The name may be the address that this worker uses, or that of the server itself.
    let names = [link.port(), world.redis[1].port()].map(|port| format!(":{port}"));
    eventually("readyz names the queue", Duration::from_secs(20), || {
        let (status, text) = one.readiness();
        status == 503 && names.iter().any(|name| text.contains(name))
    });
    // The worker must stay not ready while the fault lasts.
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(25) {
        assert_eq!(one.readiness().0, 503, "after {:?}", start.elapsed());
        std::thread::sleep(Duration::from_millis(500));
    }
    assert_eq!(two.readiness().0, 200, "the other worker reaches all queues");
    link.heal();
    one.wait_until_ready();
}
