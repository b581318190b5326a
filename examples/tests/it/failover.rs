//! A Postgres that is gone for good, and a standby in its place.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use serde_json::Value;
use vote_testkit::{Postgres, Redis, TcpProxy};

use crate::world::{Process, Setup, World, cookie, eventually, vote};

const STANDBY: &str = "second";

/// A Postgres with a standby, and the address at which the pipeline finds the one that takes writes.
struct Pair {
    primary: Postgres,
    standby: Postgres,
    /// From the standby to the primary's log.
    log: TcpProxy,
    /// From the pipeline to its store.
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

    /// A pipeline on it, with so many Redis.
    fn world(&self, queues: usize) -> World {
        let database = self.primary.database();
        let name = database.rsplit('/').next().unwrap();
        let store =
            at_port(&format!("postgres://postgres@127.0.0.1/{name}?sslmode=disable"), self.store.port());
        let redis = (0..queues).map(|_| Redis::start()).collect();
        World::of(Setup { redis, store: Some(store), ..Setup::default() })
    }

    /// Has commits wait until the standby has them on disk.
    fn make_synchronous(&self) {
        self.primary.psql("postgres", &format!("ALTER SYSTEM SET synchronous_standby_names = '{STANDBY}'"));
        self.primary.psql("postgres", "SELECT pg_reload_conf()");
        self.primary.wait_for_standby(&self.standby);
    }

    /// Leaves what is committed from now on to the primary alone.
    fn cut_off_the_standby(&self) {
        self.primary.wait_for_standby(&self.standby);
        self.log.cut();
    }

    /// The primary's machine is gone, and the standby takes its place at the same address.
    fn fail_over(&self) {
        self.primary.stop_immediate();
        self.standby.promote();
        self.store.switch_to(self.standby.port());
    }
}

/// The address of a database, of the server at another port.
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

