//! Benchmark of a lane's commits, compared with two baselines on the same Postgres in the same run: a plain binary
//! `COPY` of the same rows into the same table, and inserts of one row at a time.
//!
//! `cargo bench -p vote-core --features postgres,conformance --bench commit`
//!
//! A lane's time covers all its work on a batch: decode the frames, look up effective ballots, merge, and commit
//! ballots, tally, ledger and positions in one transaction. Prints a line for each round and, last, the medians as
//! JSON.
#![allow(clippy::expect_used, clippy::unwrap_used, missing_docs)] // A benchmark fails by panicking.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use sqlx::{Connection, PgConnection};
use vote_core::{
    Partition, Partitions, Polls, Position, QueueId, Store, Vote, VoterKey,
    conformance::{layout, one_frame, poll, registered_poll, vote},
    count::{Batch, Checkpoint, Delivery},
    queue::{Entry, Read},
    store::{Lookup, PostgresStore},
};
use vote_testkit::Postgres;

const ROUNDS: usize = 5;
const BATCHES: u64 = 40;
const BATCH: u64 = 20_000;
/// Votes in a frame: about what two frontends put into one at ten thousand votes a second.
const FRAME: usize = 32;
/// Duration of the inserts of one row at a time.
const SINGLE: Duration = Duration::from_secs(3);

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let postgres = Postgres::start_with(&[("max_wal_size", "4GB"), ("shared_buffers", "512MB")]);
    let batches: Vec<(Partition, Vec<Vote>)> = (0..BATCHES).map(batch).collect();
    let votes = (BATCHES * BATCH) as f64;
    let (mut of_copy, mut of_single, mut rates) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        let copy = votes / copy(&postgres, &batches).await.as_secs_f64();
        let lane = votes / lane(&postgres, &batches).await.as_secs_f64();
        let single = single(&postgres, &batches).await;
        println!(
            "round {round}: COPY {copy:.0} rows/s, lane {lane:.0} votes/s ({:.2} of it), one at a time {single:.0} rows/s \
             (lane {:.1} times as fast)",
            lane / copy,
            lane / single
        );
        of_copy.push(lane / copy);
        of_single.push(lane / single);
        rates.push(lane);
    }
    println!(
        r#"{{"votes": {votes}, "batch": {BATCH}, "lane_votes_per_second": {:.0}, "of_copy": {:.2}, "of_single_inserts": {:.1}}}"#,
        median(rates),
        median(of_copy),
        median(of_single)
    );
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

/// Returns votes of new voters of one partition, in the order in which they were cast.
fn batch(number: u64) -> (Partition, Vec<Vote>) {
    let partition = Partition((number % u64::from(layout().partitions.count())) as u16);
    let start = u128::from_be_bytes(layout().partitions.range(partition).start().0);
    let votes = (0..BATCH).map(|n| {
        // A counter times an odd factor gives every key once, in no particular order.
        let spread = u128::from(number * BATCH + n).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
        Vote { voter: VoterKey((start | spread >> 10).to_be_bytes()), ..vote(0, (n % 3) as u8, n as i64) }
    });
    (partition, votes.collect())
}

/// Creates a database with a prepared store; returns its URL, too.
async fn database(postgres: &Postgres) -> (String, PostgresStore) {
    let url = postgres.database();
    let store = PostgresStore::connect(&url, "vote").unwrap();
    store.migrate().await.unwrap();
    store.prepare(layout()).await.unwrap();
    store.register_poll(Polls::example().get("pets").unwrap()).await.unwrap();
    (url, store)
}

/// Copies the same rows, sorted as a lane sorts them, in transactions of the same size; returns the time it took.
async fn copy(postgres: &Postgres, batches: &[(Partition, Vec<Vote>)]) -> Duration {
    let (url, _store) = database(postgres).await;
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let streams: Vec<Vec<u8>> = batches.iter().map(|(_, votes)| copy_stream(votes)).collect();
    let start = Instant::now();
    for stream in &streams {
        let mut copy = connection
            .copy_in_raw("COPY vote.votes (poll, voter, option, cast_at) FROM STDIN (FORMAT binary)")
            .await
            .unwrap();
        copy.send(stream.as_slice()).await.unwrap();
        copy.finish().await.unwrap();
    }
    start.elapsed()
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

/// Commits the votes as a lane of a worker does; returns the time it took.
async fn lane(postgres: &Postgres, batches: &[(Partition, Vec<Vote>)]) -> Duration {
    let (_, store) = database(postgres).await;
    let queue = QueueId([1; 16]);
    let mut session = store.open_session().await.unwrap();
    let mut versions: BTreeMap<Partition, (u64, Checkpoint)> = BTreeMap::new();
    for partition in layout().partitions.iter() {
        let version = session.acquire(partition).await.unwrap().unwrap().version;
        versions.insert(partition, (version, Checkpoint::default()));
    }
    let reads: Vec<(Partition, Read)> =
        batches.iter().map(|(partition, votes)| (*partition, read(*partition, votes))).collect();
    let polls = [registered_poll()];
    let start = Instant::now();
    for (partition, read) in reads {
        let (version, checkpoint) = versions.get_mut(&partition).unwrap();
        let delivery = Delivery::new(queue, checkpoint, read);
        *checkpoint = delivery.checkpoint.clone();
        let batch = Batch::decode(partition, Partitions::default(), &polls, vec![delivery], Vec::new());
        assert!(batch.quarantine().is_empty());
        let mut effective = BTreeMap::new();
        for (poll, voters) in batch.voters() {
            let found = session.lookup(partition, poll, &voters, Lookup::Filtered).await.unwrap();
            effective.insert(poll, found);
        }
        session.commit(&batch.plan(*version, &effective)).await.unwrap();
        *version += 1;
    }
    start.elapsed()
}

/// Returns what a read from a queue with these votes finds.
fn read(partition: Partition, votes: &[Vote]) -> Read {
    let entry = |(i, votes): (usize, &[Vote])| Entry {
        position: Position::from_bytes(&(i as u64 + 1).to_be_bytes()).unwrap(),
        poll: poll().to_string(),
        votes: votes.len() as u64,
        frame: one_frame(poll(), partition, votes).bytes,
    };
    Read { entries: votes.chunks(FRAME).enumerate().map(entry).collect(), at_end: false, ..Read::default() }
}

/// Inserts rows, each in a transaction of its own; returns how many a second.
async fn single(postgres: &Postgres, batches: &[(Partition, Vec<Vote>)]) -> f64 {
    let (url, _store) = database(postgres).await;
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
