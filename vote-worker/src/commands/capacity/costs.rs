//! Unit costs: what one call, frame, vote or row takes, as measured by small loops.

use serde::{Deserialize, Serialize};

/// CPU time of one unit, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unit {
    /// Of the caller: a frontend or a worker.
    pub client: f64,
    /// Of the server that is called: Redis, Postgres or the load balancer.
    pub server: f64,
}

impl Unit {
    const fn new(client: f64, server: f64) -> Self {
        Self { client, server }
    }

    /// Adds a number of other units.
    pub(super) fn plus(self, other: Self, n: f64) -> Self {
        Self { client: self.client + n * other.client, server: self.server + n * other.server }
    }
}

/// Unit costs of the pipeline.
///
/// `deploy/scale measure` measures all of them. A difference of machines shows in all times, so measure on yours.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Costs {
    /// A request that casts a vote, without its share of a flush. The client is the frontend.
    pub request: Unit,
    /// Any other request for a page of the frontend. The client is the frontend.
    pub page: Unit,
    /// A flush. The client is the frontend, the server its Redis.
    pub flush: Unit,
    /// A frame of a flush.
    pub frame: Unit,
    /// A vote of a frame.
    pub frame_vote: Unit,
    /// A read that finds nothing. The client is a worker, as in all that follow.
    pub read: Unit,
    /// An entry that a read returns.
    pub read_entry: Unit,
    /// A trim, with the entries that it removes.
    pub trim: Unit,
    /// A look at a queue without partitions.
    pub look: Unit,
    /// What a look takes for each partition that it asks for.
    pub look_partition: Unit,
    /// What a look takes for each count: one for each of these partitions and each poll that has votes there.
    pub look_count: Unit,
    /// The status of a queue without partitions. The client is a frontend or a worker.
    pub status: Unit,
    /// What a status takes for each partition.
    pub status_partition: Unit,
    /// What a status takes for each count: one for each partition and each poll that has votes there.
    pub status_count: Unit,
    /// A count of a queue's backlog.
    pub backlog: Unit,
    /// What a count of a backlog takes for each partition.
    pub backlog_partition: Unit,
    /// A commit without votes.
    pub commit: Unit,
    /// A vote of a commit: decoding, look-up, merge, and its row.
    pub vote: Unit,
    /// An entry of a commit: decoding its frame.
    pub entry: Unit,
    /// A queue and poll of a commit: its rows in ledger and checkpoints.
    pub commit_queue: Unit,
    /// A report of a queue to the store, with the positions read for it.
    pub report: Unit,
    /// What a report takes for each partition.
    pub report_partition: Unit,
    /// A read of the catalog.
    pub catalog: Unit,
    /// What a read of the catalog takes for each queue.
    pub catalog_queue: Unit,
    /// A full TLS handshake with an RSA key of 2,048 bits, and the connection. The server is the load balancer.
    pub handshake_rsa: Unit,
    /// A full TLS handshake with a key on the curve P-256, and the connection.
    pub handshake_ecdsa: Unit,
    /// A TLS handshake that resumes a session, and the connection.
    pub handshake_resumed: Unit,
    /// A request that the load balancer passes on.
    pub proxied: Unit,
    /// Seconds that a flush takes from its start to its answer. This and the following two depend on the disks, and on
    /// what else they do.
    pub flush_seconds: f64,
    /// Seconds that a commit takes.
    pub commit_seconds: f64,
    /// Seconds that a look takes.
    pub look_seconds: f64,
    /// Bytes of memory that an entry takes in Redis.
    pub entry_bytes: f64,
    /// Bytes of memory that each vote of an entry takes in Redis.
    pub entry_vote_bytes: f64,
    /// Bytes that an entry takes in the log of Redis.
    pub log_entry_bytes: f64,
    /// Bytes that each vote of an entry takes in the log of Redis.
    pub log_vote_bytes: f64,
    /// Bytes of WAL for a vote of a commit.
    pub wal_vote_bytes: f64,
    /// Bytes of WAL for a queue and poll of a commit.
    pub wal_queue_bytes: f64,
    /// Bytes that a ballot takes in Postgres, with its index.
    pub ballot_bytes: f64,
    /// Bytes of a page of the frontend, with its head.
    pub page_bytes: f64,
}

impl Costs {
    /// Costs as measured.
    pub const MEASURED: Self = Self {
        request: Unit::new(33.3, 0.0),
        page: Unit::new(12.3, 0.0),
        flush: Unit::new(93.4, 152.0),
        frame: Unit::new(2.06, 7.05),
        frame_vote: Unit::new(0.0, 0.003),
        read: Unit::new(38.0, 43.3),
        read_entry: Unit::new(2.15, 2.55),
        trim: Unit::new(34.5, 41.3),
        look: Unit::new(48.3, 42.9),
        look_partition: Unit::new(0.0, 0.634),
        look_count: Unit::new(0.527, 0.441),
        status: Unit::new(48.3, 42.9),
        status_partition: Unit::new(0.0, 0.634),
        status_count: Unit::new(0.527, 0.441),
        backlog: Unit::new(44.8, 27.2),
        backlog_partition: Unit::new(0.854, 3.15),
        commit: Unit::new(480.0, 1320.0),
        vote: Unit::new(0.602, 1.78),
        entry: Unit::new(0.216, 0.479),
        commit_queue: Unit::new(5.51, 15.1),
        report: Unit::new(273.0, 552.0),
        report_partition: Unit::new(0.877, 0.0),
        catalog: Unit::new(422.0, 495.0),
        catalog_queue: Unit::new(8.57, 5.48),
        handshake_rsa: Unit::new(0.0, 722.0),
        handshake_ecdsa: Unit::new(0.0, 469.0),
        handshake_resumed: Unit::new(0.0, 408.0),
        proxied: Unit::new(0.0, 32.9),
        flush_seconds: 0.00142,
        commit_seconds: 0.0639,
        look_seconds: 0.0015,
        entry_bytes: 44.5,
        entry_vote_bytes: 18.9,
        log_entry_bytes: 258.0,
        log_vote_bytes: 18.3,
        wal_vote_bytes: 167.0,
        wal_queue_bytes: 1320.0,
        ballot_bytes: 113.0,
        page_bytes: 2760.0,
    };
}
