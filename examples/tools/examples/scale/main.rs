//! Measures how the pipeline grows with the numbers of queues, workers, partitions and polls.
//!
//! A Redis with 250 databases is 250 queues, each with an identity of its own. M workers run in this process, each with
//! connections of its own, on a real Postgres. Votes are appended straight to the queues. What is reported are counts
//! (calls by name, statements, rows), which are the same on any machine, and CPU time, by process.
//!
//! ```text
//! cargo run --release --example scale -- steady --queues 50 --workers 2 --partitions 16
//! cargo run --release --example scale -- exact --queues 1000 --votes 1000000
//! ```
//!
//! Module [`args`] lists the modes. [`world`] starts the servers and workers, [`count`] counts their calls, [`cpu`] and
//! [`statements`] read what the servers did, [`voters`] casts votes.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)] // A tool for developers may panic.

mod args;
mod count;
mod cpu;
mod exact;
mod fairness;
mod finality;
mod fit;
mod measure;
mod predict;
mod statements;
mod steady;
mod voters;
mod world;

use std::process::ExitCode;

use vote_tools::command;

use crate::args::{Args, Mode};

/// That of `vote-worker`, whose work is measured.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args: Args = match command::parse() {
        Ok(args) => args,
        Err(code) => return code,
    };
    if args.verbose {
        tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).with_writer(std::io::stderr).init();
    }
    // Its threads are told apart from those of the workers by their names.
    let runtime = cpu::runtime(cpu::VOTERS, 2);
    let report = runtime.block_on(async {
        match &args.mode {
            Mode::Steady(steady) => steady::run(steady).await,
            Mode::Exact(exact) => exact::run(exact).await,
            Mode::Fairness(fairness) => fairness::run(fairness).await,
            Mode::Finality(finality) => finality::run(finality).await,
            Mode::Measure => measure::run().await,
            Mode::Predict(predict) => predict::run(predict).await,
        }
    });
    let holds = report["holds"].as_bool().unwrap_or(true);
    command::print_report("scale", &report, holds)
}
