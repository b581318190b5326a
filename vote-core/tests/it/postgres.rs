//! The store on a real Postgres.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use vote_core::{
    Lane, Partition, Polls, Store, StoreReader,
    conformance::{StoreHarness, ballot, layout, poll, queue_id, vote},
    poll::ResultsFrom,
    queue::Layout,
    store::{
        Ballot, CommitPlan, Decision, LedgerEntry, Lookup, PollPlan, PostgresStore, QuarantinedVotes,
        ReplayOutcome, Replayed, StoreError,
    },
};
use vote_testkit::Postgres;

/// Stores on one server, each in a database of its own.
#[derive(Default)]
struct OnPostgres {
    url: Mutex<String>,
}

#[async_trait]
impl StoreHarness for OnPostgres {
    async fn fresh(&self) -> Arc<dyn Store> {
        let url = Postgres::shared().database();
        let store = PostgresStore::connect(&url, "vote").unwrap();
        store.migrate().await.unwrap();
        *self.url.lock().unwrap() = url;
        Arc::new(store)
    }

    async fn reopen(&self, store: Arc<dyn Store>) -> Arc<dyn Store> {
        drop(store);
        Arc::new(PostgresStore::connect(&self.url.lock().unwrap(), "vote").unwrap())
    }
}

mod conformance {
    vote_core::store_conformance!(super::OnPostgres::default());
}

async fn prepared(url: &str) -> PostgresStore {
    let store = PostgresStore::connect(url, "vote").unwrap();
    store.migrate().await.unwrap();
    store.prepare(layout()).await.unwrap();
    store.register_poll(Polls::example().get("pets").unwrap()).await.unwrap();
    store
}

const PARTITION: Partition = Partition(0);

fn ballots(range: std::ops::Range<u64>) -> Vec<Ballot> {
    let in_partition = |n: &u64| layout().partitions.of(vote(*n, 0, 1).voter) == PARTITION;
    let mut ballots: Vec<_> = range.filter(in_partition).map(|n| ballot(&vote(n, 0, 1))).collect();
    ballots.sort_by_key(|ballot| ballot.voter);
    ballots
}

fn inserts(version: u64, ballots: Vec<Ballot>) -> CommitPlan {
    let n = ballots.len() as u64;
    let tally = BTreeMap::from([(vote(0, 0, 0).option, n as i64)]);
    CommitPlan {
        partition: PARTITION,
        version,
        polls: vec![PollPlan { poll: poll(), inserts: ballots, replacements: Vec::new(), tally }],
        ledger: vec![LedgerEntry {
            queue: queue_id(1),
            poll: poll().to_string(),
            accepted: n,
            new_voters: n,
            superseded: 0,
            quarantined: 0,
        }],
        positions: Vec::new(),
        quarantine: Vec::new(),
        replayed: Vec::new(),
    }
}

