//! Predictions: the CPU time that the model computes from the unit costs, compared with runs of the whole pipeline.
#![allow(clippy::future_not_send, reason = "the runs are made on the main thread, one after the other")]

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use vote_tools::{Pace, command::rounded};
use vote_worker::commands::capacity::{Cores, Costs, Rates, Shape};

use crate::{
    args::{Predict, Size},
    cpu::{self, Cpu},
    measure::{self, Frontend},
    voters,
    world::World,
};

/// Frontends, workers, partitions, polls, and votes per second of each run.
const RUNS: [(u32, u32, u16, u32, f64); 6] = [
    (1, 1, 32, 1, 1500.0),
    (2, 1, 16, 2, 2500.0),
    (3, 2, 16, 1, 1200.0),
    (5, 1, 64, 1, 2000.0),
    (6, 2, 32, 3, 1500.0),
    (12, 1, 16, 1, 1000.0),
];
/// Connections to each frontend.
const CONNECTIONS: usize = 32;
/// Largest error of a prediction.
const LIMIT: f64 = 0.25;

pub(crate) async fn run(args: &Predict) -> Value {
    let costs = match &args.costs {
        Some(path) => serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap(),
        None => measure::measure().await,
    };
    let mut runs = Vec::new();
    let mut largest: f64 = 0.0;
    for (queues, workers, partitions, polls, rate) in RUNS {
        let size = Size { queues, workers, partitions, polls, lanes: 2 };
        let (run, error) = compare(size, &measure_run(size, rate, args.seconds).await, &costs);
        largest = largest.max(error);
        runs.push(run);
    }
    eprintln!("scale: the largest error is {:.0} %", largest * 100.0);
    json!({"mode": "predict", "holds": largest <= LIMIT, "largest_error": rounded(largest), "runs": runs, "costs": costs})
}

/// What was measured in a run, per second.
struct Measured {
    rate: f64,
    cpu: Cpu,
    /// Calls of workers by name.
    workers: BTreeMap<String, f64>,
    /// Calls of frontends by name.
    frontends: BTreeMap<String, f64>,
}

impl Measured {
    fn of_workers(&self, name: &str) -> f64 {
        self.workers.get(name).copied().unwrap_or_default()
    }

    fn of_frontends(&self, name: &str) -> f64 {
        self.frontends.get(name).copied().unwrap_or_default()
    }

    /// Returns how long the calls of a kind took on average.
    fn seconds(&self, calls: &str, micros: &str) -> f64 {
        let sum = |name: &str| self.of_workers(name) + self.of_frontends(name);
        sum(micros) / sum(calls) / 1e6
    }
}

/// Runs a pipeline with frontends.
async fn measure_run(size: Size, rate: f64, seconds: u64) -> Measured {
    // A Redis for each frontend, as on the nodes of a deployment.
    let mut world = World::start_with(size, 1).await;
    world.start_workers(Duration::ZERO);
    world.activated().await;
    let runtime = cpu::runtime(cpu::FRONTENDS, 1);
    let (pace, acked) = (Arc::new(Pace::new(Some(rate))), Arc::new(AtomicU64::new(0)));
    let polls = voters::polls(size.polls);
    let (mut frontends, mut voting) = (Vec::new(), Vec::new());
    for n in 0..size.queues {
        let partitions = world.electorate.partitions;
        frontends.push(Frontend::start(&runtime, &world.url(n), "vote", partitions, &polls).await);
    }
    for frontend in &frontends {
        voting.push(frontend.vote(CONNECTIONS, &polls, &pace, &acked).await);
    }
    // The turns taken meanwhile are overdue, and would be taken all at once.
    pace.skip_overdue(pace.due());
    sleep(Duration::from_secs(5)).await;
    world.counts.take();
    frontends.iter().for_each(|frontend| drop(frontend.counts.take()));
    let (start, before, acked_before) = (Instant::now(), world.cpu(), acked.load(Ordering::Relaxed));
    sleep(Duration::from_secs(seconds)).await;
    let elapsed = start.elapsed().as_secs_f64();
    let cpu = (world.cpu() - before).per(elapsed);
    let add = |mut sum: BTreeMap<String, f64>, counts: BTreeMap<String, u64>| {
        counts.into_iter().for_each(|(name, n)| *sum.entry(name).or_default() += n as f64 / elapsed);
        sum
    };
    let measured = Measured {
        rate: (acked.load(Ordering::Relaxed) - acked_before) as f64 / elapsed,
        cpu,
        workers: add(BTreeMap::new(), world.counts.take()),
        frontends: frontends.iter().map(|frontend| frontend.counts.take()).fold(BTreeMap::new(), add),
    };
    drop(voting);
    drop(frontends);
    runtime.shutdown_background();
    measured
}

/// Compares a run with its prediction; returns both, and the largest error.
fn compare(size: Size, run: &Measured, costs: &Costs) -> (Value, f64) {
    let shape = Shape {
        queues: f64::from(size.queues),
        workers: f64::from(size.workers),
        lanes: f64::from(size.workers * size.lanes),
        partitions: f64::from(size.partitions),
        polls: f64::from(size.polls),
        rate: run.rate,
    };
    // How long a call waits depends on the disk and on what else runs on the machine: that is not predicted.
    let costs = &Costs {
        flush_seconds: run.seconds("queue.append", "queue.append µs"),
        commit_seconds: run.seconds("session.commit", "session.commit µs"),
        look_seconds: run.seconds("queue.look", "queue.look µs"),
        ..*costs
    };
    let (rates, predicted) = (Rates::of(&shape, costs), Cores::of(&shape, 0.0, costs));
    let statuses = run.of_workers("queue.status") + run.of_frontends("queue.status");
    let counted = [
        ("flushes", rates.flushes, run.of_frontends("queue.append")),
        ("entries", rates.entries, run.of_frontends("queue.append frames")),
        ("looks", rates.looks, run.of_workers("queue.look")),
        ("statuses", rates.statuses, statuses),
        ("reads", rates.reads, run.of_workers("queue.read")),
        ("commits", rates.commits, run.of_workers("session.commit")),
        ("commit queues", rates.commit_queues, run.of_workers("session.commit ledger rows")),
        ("trims", rates.trims, run.of_workers("queue.trim")),
        ("reports", rates.reports, run.of_workers("store.report rows")),
        ("report calls", rates.report_calls, run.of_workers("store.report")),
    ];
    let cores = [
        ("frontends", predicted.frontends, run.cpu.frontends),
        ("redis", predicted.redis, run.cpu.redis),
        ("workers", predicted.workers, run.cpu.workers),
        ("postgres", predicted.postgres, run.cpu.postgres),
    ];
    eprintln!("\nscale: {size:?} at {:.0} votes/s: predicted, measured, predicted / measured", run.rate);
    let compared = |(what, predicted, measured): (&str, f64, f64)| {
        eprintln!("{what:>14} {predicted:10.3} {measured:10.3} {:8.2}", predicted / measured);
        json!({"what": what, "predicted": rounded(predicted), "measured": rounded(measured)})
    };
    let error = |(_, predicted, measured): &(&str, f64, f64)| (predicted / measured - 1.0).abs();
    let largest = cores.iter().map(error).fold(0.0, f64::max);
    let (counted, cores) = (counted.map(compared), cores.map(compared));
    let waits = [costs.flush_seconds, costs.commit_seconds, costs.look_seconds].map(rounded);
    let run =
        json!({"shape": shape, "flush_commit_look_seconds": waits, "per_second": counted, "cores": cores});
    (run, largest)
}
