//! What can go wrong, and for how long.

use std::time::Duration;

use clap::ValueEnum;
use rand::{Rng, RngExt};

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub(crate) enum Kind {
    /// kill -9, started again a moment later
    KillFrontend,
    /// SIGSTOP for longer than a voter waits
    FreezeFrontend,
    /// kill -9, started again a moment later
    KillWorker,
    /// SIGSTOP for longer than its sessions may be idle: the other takes its partitions, then it wakes
    FreezeWorker,
    /// kill -9, started again a moment later
    KillResults,
    /// kill -9, started again a moment later
    KillRedis,
    /// SIGSTOP for longer than a command may take: what was sent runs when it wakes
    FreezeRedis,
    /// Out of memory by its maxmemory
    FullRedis,
    /// Its append-only file may not grow any more, so that it ends
    FullDisk,
    /// kill -9, and the append-only file is cut back to its last synced byte
    CutBack,
    /// Connections of a frontend's Redis end before the reply to a command that was executed
    CutFrontendReplies,
    /// Replies to a frontend come later than it waits
    StallFrontendReplies,
    /// Connections of a worker to a Redis end before the reply to a command that was executed
    CutWorkerReplies,
    /// Replies to a worker come later than it waits
    StallWorkerReplies,
    /// A worker can't reach a Redis that the other does reach
    PartWorker,
    /// Connections of workers to Postgres end after a COMMIT was done and before its reply
    CutCommitReplies,
    /// Postgres' replies to a worker are held up
    StallStoreReplies,
    /// kill -9 of Postgres with all its processes
    KillPostgres,
    /// SIGSTOP of Postgres with all its processes
    FreezePostgres,
    /// An immediate restart: recovery from the log
    RestartPostgres,
    /// pg_terminate_backend on all sessions of the pipeline
    TerminateSessions,
    /// The same, and all connection slots are taken
    TakeSlots,
}

/// What a fault befalls. Of one group one fault is active at a time, so that one of everything keeps running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    Frontends,
    Workers,
    Results,
    Redis,
    Postgres,
    FrontendLinks,
    WorkerLinks,
}

/// A fault to be injected.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    /// Which of the two frontends, workers or Redis.
    pub(crate) target: usize,
    /// Of a link between a worker and a Redis: which Redis.
    pub(crate) other: usize,
    pub(crate) length: Duration,
    /// How much, for faults that are more or less: replies cut, bytes left.
    pub(crate) amount: u32,
}

impl Kind {
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(|| format!("{self:?}"), |value| value.get_name().to_owned())
    }

    pub(crate) const fn group(self) -> Group {
        match self {
            Self::KillFrontend | Self::FreezeFrontend => Group::Frontends,
            Self::KillWorker | Self::FreezeWorker => Group::Workers,
            Self::KillResults => Group::Results,
            Self::KillRedis | Self::FreezeRedis | Self::FullRedis | Self::FullDisk | Self::CutBack => {
                Group::Redis
            }
            Self::CutFrontendReplies | Self::StallFrontendReplies => Group::FrontendLinks,
            Self::CutWorkerReplies | Self::StallWorkerReplies | Self::PartWorker => Group::WorkerLinks,
            Self::KillPostgres
            | Self::FreezePostgres
            | Self::RestartPostgres
            | Self::TerminateSessions
            | Self::TakeSlots
            | Self::CutCommitReplies
            | Self::StallStoreReplies => Group::Postgres,
        }
    }

    /// From and to how many seconds it lasts. Redis commands may take 2 s, a session of a lane may be idle for 10 s,
    /// a call to the store may take 20 s, and a queue may be out of reach for 10 s before a worker leaves its
    /// partitions to others.
    const fn seconds(self) -> (f64, f64) {
        match self {
            Self::KillFrontend | Self::KillWorker | Self::KillResults | Self::KillRedis => (0.1, 2.0),
            Self::FreezeFrontend => (4.0, 7.0),
            Self::FreezeWorker => (12.0, 16.0),
            Self::FreezeRedis => (2.5, 6.0),
            Self::FullRedis => (1.0, 4.0),
            Self::FullDisk => (2.0, 4.0),
            Self::CutBack => (0.1, 1.0),
            Self::CutFrontendReplies | Self::CutWorkerReplies => (0.5, 2.5),
            Self::StallFrontendReplies => (2.5, 5.0),
            Self::StallWorkerReplies => (2.5, 7.0),
            Self::PartWorker => (11.0, 15.0),
            Self::CutCommitReplies => (2.0, 4.0),
            Self::StallStoreReplies => (3.0, 13.0),
            Self::KillPostgres => (0.1, 1.5),
            Self::FreezePostgres => (3.0, 23.0),
            Self::RestartPostgres | Self::TerminateSessions => (0.0, 0.0),
            Self::TakeSlots => (3.0, 6.0),
        }
    }
}

impl Fault {
    pub(crate) fn new(kind: Kind, rng: &mut impl Rng) -> Self {
        let (least, most) = kind.seconds();
        Self {
            kind,
            target: rng.random_range(0..2),
            other: rng.random_range(0..2),
            length: Duration::from_secs_f64(least + (most - least) * rng.random::<f64>()),
            amount: rng.random_range(1..=6),
        }
    }
}
