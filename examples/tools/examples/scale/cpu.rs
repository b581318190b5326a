//! CPU time of processes and threads, from `/proc`.

use std::{fs, ops::Sub};

use serde::Serialize;
use tokio::runtime::{Builder, Runtime};

/// Name of the threads that cast votes and measure.
pub(crate) const VOTERS: &str = "scale-voters";
/// Name of the threads that run frontends.
pub(crate) const FRONTENDS: &str = "scale-frontends";
/// Name of the threads that run workers.
pub(crate) const WORKERS: &str = "scale-workers";

/// Clock ticks per second of the times in `/proc`: 100 on every Linux (`getconf CLK_TCK`).
const TICKS: f64 = 100.0;

/// Starts a runtime whose threads have a name, by which their CPU time is found.
pub(crate) fn runtime(name: &'static str, threads: usize) -> Runtime {
    Builder::new_multi_thread().worker_threads(threads).thread_name(name).enable_all().build().unwrap()
}

/// Seconds of CPU time used so far, or between two moments.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub(crate) struct Cpu {
    pub(crate) frontends: f64,
    pub(crate) workers: f64,
    pub(crate) voters: f64,
    pub(crate) redis: f64,
    pub(crate) postgres: f64,
}

impl Cpu {
    /// Reads the times of this process, of the Redis servers and of a Postgres, with all of its backends.
    pub(crate) fn now(redis: &[u32], postgres: u32) -> Self {
        Self {
            frontends: threads(FRONTENDS),
            workers: threads(WORKERS),
            voters: threads(VOTERS),
            redis: redis.iter().filter_map(|pid| process(*pid)).map(|stat| stat.own).sum(),
            postgres: tree(postgres),
        }
    }

    /// Returns all times divided by a number.
    pub(crate) fn per(self, n: f64) -> Self {
        Self {
            frontends: self.frontends / n,
            workers: self.workers / n,
            voters: self.voters / n,
            redis: self.redis / n,
            postgres: self.postgres / n,
        }
    }
}

impl Sub for Cpu {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            frontends: self.frontends - before.frontends,
            workers: self.workers - before.workers,
            voters: self.voters - before.voters,
            redis: self.redis - before.redis,
            postgres: self.postgres - before.postgres,
        }
    }
}

/// Times of one process or thread.
struct Stat {
    parent: u32,
    own: f64,
    /// Time of its children that have ended.
    ended: f64,
}

fn stat(path: &str) -> Option<Stat> {
    let text = fs::read_to_string(path).ok()?;
    // The name, in parentheses, may contain anything.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |i: usize| fields.get(i)?.parse::<f64>().ok();
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        own: (ticks(11)? + ticks(12)?) / TICKS,
        ended: (ticks(13)? + ticks(14)?) / TICKS,
    })
}

fn process(pid: u32) -> Option<Stat> {
    stat(&format!("/proc/{pid}/stat"))
}

/// Returns the time of a process and of all of its children, those that have ended, too.
fn tree(pid: u32) -> f64 {
    let Some(root) = process(pid) else { return 0.0 };
    let names = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let children = names.filter_map(|name| process(name.parse().ok()?)).filter(|child| child.parent == pid);
    root.own + root.ended + children.map(|child| child.own).sum::<f64>()
}

/// Returns the seconds that a process has used so far.
pub(crate) fn process_seconds(pid: u32) -> f64 {
    process(pid).map_or(0.0, |stat| stat.own)
}

/// Returns the time of this process' threads with a name. The main thread is among the [`VOTERS`].
pub(crate) fn threads(name: &str) -> f64 {
    let tasks = fs::read_dir("/proc/self/task").unwrap().filter_map(|entry| Some(entry.ok()?.path()));
    let main = std::process::id().to_string();
    let named = tasks.filter(|task| {
        let is_main = name == VOTERS && task.ends_with(&main);
        is_main || fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim_end() == name)
    });
    named.filter_map(|task| stat(task.join("stat").to_str()?)).map(|stat| stat.own).sum()
}
