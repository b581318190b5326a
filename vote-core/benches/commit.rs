//! Benchmark of a lane's commits, compared with two baselines on the same Postgres in the same run: a plain binary
//! `COPY` of the same rows into the same table, and inserts of one row at a time.
//!
//! `cargo bench -p vote-core --features postgres,conformance --bench commit`
//!
//! A lane's time covers all its work on a batch: decode the frames, look up effective ballots, merge, and commit
//! ballots, tally, ledger and positions in one transaction. Prints a line for each round and, last, the medians as
//! JSON.
#![allow(clippy::expect_used, clippy::unwrap_used, missing_docs)] // A benchmark fails by panicking.

use std::time::{Duration, Instant};

use sqlx::{Connection, PgConnection};
use vote_core::{Partitions, Vote};
use vote_testkit::Postgres;

mod cpu;
mod lane;

use cpu::cpu;
use lane::{BATCH, Lane, Votes, batch, database, median, read};

/// That of the worker.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROUNDS: usize = 5;
const BATCHES: u64 = 40;
/// Duration of the inserts of one row at a time.
const SINGLE: Duration = Duration::from_secs(3);

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let postgres = Postgres::start_with(&[("max_wal_size", "4GB"), ("shared_buffers", "512MB")]);
    let batches: Vec<Votes> = (0..BATCHES).map(|number| batch(number, Partitions::default())).collect();
    let votes = (BATCHES * BATCH) as f64;
    let (mut of_copy, mut of_copy_cpu, mut of_single, mut rates) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        let [copy, lane] = [copy(&postgres, &batches).await, lane(&postgres, &batches).await];
        let [rate_of_copy, rate] = [&copy, &lane].map(|cost| votes / cost.time.as_secs_f64());
        let [cpu_of_copy, cpu] = [&copy, &lane].map(|cost| cost.cpu_ms * 1e3 / votes);
        let single = single(&postgres, &batches).await;
        println!(
            "round {round}: COPY {rate_of_copy:.0} rows/s, {cpu_of_copy:.2} µs of CPU; lane {rate:.0} votes/s, {cpu:.2} µs \
             ({:.2} and {:.2} of it); one at a time {single:.0} rows/s (lane {:.1} times as fast)",
            rate / rate_of_copy,
            cpu_of_copy / cpu,
            rate / single
        );
        of_copy.push(rate / rate_of_copy);
        of_copy_cpu.push(cpu_of_copy / cpu);
        of_single.push(rate / single);
        rates.push(rate);
    }
    println!(
        r#"{{"votes": {votes}, "batch": {BATCH}, "lane_votes_per_second": {:.0}, "of_copy": {:.2}, "of_copy_cpu": {:.2}, "of_single_inserts": {:.1}}}"#,
        median(rates),
        median(of_copy),
        median(of_copy_cpu),
        median(of_single)
    );
}

/// Time on the clock, and CPU time of this process and the server's.
struct Cost {
    time: Duration,
    cpu_ms: f64,
}

/// Copies the same rows, sorted as a lane sorts them, in transactions of the same size.
async fn copy(postgres: &Postgres, batches: &[Votes]) -> Cost {
    let (url, _store) = database(postgres, Partitions::default()).await;
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let streams: Vec<Vec<u8>> = batches.iter().map(|(_, votes)| copy_stream(votes)).collect();
    let (start, before) = (Instant::now(), cpu(postgres));
    for stream in &streams {
        let mut copy = connection
            .copy_in_raw("COPY vote.votes (poll, voter, option, cast_at) FROM STDIN (FORMAT binary)")
            .await
            .unwrap();
        copy.send(stream.as_slice()).await.unwrap();
        copy.finish().await.unwrap();
    }
    since(start, before, postgres)
}

fn since(start: Instant, before: [f64; 2], postgres: &Postgres) -> Cost {
    let after: f64 = cpu(postgres).iter().sum();
    Cost { time: start.elapsed(), cpu_ms: after - before.iter().sum::<f64>() }
}

fn copy_stream(votes: &[Vote]) -> Vec<u8> {
    let mut votes = votes.to_vec();
    votes.sort_by_key(|vote| vote.voter);
    let mut bytes = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
    for vote in votes {
        bytes.extend(4_i16.to_be_bytes());
        for field in [
            &1_i16.to_be_bytes()[..],
            vote.voter.as_bytes(),
            &0_i16.to_be_bytes(),
            &(vote.cast_at.as_micros() - 946_684_800_000_000).to_be_bytes(),
        ] {
            bytes.extend((field.len() as i32).to_be_bytes());
            bytes.extend(field);
        }
    }
    bytes.extend((-1_i16).to_be_bytes());
    bytes
}

/// Commits the votes as a lane of a worker does.
async fn lane(postgres: &Postgres, batches: &[Votes]) -> Cost {
    let (_, store) = database(postgres, Partitions::default()).await;
    let mut lane = Lane::open(&store, Partitions::default()).await;
    let reads: Vec<_> = batches.iter().map(|votes| (votes.0, read(votes))).collect();
    let (start, before) = (Instant::now(), cpu(postgres));
    for (partition, read) in reads {
        lane.commit(partition, read).await;
    }
    since(start, before, postgres)
}

/// Inserts rows, each in a transaction of its own; returns how many a second.
async fn single(postgres: &Postgres, batches: &[Votes]) -> f64 {
    let (url, _store) = database(postgres, Partitions::default()).await;
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let (start, mut rows) = (Instant::now(), 0_u64);
    for vote in batches.iter().flat_map(|(_, votes)| votes) {
        sqlx::query("INSERT INTO vote.votes VALUES (1, encode($1, 'hex')::uuid, 0, now())")
            .bind(&vote.voter.as_bytes()[..])
            .execute(&mut connection)
            .await
            .unwrap();
        rows += 1;
        if start.elapsed() > SINGLE {
            break;
        }
    }
    rows as f64 / start.elapsed().as_secs_f64()
}
