//! Event streams at scale: opens many streams of live results, commits votes, and measures the time until every stream
//! has received each of them, and what a stream costs the results services.
//!
//! ```text
//! cargo build --release --bins
//! cargo run --release --example streams -- --streams 100000
//! ```
//!
//! A process may have 20,000 files open on many machines, so the streams are spread over several results services, and
//! each of them has a process of its own that [watches](watch) it. [`services`] starts Postgres and the services;
//! [`run`] contains the steps; [`votes`] commits; [`report`] is the outcome.

mod args;
mod error;
mod events;
mod report;
mod run;
mod services;
mod votes;
mod watch;
mod watchers;

use std::{io::Write, process::ExitCode};

use tokio::runtime::Builder;
use vote_tools::command;

use crate::{args::Args, error::StreamsError};

fn main() -> ExitCode {
    let args = match command::parse::<Args>() {
        Ok(args) => args,
        Err(code) => return code,
    };
    let ended = match args.watch {
        Some(target) => start(watch::watch(target, args.streams)),
        None => start(run::run(&args)).and_then(|report| {
            // The last line of stdout, and the only one.
            writeln!(std::io::stdout(), "{}", report.to_json()).map_err(StreamsError::Output)
        }),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("streams: {e}");
            ExitCode::FAILURE
        }
    }
}

fn start<T>(work: impl Future<Output = Result<T, StreamsError>>) -> Result<T, StreamsError> {
    Builder::new_current_thread().enable_all().build().map_err(StreamsError::Runtime)?.block_on(work)
}
