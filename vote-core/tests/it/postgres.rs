//! Tests of the store on a real Postgres.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use vote_core::{
    Clock, Partition, Polls, Session, Store, StoreReader, SystemClock,
    conformance::{StoreHarness, ballot, layout, poll, queue_id, vote},
    count::{
        Ballot, CommitPlan, Decision, LedgerEntry, PollPlan, QuarantineState, QuarantinedVotes, QueueRecord,
        ReasonCode, ReplayOutcome, Replayed, StoredReason,
    },
    poll::ResultsFrom,
    queue::Layout,
    store::{Lookup, PostgresStore, StoreError, WorkerId, WorkerRecord},
};
use vote_testkit::Postgres;

use crate::reasons::stored_before_codes;

/// Harness that makes stores on one server, each in a database of its own.
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

/// Returns a prepared store with the example's poll.
async fn prepared(url: &str) -> PostgresStore {
    let store = PostgresStore::connect(url, "vote").unwrap();
    store.migrate().await.unwrap();
    store.prepare(layout()).await.unwrap();
    store.register_poll(Polls::example().get("pets").unwrap()).await.unwrap();
    store
}

const PARTITION: Partition = Partition(0);

/// Returns the ballots of those voters in a range that belong to [`PARTITION`].
fn ballots(range: std::ops::Range<u64>) -> Vec<Ballot> {
    let in_partition = |n: &u64| layout().partitions.of(vote(*n, 0, 1).voter) == PARTITION;
    let mut ballots: Vec<_> = range.filter(in_partition).map(|n| ballot(&vote(n, 0, 1))).collect();
    ballots.sort_by_key(|ballot| ballot.voter);
    ballots
}

/// Returns a plan that inserts these ballots.
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

/// Returns the number of effective ballots by the tally.
async fn counted(store: &dyn StoreReader) -> u64 {
    let accounts = store.snapshot().await.unwrap().accounts(false).await.unwrap();
    accounts.tally_of(poll()).iter().map(|(_, n)| n).sum()
}

#[tokio::test]
async fn a_database_without_tables_says_what_to_do() {
    let store = PostgresStore::connect(&Postgres::shared().database(), "vote").unwrap();
    let error = store.layout().await.unwrap_err();
    assert!(matches!(error, StoreError::NotPrepared { .. }));
    assert!(error.to_string().contains("vote-worker migrate"), "{error}");
}