/// Waits until so many votes are counted, for longer than a worker needs to connect and read again.
#[track_caller]
fn counted(world: &World, votes: u64) {
    let start = Instant::now();
    while world.total() != votes && start.elapsed() < Duration::from_secs(45) {
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(world.total(), votes, "counted, and acknowledged");
}

fn worker(world: &World, lanes: &str, trim_delay: &str) -> Process {
    worker_with(world, lanes, &[("VOTE_TRIM_DELAY", trim_delay)])
}

/// One that trims what the server at this port shows.
fn worker_with_witness(world: &World, lanes: &str, port: u16) -> Process {
    worker_with(world, lanes, &[("VOTE_STORE_WITNESS", &at_port(&world.store_url(), port))])
}

fn worker_with(world: &World, lanes: &str, more: &[(&str, &str)]) -> Process {
    let queues = world.redis.iter().map(Redis::url).collect::<Vec<_>>().join(",");
    let worker = world.worker_of(&queues, lanes, more);
    worker.wait_until_ready();
    worker
}

/// Entries in all queues; of an empty queue the last entry of each partition stays.
fn entries(world: &World) -> u64 {
    let of = |redis: &Redis| {
        let streams = redis.cli(&["--scan", "--pattern", "vote:*:p:*"]);
        streams.lines().map(|key| redis.cli(&["XLEN", key]).trim().parse::<u64>().unwrap()).sum::<u64>()
    };
    world.redis.iter().map(of).sum()
}

const PARTITIONS: u64 = 16;

#[test]
fn with_a_trim_delay_a_standby_that_lagged_gets_back_from_the_queues_what_it_did_not_receive() {
    let pair = Pair::start();
    let world = pair.world(2);
    let _workers = [worker(&world, "2", "60"), worker(&world, "2", "60")];
    world.wait_until_ready();
    cast(&world, 40);
    counted(&world, 40);
    pair.cut_off_the_standby();
    cast(&world, 60);
    counted(&world, 100);
    // What is committed would be trimmed by now.
    std::thread::sleep(Duration::from_secs(3));

    pair.fail_over();
    assert_eq!(pair.standby.psql(&world.store_url(), "SELECT count(*) FROM vote.votes"), "40");
    cast(&world, 10);

    counted(&world, 110);
    world.assert_audit_holds();
    world.assert_conserved();
}

/// While votes are cast all the time, and twice by some.
#[test]
fn a_failover_under_load_loses_no_acknowledged_vote_if_there_is_a_trim_delay() {
    let pair = Pair::start();
    let world = pair.world(2);
    let _workers = [worker(&world, "2", "60"), worker(&world, "2", "60")];
    world.wait_until_ready();
    let load = world.load(&[
        "--voters",
        "8000",
        "--double-votes",
        "5",
        "--connections",
        "8",
        "--rate",
        "500",
        "--timeout-seconds",
        "60",
    ]);
    eventually("some votes are counted", Duration::from_secs(30), || world.total() > 1000);
    pair.cut_off_the_standby();
    std::thread::sleep(Duration::from_secs(5));

    pair.fail_over();

    crate::world::assert_exact(&load.wait_with_output().unwrap());
    world.assert_audit_holds();
    world.assert_conserved();
}

#[test]
fn a_failover_under_load_loses_no_acknowledged_vote_if_the_standby_that_lags_is_a_witness() {
    let pair = Pair::start();
    let world = pair.world(2);
    let witness = pair.standby.port();
    let _workers = [worker_with_witness(&world, "2", witness), worker_with_witness(&world, "2", witness)];
    world.wait_until_ready();
    let load = world.load(&[
        "--voters",
        "11000",
        "--double-votes",
        "5",
        "--connections",
        "8",
        "--rate",
        "400",
        "--timeout-seconds",
        "60",
    ]);
    eventually("some votes are counted", Duration::from_secs(30), || world.total() > 1000);
    pair.cut_off_the_standby();
    std::thread::sleep(Duration::from_secs(20));
    let rows = |server: &Postgres| -> u64 {
        server
            .psql(&at_port(&world.store_url(), server.port()), "SELECT count(*) FROM vote.votes")
            .parse()
            .unwrap()
    };
    assert!(rows(&pair.primary) > rows(&pair.standby) + 3000, "it lags");

    pair.fail_over();

    crate::world::assert_exact(&load.wait_with_output().unwrap());
    world.assert_audit_holds();
    world.assert_conserved();
}

#[test]
fn while_a_witness_is_away_votes_are_counted_and_none_is_trimmed() {
    let pair = Pair::start();
    let world = pair.world(1);
    let link = TcpProxy::to(pair.standby.port());
    let worker = worker_with_witness(&world, "2", link.port());
    world.wait_until_ready();
    cast(&world, 80);
    counted(&world, 80);
    eventually("what the witness shows is trimmed", Duration::from_secs(10), || {
        entries(&world) <= PARTITIONS
    });

    link.cut();
    cast(&world, 80);
    counted(&world, 160);
    eventually("the metric says so", Duration::from_secs(15), || {
        worker.metric("vote_worker_witness_up") == 0.0
    });
    eventually("and for how long", Duration::from_secs(15), || {
        worker.metric("vote_worker_trim_waits_seconds") > 6.0
    });
    assert!(entries(&world) >= 80, "{} entries", entries(&world));
    assert_eq!(worker.readiness().0, 200, "{}", worker.readiness().1);

    link.heal();
    eventually("it is trimmed again", Duration::from_secs(15), || entries(&world) <= PARTITIONS);
    assert_eq!(worker.metric("vote_worker_witness_up"), 1.0);
    world.assert_audit_holds();
}

#[test]
fn without_a_trim_delay_the_audit_says_that_a_standby_that_lagged_lacks_votes() {
    let pair = Pair::start();
    let world = pair.world(1);
    let _worker = worker(&world, "2", "0");
    world.wait_until_ready();
    cast(&world, 40);
    counted(&world, 40);
    pair.cut_off_the_standby();
    cast(&world, 60);
    counted(&world, 100);
    // Until it is trimmed, and until what the standby was told of the queue is too old to hold.
    std::thread::sleep(Duration::from_secs(12));

    pair.fail_over();

    let last = Cell::new(Value::Null);
    let start = Instant::now();
    eventually("the audit is broken by the queue", Duration::from_secs(45), || {
        let (code, audit) = world.audit();
        assert_ne!(code, 0, "after {:?} it holds, and 60 votes are missing: {audit:#}", start.elapsed());
        let queues = audit["polls"][0]["queues"].as_array().cloned().unwrap_or_default();
        let is_lost = |queue: &Value| !["active", "retired"].map(Value::from).contains(&queue["state"]);
        let names_it =
            |queue: &Value| audit["problems"].to_string().contains(queue["queue"].as_str().unwrap());
        let said = code == 1 && queues.iter().any(|queue| is_lost(queue) && names_it(queue));
        last.set(audit);
        said
    });
    let said = last.take();
    assert!(!said["problems"].to_string().contains("were accepted, but"), "{said:#}");
}

/// A lane whose commit waits for the standby, for longer than any timeout of a lane's statements and calls.
struct Waiting {
    pair: Pair,
    world: World,
    _workers: [Process; 2],
}

fn waiting_for_the_standby() -> Waiting {
    // More lanes than partitions: some own none, and want those of a lane that makes no progress.
    waiting_of(90, |world, _| worker(world, "12", "0"))
}

/// The same with workers made in some way, for so many half seconds.
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
    // Votes go on meanwhile, several in each partition: of what is committed, the last entry stays in the queue.
    for _ in 0..rounds {
        cast(&world, 2);
        std::thread::sleep(Duration::from_millis(500));
    }
    Waiting { pair, world, _workers: workers }
}

