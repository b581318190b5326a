//! A lane without a worker: commits batches, each of one partition, as the lane of a worker does.

use std::{collections::BTreeMap, ops::Range};

use vote_core::{
    Partition, Partitions, Polls, Position, QueueId, Session, Store, Vote, VoterKey,
    conformance::{layout, one_frame, poll, registered_poll, vote},
    count::{Batch, Checkpoint, Delivery},
    queue::{Entry, Layout, Read},
    store::{Lookup, PostgresStore},
};
use vote_testkit::{Postgres, thread_cpu};

/// Votes in a frame: about what two frontends put into one at ten thousand votes a second.
const FRAME: usize = 32;

/// A partition, and votes of new voters in it, in the order in which they were cast.
pub(crate) type Votes = (Partition, Vec<Vote>);

/// Returns votes of the voters with these numbers, all in one partition. Different numbers are different voters, also in
/// different partitions.
pub(crate) fn batch(partition: Partition, voters: Range<u64>, partitions: Partitions) -> Votes {
    let start = u128::from_be_bytes(partitions.range(partition).start().0);
    let votes = voters.map(|n| {
        // A counter times an odd factor gives every key once, in no particular order, all over the partition.
        let spread = u128::from(n).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
        let key = start | spread >> partitions.count().trailing_zeros();
        Vote { voter: VoterKey(key.to_be_bytes()), ..vote(0, (n % 3) as u8, n as i64) }
    });
    (partition, votes.collect())
}

/// Creates a database with a prepared store; returns its URL, too.
pub(crate) async fn database(postgres: &Postgres, partitions: Partitions) -> (String, PostgresStore) {
    let url = postgres.database();
    let store = PostgresStore::connect(&url, "vote").unwrap();
    store.migrate().await.unwrap();
    store.prepare(Layout { partitions, ..layout() }).await.unwrap();
    store.register_poll(Polls::example().get("pets").unwrap()).await.unwrap();
    (url, store)
}

/// A session that owns all partitions.
pub(crate) struct Lane {
    session: Box<dyn Session>,
    partitions: Partitions,
    versions: BTreeMap<Partition, (u64, Checkpoint)>,
}

impl Lane {
    pub(crate) async fn open(store: &PostgresStore, partitions: Partitions) -> Self {
        let mut session = store.open_session().await.unwrap();
        let mut versions = BTreeMap::new();
        for partition in partitions.iter() {
            let version = session.acquire(partition).await.unwrap().unwrap().version;
            versions.insert(partition, (version, Checkpoint::default()));
        }
        Self { session, partitions, versions }
    }

    /// Shows the server that the session is in use: it ends one that is idle for ten seconds.
    pub(crate) async fn keep_alive(&mut self) {
        self.session.unowned().await.unwrap();
    }

    /// Commits what a read found: decodes its frames, looks up effective ballots, merges, and commits.
    pub(crate) async fn commit(&mut self, partition: Partition, read: Read) {
        let (version, checkpoint) = self.versions.get_mut(&partition).unwrap();
        let delivery = Delivery::new(QueueId([1; 16]), checkpoint, read);
        *checkpoint = delivery.checkpoint.clone();
        let polls = [registered_poll()];
        let batch = Batch::decode(partition, self.partitions, &polls, vec![delivery], Vec::new());
        assert!(batch.quarantine().is_empty());
        let mut effective = BTreeMap::new();
        for (poll, voters) in batch.voters() {
            let found = self.session.lookup(partition, poll, &voters, Lookup::Filtered).await.unwrap();
            effective.insert(poll, found);
        }
        self.session.commit(&batch.plan(*version, &effective)).await.unwrap();
        *version += 1;
    }
}

/// Returns what a read from a queue with these votes finds.
pub(crate) fn read((partition, votes): &Votes) -> Read {
    let entry = |(i, votes): (usize, &[Vote])| Entry {
        position: Position::from_bytes(&(i as u64 + 1).to_be_bytes()).unwrap(),
        poll: poll().to_string(),
        votes: votes.len() as u64,
        frame: one_frame(poll(), *partition, votes).bytes,
    };
    Read { entries: votes.chunks(FRAME).enumerate().map(entry).collect(), at_end: false, ..Read::default() }
}

/// Returns the seconds of CPU so far of this process, which has one thread, and of a server. They can fall, by the time of
/// a server's process that has ended.
pub(crate) fn cpu(postgres: &Postgres) -> f64 {
    (thread_cpu() + postgres.cpu()).as_secs_f64()
}

/// Settings of a server: those of `deploy/postgres/postgresql.conf` that matter here, but checkpoints begin only when they
/// are asked for, and there is no autovacuum, whose processes would come and go.
pub(crate) const SETTINGS: [(&str, &str); 6] = [
    ("autovacuum", "off"),
    ("shared_buffers", "2GB"),
    ("wal_compression", "lz4"),
    ("max_wal_size", "64GB"),
    ("checkpoint_timeout", "1d"),
    ("wal_buffers", "64MB"),
];