#[tokio::test]
async fn a_database_without_tables_says_what_to_do() {
    let store = PostgresStore::connect(&Postgres::shared().database(), "vote").unwrap();
    let error = store.layout().await.unwrap_err();
    assert!(matches!(error, StoreError::NotPrepared(_)));
    assert!(error.to_string().contains("vote-worker migrate"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn migrations_run_once_however_many_try() {
    let url = Postgres::shared().database();
    let stores: Vec<_> = (0..4).map(|_| PostgresStore::connect(&url, "vote").unwrap()).collect();
    let mut tasks = tokio::task::JoinSet::new();
    for store in stores {
        tasks.spawn(async move { store.migrate().await });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap().unwrap();
    }
    assert_eq!(Postgres::shared().psql(&url, "SELECT count(*) FROM vote._vote_migrations").trim(), "5");
}

#[tokio::test]
async fn of_a_poll_that_was_registered_before_the_store_kept_results_the_strict_setting_holds() {
    let url = Postgres::shared().database();
    let store = prepared(&url).await;
    assert_eq!(store.polls().await.unwrap()[0].results, ResultsFrom::Live);
    let psql = |sql| Postgres::shared().psql(&url, sql);
    psql("ALTER TABLE vote.polls DROP COLUMN results; DELETE FROM vote._vote_migrations WHERE version = 3");
    let error = store.polls().await.unwrap_err();
    assert!(matches!(error, StoreError::NotPrepared(_)), "{error}");
    assert!(error.to_string().contains("vote-worker migrate"), "{error}");

    store.migrate().await.unwrap();

    assert_eq!(store.polls().await.unwrap()[0].results, ResultsFrom::AfterClose);
    // As a worker of the version before does it.
    psql("INSERT INTO vote.polls (slug, keep, voters) VALUES ('tea', 'first', 'cookie')");
    psql("INSERT INTO vote.options SELECT poll, 0, 'yes' FROM vote.polls WHERE slug = 'tea'");
    assert_eq!(store.polls().await.unwrap()[1].results, ResultsFrom::AfterClose);
}

#[tokio::test]
async fn two_deployments_share_a_database_in_schemas_of_their_own() {
    let url = Postgres::shared().database();
    let other = Layout { partitions: 4.try_into().unwrap(), ..layout() };
    let (a, b) = (prepared(&url).await, PostgresStore::connect(&url, "other_votes").unwrap());
    b.migrate().await.unwrap();
    b.prepare(other).await.unwrap();
    assert_eq!((a.layout().await.unwrap(), b.layout().await.unwrap()), (Some(layout()), Some(other)));
    let (mut lane_a, mut lane_b) = (a.open_lane().await.unwrap(), b.open_lane().await.unwrap());
    assert!(lane_a.acquire(PARTITION).await.unwrap().is_some());
    assert!(lane_b.acquire(PARTITION).await.unwrap().is_some(), "locks are not shared either");
    assert_eq!((lane_a.unowned().await.unwrap().len(), lane_b.unowned().await.unwrap().len()), (15, 3));
    assert!(PostgresStore::connect(&url, "no such; name").is_err());
}

#[tokio::test]
async fn settings_that_may_lose_commits_are_named() {
    let postgres = Postgres::start();
    let url = postgres.database();
    let store = PostgresStore::connect(&url, "vote").unwrap();
    assert_eq!(store.check().await.unwrap(), [] as [String; 0]);
    postgres.psql("postgres", "ALTER SYSTEM SET synchronous_commit = off");
    postgres.psql("postgres", "ALTER SYSTEM SET fsync = off");
    postgres.psql("postgres", "SELECT pg_reload_conf()");
    let store = PostgresStore::connect(&url, "vote").unwrap();
    let mut problems = Vec::new();
    for _ in 0..50 {
        problems = store.check().await.unwrap();
        if problems.len() == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(problems[0].contains("fsync") && problems[1].contains("synchronous_commit"), "{problems:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_whose_call_was_cancelled_is_broken_and_left_nothing_behind() {
    let url = Postgres::shared().database();
    let store = prepared(&url).await;
    let (mut committed, mut version, mut next) = (0, 0, 0);
    for micros in (0..3000).step_by(100) {
        let mut lane = acquired(&store, &mut version).await;
        let stood: u64 = store.tally(poll()).await.unwrap().iter().map(|(_, n)| n).sum();
        assert!(stood == committed || stood == committed + 20, "{stood} of {committed}");
        committed = stood;
        let plan = inserts(version, ballots(next..next + 320));
        next += 320;
        let cancelled = tokio::time::timeout(Duration::from_micros(micros), lane.commit(&plan)).await;
        match cancelled {
            Ok(done) => done.unwrap(),
            Err(_) => {
                let error = lane.unowned().await.unwrap_err();
                assert!(error.to_string().contains("ended"), "{error}");
            }
        }
    }
    let mut lane = acquired(&store, &mut version).await;
    let open = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%' AND datname = current_database()";
    assert_eq!(Postgres::shared().psql(&url, open).trim(), "0");
    lane.commit(&inserts(version, Vec::new())).await.unwrap();
    let rows: u64 = Postgres::shared().psql(&url, "SELECT count(*) FROM vote.votes").trim().parse().unwrap();
    assert_eq!(rows, store.tally(poll()).await.unwrap().iter().map(|(_, n)| n).sum::<u64>());
}

/// A lane with the partition, as soon as the lane before is gone.
async fn acquired(store: &PostgresStore, version: &mut u64) -> Box<dyn Lane> {
    let mut lane = store.open_lane().await.unwrap();
    for _ in 0..200 {
        if let Some(acquired) = lane.acquire(PARTITION).await.unwrap() {
            *version = acquired.version;
            return lane;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the partition did not get free");
}

#[tokio::test]
async fn a_filter_that_grows_and_a_table_that_is_scanned_in_steps_find_everybody() {
    let url = Postgres::shared().database();
    let store = prepared(&url).await;
    // More than one step of a scan, and more than a new filter has room for.
    Postgres::shared().psql(
        &url,
        "INSERT INTO vote.votes SELECT 1, (lpad(to_hex(n), 8, '0') || substr(md5(n::text), 1, 24))::uuid, 0, now()
         FROM generate_series(1, 300000) n;
         INSERT INTO vote.tally VALUES (1, 0, 0, 300000)",
    );
    let mut lane = store.open_lane().await.unwrap();
    lane.acquire(PARTITION).await.unwrap().unwrap();
    let everybody =
        Postgres::shared().psql(&url, "SELECT voter FROM vote.votes WHERE random() < 0.01 ORDER BY voter");
    let mut voters = Vec::new();
    for line in everybody.lines() {
        let mut key = [0; 16];
        for (i, byte) in key.iter_mut().enumerate() {
            let hex: String = line.chars().filter(|c| *c != '-').skip(i * 2).take(2).collect();
            *byte = u8::from_str_radix(&hex, 16).unwrap();
        }
        voters.push(vote_core::VoterKey(key));
    }
    assert!(voters.len() > 2000);
    for step in 0..6 {
        let found = lane.lookup(PARTITION, poll(), &voters, Lookup::Filtered).await.unwrap();
        assert_eq!(found.len(), voters.len(), "look-up {step}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_that_is_frozen_within_a_statement_loses_its_partition_and_no_other_does() {
    let url = Postgres::shared().database();
    let store = prepared(&url).await;
    let (mut lane, mut working) = (store.open_lane().await.unwrap(), store.open_lane().await.unwrap());
    working.acquire(Partition(1)).await.unwrap().unwrap();
    // To the server a stopped client looks like one that takes its time: within a statement, and holding its lock.
    let frozen = tokio::task::spawn_blocking(move || {
        let take = "SELECT pg_advisory_lock(('x' || substr(replace(lock_id::text, '-', ''), 1, 8))::bit(32)::int, 0),
                           pg_sleep(60) FROM vote.meta";
        std::panic::catch_unwind(|| Postgres::shared().psql(&url, take)).is_err()
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let start = std::time::Instant::now();
    while lane.acquire(PARTITION).await.unwrap().is_none() {
        assert!(start.elapsed() < Duration::from_secs(20), "the partition did not get free");
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(!working.unowned().await.unwrap().contains(&Partition(1)));
    }
    assert!(start.elapsed() > Duration::from_secs(5), "it gets its time");
    assert!(frozen.await.unwrap(), "its connection was ended");
    working.unowned().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_restarts_is_found_again() {
    let postgres = Postgres::start();
    let store = prepared(&postgres.database()).await;
    let mut lane = store.open_lane().await.unwrap();
    let version = lane.acquire(PARTITION).await.unwrap().unwrap().version;
    lane.commit(&inserts(version, ballots(0..320))).await.unwrap();
    postgres.restart_immediate();
    assert!(lane.unowned().await.unwrap_err().is_retryable());
    let mut version = 0;
    let mut lane = acquired(&store, &mut version).await;
    assert_eq!(version, 1, "what was committed is there");
    lane.commit(&inserts(version, ballots(320..640))).await.unwrap();
}

/// As in a row that was there before the column, and as a worker writes it that does not know it.
#[tokio::test]
async fn a_row_of_the_quarantine_without_indices_is_a_whole_frame() {
    let url = Postgres::shared().database();
    let store = prepared(&url).await;
    let queue = queue_id(1);
    Postgres::shared().psql(
        &url,
        &format!(
            "INSERT INTO vote.quarantine (partition, queue, position, poll, votes, reason, awaits_poll, frame)
             VALUES (0, '{queue}', '\\x05', 'pets', 3, 'a test', true, '\\x00')"
        ),
    );
    let mut lane = store.open_lane().await.unwrap();
    let version = lane.acquire(PARTITION).await.unwrap().unwrap().version;
    let [frame] = &lane.replays(PARTITION, 9).await.unwrap()[..] else { panic!("one frame") };
    assert_eq!((frame.accounted, &frame.quarantined), (3, &QuarantinedVotes::All));

    let held = ReplayOutcome::Held {
        votes: QuarantinedVotes::At(vec![0, 2]),
        reason: "another".to_owned(),
        awaits_poll: false,
    };
    let replayed = Replayed { queue, position: frame.position, tried: QuarantinedVotes::All, outcome: held };
    let plan = |version, replayed: &Replayed| CommitPlan {
        partition: PARTITION,
        version,
        polls: Vec::new(),
        ledger: Vec::new(),
        positions: Vec::new(),
        quarantine: Vec::new(),
        replayed: vec![replayed.clone()],
    };
    lane.commit(&plan(version, &replayed)).await.unwrap();
    let row = store.quarantine(None, 9).await.unwrap().remove(0);
    assert_eq!((row.frame.accounted, row.frame.votes()), (3, 2));
    store.decide(&[row.key()], &Decision::Replay).await.unwrap();
    let whole = Replayed { outcome: ReplayOutcome::Counted, ..replayed };
    let result = lane.commit(&plan(version + 1, &whole)).await;
    assert!(matches!(result, Err(StoreError::Conflict(_))), "it is not a whole frame any more: {result:?}");
}
