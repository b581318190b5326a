//! What happens in a history: a function of its seed alone.

use std::{fmt, time::Duration};

use vote_core::Polls;

use crate::{
    random::Random,
    world::{FRONTENDS, SERVERS, WORKERS},
};

/// How long faults are injected.
pub(crate) const DURATION: Duration = Duration::from_secs(60);
/// When the poll `colours` closes by time, in a history with [closing](Kind::closing).
pub(crate) const CLOSES_AFTER: Duration = Duration::from_secs(40);
/// The longest that an ordinary fault stands.
const LONGEST: Duration = Duration::from_secs(15);
/// How long lanes go on whose locks are lost.
const LOCKLESS: Duration = Duration::from_secs(10);
/// A fault that a pipeline must live with for as long as it lasts.
const STANDING: Duration = Duration::from_secs(50);

/// What may go wrong in a history. Where nothing may lose data, the checks are strict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind {
    /// Servers lose data, come back older or empty, or are copied.
    pub(crate) loss: bool,
    /// The database goes over to a standby that lags.
    pub(crate) failover: bool,
    /// Queues keep what is committed for longer than a standby lags.
    pub(crate) delayed_trim: bool,
    /// Workers ask the standby what it has, and trim no further.
    pub(crate) witness: bool,
    /// Clocks are stepped and drift.
    pub(crate) clocks: bool,
    /// Polls close while faults stand.
    pub(crate) closing: bool,
    /// Workers are started with a file of yesterday.
    pub(crate) old_files: bool,
}

impl Kind {
    /// The kind of the history with this seed.
    pub(crate) fn of(seed: u64) -> Self {
        let random = Random::of(seed, "kind");
        let failover = random.chance(300);
        let loss = random.chance(400);
        let delayed_trim = failover && random.chance(700);
        Self {
            loss,
            failover,
            delayed_trim,
            witness: failover && !delayed_trim && Random::of(seed, "witness").chance(700),
            clocks: random.chance(500),
            closing: random.chance(600),
            old_files: random.chance(500),
        }
    }

    /// Whether queues keep what a standby may lack.
    pub(crate) fn keeps_what_lags(&self) -> bool {
        self.delayed_trim || self.witness
    }

    pub(crate) fn trim_delay(&self) -> Duration {
        if self.delayed_trim { 2 * DURATION } else { Duration::ZERO }
    }
}

/// The polls of a history, as the file of all services defines them, and as an old file does.
pub(crate) fn polls(seed: u64, kind: Kind) -> Result<(Polls, Polls), String> {
    let day = |after: Duration| {
        let at = vote_core::Timestamp::MIN.saturating_add(86_400_000_000 + after.as_micros() as i64);
        format!("closes_at = \"{at}\"")
    };
    let (keep, other) = if seed.is_multiple_of(2) { ("first", "last") } else { ("last", "first") };
    let file = |closes_at: &str| {
        let text = format!(
            "[[poll]]\nslug = \"pets\"\ntitle = \"Cats or dogs?\"\nkeep = \"{keep}\"\n\
             options = [{{ slug = \"cats\", label = \"Cats\" }}, {{ slug = \"dogs\", label = \"Dogs\" }}]\n\
             [[poll]]\nslug = \"colours\"\ntitle = \"Which colour?\"\nkeep = \"{other}\"\n{closes_at}\n\
             options = [{{ slug = \"red\", label = \"Red\" }}, {{ slug = \"blue\", label = \"Blue\" }}, \
             {{ slug = \"green\", label = \"Green\" }}]\n"
        );
        Polls::from_toml("polls of the simulation", &text).map_err(|e| format!("{e:?}"))
    };
    let closes_at = if kind.closing { day(CLOSES_AFTER) } else { String::new() };
    Ok((file(&closes_at)?, file(&day(Duration::from_secs(1)))?))
}

/// Something that goes wrong, or that an operator does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    BlockQueueLink { worker: usize, server: usize },
    LoseOnQueueLink { worker: usize, server: usize, per_mille: u64 },
    SlowQueueLink { worker: usize, server: usize },
    BlockFrontendLink { frontend: usize },
    LoseOnFrontendLink { frontend: usize, per_mille: u64 },
    SlowFrontendLink { frontend: usize },
    BlockStoreLink { worker: usize },
    LoseOnStoreLink { worker: usize, per_mille: u64 },
    FreezeServer { server: usize },
    RestartServer { server: usize },
    RollBackServer { server: usize, images: usize },
    PromoteReplica { server: usize, images: usize },
    ReplaceServer { server: usize },
    CopyServer { server: usize },
    StopDatabase,
    LoseLocks,
    FailOver { images: usize },
    StopWorker { worker: usize },
    KillWorker { worker: usize },
    FreezeWorker { worker: usize },
    StartWorkerWithOldFile { worker: usize },
    KillFrontend { frontend: usize },
    FreezeFrontend { frontend: usize },
    StepClock { of: ClockOf, seconds: i64 },
    DriftClock { of: ClockOf, per_mille: i64 },
    ClosePoll,
}

