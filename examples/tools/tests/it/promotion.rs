//! Tests of the failover from a lost Redis to its replica.

use std::time::Duration;

use serde_json::Value;
use vote_testkit::{Redis, TcpProxy};

use crate::world::{Process, Setup, World, assert_exact, cookie, eventually, report, vote};

/// A pipeline with one frontend, whose queue is a Redis with a replica.
struct Pair {
    world: World,
    replica: Redis,
    /// Proxy from the replica to the master.
    link: TcpProxy,
    /// Proxy from the pipeline to its queue.
    address: TcpProxy,
    worker: Process,
}

impl Pair {
    fn start() -> Self {
        let master = Redis::start();
        let (link, address) = (TcpProxy::to(master.port()), TcpProxy::to(master.port()));
        let replica = master.replica(link.port());
        let mut world = World::of(Setup { redis: vec![master], ..Setup::default() });
        let queue = format!("redis://127.0.0.1:{}", address.port());
        world.frontends.clear();
        world.frontends.push(world.frontend(&queue));
        let worker = world.worker_of(&queue, "2", &[]);
        world.wait_until_ready();
        worker.wait_until_ready();
        Self { world, replica, link, address, worker }
    }

    fn frontend(&self) -> &Process {
        &self.world.frontends[0]
    }

    fn cast(&self, votes: usize) {
        for _ in 0..votes {
            let frontend = self.frontend().public;
            assert_eq!(vote(frontend, "cats", &cookie(frontend)).status, 202);
        }
    }

    #[track_caller]
    fn counted(&self, votes: u64) {
        eventually(&format!("{votes} votes are counted"), Duration::from_secs(20), || {
            self.world.total() == votes
        });
    }

    /// Replaces the master by its replica, once the replica has everything.
    fn hand_over(&self) {
        // No client gets an answer to a write that the replica may not have.
        self.address.cut();
        self.world.redis[0].wait_for_replica(&self.replica);
        self.fail_over();
    }

    /// Cuts the replication, so that only the master has the writes from now on.
    fn cut_off_the_replica(&self) {
        self.world.redis[0].wait_for_replica(&self.replica);
        self.link.cut();
    }

    /// Kills the master, and promotes the replica, which takes over its address with the data that it has.
    fn fail_over(&self) {
        self.world.redis[0].kill9();
        self.replica.promote();
        self.address.switch_to(self.replica.port());
    }

    /// Waits until the frontend accepts a vote.
    fn accepts_votes_again(&self) {
        let frontend = self.frontend().public;
        eventually("the frontend accepts votes again", Duration::from_secs(30), || {
            vote(frontend, "dogs", &cookie(frontend)).status == 202
        });
    }

    /// Waits until the audit reports that the queue has diverged, and returns its id. Until then, the audit must not
    /// hold.
    #[track_caller]
    fn names_the_queue(&self) -> String {
        let mut named = None;
        eventually("the audit names the queue", Duration::from_secs(45), || {
            let (code, audit) = self.world.audit();
            assert_ne!(code, 0, "the audit holds, but votes are missing: {audit:#}");
            named = diverged_queue(&audit)
                .filter(|queue| code == 1 && audit["problems"].to_string().contains(queue));
            named.is_some()
        });
        named.unwrap()
    }

    #[track_caller]
    fn retire(&self, queue: &str) {
        // Refused until its remaining entries are read.
        eventually("the queue can be retired", Duration::from_secs(45), || {
            let command = ["queues", "retire", queue, "--reason", "its replica lagged"];
            self.world.command("vote-worker", &command).status.success()
        });
        self.world.assert_audit_holds();
        self.world.assert_conserved();
    }
}

/// Returns the id of the queue that has diverged according to an audit.
fn diverged_queue(audit: &Value) -> Option<String> {
    let queues = audit["polls"][0]["queues"].as_array()?;
    let diverged = queues.iter().find(|queue| queue["state"] == "diverged")?;
    diverged["queue"].as_str().map(str::to_owned)
}

#[test]
fn replacing_a_master_by_a_replica_that_has_everything_loses_no_vote() {
    let pair = Pair::start();
    let load = [
        "--voters",
        "6000",
        "--double-votes",
        "5",
        "--connections",
        "8",
        "--rate",
        "1000",
        "--timeout-seconds",
        "30",
    ];
    let load = pair.world.load(&load);
    eventually("some votes are counted", Duration::from_secs(30), || pair.world.total() > 1500);

    pair.hand_over();

    assert_exact(&load.wait_with_output().unwrap());
    let audit = pair.world.assert_audit_holds();
    pair.world.assert_conserved();
    let queues = audit["polls"][0]["queues"].as_array().unwrap();
    assert_eq!((queues.len(), &queues[0]["state"]), (1, &"active".into()), "it is the same queue: {audit:#}");
}

