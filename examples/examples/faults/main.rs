//! Fault injection: the whole pipeline, of real processes, broken at random while votes are cast; then every voter is
//! looked at.
//!
//! ```text
//! cargo build --release --bins
//! cargo run --release --example faults -- --seed 1 --duration 300s
//! ```
//!
//! Read [`fault`] for what can go wrong, [`verify`] for what is checked, [`run`] for how it goes. Votes are cast by
//! [`cast`] for the voters of [`electorate`], and noted in the [`journal`]. [`pipeline`] starts the processes, with
//! a [`proxy`] on every way between them; [`inject`] breaks them as the [`schedule`] says; [`audit`] asks the pipeline
//! itself, again and again.

mod args;
mod audit;
mod cast;
mod commits;
mod electorate;
mod fault;
mod fsyncs;
mod inject;
mod journal;
mod link;
mod pipeline;
mod postgres;
mod process;
mod proxy;
mod redis;
mod report;
mod run;
mod schedule;
mod verify;

use std::{
    io::Write,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use crate::{args::Args, report::EXAMPLES, run::Ended};

/// The exit code for a command line that can't be used (`EX_USAGE` of sysexits.h).
const EX_USAGE: u8 = 64;
/// As shells say that SIGINT ended a program.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(e) => {
            // Whoever closed the pipe doesn't want the text.
            let _ = e.print();
            return ExitCode::from(if e.use_stderr() { EX_USAGE } else { 0 });
        }
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

/// Whether all was exact; none if interrupted.
fn start(args: &Args) -> Result<Option<bool>, String> {
    let seed = args.seed.unwrap_or_else(run::random_seed);
    let folder = tempfile::Builder::new().prefix("vote-faults-").tempdir();
    let folder = folder.map_err(|e| format!("can't make a folder: {e}"))?;
    // Started processes and proxies are ended before the runtime.
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
        // Only the path is of use from now on.
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