/// Whose clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ClockOf {
    Worker(usize),
    Frontend(usize),
    Database,
}

impl Fault {
    /// The kind of fault, for counting.
    pub(crate) fn name(&self) -> String {
        let text = format!("{self:?}");
        text.split([' ', '{']).next().unwrap_or_default().to_owned()
    }
}

/// A fault, when it comes, and how long it stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Planned {
    pub(crate) at: Duration,
    pub(crate) lasts: Duration,
    pub(crate) fault: Fault,
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>6.2} s, for {:>5.2} s: {:?}",
            self.at.as_secs_f64(),
            self.lasts.as_secs_f64(),
            self.fault
        )
    }
}

/// The faults of the history with this seed.
pub(crate) fn plan(seed: u64, kind: Kind) -> Vec<Planned> {
    let random = Random::of(seed, "faults");
    let mut plan = Vec::new();
    let mut at = Duration::from_secs(3);
    while at < DURATION {
        if let Some(fault) = any(&random, kind) {
            // Now and then one that stays until nearly the end: what the pipeline can still reach must be counted.
            let longest = if random.chance(100) { STANDING } else { LONGEST };
            // Without locks nobody can tell who owns what: that ends with the sessions, and soon.
            let longest = if fault == Fault::LoseLocks { LOCKLESS } else { longest };
            let lasts = Duration::from_millis(200) + random.up_to(longest);
            plan.push(Planned { at, lasts, fault });
        }
        at += Duration::from_millis(500) + random.up_to(Duration::from_secs(6));
    }
    plan
}

/// Some fault; none if it is of a kind that this history does not have.
fn any(random: &Random, kind: Kind) -> Option<Fault> {
    let pick = |n: usize| random.below(n as u64) as usize;
    let (worker, server, frontend) = (pick(WORKERS), pick(FRONTENDS), pick(FRONTENDS));
    let per_mille = 100 + random.below(500);
    let images = pick(9);
    let of = match pick(5) {
        0 | 1 => ClockOf::Worker(worker),
        2 | 3 => ClockOf::Frontend(frontend),
        _ => ClockOf::Database,
    };
    let fault = match pick(30) {
        0 | 1 => Fault::BlockQueueLink { worker, server: pick(SERVERS) },
        2 => Fault::LoseOnQueueLink { worker, server, per_mille },
        3 => Fault::SlowQueueLink { worker, server },
        4 => Fault::BlockFrontendLink { frontend },
        5 => Fault::LoseOnFrontendLink { frontend, per_mille },
        6 => Fault::SlowFrontendLink { frontend },
        7 => Fault::BlockStoreLink { worker },
        8 | 9 => Fault::LoseOnStoreLink { worker, per_mille: per_mille / 2 },
        10 | 11 => Fault::FreezeServer { server },
        12 | 13 => Fault::RestartServer { server },
        14 if kind.loss => Fault::RollBackServer { server, images },
        15 if kind.loss => Fault::PromoteReplica { server, images: pick(3) },
        16 if kind.loss => Fault::ReplaceServer { server },
        17 if kind.loss => Fault::CopyServer { server },
        18 => Fault::StopDatabase,
        19 if kind.failover => Fault::FailOver { images },
        20 => Fault::StopWorker { worker },
        21 => Fault::KillWorker { worker },
        22 => Fault::FreezeWorker { worker },
        23 if kind.old_files => Fault::StartWorkerWithOldFile { worker },
        24 => Fault::KillFrontend { frontend },
        25 => Fault::FreezeFrontend { frontend },
        26 if kind.clocks => Fault::StepClock { of, seconds: random.below(1200) as i64 - 600 },
        27 if kind.clocks => Fault::DriftClock { of, per_mille: random.below(100) as i64 - 50 },
        28 if kind.closing => Fault::ClosePoll,
        29 => Fault::LoseLocks,
        _ => return None,
    };
    Some(fault)
}