#[test]
fn a_replica_that_lacks_uncounted_votes_is_a_diverged_queue() {
    let pair = Pair::start();
    pair.cast(40);
    pair.counted(40);
    pair.cut_off_the_replica();
    assert!(pair.worker.service.signal("STOP"));
    pair.cast(30);

    pair.fail_over();

    // Only the frontend knows of the missing votes.
    eventually("the frontend logs the loss", Duration::from_secs(20), || {
        pair.frontend().service.log().contains("lost acknowledged votes of partition")
    });
    // Until the queue is not heard from: while no worker reports the queue of an open poll, the audit can't hold.
    eventually("the queue is not heard from", Duration::from_secs(30), || pair.world.audit().0 == 2);
    assert!(pair.worker.service.signal("CONT"));
    let queue = pair.names_the_queue();
    pair.accepts_votes_again();
    pair.counted(41);
    pair.retire(&queue);
    assert_eq!(pair.world.total(), 41, "the 40 votes that the replica had, and one more");
}

#[test]
fn a_replica_that_lacks_counted_votes_does_not_remove_them_from_the_tally() {
    let pair = Pair::start();
    pair.cast(40);
    pair.counted(40);
    pair.cut_off_the_replica();
    pair.cast(30);
    pair.counted(70);

    pair.fail_over();

    eventually("the audit names the queue", Duration::from_secs(45), || {
        diverged_queue(&pair.world.audit().1).is_some()
    });
    let queue = pair.names_the_queue();
    pair.accepts_votes_again();
    pair.counted(71);
    pair.retire(&queue);
    assert_eq!(pair.world.total(), 71);
}

/// Votes are cast before, during and after the failover, so that the new server soon has more than the old one had.
#[test]
fn a_replica_that_lagged_under_load_is_a_diverged_queue_however_many_votes_follow() {
    let pair = Pair::start();
    let load = ["--voters", "6000", "--connections", "8", "--rate", "600", "--timeout-seconds", "30"];
    let load = pair.world.load(&load);
    eventually("some votes are counted", Duration::from_secs(30), || pair.world.total() > 1000);
    pair.link.cut();
    std::thread::sleep(Duration::from_secs(1));

    pair.fail_over();

    let output = load.wait_with_output().unwrap();
    let acknowledged = report(&output)["acked"].as_u64().unwrap();
    let queue = pair.names_the_queue();
    pair.retire(&queue);
    let counted = pair.world.total();
    println!("{acknowledged} acknowledged, {counted} counted");
    // At most the votes cast while the replica lagged are missing, with a margin for a busy machine. Mostly it is a few
    // that no worker had read.
    assert!((acknowledged - 1500..=acknowledged).contains(&counted), "{counted} of {acknowledged}");
}

/// As behind a DNS name that resolves to both. The worker reads the master, whatever the replica says.
#[test]
fn a_replica_beside_its_master_is_left_alone() {
    let pair = Pair::start();
    let both = format!("redis://127.0.0.1:{},{}", pair.address.port(), pair.replica.url());
    let worker = pair.world.worker_of(&both, "2", &[]);
    worker.wait_until_ready();
    let frontend = pair.world.frontend_of(&pair.replica.url(), &[]);
    pair.cast(40);
    pair.world.redis[0].wait_for_replica(&pair.replica);
    pair.counted(40);
    // Longer than a queue whose server has another one takes to count as lost.
    std::thread::sleep(Duration::from_secs(15));
    pair.cast(10);
    pair.counted(50);

    eventually("the frontend says why it takes no votes", Duration::from_secs(10), || {
        let (status, reason) = frontend.readiness();
        status == 503 && reason.contains("is a replica")
    });
    assert_eq!(frontend.metric("vote_frontend_admission_closed{reason=\"volatile\"}"), 1.0);
    // A replica that accepts writes loses them at its next synchronization.
    pair.replica.cli(&["CONFIG", "SET", "replica-read-only", "no"]);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(vote(frontend.public, "dogs", &cookie(frontend.public)).status, 503);
    assert!(frontend.service.signal("TERM"));
    drop(frontend);
    let log = worker.service.log();
    assert!(log.contains("its server is a replica"), "{log}");
    assert!(!log.contains("diverged"), "{log}");
    assert_eq!(pair.world.psql("SELECT count(*) FROM vote.queues"), "1");
    assert_eq!(pair.world.psql("SELECT state FROM vote.queues"), "active");
    pair.world.assert_audit_holds();

    // The master is gone: its queue is not heard from until the replica is promoted.
    pair.address.cut();
    pair.world.redis[0].kill9();
    eventually("the queue is not heard from", Duration::from_secs(30), || pair.world.audit().0 == 2);
    pair.replica.promote();
    eventually("the promoted replica is read", Duration::from_secs(20), || pair.world.audit().0 == 0);
    let worker = &worker.service;
    assert!(!worker.log().contains("diverged"), "{}", worker.log());
}
