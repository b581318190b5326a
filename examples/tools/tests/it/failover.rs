//! Tests of the failover from a lost Postgres to its standby.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use serde_json::Value;
use vote_testkit::{Postgres, Redis, TcpProxy};

use crate::world::{Load, Process, Setup, World, cookie, eventually, vote};

const STANDBY: &str = "second";

/// A Postgres with a standby, and the address at which the pipeline finds the primary.
struct Pair {
    primary: Postgres,
    standby: Postgres,
    /// Proxy from the standby to the primary, for replication.
    log: TcpProxy,
    /// Proxy from the pipeline to its store.
    store: TcpProxy,
}

impl Pair {
    fn start() -> Self {
        let primary = Postgres::start();
        let log = TcpProxy::to(primary.port());
        let standby = primary.standby(STANDBY, log.port(), &[]);
        let store = TcpProxy::to(primary.port());
        Self { primary, standby, log, store }
    }

    /// Starts a pipeline on the primary, with this number of queues.
    fn world(&self, queues: usize) -> World {
        let database = self.primary.database();
        let name = database.rsplit('/').next().unwrap();
        let store =
            at_port(&format!("postgres://postgres@127.0.0.1/{name}?sslmode=disable"), self.store.port());
        let redis = (0..queues).map(|_| Redis::start()).collect();
        World::of(Setup { redis, store: Some(store), ..Setup::default() })
    }

    /// Makes commits wait until the standby has them on disk.
    fn make_synchronous(&self) {
        self.primary.psql("postgres", &format!("ALTER SYSTEM SET synchronous_standby_names = '{STANDBY}'"));
        self.primary.psql("postgres", "SELECT pg_reload_conf()");
        self.primary.wait_for_standby(&self.standby);
    }

    /// Cuts the replication, so that only the primary has the commits from now on.
    fn cut_off_the_standby(&self) {
        self.primary.wait_for_standby(&self.standby);
        self.log.cut();
    }

    /// Stops the primary, and promotes the standby, which takes over its address.
    fn fail_over(&self) {
        self.primary.stop_immediate();
        self.standby.promote();
        self.store.switch_to(self.standby.port());
    }
}

/// Returns the URL of a database on the server at another port.
fn at_port(url: &str, port: u16) -> String {
    let name = url.rsplit('/').next().unwrap();
    format!("postgres://postgres@127.0.0.1:{port}/{name}")
}

fn cast(world: &World, votes: u64) {
    for n in 0..votes {
        let frontend = world.frontends[n as usize % world.frontends.len()].public;
        assert_eq!(vote(frontend, "cats", &cookie(frontend)).status, 202);
    }
}

