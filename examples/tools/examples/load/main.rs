//! A load generator that knows which tally its votes imply, and checks it.
//!
//! ```text
//! cargo run --release --example load -- --target http://127.0.0.1:8080 --results http://127.0.0.1:8081 \
//!     --poll pets --voters 100000 --double-votes 10
//! ```
//!
//! Read the modules in the order in which a vote passes through them: [`votes`] (who votes for what), [`cast`] (casts
//! the votes), [`ballot`] (what is then known about one voter), [`census`] (about all voters), [`assignment`] (whether
//! the census explains a tally), [`report`]. [`run`] ties them together.

mod address;
mod args;
mod assignment;
mod ballot;
mod cast;
mod census;
mod drain;
mod error;
#[cfg(test)]
mod fake;
mod progress;
mod report;
mod results;
mod run;
#[cfg(test)]
mod tests;
mod votes;

use std::{io::Write, num::NonZero, process::ExitCode, thread};

use tokio::runtime;
use vote_tools::command::{self, EX_USAGE};

use crate::{args::Args, error::LoadError, report::Report};

fn main() -> ExitCode {
    let args = match command::parse() {
        Ok(args) => args,
        Err(code) => return code,
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
    // On one core, moving tasks between threads only costs time.
    let mut builder = match cores {
        1 => runtime::Builder::new_current_thread(),
        _ => runtime::Builder::new_multi_thread(),
    };
    let runtime = builder.enable_all().build().map_err(LoadError::Runtime)?;
    runtime.block_on(run::run(args.into()))
}

/// Returns the exit code: 0 if the tally is exactly what the acknowledged votes imply, 1 if it is not, 2 if it could
/// not be checked, 64 for a usage error.
fn exit_code(ended: &Result<Report, LoadError>) -> u8 {
    match ended {
        Ok(report) => report.exit_code(),
        Err(LoadError::Usage(_)) => EX_USAGE,
        Err(_) => 2,
    }
}
