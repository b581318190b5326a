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
    /// What a call takes in addition if the Redis has nothing else to do, and has to be woken.
    pub wake: Unit,
    /// A call that reports queues to the store, and the read of their positions.
    pub report_call: Unit,
    /// A queue of such a call.
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
        request: Unit::new(36.1, 0.0),
        page: Unit::new(15.6, 0.0),
        flush: Unit::new(106.0, 149.0),
        frame: Unit::new(0.755, 3.85),
        frame_vote: Unit::new(0.104, 0.248),
        read: Unit::new(39.0, 34.9),
        read_entry: Unit::new(1.45, 1.96),
        trim: Unit::new(37.9, 48.9),
        look: Unit::new(33.7, 25.2),
        look_partition: Unit::new(0.175, 0.673),
        look_count: Unit::new(0.0156, 0.165),
        status: Unit::new(45.0, 33.8),
        status_partition: Unit::new(0.246, 1.83),
        status_count: Unit::new(0.0913, 0.243),
        backlog: Unit::new(33.8, 18.9),
        backlog_partition: Unit::new(0.778, 2.55),
        commit: Unit::new(749.0, 1270.0),
        vote: Unit::new(0.418, 1.76),
        entry: Unit::new(0.368, 0.176),
        commit_queue: Unit::new(1.42, 11.9),
        wake: Unit::new(0.0, 20.5),
        report_call: Unit::new(313.0, 544.0),
        report: Unit::new(1.99, 12.9),
        report_partition: Unit::new(1.01, 0.982),
        catalog: Unit::new(247.0, 207.0),
        catalog_queue: Unit::new(0.0573, 0.665),
        handshake_rsa: Unit::new(0.0, 1000.0),
        handshake_ecdsa: Unit::new(0.0, 688.0),
        handshake_resumed: Unit::new(0.0, 557.0),
        proxied: Unit::new(0.0, 75.5),
        flush_seconds: 0.000362,
        commit_seconds: 0.00992,
        look_seconds: 0.000303,
        entry_bytes: 35.8,
        entry_vote_bytes: 19.5,
        log_entry_bytes: 163.0,
        log_vote_bytes: 18.3,
        wal_vote_bytes: 146.0,
        wal_queue_bytes: 292.0,
        ballot_bytes: 115.0,
        page_bytes: 2760.0,
    };
}
