//! A load generator that knows what the tally must be, and checks it.
//!
//! ```text
//! cargo run --release --example load -- --target http://127.0.0.1:8080 --results http://127.0.0.1:8081 \
//!     --poll pets --voters 100000 --double-votes 10
//! ```
//!
//! Read the modules in the order in which a vote goes through them: [`electorate`] (who votes for what), [`cast`] (a
//! voter at work, over a [`link`], with [`cookies`]), [`ballot`] (what is then known of the voter), [`census`] (of
//! all voters), [`assignment`] (whether a tally can be explained by it), [`report`]. [`run`] ties them together.

mod address;
mod args;
mod assignment;
mod ballot;
mod cast;
mod census;
mod cookies;
mod drain;
mod electorate;
mod error;
#[cfg(test)]
mod fake;
mod link;
mod pace;
mod progress;
mod report;
mod results;
mod run;
#[cfg(test)]
mod tests;

use std::{io::Write, num::NonZero, process::ExitCode, thread};

use clap::Parser;
use tokio::runtime;

use crate::{args::Args, error::LoadError, report::Report};

/// The exit code for a command line that can't be used (`EX_USAGE` of sysexits.h).
const EX_USAGE: u8 = 64;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(e) => {
            // Whoever closed the pipe doesn't want the text.
            let _ = e.print();
            return ExitCode::from(if e.use_stderr() { EX_USAGE } else { 0 });
        }
    };
    let ended = start(args);
    match &ended {
        Ok(report) => {
            report.explain();
            // The last line of stdout, and the only one.
            let written = writeln!(std::io::stdout(), "{}", report.to_json());
            if let Err(e) = written {
                eprintln!("load: can't write the report to stdout: {e}");
            }
        }
        Err(e) => eprintln!("load: {e}"),
    }
    ExitCode::from(exit_code(&ended))
}

fn start(args: Args) -> Result<Report, LoadError> {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    // With one core, handing tasks between threads would be all cost.
    let mut builder = match cores {
        1 => runtime::Builder::new_current_thread(),
        _ => runtime::Builder::new_multi_thread(),
    };
    let runtime = builder.enable_all().build().map_err(LoadError::Runtime)?;
    runtime.block_on(run::run(args.into()))
}

/// 0: the tally is exactly what the acknowledged votes imply. 1: it is not. 2: that could not be found out. 64: usage.
fn exit_code(ended: &Result<Report, LoadError>) -> u8 {
    match ended {
        Ok(report) => report.exit_code(),
        Err(LoadError::Usage(_)) => EX_USAGE,
        Err(_) => 2,
    }
}