#[test]
fn a_commit_that_waits_for_a_standby_is_not_ended_by_another_lane() {
    let Waiting { pair, world, _workers } = waiting_for_the_standby();

    assert_eq!(world.total(), 20, "nothing is shown that the standby does not have");
    let log = pair.primary.log();
    let ended: Vec<_> =
        log.lines().filter(|line| line.contains("wait for synchronous replication")).collect();
    assert_eq!(ended, [""; 0]);
}

#[test]
fn what_waited_for_a_standby_is_counted_once_when_it_is_back() {
    let Waiting { pair, world, _workers } = waiting_for_the_standby();

    pair.log.heal();

    cast(&world, 5);
    counted(&world, 225);
    world.assert_audit_holds();
    world.assert_conserved();
}

#[test]
fn a_failover_to_a_synchronous_standby_that_was_away_loses_no_acknowledged_vote() {
    let Waiting { pair, world, _workers } = waiting_for_the_standby();

    // The setting is the primary's own: promoted, the standby waits for nobody.
    pair.fail_over();

    counted(&world, 220);
    world.assert_audit_holds();
    world.assert_conserved();
}

/// A restart ends the wait of a commit, which becomes visible though the standby does not have it; and so does whoever
/// cancels the wait, to make the primary work again.
#[test]
fn commits_that_only_a_restarted_primary_shows_survive_a_failover_to_its_witness() {
    let waiting = waiting_of(44, |world, pair| worker_with_witness(world, "12", pair.standby.port()));
    let Waiting { pair, world, _workers } = waiting;
    let primary = at_port(&world.store_url(), pair.primary.port());
    let votes = || pair.primary.psql(&primary, "SELECT count(*) FROM vote.votes");

    pair.primary.restart();
    assert_ne!(votes(), "20", "what waited is shown by the primary");
    eventually("all is counted by the primary alone", Duration::from_secs(20), || {
        let cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        pair.primary.psql("postgres", cancel);
        votes() == "128"
    });
    // What is committed would be trimmed by now.
    std::thread::sleep(Duration::from_secs(2));
    pair.fail_over();

    assert_eq!(pair.standby.psql(&world.store_url(), "SELECT count(*) FROM vote.votes"), "20");
    counted(&world, 128);
    world.assert_audit_holds();
    world.assert_conserved();
}
