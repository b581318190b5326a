//! Benchmark of what the results service reads from a large store each second, compared with all accounts.
//!
//! `cargo bench -p vote-core --features postgres,conformance --bench summary`
//!
//! The store has 1,000 queues, 64 partitions and 10 polls: 640,000 rows in the ledger. Each read takes a snapshot on a
//! new connection, as the service does. CPU times are those of this process and of all processes of Postgres. Prints a
//! line for each kind of read with medians of ten rounds.
#![allow(clippy::expect_used, clippy::unwrap_used, missing_docs)] // A benchmark fails by panicking.

use std::{
    fs,
    time::{Duration, Instant},
};

use vote_core::{
    Partitions, Poll, Polls, Store, StoreReader,
    conformance::layout,
    queue::Layout,
    store::{PostgresStore, Snapshot},
};
use vote_testkit::Postgres;

const ROUNDS: usize = 10;
const QUEUES: u32 = 1_000;
const PARTITIONS: u16 = 64;
const POLLS: u32 = 10;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let postgres =
        Postgres::start_with(&[("max_wal_size", "4GB"), ("shared_buffers", "512MB"), ("jit", "off")]);
    let url = postgres.database();
    let store = PostgresStore::connect(&url, "vote").unwrap();
    store.migrate().await.unwrap();
    store.prepare(Layout { partitions: Partitions::new(PARTITIONS).unwrap(), ..layout() }).await.unwrap();
    for n in 0..POLLS {
        let pets = Polls::example().get("pets").unwrap().clone();
        store.register_poll(&Poll { slug: format!("poll-{n}").parse().unwrap(), ..pets }).await.unwrap();
    }
    fill(&postgres, &url);
    let pid = postgres.pid();
    measure("summary, if no worker has reported lately", pid, &store, async |snapshot| {
        drop(snapshot.summary().await.unwrap())
    })
    .await;
    // No measurement takes so long that they are late at its end.
    let report = || postgres.psql(&url, "UPDATE vote.queues SET seen_at = now() + interval '2 seconds'");
    report();
    measure("summary", pid, &store, async |snapshot| drop(snapshot.summary().await.unwrap())).await;
    report();
    measure("summary and balances", pid, &store, async |snapshot| {
        drop(snapshot.summary().await.unwrap());
        drop(snapshot.balances().await.unwrap());
    })
    .await;
    // One frame in quarantine: now the rows that it concerns are looked at, too.
    postgres.psql(
        &url,
        "INSERT INTO vote.quarantine (queue, partition, position, poll, votes, accounted, reason, frame)
             SELECT queue, partition, '\\x01', poll, 1, 1, 'a test', '' FROM vote.ledger LIMIT 1;
         UPDATE vote.ledger SET quarantined = 1, superseded = superseded - 1
             WHERE (queue, partition, poll) = (SELECT queue, partition, poll FROM vote.quarantine)",
    );
    report();
    measure("summary and balances, with a quarantined vote", pid, &store, async |snapshot| {
        drop(snapshot.summary().await.unwrap());
        assert_eq!(snapshot.balances().await.unwrap().quarantined, 1);
    })
    .await;
    measure("all accounts", pid, &store, async |snapshot| drop(snapshot.accounts(false).await.unwrap()))
        .await;
}

/// Fills the tables as workers would have filled them, with all accounts balanced and nine polls sealed.
fn fill(postgres: &Postgres, url: &str) {
    let queues =
        "(SELECT decode(lpad(to_hex(n), 32, '0'), 'hex') AS id, n FROM generate_series(1, $QUEUES) n)";
    let sql = "INSERT INTO vote.queues (queue, address, seen_at, accepted, queued, backlog, state, ends)
             SELECT encode(id, 'hex')::uuid, 'redis://10.0.' || n / 250 || '.' || n % 250 || ':6379', now(),
                 (SELECT jsonb_object_agg(slug, 640) FROM vote.polls), (SELECT jsonb_object_agg(slug, 3) FROM vote.polls),
                 0, 'active', (SELECT array_agg('\\x0000000000000010'::bytea) FROM vote.partitions) FROM $ROWS q;
         INSERT INTO vote.ledger SELECT queue, partition, slug, 10, 8, 2, 0
             FROM vote.partitions, vote.polls, vote.queues;
         INSERT INTO vote.checkpoints SELECT queue, partition, '\\x0000000000000010' FROM vote.partitions, vote.queues;
         INSERT INTO vote.seals SELECT queue, slug, partition, '\\x0000000000000010', 10
             FROM vote.queues, vote.polls, vote.partitions WHERE poll > 1;
         INSERT INTO vote.tally (poll, option, partition, n)
             SELECT poll, option, partition, 4000 FROM vote.options, vote.partitions;
         VACUUM ANALYZE vote.queues, vote.ledger, vote.checkpoints, vote.seals, vote.tally";
    for statement in sql.replace("$ROWS", queues).replace("$QUEUES", &QUEUES.to_string()).split(';') {
        postgres.psql(url, statement);
    }
}

async fn measure(what: &str, postgres: u32, store: &PostgresStore, read: impl AsyncFn(&mut dyn Snapshot)) {
    let (mut times, cpu) = (Vec::new(), (cpu(std::process::id()), cpu(postgres)));
    for _ in 0..ROUNDS {
        let started = Instant::now();
        let mut snapshot = store.snapshot().await.unwrap();
        read(&mut *snapshot).await;
        drop(snapshot);
        times.push(started.elapsed());
        // The process of the connection ends, and its CPU time is added to that of its parent.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    times.sort();
    let each = |before: Duration, pid| (self::cpu(pid) - before).as_secs_f64() * 1e3 / ROUNDS as f64;
    println!(
        r#"{{"read": "{what}", "median_ms": {:.1}, "longest_ms": {:.1}, "client_cpu_ms": {:.1}, "server_cpu_ms": {:.1}}}"#,
        times[ROUNDS / 2].as_secs_f64() * 1e3,
        times[ROUNDS - 1].as_secs_f64() * 1e3,
        each(cpu.0, std::process::id()),
        each(cpu.1, postgres),
    );
}

/// Returns the CPU time of a process and of its children that have ended: fields 14 to 17 of its `stat`, in hundredths of
/// a second.
fn cpu(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    Duration::from_millis(fields[11..15].iter().map(|ticks| ticks.parse::<u64>().unwrap() * 10).sum())
}