/// Waits until this number of votes is counted, for longer than a worker needs to reconnect and read again.
#[track_caller]
fn counted(world: &World, votes: u64) {
    let start = Instant::now();
    while world.total() != votes && start.elapsed() < Duration::from_secs(45) {
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(world.total(), votes, "votes counted (left) and acknowledged (right)");
}

fn worker(world: &World, lanes: &str, trim_delay: &str) -> Process {
    worker_with(world, lanes, &[("VOTE_TRIM_DELAY", trim_delay)])
}

/// A worker that trims only what the server at this port, its witness, has.
fn worker_with_witness(world: &World, lanes: &str, port: u16) -> Process {
    worker_with(world, lanes, &[("VOTE_STORE_WITNESS", &at_port(&world.store_url(), port))])
}

fn worker_with(world: &World, lanes: &str, more: &[(&str, &str)]) -> Process {
    let queues = world.redis.iter().map(Redis::url).collect::<Vec<_>>().join(",");
    let worker = world.worker_of(&queues, lanes, more);
    worker.wait_until_ready();
    worker
}

/// Number of entries in all queues. The last entry of each partition stays after trimming.
fn entries(world: &World) -> u64 {
    let of = |redis: &Redis| {
        let streams = redis.cli(&["--scan", "--pattern", "vote:*:p:*"]);
        streams.lines().map(|key| redis.cli(&["XLEN", key]).trim().parse::<u64>().unwrap()).sum::<u64>()
    };
    world.redis.iter().map(of).sum()
}

const PARTITIONS: u64 = 16;

/// Counts 100 votes, of which the standby gets the first 40.
#[track_caller]
fn count_60_votes_that_the_standby_lacks(pair: &Pair, world: &World) {
    world.wait_until_ready();
    cast(world, 40);
    counted(world, 40);
    pair.cut_off_the_standby();
    cast(world, 60);
    counted(world, 100);
}

/// Starts casting votes, and waits until some are counted.
#[track_caller]
fn load_until_counted(world: &World, voters: &str, rate: &str) -> Load {
    let fixed = ["--double-votes", "5", "--connections", "8", "--timeout-seconds", "60"];
    let load = world.load(&[&["--voters", voters, "--rate", rate], &fixed[..]].concat());
    eventually("some votes are counted", Duration::from_secs(30), || world.total() > 1000);
    load
}

/// Waits until all votes are cast, and asserts that each is counted once and accounted for.
#[track_caller]
fn assert_exact(world: &World, load: Load) {
    crate::world::assert_exact(&load.wait_with_output().unwrap());
    world.assert_audit_holds();
    world.assert_conserved();
}

#[test]
fn with_a_trim_delay_a_lagging_standby_recovers_missing_commits_from_the_queues() {
    let pair = Pair::start();
    let world = pair.world(2);
    let _workers = [worker(&world, "2", "60"), worker(&world, "2", "60")];
    count_60_votes_that_the_standby_lacks(&pair, &world);
    // Without the delay, committed entries would be trimmed by now.
    std::thread::sleep(Duration::from_secs(3));

    pair.fail_over();
    assert_eq!(pair.standby.psql(&world.store_url(), "SELECT count(*) FROM vote.votes"), "40");
    cast(&world, 10);

    counted(&world, 110);
    world.assert_audit_holds();
    world.assert_conserved();
}

#[test]
fn a_failover_under_load_with_a_trim_delay_loses_no_acknowledged_vote() {
    let pair = Pair::start();
    let world = pair.world(2);
    let _workers = [worker(&world, "2", "60"), worker(&world, "2", "60")];
    world.wait_until_ready();
    let load = load_until_counted(&world, "8000", "500");
    pair.cut_off_the_standby();
    std::thread::sleep(Duration::from_secs(5));

    pair.fail_over();

    assert_exact(&world, load);
}

#[test]
fn a_failover_under_load_to_a_lagging_witness_loses_no_acknowledged_vote() {
    let pair = Pair::start();
    let world = pair.world(2);
    let witness = pair.standby.port();
    let _workers = [worker_with_witness(&world, "2", witness), worker_with_witness(&world, "2", witness)];
    world.wait_until_ready();
    let load = load_until_counted(&world, "11000", "400");
    pair.cut_off_the_standby();
    std::thread::sleep(Duration::from_secs(20));
    let rows = |server: &Postgres| -> u64 {
        server
            .psql(&at_port(&world.store_url(), server.port()), "SELECT count(*) FROM vote.votes")
            .parse()
            .unwrap()
    };
    assert!(rows(&pair.primary) > rows(&pair.standby) + 3000, "the standby lags");

    pair.fail_over();

    assert_exact(&world, load);
}

#[test]
fn while_a_witness_is_unavailable_votes_are_counted_and_nothing_is_trimmed() {
    let pair = Pair::start();
    let world = pair.world(1);
    let link = TcpProxy::to(pair.standby.port());
    let worker = worker_with_witness(&world, "2", link.port());
    world.wait_until_ready();
    cast(&world, 80);
    counted(&world, 80);
    eventually("entries that the witness has are trimmed", Duration::from_secs(10), || {
        entries(&world) <= PARTITIONS
    });

    link.cut();
    cast(&world, 80);
    counted(&world, 160);
    eventually("the metric shows that the witness is down", Duration::from_secs(15), || {
        worker.metric("vote_worker_witness_up") == 0.0
    });
    eventually("the metric shows for how long trimming waits", Duration::from_secs(15), || {
        worker.metric("vote_worker_trim_waits_seconds") > 6.0
    });
    assert!(entries(&world) >= 80, "{} entries", entries(&world));
    assert_eq!(worker.readiness().0, 200, "{}", worker.readiness().1);

    link.heal();
    eventually("entries are trimmed again", Duration::from_secs(15), || entries(&world) <= PARTITIONS);
    assert_eq!(worker.metric("vote_worker_witness_up"), 1.0);
    world.assert_audit_holds();
}

#[test]
fn without_a_trim_delay_the_audit_reports_the_votes_missing_on_a_lagging_standby() {
    let pair = Pair::start();
    let world = pair.world(1);
    let _worker = worker(&world, "2", "0");
    count_60_votes_that_the_standby_lacks(&pair, &world);
    // Until entries are trimmed, and until the standby's last report of the queue is too old for the audit to hold.
    std::thread::sleep(Duration::from_secs(12));

    pair.fail_over();

    let last = Cell::new(Value::Null);
    let start = Instant::now();
    eventually("the audit is broken by the queue", Duration::from_secs(45), || {
        let (code, audit) = world.audit();
        assert_ne!(
            code,
            0,
            "the audit holds after {:?}, but 60 votes are missing: {audit:#}",
            start.elapsed()
        );
        let queues = audit["polls"][0]["queues"].as_array().cloned().unwrap_or_default();
        let is_lost = |queue: &Value| !["active", "retired"].map(Value::from).contains(&queue["state"]);
        let names_it =
            |queue: &Value| audit["problems"].to_string().contains(queue["queue"].as_str().unwrap());
        let names_the_queue = code == 1 && queues.iter().any(|queue| is_lost(queue) && names_it(queue));
        last.set(audit);
        names_the_queue
    });
    let audit = last.take();
    let problems = audit["problems"].as_array().unwrap();
    assert!(problems.iter().all(|problem| problem["code"] != "unaccounted"), "{audit:#}");
}

/// A pipeline in which a commit waits for the standby for longer than any timeout of a session's statements and calls.
struct Waiting {
    pair: Pair,
    world: World,
    _workers: [Process; 2],
}

fn waiting_for_the_standby() -> Waiting {
    // More lanes than partitions: some own none, and would take those of a lane that makes no progress.
    waiting_of(90, |world, _| worker(world, "12", "0"))
}

/// The same with workers started by `worker`, for this number of half seconds.
fn waiting_of(rounds: usize, worker: impl Fn(&World, &Pair) -> Process) -> Waiting {
    let pair = Pair::start();
    let world = pair.world(1);
    let workers = [worker(&world, &pair), worker(&world, &pair)];
    world.wait_until_ready();
    cast(&world, 20);
    counted(&world, 20);
    pair.make_synchronous();
    pair.log.cut();
    cast(&world, 20);
    eventually("a commit waits", Duration::from_secs(10), || {
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        pair.primary.psql("postgres", waiting) != "0"
    });
    // Votes are cast meanwhile, several in each partition, since the last committed entry stays in the queue.
    for _ in 0..rounds {
        cast(&world, 2);
        std::thread::sleep(Duration::from_millis(500));
    }
    Waiting { pair, world, _workers: workers }
}

#[test]
fn a_commit_that_waits_for_a_standby_is_not_cancelled_by_another_lane() {
    let Waiting { pair, world, _workers } = waiting_for_the_standby();

    assert_eq!(world.total(), 20, "only votes that the standby has are shown");
    let log = pair.primary.log();
    let cancelled: Vec<_> =
        log.lines().filter(|line| line.contains("wait for synchronous replication")).collect();
    assert_eq!(cancelled, [""; 0]);
}

#[test]
fn commits_that_waited_for_a_standby_are_counted_once_when_it_is_back() {
    let Waiting { pair, world, _workers } = waiting_for_the_standby();

    pair.log.heal();

    cast(&world, 5);
    counted(&world, 225);
    world.assert_audit_holds();
    world.assert_conserved();
}

#[test]
fn a_failover_to_a_disconnected_synchronous_standby_loses_no_acknowledged_vote() {
    let Waiting { pair, world, _workers } = waiting_for_the_standby();

    // The setting is the primary's own: once promoted, the standby waits for no other server.
    pair.fail_over();

    counted(&world, 220);
    world.assert_audit_holds();
    world.assert_conserved();
}

/// A restart ends the wait of a commit, which becomes visible although the standby does not have it. So does an
/// operator who cancels the wait to make the primary work again.
#[test]
fn commits_that_only_a_restarted_primary_has_survive_a_failover_to_its_witness() {
    let waiting = waiting_of(44, |world, pair| worker_with_witness(world, "12", pair.standby.port()));
    let Waiting { pair, world, _workers } = waiting;
    let primary = at_port(&world.store_url(), pair.primary.port());
    let votes = || pair.primary.psql(&primary, "SELECT count(*) FROM vote.votes");

    pair.primary.restart();
    assert_ne!(votes(), "20", "the primary shows the commit that waited");
    eventually("the primary alone counts all votes", Duration::from_secs(20), || {
        let cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        pair.primary.psql("postgres", cancel);
        votes() == "128"
    });
    // Without the witness, committed entries would be trimmed by now.
    std::thread::sleep(Duration::from_secs(2));
    pair.fail_over();

    assert_eq!(pair.standby.psql(&world.store_url(), "SELECT count(*) FROM vote.votes"), "20");
    counted(&world, 128);
    world.assert_audit_holds();
    world.assert_conserved();
}
