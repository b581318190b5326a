//! The plan of a history: its kind, its files of polls and its faults, as functions of the seed alone.

use std::{fmt, time::Duration};

use vote_core::Polls;

use crate::{
    process::true_time_after,
    random::Random,
    world::{FRONTENDS, SERVERS, WORKERS},
};

/// Time for which faults are injected.
pub(crate) const DURATION: Duration = Duration::from_secs(60);
/// Time after the start at which the poll `colours` closes, in a history with [closing](Kind::closing).
pub(crate) const CLOSES_AFTER: Duration = Duration::from_secs(40);
/// Maximum duration of an ordinary fault.
const LONGEST: Duration = Duration::from_secs(15);
/// Maximum time for which lanes continue without their locks.
const LONGEST_WITHOUT_LOCKS: Duration = Duration::from_secs(10);
/// Maximum duration of a long fault, during which the pipeline must keep working.
const LONGEST_OF_LONG: Duration = Duration::from_secs(50);

/// The kind of a history: what may go wrong in it. The checks are strict where no data may be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind {
    /// Servers lose data, come back in an older state or empty, or are copied.
    pub(crate) loss: bool,
    /// The database fails over to a standby that lags.
    pub(crate) failover: bool,
    /// Queues keep committed entries for longer than a standby lags.
    pub(crate) delayed_trim: bool,
    /// The standby is a witness: workers trim only what it has.
    pub(crate) witness: bool,
    /// Clocks are stepped and drift.
    pub(crate) clocks: bool,
    /// Polls close while faults are active.
    pub(crate) closing: bool,
    /// Services are started with yesterday's file, or with a file that defines a poll differently.
    pub(crate) old_files: bool,
    /// A poll is added, for which services are updated one after the other.
    pub(crate) updates: bool,
    /// An operator acts while faults are active: retires queues and decides on quarantined votes.
    pub(crate) decisions: bool,
}

impl Kind {
    /// Returns the kind of the history of a seed.
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
            updates: random.chance(400),
            decisions: random.chance(400),
        }
    }

    /// Whether queues keep the entries that a standby may lack.
    pub(crate) fn keeps_what_lags(&self) -> bool {
        self.delayed_trim || self.witness
    }

    /// Returns the time for which workers delay trimming.
    pub(crate) fn trim_delay(&self) -> Duration {
        if self.delayed_trim { 2 * DURATION } else { Duration::ZERO }
    }
}

/// The files that define the polls of a history.
#[derive(Debug)]
pub(crate) struct Files {
    /// The file that all services have in the end.
    pub(crate) full: Polls,
    /// The file that they start with. It lacks the poll that is added in a history with [updates](Kind::updates).
    pub(crate) first: Polls,
    /// Yesterday's file, in which a poll closes one second after the start.
    pub(crate) yesterday: Polls,
    /// A file with other options.
    pub(crate) other: Polls,
    /// The file that they have in the end if the added poll is withdrawn: it corrects an option of that poll.
    pub(crate) corrected: Polls,
}

/// The option that is only in the [other](Files::other) file.
pub(crate) const OTHER_OPTION: &str = "more";

impl Files {
    /// Returns the files of the history of a seed.
    pub(crate) fn of(seed: u64, kind: Kind) -> Result<Self, String> {
        let closes = if kind.closing { closes_at(CLOSES_AFTER) } else { String::new() };
        let early = closes_at(Duration::from_secs(1));
        Ok(Self {
            full: file(seed, &closes, kind.updates.then_some("pears"), "")?,
            first: file(seed, &closes, None, "")?,
            yesterday: file(seed, &early, None, "")?,
            other: file(
                seed,
                &closes,
                kind.updates.then_some("pears"),
                &format!(", {{ slug = \"{OTHER_OPTION}\", label = \"More\" }}"),
            )?,
            corrected: file(seed, &closes, kind.updates.then_some("plums"), "")?,
        })
    }
}

/// Returns the line of a file for a closing time.
fn closes_at(after: Duration) -> String {
    let at = true_time_after(after);
    format!("closes_at = \"{at}\"")
}

