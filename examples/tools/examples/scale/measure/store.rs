//! Costs of calls to a store on Postgres.

use std::collections::BTreeMap;

use tokio::time::Instant;
use vote_core::{Clock, SystemClock};
use vote_core::{
    Partition, Partitions, Position, QueueId, Session, Store, StoreReader, Vote,
    count::{Batch, Checkpoint, Delivery, QueueRecord, RegisteredPoll},
    queue::{Entry, Read},
    store::{Lookup, PostgresStore},
};
use vote_testkit::Postgres;
use vote_worker::commands::capacity::Costs;

use super::{Sample, queue::layout, repeat, units};
use crate::{
    cpu::{self, Cpu},
    statements,
    voters::{self, Electorate},
};

/// Size of one commit.
#[derive(Debug, Clone, Copy)]
struct Size {
    votes: usize,
    /// Votes in an entry.
    frame: usize,
    queues: usize,
}

/// The commits to measure: small ones and large, from few queues and many, with entries of one vote and of many. The
/// small ones first, while the table is as small as that of a poll that has begun.
const COMMITS: [Size; 7] = [
    Size { votes: 20, frame: 1, queues: 1 },
    Size { votes: 200, frame: 1, queues: 20 },
    Size { votes: 2000, frame: 1, queues: 10 },
    Size { votes: 20_000, frame: 32, queues: 1 },
    Size { votes: 20_000, frame: 1, queues: 1 },
    Size { votes: 20_000, frame: 1, queues: 100 },
    Size { votes: 20_000, frame: 1, queues: 1000 },
];

pub(super) async fn measure(costs: &mut Costs) {
    let postgres = Postgres::start_with(&statements::SETTINGS);
    commits(&postgres, costs).await;
    reports(&postgres, costs).await;
}

fn server(postgres: &Postgres) -> f64 {
    Cpu::now(&[], postgres.pid()).postgres
}

async fn prepared(postgres: &Postgres, partitions: u16) -> (String, PostgresStore, Electorate) {
    let (partitions, polls) = (Partitions::new(partitions).unwrap(), voters::polls(1));
    let database = postgres.database();
    let store = PostgresStore::connect(&database, "vote").unwrap();
    store.migrate().await.unwrap();
    store.prepare(layout(partitions)).await.unwrap();
    store.register_poll(polls.iter().next().unwrap()).await.unwrap();
    (database, store, Electorate::new(&polls, partitions))
}

/// A lane without queues: it commits what it is given.
struct Lane {
    session: Box<dyn Session>,
    polls: Vec<RegisteredPoll>,
    electorate: Electorate,
    versions: BTreeMap<Partition, u64>,
    checkpoints: BTreeMap<(QueueId, Partition), Checkpoint>,
    voters: u64,
    entries: u64,
}

/// What was read from each queue of one partition.
type Reads = (Partition, Vec<(QueueId, Read)>);

impl Lane {
    async fn open(store: &PostgresStore, electorate: &Electorate) -> Self {
        let mut session = store.open_session().await.unwrap();
        let mut versions = BTreeMap::new();
        for partition in electorate.partitions.iter() {
            versions.insert(partition, session.acquire(partition).await.unwrap().unwrap().version);
        }
        let (polls, electorate) = (store.polls().await.unwrap(), electorate.clone());
        Self { session, polls, electorate, versions, checkpoints: BTreeMap::new(), voters: 0, entries: 0 }
    }

    /// Makes votes of new voters.
    fn reads(&mut self, partition: Partition, size: Size) -> Reads {
        let mut votes: Vec<Vote> = Vec::with_capacity(size.votes);
        for _ in 0..size.votes {
            self.voters += 1;
            votes.push(self.electorate.vote_in(0, partition, self.voters));
        }
        let of_queue = votes.chunks(size.votes.div_ceil(size.queues)).enumerate();
        let reads = of_queue.map(|(n, votes)| (queue(n), self.read(votes, size.frame))).collect();
        (partition, reads)
    }

    fn read(&mut self, votes: &[Vote], frame: usize) -> Read {
        let entry = |votes: &[Vote]| {
            self.entries += 1;
            Entry {
                position: Position::from_bytes(&self.entries.to_be_bytes()).unwrap(),
                poll: votes[0].poll.to_string(),
                votes: votes.len() as u64,
                frame: self.electorate.frames(votes).remove(0).bytes,
            }
        };
        Read { entries: votes.chunks(frame).map(entry).collect(), at_end: false, ..Read::default() }
    }

    /// Decodes, merges and commits as a lane of a worker does.
    async fn commit(&mut self, (partition, reads): Reads) {
        let mut deliveries = Vec::with_capacity(reads.len());
        for (queue, read) in reads {
            let checkpoint = self.checkpoints.entry((queue, partition)).or_default();
            let delivery = Delivery::new(queue, checkpoint, read);
            *checkpoint = delivery.checkpoint.clone();
            deliveries.push(delivery);
        }
        let partitions = self.electorate.partitions;
        let batch = Batch::decode(partition, partitions, &self.polls, deliveries, Vec::new());
        assert!(batch.quarantine().is_empty());
        let mut effective = BTreeMap::new();
        for (poll, voters) in batch.voters() {
            let found = self.session.lookup(partition, poll, &voters, Lookup::Filtered).await.unwrap();
            effective.insert(poll, found);
        }
        let version = self.versions.get_mut(&partition).unwrap();
        self.session.commit(&batch.plan(*version, &effective)).await.unwrap();
        *version += 1;
    }
}

