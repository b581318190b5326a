//! Benchmark of commits whose votes come from many queues and polls, compared with commits of as many votes of one poll
//! from one queue, by CPU time on a real Postgres: that of this process and of the server's processes.
//!
//! `cargo bench -p vote-core --features postgres,conformance --bench spread`
//!
//! A commit covers all work of a lane on a batch of 20,000 new voters: decode the frames, look up effective ballots,
//! merge, and commit. The store has the rows of 64 partitions, so that those of one are spread as they would be. The
//! cases alternate, batch by batch; prints the median of each as JSON, with its ratio to the first one.
#![allow(clippy::unwrap_used, missing_docs)] // A benchmark fails by panicking.

use std::collections::BTreeMap;

use vote_core::{
    Partition, Partitions, Poll, PollSlug, Polls, Position, QueueId, Session, Store, Vote, VoterKey,
    conformance::{layout, one_frame, vote},
    count::{Batch, Checkpoint, CommitPlan, Delivery, LedgerEntry, RegisteredPoll},
    queue::{Entry, Layout, Read},
    store::{Lookup, PostgresStore},
};
use vote_testkit::{Postgres, thread_cpu};

/// That of `vote-worker`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Numbers of queues and polls.
const CASES: [(u32, u16); 4] = [(1, 1), (1_000, 1), (1, 10), (1_000, 10)];
const PARTITIONS: u16 = 64;
/// Partitions from which batches are committed in turn.
const COMMITTED: u16 = 4;
const ROUNDS: u64 = 20;
const BATCH: u64 = 20_000;
/// Number of votes in a frame: about what a frontend puts into one with so many partitions, whatever it has to store.
const FRAME: usize = 2;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let postgres = Postgres::start_with(&[("max_wal_size", "4GB"), ("shared_buffers", "512MB")]);
    let mut cases = Vec::new();
    for (queues, polls) in CASES {
        cases.push(Case::new(&postgres, queues, polls).await);
    }
    for case in &mut cases {
        case.session = case.store.open_session().await.unwrap();
        for partition in (0..COMMITTED).map(Partition) {
            case.session.acquire(partition).await.unwrap().unwrap();
        }
    }
    for round in 0..ROUNDS {
        for n in 0..cases.len() {
            // The server ends a session that is idle for 10 s.
            for case in &mut cases {
                case.session.unowned().await.unwrap();
            }
            cases[n].commit(&postgres, round).await;
        }
    }
    let medians: Vec<[f64; 2]> =
        cases.iter().map(|case| [0, 1].map(|part| median(&case.cpu, part))).collect();
    let baseline: f64 = medians[0].iter().sum();
    for (case, [client, server]) in cases.iter().zip(medians) {
        println!(
            r#"{{"queues": {}, "polls": {}, "cpu_ms": {:.1}, "of_it_server": {server:.1}, "ratio": {:.2}}}"#,
            case.queues,
            case.polls.len(),
            client + server,
            (client + server) / baseline
        );
    }
}

