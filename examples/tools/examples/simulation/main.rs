//! Deterministic simulation of the pipeline under faults.
//!
//! It runs the code of worker, writer, admission, receipts and audit over queues and a store in memory, behind
//! simulated links. A history depends on its seed alone, so a history that fails can be repeated, and is shrunk to the
//! few faults that it needs.
//!
//! ```text
//! deploy/simulate --seeds 500
//! deploy/simulate --from 4711 --seeds 1 --trace
//! ```
//!
//! Module `history` defines what may happen, module `check` what must hold.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)] // A tool for developers may panic.

use std::{
    collections::BTreeMap,
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use clap::Parser;

use crate::{
    history::{Kind, Planned},
    run::Outcome,
};

mod check;
mod database;
mod history;
mod inject;
mod network;
mod operator;
mod process;
mod random;
mod run;
mod server;
mod trace;
mod truth;
mod voters;
mod world;

/// Runs histories of the pipeline under faults, and checks each.
#[derive(Debug, Clone, Parser)]
#[command(name = "simulation", max_term_width = 110)]
struct Args {
    /// First seed
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    from: u64,
    /// Number of seeds
    #[arg(long, value_name = "N", default_value_t = 100)]
    seeds: u64,
    /// Number of histories that run at a time [default: one per core]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Print the faults of each history and the logs of the services
    #[arg(long)]
    trace: bool,
    /// Report a history that fails with all its faults, instead of shrinking it to the few that it needs
    #[arg(long)]
    no_shrink: bool,
    /// Run each history twice; it fails if the two runs differ
    #[arg(long)]
    twice: bool,
    /// Exit with success as soon as a history fails, and with failure if none does: for a build with a known defect
    #[arg(long)]
    expect_failure: bool,
}

/// Sums over several histories.
#[derive(Debug, Default)]
struct Totals {
    histories: u64,
    /// Seeds of the histories that failed.
    wrong: Vec<u64>,
    sum: Outcome,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.trace {
        trace::init();
    }
    let started = Instant::now();
    let next = AtomicU64::new(args.from);
    let threads = args.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let results = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| work(&args, &next))).collect();
        workers.into_iter().map(|worker| worker.join().expect("a history panicked")).collect::<Vec<_>>()
    });
    let mut totals = Totals::default();
    for result in results {
        totals.histories += result.histories;
        totals.wrong.extend(result.wrong);
        totals.sum.add(&result.sum);
    }
    totals.wrong.sort_unstable();
    summary(&totals, started.elapsed().as_secs_f64());
    let failed = !totals.wrong.is_empty();
    if failed == args.expect_failure { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs the histories of one thread, which takes the next free seed each time.
fn work(args: &Args, next: &AtomicU64) -> Totals {
    let mut totals = Totals::default();
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= args.from + args.seeds {
            return totals;
        }
        let kind = Kind::of(seed);
        let plan = history::plan(seed, kind);
        if args.trace {
            println!("seed {seed}: {kind:?}");
            plan.iter().for_each(|planned| println!("    {planned}"));
        }
        let mut outcome = run::run(seed, &plan).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        if args.twice && run::run(seed, &plan).is_ok_and(|again| again.digest != outcome.digest) {
            outcome.problems.push("a second run of the history differs from the first".to_owned());
        }
        for planned in &plan {
            *outcome.faults.entry(planned.fault.name()).or_default() += 1;
        }
        totals.histories += 1;
        if !outcome.problems.is_empty() {
            totals.wrong.push(seed);
            report(args, seed, &plan, &outcome);
            if args.expect_failure {
                next.store(u64::MAX / 2, Ordering::Relaxed);
            }
        } else if args.trace {
            println!("seed {seed}: nothing wrong, digest {:016x}", outcome.digest);
        }
        totals.sum.add(&outcome);
    }
}

/// Prints a history that failed: its faults and the problems found.
fn report(args: &Args, seed: u64, plan: &[Planned], outcome: &Outcome) {
    let (plan, outcome) =
        if args.no_shrink { (plan.to_vec(), outcome.clone()) } else { shrink(seed, plan, outcome) };
    let mut text = format!("seed {seed} is wrong, {:?}, with {} faults:\n", Kind::of(seed), plan.len());
    plan.iter().for_each(|planned| text.push_str(&format!("    {planned}\n")));
    for problem in &outcome.problems {
        text.push_str(&format!("  {}\n", &problem[..problem.floor_char_boundary(700)]));
    }
    println!("{text}");
}

/// Shrinks a plan to the faults without which the history would not fail: tries to leave out halves first, in the end
/// single faults.
fn shrink(seed: u64, plan: &[Planned], outcome: &Outcome) -> (Vec<Planned>, Outcome) {
    let (mut plan, mut outcome) = (plan.to_vec(), outcome.clone());
    let mut size = plan.len().div_ceil(2);
    while size > 0 {
        let mut start = 0;
        while start < plan.len() {
            let mut fewer = plan.clone();
            fewer.drain(start..(start + size).min(plan.len()));
            match run::run(seed, &fewer) {
                Ok(still) if !still.problems.is_empty() => (plan, outcome) = (fewer, still),
                _ => start += size,
            }
        }
        size /= 2;
    }
    (plan, outcome)
}

impl Outcome {
    /// Adds the counts of another outcome.
    fn add(&mut self, other: &Self) {
        self.acknowledged += other.acknowledged;
        self.unknown += other.unknown;
        self.ended += other.ended;
        self.finals_under_faults += other.finals_under_faults;
        self.audits += other.audits;
        for (name, n) in &other.faults {
            *self.faults.entry(name.clone()).or_default() += n;
        }
    }
}

/// Prints how often each fault was injected, the sums, and the seeds of the histories that failed.
fn summary(totals: &Totals, seconds: f64) {
    let Totals { histories, wrong, sum } = totals;
    println!("faults injected:");
    let mut faults: BTreeMap<&str, u64> = BTreeMap::new();
    sum.faults.iter().for_each(|(name, n)| *faults.entry(name).or_default() += n);
    faults.iter().for_each(|(name, n)| println!("    {n:>8} {name}"));
    println!(
        "{histories} histories, {} faults, {} votes acknowledged, {} without an answer, {} audits, {} queues retired, \
         {} polls final under faults; {seconds:.1} s, {:.0} histories a minute",
        sum.faults.values().sum::<u64>(),
        sum.acknowledged,
        sum.unknown,
        sum.audits,
        sum.ended,
        sum.finals_under_faults,
        *histories as f64 / seconds * 60.0
    );
    println!("{} wrong{}", wrong.len(), wrong.iter().map(|seed| format!(" {seed}")).collect::<String>());
}