/// Returns a file of polls with the given line for a closing time, option of the added poll, and further options.
fn file(seed: u64, closes_at: &str, fruit: Option<&str>, more: &str) -> Result<Polls, String> {
    let (keep, other) = if seed.is_multiple_of(2) { ("first", "last") } else { ("last", "first") };
    let mut text = format!(
        "[[poll]]\nslug = \"pets\"\ntitle = \"Cats or dogs?\"\nkeep = \"{keep}\"\n\
         options = [{{ slug = \"cats\", label = \"Cats\" }}, {{ slug = \"dogs\", label = \"Dogs\" }}{more}]\n\
         [[poll]]\nslug = \"colours\"\ntitle = \"Which colour?\"\nkeep = \"{other}\"\n{closes_at}\n\
         options = [{{ slug = \"red\", label = \"Red\" }}, {{ slug = \"blue\", label = \"Blue\" }}, \
         {{ slug = \"green\", label = \"Green\" }}]\n"
    );
    if let Some(fruit) = fruit {
        text.push_str(&format!(
            "[[poll]]\nslug = \"fruit\"\ntitle = \"Which fruit?\"\nkeep = \"{keep}\"\n\
             options = [{{ slug = \"apples\", label = \"Apples\" }}, \
             {{ slug = \"{fruit}\", label = \"Fruit\" }}{more}]\n"
        ));
    }
    Polls::from_toml("polls of the simulation", &text).map_err(|e| format!("{e:?}"))
}

/// A fault, or an action of an operator.
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
    StartWorkerWithOtherFile { worker: usize },
    UpdateWorker { worker: usize },
    KillFrontend { frontend: usize },
    FreezeFrontend { frontend: usize },
    StartFrontendWithOtherFile { frontend: usize },
    UpdateFrontend { frontend: usize },
    StepClock { of: ClockOf, seconds: i64 },
    DriftClock { of: ClockOf, per_mille: i64 },
    ClosePoll,
    WithdrawPoll,
    ReschedulePoll { later_by: Duration },
    RetireQueues,
    DecideOnQuarantine { replay: bool },
}

/// The process whose clock a fault changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ClockOf {
    Worker(usize),
    Frontend(usize),
    Database,
}

impl Fault {
    /// Returns the name of the kind of fault, by which faults are counted.
    pub(crate) fn name(&self) -> String {
        let text = format!("{self:?}");
        text.split([' ', '{']).next().unwrap_or_default().to_owned()
    }
}

/// A planned fault.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Planned {
    /// Time after the start of the history when the fault begins.
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

/// Returns the faults of the history of a seed.
pub(crate) fn plan(seed: u64, kind: Kind) -> Vec<Planned> {
    let random = Random::of(seed, "faults");
    let mut plan = Vec::new();
    let mut at = Duration::from_secs(3);
    while at < DURATION {
        if let Some(fault) = any(&random, kind) {
            // One fault of ten is long, up to nearly the end: what workers still reach must be counted meanwhile.
            let longest = if random.chance(100) { LONGEST_OF_LONG } else { LONGEST };
            // Without locks, ownership of partitions is undefined. That state ends with the sessions, so it is short.
            let longest = if fault == Fault::LoseLocks { LONGEST_WITHOUT_LOCKS } else { longest };
            let lasts = Duration::from_millis(200) + random.up_to(longest);
            plan.push(Planned { at, lasts, fault });
        }
        at += Duration::from_millis(500) + random.up_to(Duration::from_secs(5));
    }
    plan
}

/// Returns a random fault, or `None` if this kind of history does not have it.
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
    let fault = match pick(39) {
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
        30 if kind.old_files => Fault::StartWorkerWithOtherFile { worker },
        31 if kind.old_files => Fault::StartFrontendWithOtherFile { frontend },
        32 if kind.updates => Fault::UpdateWorker { worker },
        33 | 34 if kind.updates => Fault::UpdateFrontend { frontend },
        38 if kind.updates && kind.decisions => Fault::WithdrawPoll,
        35 if kind.closing => Fault::ReschedulePoll { later_by: Duration::from_secs(random.below(30)) },
        36 if kind.decisions => Fault::RetireQueues,
        37 if kind.decisions => Fault::DecideOnQuarantine { replay: random.chance(500) },
        _ => return None,
    };
    Some(fault)
}
