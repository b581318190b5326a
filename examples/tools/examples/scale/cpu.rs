//! CPU time of processes and threads, from `/proc`.

use std::{fs, ops::Sub};

use serde::Serialize;
use tokio::runtime::{Builder, Runtime};
use vote_tools::cpu::{process_seconds, thread_seconds, tree_seconds};

/// Name of the threads that cast votes and measure.
pub(crate) const VOTERS: &str = "scale-voters";
/// Name of the threads that run frontends.
pub(crate) const FRONTENDS: &str = "scale-frontends";
/// Name of the threads that run workers.
pub(crate) const WORKERS: &str = "scale-workers";

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
            redis: redis.iter().map(|pid| process_seconds(*pid)).sum(),
            postgres: tree_seconds(postgres),
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

/// Returns the time of this process' threads with a name. The main thread is among the [`VOTERS`].
pub(crate) fn threads(name: &str) -> f64 {
    let tasks = fs::read_dir("/proc/self/task").unwrap().filter_map(|entry| Some(entry.ok()?.path()));
    let main = std::process::id().to_string();
    let named = tasks.filter(|task| {
        let is_main = name == VOTERS && task.ends_with(&main);
        is_main || fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim_end() == name)
    });
    named.map(|task| thread_seconds(&task)).sum()
}
