//! What a lane's commits into a large table cost, compared with its commits into a small one, and with inserts of rows of
//! the whole range of keys, `INSERT … SELECT unnest … ON CONFLICT DO NOTHING`, into the same table.
//!
//! The lane itself fills the table. It commits batches of several sizes, as it does without and with a backlog.

use std::{pin::pin, time::Duration};

use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use tokio::time::{sleep, timeout};
use vote_core::{Partition, Partitions, queue::Read};
use vote_testkit::Postgres;

use crate::{
    args::Grown,
    compare::{Bar, Costs, Ratio, report},
    lane::{Lane, SETTINGS, batch, cpu, database, read},
};

const PARTITIONS: u16 = 64;
/// Rows of the small table, as many in each partition.
const SMALL: u64 = 20_000 * PARTITIONS as u64;
/// Votes in the batches of a lane: without a backlog; with one, if it has 32 partitions; and if it has eight.
const BATCHES: [u64; 3] = [20_000, 40_000, 160_000];
/// Votes in a batch by which tables grow.
const GROWTH: u64 = 20_000;
/// Votes of one measurement.
const VOTES: u64 = 320_000;
/// Names of the sides, in the order in which they are measured in the first round; each round begins with another one.
const NAMES: [&str; 5] = [
    "lane, 1.3 million rows, batches of 40,000",
    "inserts, batches of 40,000",
    "lane, batches of 20,000",
    "lane, batches of 40,000",
    "lane, batches of 160,000",
];

/// Measures the CPU time of a lane and of the server for a vote, and the bytes of WAL.
pub(crate) async fn run(Grown { rounds, millions }: &Grown) -> Value {
    let postgres = Postgres::start_with(&SETTINGS);
    let mut table = Table::create(&postgres).await;
    let mut reports = Vec::new();
    for millions in millions {
        table.grow(millions * 1_000_000).await;
        for checkpoints in [false, true] {
            let [mut of_cpu, mut of_wal] =
                [(); 2].map(|()| NAMES.map(|name| Costs { name, ..Costs::default() }));
            for number in 0..*rounds as usize {
                for (side, [cpu, wal]) in table.round(number, checkpoints).await.into_iter().enumerate() {
                    of_cpu[side].of_rounds.push(cpu);
                    of_wal[side].of_rounds.push(wal);
                }
            }
            let when = if checkpoints { "just after a checkpoint" } else { "between checkpoints" };
            eprintln!("\nspeed: {millions} million rows, {when}");
            let [small, inserts, _, lane, _] = &of_cpu;
            let of_inserts = Ratio::new((lane.name, inserts.name), Bar::AtLeast(2.5), inserts, lane);
            let of_small = Ratio::new((lane.name, small.name), Bar::AtLeast(0.6), small, lane);
            let [_, inserts, _, lane, _] = &of_wal;
            let wal = Ratio::new((lane.name, inserts.name), Bar::AtMost(0.35), lane, inserts);
            reports.push(json!({
                "millions": millions,
                "checkpoints": checkpoints,
                "cpu": report("CPU of worker and Postgres for a vote, µs", &of_cpu, &[of_inserts, of_small]),
                "wal": report("bytes of WAL for a vote", &of_wal, &[wal]),
            }));
        }
    }
    let met = reports.iter().all(|report| report["cpu"]["met"] == true && report["wal"]["met"] == true);
    json!({ "reports": reports, "met": met })
}

/// A table of votes, with a lane that commits to it.
struct Table<'a> {
    postgres: &'a Postgres,
    connection: PgConnection,
    lane: Lane,
    partitions: Partitions,
    /// Number of the next batch of the lane.
    next: u64,
    /// Number of the next voter.
    voters: u64,
}

/// What one statement or one commit of a lane is given.
enum Work {
    Lane(Partition, Read),
    Insert(Vec<[u8; 16]>),
}

impl<'a> Table<'a> {
    async fn create(postgres: &'a Postgres) -> Self {
        let partitions = Partitions::new(PARTITIONS).unwrap();
        let (url, store) = database(postgres, partitions).await;
        let lane = Lane::open(&store, partitions).await;
        let connection = PgConnection::connect(&url).await.unwrap();
        Self { postgres, connection, lane, partitions, next: 0, voters: 0 }
    }