#[tokio::test]
async fn the_time_of_the_last_change_does_not_decrease_if_the_clock_is_set_back() {
    let url = Postgres::shared().database();
    let store = prepared(&url).await;
    let changed_at = async || {
        store.snapshot().await.unwrap().summary().await.unwrap().polls[0]
            .tally_changed_at
            .unwrap()
            .to_string()
    };
    let mut session = store.open_session().await.unwrap();
    let version = session.acquire(PARTITION).await.unwrap().unwrap().version;
    session.commit(&inserts(version, ballots(0..100))).await.unwrap();
    // As if it had been changed before the clock was set back.
    Postgres::shared().psql(&url, "UPDATE vote.tally SET changed_at = '2100-01-01T00:00:00Z'");

    session.commit(&inserts(version + 1, ballots(100..200))).await.unwrap();

    assert_eq!(changed_at().await, "2100-01-01T00:00:00Z");
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_migrations_run_once() {
    let url = Postgres::shared().database();
    let stores: Vec<_> = (0..4).map(|_| PostgresStore::connect(&url, "vote").unwrap()).collect();
    let mut tasks = tokio::task::JoinSet::new();
    for store in stores {
        tasks.spawn(async move { store.migrate().await });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap().unwrap();
    }
    assert_eq!(Postgres::shared().psql(&url, "SELECT count(*) FROM vote._vote_migrations").trim(), "13");
}

#[tokio::test]
async fn a_store_of_a_newer_version_is_not_migrated() {
    let url = Postgres::shared().database();
    let store = prepared(&url).await;
    Postgres::shared().psql(&url, "UPDATE vote._vote_migrations SET version = 99 WHERE version = 8");
    let refused = store.migrate().await;
    assert!(matches!(refused, Err(StoreError::NewerVersion { migration: 99, .. })), "{refused:?}");
}

#[tokio::test]
async fn tables_of_another_program_are_not_migrated() {
    let url = Postgres::shared().database();
    Postgres::shared().psql(&url, "CREATE SCHEMA vote; CREATE TABLE vote.polls (name text)");
    let refused = PostgresStore::connect(&url, "vote").unwrap().migrate().await;
    assert!(matches!(refused, Err(StoreError::NotAStore { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_poll_registered_before_the_store_kept_its_results_setting_gets_the_strict_one() {
    let url = Postgres::shared().database();
    let store = prepared(&url).await;
    assert_eq!(store.polls().await.unwrap()[0].results, ResultsFrom::Live);
    let psql = |sql| Postgres::shared().psql(&url, sql);
    psql("ALTER TABLE vote.polls DROP COLUMN results; DELETE FROM vote._vote_migrations WHERE version = 3");
    let error = store.polls().await.unwrap_err();
    assert!(matches!(error, StoreError::OlderVersion { .. }), "{error}");
    assert!(error.to_string().contains("vote-worker migrate"), "{error}");

    store.migrate().await.unwrap();

    assert_eq!(store.polls().await.unwrap()[0].results, ResultsFrom::AfterClose);
    // As a worker of the previous version does.
    psql("INSERT INTO vote.polls (slug, keep, voters) VALUES ('tea', 'first', 'cookie')");
    psql("INSERT INTO vote.options SELECT poll, 0, 'yes' FROM vote.polls WHERE slug = 'tea'");
    assert_eq!(store.polls().await.unwrap()[1].results, ResultsFrom::AfterClose);
}

#[tokio::test]
async fn a_worker_that_died_before_the_clock_was_set_back_is_not_alive() {
    let url = Postgres::shared().database();
    let store = prepared(&url).await;
    let worker = |n| WorkerRecord { id: WorkerId([n; 16]), lanes: 1, unreached: BTreeSet::new() };
    store.heartbeat(&worker(1)).await.unwrap();
    Postgres::shared()
        .psql(&url, "UPDATE vote.workers SET seen_at = clock_timestamp() + interval '5 seconds'");
    let alive = async || store.catalog(None).await.unwrap().workers.into_values().collect::<Vec<_>>();
    assert_eq!(alive().await, []);
    let now = SystemClock.now();
    let queue = QueueRecord::new(queue_id(1), "redis:".to_owned(), now);
    store.report(std::slice::from_ref(&queue)).await.unwrap();

    store.heartbeat(&worker(2)).await.unwrap();

    assert_eq!(alive().await, [worker(2)]);
    let age = now.as_micros() - store.queues().await.unwrap()[0].seen_at.as_micros();
    assert!((50_000_000..70_000_000).contains(&age), "the time of the report is not known: {age}");
    store.report(std::slice::from_ref(&queue)).await.unwrap();
    store.heartbeat(&worker(1)).await.unwrap();
    assert_eq!(store.queues().await.unwrap()[0].seen_at, now, "the clock is set back once");
}

#[tokio::test]
async fn two_deployments_share_a_database_in_schemas_of_their_own() {
    let url = Postgres::shared().database();
    let other = Layout { partitions: 4.try_into().unwrap(), ..layout() };
    let (a, b) = (prepared(&url).await, PostgresStore::connect(&url, "other_votes").unwrap());
    b.migrate().await.unwrap();
    b.prepare(other).await.unwrap();
    assert_eq!((a.layout().await.unwrap(), b.layout().await.unwrap()), (Some(layout()), Some(other)));
    let (mut session_a, mut session_b) = (a.open_session().await.unwrap(), b.open_session().await.unwrap());
    assert!(session_a.acquire(PARTITION).await.unwrap().is_some());
    assert!(session_b.acquire(PARTITION).await.unwrap().is_some(), "locks are not shared either");
    let unowned = (session_a.unowned().await.unwrap().len(), session_b.unowned().await.unwrap().len());
    assert_eq!(unowned, (15, 3));
    let refused = PostgresStore::connect(&url, "no such; name");
    assert!(matches!(refused, Err(StoreError::InvalidSchema(_))), "{refused:?}");
}

#[tokio::test]
async fn settings_that_may_lose_commits_are_reported() {
    let postgres = Postgres::start();
    let url = postgres.database();
    let store = PostgresStore::connect(&url, "vote").unwrap();
    assert_eq!(store.durability_problems().await.unwrap(), []);
    postgres.psql("postgres", "ALTER SYSTEM SET synchronous_commit = off");
    postgres.psql("postgres", "ALTER SYSTEM SET fsync = off");
    postgres.psql("postgres", "SELECT pg_reload_conf()");
    let store = PostgresStore::connect(&url, "vote").unwrap();
    let mut problems = Vec::new();
    for _ in 0..50 {
        problems = store.durability_problems().await.unwrap();
        if problems.len() == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert!(texts[0].contains("fsync off") && texts[1].contains("synchronous_commit off"), "{texts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_whose_call_was_cancelled_is_broken_and_leaves_nothing_behind() {
    let url = Postgres::shared().database();
    let store = prepared(&url).await;
    let (mut committed, mut version, mut next) = (0, 0, 0);
    for micros in (0..3000).step_by(100) {
        let mut session = acquired(&store, &mut version).await;
        let counted: u64 = counted(&store).await;
        assert!(counted == committed || counted == committed + 20, "{counted} after {committed}");
        committed = counted;
        let plan = inserts(version, ballots(next..next + 320));
        next += 320;
        let cancelled = tokio::time::timeout(Duration::from_micros(micros), session.commit(&plan)).await;
        match cancelled {
            Ok(done) => done.unwrap(),
            Err(_) => {
                let error = session.unowned().await.unwrap_err();
                assert!(error.to_string().contains("ended"), "{error}");
            }
        }
    }
    let mut session = acquired(&store, &mut version).await;
    let open = "SELECT count(*) FROM pg_stat_activity
                WHERE state LIKE 'idle in transaction%' AND datname = current_database()";
    assert_eq!(Postgres::shared().psql(&url, open).trim(), "0");
    session.commit(&inserts(version, Vec::new())).await.unwrap();
    let rows: u64 = Postgres::shared().psql(&url, "SELECT count(*) FROM vote.votes").trim().parse().unwrap();
    assert_eq!(rows, counted(&store).await);
}

/// Returns a session with the partition as soon as the previous session is gone.
async fn acquired(store: &PostgresStore, version: &mut u64) -> Box<dyn Session> {
    let mut session = store.open_session().await.unwrap();
    for _ in 0..200 {
        if let Some(acquired) = session.acquire(PARTITION).await.unwrap() {
            *version = acquired.version;
            return session;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the partition was not freed");
}

#[tokio::test]
async fn a_growing_filter_and_a_scan_in_steps_find_every_voter() {
    let url = Postgres::shared().database();
    let store = prepared(&url).await;
    // More than one step of a scan, and more than a filter is made for that trusts this tally.
    Postgres::shared().psql(
        &url,
        "INSERT INTO vote.votes SELECT 1, (lpad(to_hex(n), 8, '0') || substr(md5(n::text), 1, 24))::uuid, 0, now()
         FROM generate_series(1, 300000) n;
         INSERT INTO vote.tally VALUES (1, 0, 0, 1000)",
    );
    let mut session = store.open_session().await.unwrap();
    session.acquire(PARTITION).await.unwrap().unwrap();
    let sample =
        Postgres::shared().psql(&url, "SELECT voter FROM vote.votes WHERE random() < 0.01 ORDER BY voter");
    let mut voters = Vec::new();
    for line in sample.lines() {
        let mut key = [0; 16];
        for (i, byte) in key.iter_mut().enumerate() {
            let hex: String = line.chars().filter(|c| *c != '-').skip(i * 2).take(2).collect();
            *byte = u8::from_str_radix(&hex, 16).unwrap();
        }
        voters.push(vote_core::VoterKey(key));
    }
    assert!(voters.len() > 2000);
    for step in 0..6 {
        let found = session.lookup(PARTITION, poll(), &voters, Lookup::Filtered).await.unwrap();
        assert_eq!(found.len(), voters.len(), "look-up {step}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_session_frozen_within_a_statement_loses_its_partition() {
    let url = Postgres::shared().database();
    let store = prepared(&url).await;
    let (mut session, mut working) =
        (store.open_session().await.unwrap(), store.open_session().await.unwrap());
    working.acquire(Partition(1)).await.unwrap().unwrap();
    // To the server a stopped client looks like a slow one: within a statement, and holding its lock.
    let frozen = tokio::task::spawn_blocking(move || {
        let take = "SELECT pg_advisory_lock(('x' || substr(replace(lock_id::text, '-', ''), 1, 8))::bit(32)::int, 0),
                           pg_sleep(60) FROM vote.meta";
        std::panic::catch_unwind(|| Postgres::shared().psql(&url, take)).is_err()
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let start = std::time::Instant::now();
    while session.acquire(PARTITION).await.unwrap().is_none() {
        assert!(start.elapsed() < Duration::from_secs(20), "the partition was not freed");
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(!working.unowned().await.unwrap().contains(&Partition(1)));
    }
    assert!(start.elapsed() > Duration::from_secs(5), "a slow session is not ended at once");
    assert!(frozen.await.unwrap(), "its connection was closed");
    working.unowned().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_starts_although_the_only_other_one_is_frozen_within_a_commit() {
    let url = Postgres::shared().database();
    let store = prepared(&url).await;
    store.withdraw_poll(poll(), "a typo").await.unwrap().unwrap();
    let frozen = tokio::task::spawn_blocking(move || {
        let commit = "BEGIN; UPDATE vote.partitions SET version = version + 1 WHERE partition = 0;
             SELECT pg_advisory_lock(('x' || substr(replace(lock_id::text, '-', ''), 1, 8))::bit(32)::int, 0),
                    pg_sleep(60) FROM vote.meta";
        std::panic::catch_unwind(|| Postgres::shared().psql(&url, commit)).is_err()
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    // It has no session yet: a worker opens the first one after both calls have succeeded.
    let prepared = tokio::time::timeout(Duration::from_secs(5), store.prepare(layout())).await;
    prepared.expect("the row of a partition in a commit delays nothing").unwrap();
    let mut corrected = Polls::example().get("pets").unwrap().clone();
    corrected.keep = vote_core::Keep::Last;
    let start = std::time::Instant::now();
    // A replacement has to wait for the commit, whose session a start ends.
    while !matches!(
        tokio::time::timeout(Duration::from_secs(3), store.register_poll(&corrected)).await,
        Ok(Ok(registered)) if registered.digest() == corrected.digest()
    ) {
        assert!(start.elapsed() < Duration::from_secs(30), "the frozen session was not ended");
        store.prepare(layout()).await.unwrap();
    }
    assert!(frozen.await.unwrap(), "its connection was closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_works_again_after_a_restart_of_the_server() {
    let postgres = Postgres::start();
    let store = prepared(&postgres.database()).await;
    let mut session = store.open_session().await.unwrap();
    let version = session.acquire(PARTITION).await.unwrap().unwrap().version;
    session.commit(&inserts(version, ballots(0..320))).await.unwrap();
    postgres.restart_immediate();
    assert!(session.unowned().await.unwrap_err().is_retryable());
    let mut version = 0;
    let mut session = acquired(&store, &mut version).await;
    assert_eq!(version, 1, "the commit is still there");
    session.commit(&inserts(version, ballots(320..640))).await.unwrap();
}

#[tokio::test]
async fn a_migration_gives_codes_to_reasons_and_a_column_to_rejections() {
    let url = Postgres::shared().database();
    let store = prepared(&url).await;
    let psql = |sql: &str| Postgres::shared().psql(&url, sql);
    psql(
        "ALTER TABLE vote.quarantine DROP COLUMN reason_code, DROP COLUMN rejection;
         DELETE FROM vote._vote_migrations WHERE version = 7",
    );
    let expected = stored_before_codes();
    let insert = |n: usize, state: &str, reason: &str| {
        let (queue, reason) = (queue_id(1), reason.replace('\'', "''"));
        psql(&format!(
            "INSERT INTO vote.quarantine (partition, queue, position, poll, votes, state, reason, frame)
             VALUES (0, '{queue}', '\\x{n:02x}', 'pets', 3, '{state}', '{reason}', '\\x00')"
        ));
    };
    for (n, (text, _)) in expected.iter().enumerate() {
        insert(n, "quarantined", text);
    }
    let rejected = "poll pets is not registered; rejected: spam; rejected: twice";
    insert(expected.len(), "rejected", rejected);

    store.migrate().await.unwrap();
    let mut rows = store.quarantine(None, 100).await.unwrap();
    let last = rows.pop().unwrap();
    let found: Vec<_> = rows.into_iter().map(|row| (row.frame.reason.text, row.frame.reason.code)).collect();
    assert_eq!(found, expected);
    assert_eq!(last.frame.reason, stored(ReasonCode::PollNotRegistered, "poll pets is not registered"));
    assert_eq!(last.rejection.as_deref(), Some("spam; rejected: twice"));
}

#[tokio::test]
async fn a_withdrawal_is_later_than_an_undone_one_although_the_clock_was_set_back() {
    let url = Postgres::shared().database();
    let store = prepared(&url).await;
    Postgres::shared().psql(&url, "UPDATE vote.polls SET undone_withdrawal = now() + interval '1 hour'");
    let found = store.withdraw_poll(poll(), "a typo").await.unwrap().unwrap();
    assert!(found.withdrawal.map(|withdrawal| withdrawal.at) > found.undone_withdrawal);
}

#[tokio::test]
async fn a_migration_renames_what_had_other_names() {
    let url = Postgres::shared().database();
    let store = prepared(&url).await;
    let queue = queue_id(1);
    Postgres::shared().psql(
        &url,
        &format!(
            "ALTER TABLE vote.meta RENAME COLUMN fingerprint TO pepper;
             ALTER TABLE vote.queues RENAME COLUMN original_id TO remains_of;
             ALTER TABLE vote.dropped_polls RENAME TO given_up;
             ALTER TABLE vote.given_up RENAME CONSTRAINT dropped_polls_pkey TO given_up_pkey;
             ALTER TABLE vote.quarantine RENAME COLUMN quarantined_at TO set_aside_at;
             ALTER TABLE vote.quarantine DROP CONSTRAINT quarantine_state_check, ALTER state SET DEFAULT 'held';
             ALTER TABLE vote.quarantine ADD CONSTRAINT quarantine_state_check
                 CHECK (state IN ('held', 'replay', 'counted', 'rejected'));
             DELETE FROM vote._vote_migrations WHERE version = 9;
             INSERT INTO vote.quarantine (partition, queue, position, poll, votes, reason, frame)
             VALUES (0, '{queue}', '\\x01', 'pets', 3, 'a test', '\\x00');"
        ),
    );
    store.migrate().await.unwrap();
    let rows = store.quarantine(None, 100).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.state).collect::<Vec<_>>(), [QuarantineState::Quarantined]);
    assert_eq!(store.layout().await.unwrap(), Some(layout()));
}

fn stored(code: ReasonCode, text: &str) -> StoredReason {
    StoredReason { code, text: text.to_owned() }
}

/// Rows without indices are older than the column, or written by a worker of a version before it.
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
    let mut session = store.open_session().await.unwrap();
    let version = session.acquire(PARTITION).await.unwrap().unwrap().version;
    let [frame] = &session.replays(PARTITION, 9).await.unwrap()[..] else { panic!("one frame") };
    assert_eq!((frame.accounted, &frame.quarantined), (3, &QuarantinedVotes::All));
    assert_eq!((frame.reason.code, &*frame.reason.text), (ReasonCode::Unknown, "a test"), "it has no code");

    let outcome = ReplayOutcome::Quarantined {
        votes: QuarantinedVotes::At(vec![0, 2]),
        reason: stored(ReasonCode::UnknownOption, "another"),
    };
    let replayed = Replayed { queue, position: frame.position, tried: QuarantinedVotes::All, outcome };
    let plan = |version, replayed: &Replayed| CommitPlan {
        partition: PARTITION,
        version,
        polls: Vec::new(),
        ledger: Vec::new(),
        positions: Vec::new(),
        quarantine: Vec::new(),
        replayed: vec![replayed.clone()],
    };
    session.commit(&plan(version, &replayed)).await.unwrap();
    let row = store.quarantine(None, 9).await.unwrap().remove(0);
    assert_eq!((row.frame.accounted, row.frame.votes()), (3, 2));
    assert_eq!(row.frame.reason.code, ReasonCode::UnknownOption);
    store.decide(&[row.key()], &Decision::Replay).await.unwrap();
    let whole = Replayed { outcome: ReplayOutcome::Counted, ..replayed };
    let result = session.commit(&plan(version + 1, &whole)).await;
    assert!(matches!(result, Err(StoreError::Conflict(_))), "it is no whole frame any more: {result:?}");
}
