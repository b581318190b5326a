//! Benchmark of a lane's commits into a large table, compared with its commits into a small one, and with inserts of as
//! many rows of the whole range of keys, `INSERT … SELECT unnest … ON CONFLICT DO NOTHING`, into the same table.
//!
//! `cargo bench -p vote-core --features postgres,conformance --bench grown -- [MILLIONS]`
//!
//! The lane itself fills the table: to one million rows, to 30 and to 50, or to other numbers of millions. Needs 120 bytes
//! of disk for a row, and as much again for the WAL. Prints a line for each size and, last, a JSON object.
#![allow(clippy::expect_used, clippy::unwrap_used, missing_docs)] // A benchmark fails by panicking.

use std::time::Instant;

use sqlx::{Connection, PgConnection};
use vote_core::{Partition, Partitions, queue::Read};
use vote_testkit::Postgres;

mod cpu;
mod lane;

use cpu::cpu;
use lane::{BATCH, Lane, batch, database, median, read};

/// That of the worker.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PARTITIONS: u16 = 64;
/// Millions of rows at which it is measured, unless given.
const SIZES: [u64; 3] = [1, 30, 50];
/// Measurements of each side at one size, which alternate.
const ROUNDS: usize = 5;
/// Batches of one measurement.
const BATCHES: u64 = 16;

/// What a vote costs.
#[derive(Debug, Default, Clone)]
struct Costs {
    /// CPU time of this process and the server's, in microseconds, of each round.
    cpu: Vec<f64>,
    wal_bytes: Vec<f64>,
    per_second: Vec<f64>,
}

struct Bench {
    postgres: Postgres,
    connection: PgConnection,
    lane: Lane,
    partitions: Partitions,
    /// Number of the next batch.
    next: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let given: Vec<u64> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let sizes = if given.is_empty() { SIZES.to_vec() } else { given };
    let postgres = Postgres::start_with(&[("max_wal_size", "8GB"), ("shared_buffers", "2GB")]);
    let partitions = Partitions::new(PARTITIONS).unwrap();
    let (url, store) = database(&postgres, partitions).await;
    let lane = Lane::open(&store, partitions).await;
    let connection = PgConnection::connect(&url).await.unwrap();
    let mut bench = Bench { postgres, connection, lane, partitions, next: 0 };
    let (mut report, mut first) = (Vec::new(), None);
    for millions in sizes {
        while bench.next * BATCH < millions * 1_000_000 {
            let work = bench.for_lane();
            bench.perform(work).await;
        }
        let [mut of_lane, mut of_inserts] = [Costs::default(), Costs::default()];
        for _ in 0..ROUNDS {
            bench.measure(&mut of_lane, Bench::for_lane).await;
            bench.measure(&mut of_inserts, Bench::for_insert).await;
        }
        let [cpu, inserts_cpu, wal, inserts_wal, rate] =
            [of_lane.cpu, of_inserts.cpu, of_lane.wal_bytes, of_inserts.wal_bytes, of_lane.per_second]
                .map(median);
        let first = *first.get_or_insert(cpu);
        println!(
            "{millions} million rows: lane {cpu:.2} µs of CPU for a vote, {wal:.0} bytes of WAL, {rate:.0} votes/s; inserts \
             {inserts_cpu:.2} µs, {inserts_wal:.0} bytes"
        );
        report.push(format!(
            r#"{{"millions": {millions}, "lane_cpu_us": {cpu:.2}, "of_inserts": {:.2}, "wal_of_inserts": {:.2}, "of_the_first_size": {:.2}}}"#,
            inserts_cpu / cpu,
            wal / inserts_wal,
            first / cpu
        ));
    }
    println!("[{}]", report.join(", "));
}

/// What one statement or one commit of a lane is given.
enum Work {
    Lane(Partition, Read),
    Insert(Vec<[u8; 16]>),
}

impl Bench {
    /// Returns the next batch for a lane.
    fn for_lane(&mut self) -> Work {
        let votes = batch(self.next, self.partitions);
        self.next += 1;
        Work::Lane(votes.0, read(&votes))
    }

    /// Returns as many new voters of the whole range of keys.
    fn for_insert(&mut self) -> Work {
        // Another factor than that of the lane's voters, so that none is in the table.
        let key =
            |n: u64| u128::from(n).wrapping_mul(0xD1B5_4A32_D192_ED03_8CB9_2BA7_2F3D_8DD7).to_be_bytes();
        let voters = (0..BATCH).map(|n| key(self.next * BATCH + n)).collect();
        self.next += 1;
        Work::Insert(voters)
    }

    async fn perform(&mut self, work: Work) {
        match work {
            Work::Lane(partition, read) => self.lane.commit(partition, read).await,
            Work::Insert(voters) => {
                sqlx::query(
                    "INSERT INTO vote.votes (poll, voter, option, cast_at)
                     SELECT 1, encode(voter, 'hex')::uuid, option, now()
                     FROM unnest($1::bytea[], $2::smallint[]) AS new (voter, option)
                     ON CONFLICT DO NOTHING",
                )
                .bind(voters.iter().map(|voter| &voter[..]).collect::<Vec<_>>())
                .bind((0..BATCH).map(|n| (n % 2) as i16).collect::<Vec<_>>())
                .execute(&mut self.connection)
                .await
                .unwrap();
            }
        }
    }

    async fn measure(&mut self, costs: &mut Costs, make: fn(&mut Self) -> Work) {
        let works: Vec<Work> = (0..BATCHES).map(|_| make(self)).collect();
        let (start, before, wal) = (Instant::now(), cpu(&self.postgres), self.wal().await);
        for work in works {
            self.perform(work).await;
        }
        let votes = (BATCHES * BATCH) as f64;
        let used = cpu(&self.postgres).iter().sum::<f64>() - before.iter().sum::<f64>();
        costs.per_second.push(votes / start.elapsed().as_secs_f64());
        costs.cpu.push(used * 1e3 / votes);
        costs.wal_bytes.push((self.wal().await - wal) / votes);
    }

    /// Returns the bytes of WAL written so far.
    async fn wal(&mut self) -> f64 {
        sqlx::query_scalar("SELECT (pg_current_wal_insert_lsn() - '0/0')::double precision")
            .fetch_one(&mut self.connection)
            .await
            .unwrap()
    }
}