    /// Lets the lane commit votes until the table has this number of rows.
    async fn grow(&mut self, rows: u64) {
        while self.voters < rows {
            let work = self.for_lane(GROWTH);
            self.perform(work).await;
        }
    }

    /// Measures all sides; returns the CPU time in microseconds and the bytes of WAL for a vote. With `checkpoints`, each
    /// measurement follows a checkpoint, so that every page that it changes is written to the WAL as a whole.
    async fn round(&mut self, number: usize, checkpoints: bool) -> [[f64; 2]; NAMES.len()] {
        let mut costs = [[0.0; 2]; NAMES.len()];
        for side in (0..costs.len()).map(|n| (n + number) % NAMES.len()) {
            if side == 0 {
                costs[side] = self.small(checkpoints).await;
                continue;
            }
            if checkpoints {
                self.checkpoint(None).await;
            }
            costs[side] = match side {
                1 => self.measure(BATCHES[1], Self::for_insert).await,
                _ => self.measure(BATCHES[side - 2], Self::for_lane).await,
            };
        }
        costs
    }

    /// Measures a lane's commits into a new small table.
    async fn small(&mut self, checkpoints: bool) -> [f64; 2] {
        let mut small = Table::create(self.postgres).await;
        while small.voters < SMALL {
            small.grow(small.voters + GROWTH).await;
            self.lane.keep_alive().await;
        }
        if checkpoints {
            self.checkpoint(Some(&mut small.lane)).await;
        }
        let costs = small.measure(BATCHES[1], Table::for_lane).await;
        drop(small);
        // The time of the server's processes for its connections is gone from the sum once they have ended.
        sleep(Duration::from_millis(500)).await;
        costs
    }

    /// Waits until a checkpoint is written, and keeps the session of another table alive, too.
    async fn checkpoint(&mut self, mut other: Option<&mut Lane>) {
        let mut done = pin!(sqlx::raw_sql("CHECKPOINT").execute(&mut self.connection));
        loop {
            if let Ok(done) = timeout(Duration::from_secs(1), &mut done).await {
                done.unwrap();
                return;
            }
            self.lane.keep_alive().await;
            if let Some(other) = &mut other {
                other.keep_alive().await;
            }
        }
    }

    /// Returns the next batch for the lane. Partitions take turns.
    fn for_lane(&mut self, size: u64) -> Work {
        let partition = Partition((self.next % u64::from(PARTITIONS)) as u16);
        let votes = batch(partition, self.voters..self.voters + size, self.partitions);
        self.next += 1;
        self.voters += size;
        Work::Lane(votes.0, read(&votes))
    }

    /// Returns new voters of the whole range of keys.
    fn for_insert(&mut self, size: u64) -> Work {
        // Another factor than that of the lane's voters, so that none is in the table.
        let key =
            |n: u64| u128::from(n).wrapping_mul(0xD1B5_4A32_D192_ED03_8CB9_2BA7_2F3D_8DD7).to_be_bytes();
        let voters = (self.voters..self.voters + size).map(key).collect();
        self.voters += size;
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
                .bind((0..voters.len()).map(|n| (n % 2) as i16).collect::<Vec<_>>())
                .execute(&mut self.connection)
                .await
                .unwrap();
            }
        }
    }

    async fn measure(&mut self, batch: u64, make: fn(&mut Self, u64) -> Work) -> [f64; 2] {
        let works: Vec<Work> = (0..VOTES / batch).map(|_| make(self, batch)).collect();
        let (mut used, mut written) = (0.0, 0.0);
        for work in works {
            let (before, wal) = (cpu(self.postgres), self.wal().await);
            self.perform(work).await;
            used += cpu(self.postgres) - before;
            written += self.wal().await - wal;
            self.lane.keep_alive().await;
        }
        [used * 1e6, written].map(|cost| cost / VOTES as f64)
    }

    /// Returns the bytes of WAL written so far.
    async fn wal(&mut self) -> f64 {
        sqlx::query_scalar("SELECT (pg_current_wal_insert_lsn() - '0/0')::double precision")
            .fetch_one(&mut self.connection)
            .await
            .unwrap()
    }
}
