//! The command line.

use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::fault::Kind;

/// Runs the whole pipeline, breaks it at random while votes are cast, heals it, and checks that every acknowledged vote
/// is counted exactly once.
///
/// It starts two frontends, two Redis, two workers, a Postgres and the results service, all on 127.0.0.1 and in
/// a folder of their own, and ends them. The binaries must be built in the same profile: cargo build --release --bins
#[derive(Debug, Clone, Parser)]
#[command(name = "faults", max_term_width = 110, after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Decides which faults come when, and who votes for what [default: random]
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// How long votes are cast and faults injected
    #[arg(long, value_name = "TIME", default_value = "300s", value_parser = span)]
    pub(crate) duration: Duration,
    /// From one fault to the next, on average; a fault lasts up to a few of these
    #[arg(long, value_name = "TIME", default_value = "4s", value_parser = span)]
    pub(crate) fault_every: Duration,
    /// Votes a second, at most
    #[arg(long, value_name = "VOTES_PER_S", default_value_t = 200.0, value_parser = rate)]
    pub(crate) rate: f64,
    /// Only faults of these kinds [default: all]
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    pub(crate) only: Vec<Kind>,
    /// How long the pipeline may take at the end until all is counted
    #[arg(long, value_name = "TIME", default_value = "90s", value_parser = span)]
    pub(crate) drain: Duration,
    /// How often the audit is asked during the run
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = span)]
    pub(crate) audit_every: Duration,
    /// Run Redis with appendfsync everysec, under which a power cut loses acknowledged votes: the check must notice
    #[arg(long)]
    pub(crate) everysec: bool,
    /// Break a rule on purpose: the check must notice
    #[arg(long, value_name = "MODE")]
    pub(crate) sabotage: Option<Sabotage>,
    /// Keep the folder with all logs, also when nothing is wrong
    #[arg(long)]
    pub(crate) keep_logs: bool,
}

/// A rule that is broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sabotage {
    /// Workers trim what they read before it is committed
    TrimFirst,
    /// Workers leave the read positions out of the transaction
    ForgetPosition,
    /// Workers own partitions together. Harmless: the version of a partition lets one of them commit
    SharePartitions,
    /// Workers own partitions together and commit whatever the version is
    IgnoreVersion,
    /// An entry is deleted from a queue by hand before it is read
    DeleteEntry,
}

impl Sabotage {
    /// What the example `faulty-worker` is told, if it is the workers that break the rule.
    pub(crate) const fn of_workers(self) -> Option<&'static str> {
        match self {
            Self::TrimFirst => Some("trim-first"),
            Self::ForgetPosition => Some("forget-position"),
            Self::SharePartitions => Some("share-partitions"),
            Self::IgnoreVersion => Some("ignore-version"),
            Self::DeleteEntry => None,
        }
    }
}

const AFTER_HELP: &str = "\
The last line of stdout is one JSON object:
  seed, duration_s, faults          faults by kind
  voters, sent                      who voted, and requests that carried a vote
  acknowledged, unknown, refused    requests by outcome
  lost                              acknowledged votes that neither stand nor were superseded
  double_counted                    votes that the tally has beyond the rows
  wrongly_counted                   rows that no vote explains which was sent and not refused
  audits, audit_failures            how often the audit was asked and answered; how often it found something wrong
  drain_seconds                     from the end of the faults until all is counted; null if it never was
  unexpected_exits                  processes that ended though nobody ended them
  exact                             whether nothing is lost, counted twice or wrongly, and the audit held whenever asked

Exit codes: 0 exact; 1 not exact; 2 could not be found out; 64 usage; 130 interrupted.";

/// `90s`, `5m`, `1500ms`, or a number of seconds.
fn span(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.find(|c: char| c.is_ascii_alphabetic()) {
        Some(at) => text.split_at(at),
        None => (text, "s"),
    };
    let seconds = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("{unit:?} is no unit of time: use ms, s, m or h")),
    };
    let number: f64 = number.parse().map_err(|_| "give a number and a unit, as in 90s".to_owned())?;
    Duration::try_from_secs_f64(number * seconds)
        .ok()
        .filter(|span| !span.is_zero())
        .ok_or_else(|| "give a time above 0".to_owned())
}

fn rate(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|rate: &f64| rate.is_finite() && *rate > 0.0)
        .ok_or_else(|| "give a number above 0".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn clap_finds_no_fault_with_the_command() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_span_of_time_has_a_unit_or_is_in_seconds() {
        assert_eq!(span("300s"), Ok(Duration::from_secs(300)));
        assert_eq!(span("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(span("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(span("7"), Ok(Duration::from_secs(7)));
        for bad in ["", "s", "0s", "-1s", "1d", "fast"] {
            assert!(span(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn kinds_are_separated_by_commas() {
        let args = Args::try_parse_from(["faults", "--only", "kill-worker,cut-back"]).unwrap();
        assert_eq!(args.only, [Kind::KillWorker, Kind::CutBack]);
    }
}
