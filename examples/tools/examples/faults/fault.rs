//! Kinds of faults, what they affect, and how long they last.

use std::time::Duration;

use clap::ValueEnum;
use rand::{Rng, RngExt};

/// Kind of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub(crate) enum Kind {
    /// kill -9, restarted a moment later
    KillFrontend,
    /// SIGSTOP for longer than a voter waits
    FreezeFrontend,
    /// Restarted with a file that defines a poll differently, and later with the right one
    OtherFileFrontend,
    /// kill -9, restarted a moment later
    KillWorker,
    /// SIGSTOP for longer than its sessions may be idle: the other worker takes its partitions, then it continues
    FreezeWorker,
    /// Restarted with a file in which every poll closed yesterday, and later with the right one
    OldFileWorker,
    /// Restarted with a file that defines a poll differently, and later with the right one
    OtherFileWorker,
    /// kill -9, restarted a moment later
    KillResults,
    /// kill -9, restarted a moment later
    KillRedis,
    /// SIGSTOP for longer than a command may take: commands that were sent run when it continues
    FreezeRedis,
    /// Out of memory because of its maxmemory
    FullRedis,
    /// The append-only file can't grow any more, so that the server ends
    FullDisk,
    /// kill -9, and the append-only file is truncated to its last synced byte
    CutBack,
    /// Killed and replaced by a replica that has everything
    PromoteReplica,
    /// Connections of a frontend to its Redis are cut before the reply to a command that was executed
    CutFrontendReplies,
    /// Replies to a frontend come later than its timeout
    StallFrontendReplies,
    /// Connections of a worker to a Redis are cut before the reply to a command that was executed
    CutWorkerReplies,
    /// Replies to a worker come later than its timeout
    StallWorkerReplies,
    /// One worker can't reach a Redis that the other one reaches
    PartWorker,
    /// Connections of workers to Postgres are cut after a COMMIT was done and before its reply
    CutCommitReplies,
    /// Replies of Postgres to a worker are delayed
    StallStoreReplies,
    /// kill -9 of Postgres with all its processes
    KillPostgres,
    /// SIGSTOP of Postgres with all its processes
    FreezePostgres,
    /// An immediate restart: recovery from the write-ahead log
    RestartPostgres,
    /// pg_terminate_backend on all sessions of the pipeline
    TerminateSessions,
    /// The same, and all connection slots are taken
    TakeSlots,
    /// Postgres returns to its state at the start of the fault. Only in runs in which queues keep committed entries
    RollBackPostgres,
    /// The clock of a frontend is stepped, and back
    ClockFrontend,
    /// The clock of a worker is stepped, and back
    ClockWorker,
    /// The clock of the results service is stepped, and back
    ClockResults,
    /// The clock of Postgres is stepped, and back
    ClockPostgres,
}

/// Part of the pipeline that a fault affects. One fault is active per group at a time, so that one instance of each
/// service keeps running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    Frontends,
    Workers,
    Results,
    Redis,
    Postgres,
    FrontendLinks,
    WorkerLinks,
    /// Only one clock is wrong at a time, so that no two can agree on a wrong time.
    Clocks,
}

/// Seconds by which a clock is stepped. Workers tolerate a difference of up to 30 s from the store's clock.
const STEPS: [i64; 6] = [2, 25, 60, 150, 400, 600];

/// Fault to be injected.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    /// Index of the affected frontend, worker or Redis.
    pub(crate) target: usize,
    /// Index of the Redis, for a link between a worker and a Redis; direction of the step, for a clock.
    pub(crate) other: usize,
    pub(crate) length: Duration,
    /// Severity, for faults that have one: number of workers stalled, free bytes of a disk, step of a clock.
    pub(crate) amount: u32,
}

impl Kind {
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(|| format!("{self:?}"), |value| value.get_name().to_owned())
    }

    pub(crate) const fn group(self) -> Group {
        match self {
            Self::KillFrontend | Self::FreezeFrontend | Self::OtherFileFrontend => Group::Frontends,
            Self::KillWorker | Self::FreezeWorker | Self::OldFileWorker | Self::OtherFileWorker => {
                Group::Workers
            }
            Self::KillResults => Group::Results,
            Self::KillRedis
            | Self::FreezeRedis
            | Self::FullRedis
            | Self::FullDisk
            | Self::CutBack
            | Self::PromoteReplica => Group::Redis,
            Self::CutFrontendReplies | Self::StallFrontendReplies => Group::FrontendLinks,
            Self::CutWorkerReplies | Self::StallWorkerReplies | Self::PartWorker => Group::WorkerLinks,
            Self::KillPostgres
            | Self::FreezePostgres
            | Self::RestartPostgres
            | Self::TerminateSessions
            | Self::TakeSlots
            | Self::RollBackPostgres
            | Self::CutCommitReplies
            | Self::StallStoreReplies => Group::Postgres,
            Self::ClockFrontend | Self::ClockWorker | Self::ClockResults | Self::ClockPostgres => {
                Group::Clocks
            }
        }
    }

    /// Returns the shortest and the longest duration in seconds. Redis commands may take 2 s, a session may be idle for
    /// 10 s, a call to the store may take 20 s, and a queue may be unreachable for 10 s before a worker leaves its
    /// partitions to others. The state to which Postgres is rolled back must not be older than the time for which
    /// queues keep committed entries.
    const fn seconds(self) -> (f64, f64) {
        match self {
            Self::KillFrontend | Self::KillWorker | Self::KillResults | Self::KillRedis => (0.1, 2.0),
            Self::FreezeFrontend => (4.0, 7.0),
            Self::OtherFileFrontend | Self::OldFileWorker | Self::OtherFileWorker => (4.0, 10.0),
            Self::FreezeWorker => (12.0, 16.0),
            Self::FreezeRedis => (2.5, 6.0),
            Self::FullRedis => (1.0, 4.0),
            Self::FullDisk => (2.0, 4.0),
            Self::CutBack => (0.1, 1.0),
            Self::PromoteReplica => (1.0, 5.0),
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
            Self::RollBackPostgres => (3.0, 15.0),
            Self::ClockFrontend | Self::ClockWorker | Self::ClockResults | Self::ClockPostgres => (4.0, 60.0),
        }
    }
}

impl Fault {
    /// Creates a fault with a random target, duration and severity.
    pub(crate) fn new(kind: Kind, rng: &mut impl Rng) -> Self {
        let (least, most) = kind.seconds();
        let (target, other) = (rng.random_range(0..2), rng.random_range(0..2));
        let part: f64 = rng.random();
        // Clocks are rarely wrong for a minute, or the run would have no time for the faults of other clocks.
        let part = if kind.group() == Group::Clocks { part.powi(3) } else { part };
        Self {
            kind,
            target,
            other,
            length: Duration::from_secs_f64(least + (most - least) * part),
            amount: rng.random_range(1..=6),
        }
    }

    /// Returns the step of a clock in seconds; negative if it is stepped back.
    pub(crate) fn step(&self) -> i64 {
        let seconds = STEPS[self.amount as usize % STEPS.len()];
        if self.other == 0 { seconds } else { -seconds }
    }
}
