//! Fault injection: runs the whole pipeline as real processes, injects random faults while votes are cast, and then
//! checks the vote of every voter.
//!
//! ```text
//! cargo build --release --bins
//! cargo run --release --example faults -- --seed 1 --duration 300s
//! ```
//!
//! [`fault`] lists the faults, [`verify`] and [`polls`] contain the checks, [`variant`] describes the differences
//! between runs, and [`run`] contains the steps of a run. [`cast`] casts votes for the voters of [`electorate`] and
//! records them in the [`journal`]. [`pipeline`] starts the processes, with a [`proxy`] on every connection between
//! them. [`inject`] injects the faults of the [`schedule`], including steps of the [`clocks`]; the [`operator`] runs
//! the commands that people would run; [`audit`] runs the audit of the pipeline at intervals.

mod args;
mod audit;
mod cast;
mod clocks;
mod closing;
mod commits;
mod electorate;
mod fault;
mod fsyncs;
mod inject;
mod journal;
mod operator;
mod pipeline;
mod polls;
mod postgres;
mod process;
mod proxy;
mod redis;
mod report;
mod run;
mod schedule;
mod variant;
mod verify;

use std::{
    io::Write,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::signal::unix::{SignalKind, signal};
use vote_tools::command;

use crate::{args::Args, report::EXAMPLES, run::Ended};

/// Exit code that shells use for a program ended by SIGINT.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let args = match command::parse() {
        Ok(args) => args,
        Err(code) => return code,
    };
    match start(&args) {
        Ok(Some(true)) => ExitCode::SUCCESS,
        Ok(Some(false)) => ExitCode::FAILURE,
        Ok(None) => ExitCode::from(INTERRUPTED),
        Err(e) => {
            eprintln!("faults: {e}");
            ExitCode::from(2)
        }
    }
}

/// Runs it all, and returns whether the run was exact, or `None` if it was interrupted.
fn start(args: &Args) -> Result<Option<bool>, String> {
    let seed = args.seed.unwrap_or_else(command::random_seed);
    let folder = tempfile::Builder::new().prefix("vote-faults-").tempdir();
    let folder = folder.map_err(|e| format!("can't make a folder: {e}"))?;
    // Declared here, so that the processes and proxies end before the runtime.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|e| format!("can't start the runtime: {e}"))?;
    let interrupted = Arc::new(AtomicBool::new(false));
    for kind in [SignalKind::interrupt(), SignalKind::terminate()] {
        let _inside = runtime.enter();
        let mut signals = signal(kind).map_err(|e| format!("can't handle signals: {e}"))?;
        let interrupted = Arc::clone(&interrupted);
        runtime.spawn(async move {
            while signals.recv().await.is_some() {
                interrupted.store(true, Ordering::Relaxed);
            }
        });
    }
    let ended = run::run(args, seed, folder.path(), runtime.handle(), &interrupted);
    let logs = folder.path().join("logs");
    let exact = matches!(&ended, Ok(Some(ended)) if ended.report.exact);
    if args.keep_logs || !exact && !matches!(ended, Ok(None)) {
        eprintln!("faults: seed {seed}; the logs are kept in {}", logs.display());
        // Only the path is needed from now on.
        let _ = folder.keep();
    }
    let Some(Ended { report, examples }) = ended? else { return Ok(None) };
    for example in examples.iter().take(EXAMPLES) {
        eprintln!("faults: {example}");
    }
    if examples.len() > EXAMPLES {
        eprintln!("faults: and {} more", examples.len() - EXAMPLES);
    }
    let written = writeln!(std::io::stdout(), "{}", report.to_json());
    if let Err(e) = written {
        eprintln!("faults: can't write the report to stdout: {e}");
    }
    Ok(Some(exact))
}