fn median(of: &[[f64; 2]], part: usize) -> f64 {
    let mut of: Vec<f64> = of.iter().map(|cpu| cpu[part]).collect();
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

struct Case {
    store: PostgresStore,
    session: Box<dyn Session>,
    queues: u32,
    polls: Vec<RegisteredPoll>,
    versions: BTreeMap<Partition, u64>,
    checkpoints: BTreeMap<(Partition, QueueId), Checkpoint>,
    voters: u64,
    /// Milliseconds of CPU of each commit: of this process, and of the server.
    cpu: Vec<[f64; 2]>,
}

impl Case {
    async fn new(postgres: &Postgres, queues: u32, polls: u16) -> Self {
        let layout = Layout { partitions: Partitions::new(PARTITIONS).unwrap(), ..layout() };
        let store = PostgresStore::connect(&postgres.database(), "vote").unwrap();
        store.migrate().await.unwrap();
        store.prepare(layout).await.unwrap();
        let example = Polls::example().iter().next().unwrap().clone();
        let mut registered = Vec::new();
        for n in 0..polls {
            let poll = Poll { slug: format!("poll-{n}").parse().unwrap(), ..example.clone() };
            registered.push(store.register_poll(&poll).await.unwrap());
        }
        let session = store.open_session().await.unwrap();
        let (versions, checkpoints) = (BTreeMap::new(), BTreeMap::new());
        let mut case = Self {
            store,
            session,
            queues,
            polls: registered,
            versions,
            checkpoints,
            voters: 0,
            cpu: Vec::new(),
        };
        for partition in layout.partitions.iter() {
            case.fill(partition).await;
        }
        postgres.psql("postgres", "CHECKPOINT");
        case
    }

    /// Commits one vote of each poll from each queue, all of which are rejected, so that all rows exist.
    async fn fill(&mut self, partition: Partition) {
        let acquired = self.session.acquire(partition).await.unwrap().unwrap();
        let (position, mut ledger, mut positions) = (position(1), Vec::new(), Vec::new());
        for queue in (0..self.queues).map(queue) {
            let names = || self.polls.iter().map(|poll| poll.slug.to_string());
            ledger.extend(names().map(|poll| {
                let (accepted, new_voters, superseded, quarantined) = (1, 0, 0, 1);
                LedgerEntry { queue, poll, accepted, new_voters, superseded, quarantined }
            }));
            positions.push((queue, position));
            let accepted = names().map(|poll| (poll, 1)).collect();
            self.checkpoints.insert((partition, queue), Checkpoint { position, accepted });
        }
        let plan = CommitPlan {
            partition,
            version: acquired.version,
            polls: Vec::new(),
            ledger,
            positions,
            quarantine: Vec::new(),
            replayed: Vec::new(),
        };
        self.session.commit(&plan).await.unwrap();
        self.versions.insert(partition, acquired.version + 1);
        self.session.release(partition).await.unwrap();
    }

    async fn commit(&mut self, postgres: &Postgres, round: u64) {
        let partition = Partition((round % u64::from(COMMITTED)) as u16);
        let reads = self.reads(partition, round + 2);
        let before = [thread_cpu(), postgres.cpu()];
        let mut deliveries = Vec::new();
        for (queue, read) in reads {
            let checkpoint = self.checkpoints.get_mut(&(partition, queue)).unwrap();
            let delivery = Delivery::new(queue, checkpoint, read);
            *checkpoint = delivery.checkpoint.clone();
            deliveries.push(delivery);
        }
        let partitions = Partitions::new(PARTITIONS).unwrap();
        let batch = Batch::decode(partition, partitions, &self.polls, deliveries, Vec::new());
        assert!(batch.quarantine().is_empty());
        let mut effective = BTreeMap::new();
        for (poll, voters) in batch.voters() {
            let found = self.session.lookup(partition, poll, &voters, Lookup::Filtered).await.unwrap();
            effective.insert(poll, found);
        }
        let version = self.versions.get_mut(&partition).unwrap();
        let plan = batch.plan(*version, &effective);
        self.session.commit(&plan).await.unwrap();
        *version += 1;
        let after = [thread_cpu(), postgres.cpu()];
        // In the first round of a partition, the session fills its filters.
        if round >= u64::from(COMMITTED) {
            self.cpu.push([0, 1].map(|part| (after[part].as_secs_f64() - before[part].as_secs_f64()) * 1e3));
        }
    }

    /// Returns what reads of all queues find: together a batch of new voters, evenly from all queues and polls.
    fn reads(&mut self, partition: Partition, order: u64) -> Vec<(QueueId, Read)> {
        let start = u128::from_be_bytes(Partitions::new(PARTITIONS).unwrap().range(partition).start().0);
        let mut votes: BTreeMap<(u32, usize), Vec<Vote>> = BTreeMap::new();
        for n in 0..BATCH {
            // A counter times an odd factor gives every key once, in no particular order.
            let spread = u128::from(self.voters).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
            self.voters += 1;
            let (from, poll) = (n % u64::from(self.queues), n / u64::from(self.queues));
            let poll = poll as usize % self.polls.len();
            votes.entry((from as u32, poll)).or_default().push(Vote {
                poll: self.polls[poll].slug,
                voter: VoterKey((start | spread >> 10).to_be_bytes()),
                ..vote(0, (n % 2) as u8, n as i64)
            });
        }
        let mut reads: BTreeMap<u32, Read> = BTreeMap::new();
        for ((from, poll), votes) in votes {
            let read = reads.entry(from).or_default();
            for frame in votes.chunks(FRAME) {
                let place = order * BATCH + read.entries.len() as u64;
                read.entries.push(entry(partition, position(place), self.polls[poll].slug, frame));
            }
        }
        reads.into_iter().map(|(from, read)| (queue(from), read)).collect()
    }
}

fn entry(partition: Partition, position: Position, poll: PollSlug, votes: &[Vote]) -> Entry {
    let frame = one_frame(poll, partition, votes).bytes;
    Entry { position, poll: poll.to_string(), votes: votes.len() as u64, frame }
}

/// Returns a position of the length that those of Redis have.
fn position(n: u64) -> Position {
    Position::from_bytes(&[&n.to_be_bytes()[..], &[0; 16]].concat()).unwrap()
}

fn queue(n: u32) -> QueueId {
    QueueId(u128::from(n).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835).to_be_bytes())
}
