//! What the tools have in common as programs: the command line and its exit code, the seed, and numbers in reports.

use std::{fmt::Display, io::Write, process::ExitCode};

use clap::Parser;

/// Exit code for an invalid command line (`EX_USAGE` of sysexits.h).
pub const EX_USAGE: u8 = 64;

/// Parses the command line.
///
/// # Errors
/// Returns the exit code of the program, after printing a usage error or the help that was asked for.
pub fn parse<A: Parser>() -> Result<A, ExitCode> {
    A::try_parse().map_err(|e| {
        // Printing fails only if the reader has closed the pipe.
        let _ = e.print();
        ExitCode::from(if e.use_stderr() { EX_USAGE } else { 0 })
    })
}

/// Prints a report as the last line of stdout, and returns the exit code: 1 unless `holds`.
#[must_use]
pub fn print_report(tool: &str, report: &impl Display, holds: bool) -> ExitCode {
    if let Err(e) = writeln!(std::io::stdout(), "{report}") {
        eprintln!("{tool}: can't write the report to stdout: {e}");
    }
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Parses a number of votes per second, which must be above 0.
///
/// # Errors
/// Fails with a text that says what to give.
pub fn rate(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|rate: &f64| rate.is_finite() && *rate > 0.0)
        .ok_or_else(|| "give a number above 0".to_owned())
}

/// Returns a random seed below 2^53, so that every JSON reader keeps it exactly.
#[must_use]
pub fn random_seed() -> u64 {
    rand::random::<u64>() >> 11
}

/// Returns a number for a report, rounded to three decimals.
#[must_use]
pub fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}
