//! What a lane's commits into an empty table cost, compared with a plain binary `COPY` of the same rows into the same
//! table, and with inserts of one row at a time.
//!
//! A lane's work covers all it does with a batch: decode the frames, look up effective ballots, merge, and commit ballots,
//! tally, ledger and positions in one transaction.

use std::time::{Duration, Instant};

use serde_json::Value;
use sqlx::{Connection, PgConnection};
use vote_core::{Partition, Partitions, Vote};
use vote_testkit::Postgres;

use crate::{
    args::Commit,
    compare::{Bar, Costs, Ratio, report},
    lane::{Lane, SETTINGS, Votes, batch, cpu, database, read},
};

/// Votes in a batch.
const BATCH: u64 = 20_000;
/// Batches of a round.
const BATCHES: u64 = 40;
/// Duration of the inserts of one row at a time.
const SINGLE: Duration = Duration::from_secs(2);

/// CPU time of this process and the server's, and time on the clock.
#[derive(Default)]
struct Cost {
    /// Seconds.
    cpu: f64,
    time: Duration,
    rows: u64,
}

impl Cost {
    /// Adds the cost of some work on these many rows.
    async fn add(&mut self, postgres: &Postgres, rows: u64, work: impl Future<Output = ()>) {
        let (start, before) = (Instant::now(), cpu(postgres));
        work.await;
        self.time += start.elapsed();
        self.cpu += cpu(postgres) - before;
        self.rows += rows;
    }

    fn per_row(&self) -> f64 {
        self.cpu * 1e6 / self.rows as f64
    }

    fn per_second(&self) -> f64 {
        self.rows as f64 / self.time.as_secs_f64()
    }
}

/// Measures the CPU time of a lane and of the server for a vote.
pub(crate) async fn run(Commit { rounds }: &Commit) -> Value {
    let postgres = Postgres::start_with(&SETTINGS);
    let batches: Vec<Votes> = (0..BATCHES).map(nth_batch).collect();
    let mut costs =
        ["COPY BINARY", "lane", "one row at a time"].map(|name| Costs { name, ..Costs::default() });
    for round in 1..=*rounds {
        let [copy, lane] = alternate(&postgres, &batches).await;
        let single = single(&postgres, &batches).await;
        eprintln!(
            "speed: round {round}: COPY {:.0} rows/s, lane {:.0} votes/s, one row at a time {:.0}/s",
            copy.per_second(),
            lane.per_second(),
            single.per_second()
        );
        for (costs, cost) in costs.iter_mut().zip([copy, lane, single]) {
            costs.of_rounds.push(cost.per_row());
        }
    }
    let ratio = Ratio::new(("lane, empty table", "COPY BINARY"), Bar::AtLeast(0.85), &costs[0], &costs[1]);
    report("CPU of worker and Postgres for a vote, µs", &costs, &[ratio])
}

/// Returns new voters of one of the partitions, which take turns.
fn nth_batch(number: u64) -> Votes {
    let partitions = Partitions::default();
    let partition = Partition((number % u64::from(partitions.count())) as u16);
    batch(partition, number * BATCH..(number + 1) * BATCH, partitions)
}

/// Copies the rows and commits the votes of all batches, each into a database of its own. They alternate batch by batch,
/// so that other load of the machine hits both alike.
async fn alternate(postgres: &Postgres, batches: &[Votes]) -> [Cost; 2] {
    let (url, _store) = database(postgres, Partitions::default()).await;
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let (_, store) = database(postgres, Partitions::default()).await;
    let mut lane = Lane::open(&store, Partitions::default()).await;
    let work: Vec<_> = batches.iter().map(|votes| (copy_stream(&votes.1), votes.0, read(votes))).collect();
    let [mut of_copy, mut of_lane] = [Cost::default(), Cost::default()];
    for (stream, partition, read) in work {
        of_copy.add(postgres, BATCH, copy(&mut connection, &stream)).await;
        of_lane.add(postgres, BATCH, lane.commit(partition, read)).await;
    }
    [of_copy, of_lane]
}

/// Copies rows in a transaction.
async fn copy(connection: &mut PgConnection, stream: &[u8]) {
    let mut copy = connection
        .copy_in_raw("COPY vote.votes (poll, voter, option, cast_at) FROM STDIN (FORMAT binary)")
        .await
        .unwrap();
    copy.send(stream).await.unwrap();
    copy.finish().await.unwrap();
}

/// Encodes votes for a `COPY`, sorted as a lane sorts them.
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

/// Inserts rows for some time, each in a transaction of its own.
async fn single(postgres: &Postgres, batches: &[Votes]) -> Cost {
    let (url, _store) = database(postgres, Partitions::default()).await;
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let (start, mut rows, mut cost) = (Instant::now(), 0, Cost::default());
    let inserts = async {
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
    };
    cost.add(postgres, 0, inserts).await;
    Cost { rows, ..cost }
}