fn queue(number: usize) -> QueueId {
    QueueId((number as u128 + 1).to_be_bytes())
}

async fn commits(postgres: &Postgres, costs: &mut Costs) {
    let (database, store, electorate) = prepared(postgres, 16).await;
    let mut lane = Lane::open(&store, &electorate).await;
    let partitions: Vec<_> = electorate.partitions.iter().collect();
    // The first look-up of a partition scans it; it has no rows yet.
    for partition in &partitions {
        let reads = lane.reads(*partition, Size { votes: 1, frame: 1, queues: 1 });
        lane.commit(reads).await;
    }
    let (mut samples, mut wal) = (Vec::new(), Vec::new());
    for size in COMMITS {
        // Made beforehand, since voters are not part of the cost.
        let turns = (300_000 / size.votes).clamp(15, 1000);
        let batches: Vec<Reads> =
            (0..turns).map(|turn| lane.reads(partitions[turn % partitions.len()], size)).collect();
        // What earlier commits left to clean up is not part of the cost of these.
        postgres.psql(&database, "VACUUM (ANALYZE)");
        let since = postgres.psql(&database, "SELECT pg_current_wal_lsn()");
        let (start, client, before) = (Instant::now(), cpu::threads(cpu::VOTERS), server(postgres));
        for reads in batches {
            lane.commit(reads).await;
        }
        let per_turn = |total: f64| total / turns as f64;
        let sample = Sample {
            client: per_turn(cpu::threads(cpu::VOTERS) - client) * 1e6,
            server: per_turn(server(postgres) - before) * 1e6,
            seconds: per_turn(start.elapsed().as_secs_f64()),
        };
        let bytes =
            postgres.psql(&database, &format!("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '{since}')"));
        eprintln!("scale: a commit of {size:?}: {sample:.1?}");
        if size.votes == 2000 {
            costs.commit_seconds = sample.seconds;
        }
        let (votes, queues) = (size.votes as f64, size.queues as f64);
        samples.push(([1.0, votes, (size.votes / size.frame) as f64, queues], sample));
        wal.push(([1.0, votes, queues], per_turn(bytes.parse().unwrap())));
    }
    [costs.commit, costs.vote, costs.entry, costs.commit_queue] = units(&samples);
    let (x, y): (Vec<_>, Vec<_>) = wal.into_iter().unzip();
    [_, costs.wal_vote_bytes, costs.wal_queue_bytes] = crate::fit::fit(&x, &y);
    let size = postgres
        .psql(&database, "SELECT pg_total_relation_size('vote.votes')::float8 / count(*) FROM vote.votes");
    costs.ballot_bytes = size.parse().unwrap();
}

async fn reports(postgres: &Postgres, costs: &mut Costs) {
    let mut reports = Vec::new();
    for (partitions, queues) in [(16, 1), (64, 1), (16, 100), (64, 100)] {
        let (_, store, electorate) = prepared(postgres, partitions).await;
        let mut lane = Lane::open(&store, &electorate).await;
        for partition in electorate.partitions.iter() {
            let reads = lane.reads(partition, Size { votes: queues, frame: 1, queues });
            lane.commit(reads).await;
        }
        let ids: Vec<QueueId> = (0..queues).map(queue).collect();
        let sample = repeat(
            || server(postgres),
            || async {
                store.positions(&ids).await.unwrap();
                let records: Vec<_> = (0..queues).map(|n| record(n, partitions)).collect();
                store.report(&records).await.unwrap();
            },
        )
        .await;
        eprintln!("scale: a report of {queues} queues with {partitions} partitions: {sample:.1?}");
        let queues = queues as f64;
        reports.push(([1.0, queues, queues * f64::from(partitions)], sample));
    }
    [costs.report_call, costs.report, costs.report_partition] = units(&reports);
    let (_, store, _) = prepared(postgres, 64).await;
    let mut catalogs = Vec::new();
    for queues in [1, 50, 500] {
        store.report(&(0..queues).map(|n| record(n, 64)).collect::<Vec<_>>()).await.unwrap();
        let known = store.catalog(None).await.unwrap();
        let sample = repeat(
            || server(postgres),
            || async {
                store.catalog(Some(&known)).await.unwrap();
            },
        )
        .await;
        eprintln!("scale: a read of the catalog with {queues} queues: {sample:.1?}");
        catalogs.push(([1.0, queues as f64], sample));
    }
    [costs.catalog, costs.catalog_queue] = units(&catalogs);
}

/// Returns a report as a worker makes it.
fn record(number: usize, partitions: u16) -> QueueRecord {
    let position = Position::from_bytes(&[7; 32]).unwrap();
    let mut record =
        QueueRecord::new(queue(number), format!("redis://10.0.0.{number}:6379"), SystemClock.now());
    record.accepted = [("poll-0".to_owned(), 1_000_000)].into();
    record.ends = vec![position; usize::from(partitions)];
    record
}
