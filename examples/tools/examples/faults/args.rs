//! The command line.

use std::time::Duration;

use clap::{Parser, ValueEnum};
use vote_tools::command::rate;

use crate::fault::Kind;

/// Runs the whole pipeline, injects random faults while votes are cast, heals them, and checks that every acknowledged
/// vote is counted exactly once.
///
/// One of three polls is closed halfway: by its closing time, by a command, or by a new closing time, depending on
/// whether the seed modulo 3 is 0, 1, or 2. With an even seed, or --only roll-back-postgres, Postgres is also rolled
/// back to older states, and workers keep committed entries in the queues for two minutes, as they must where a
/// rollback can happen.
///
/// Starts two frontends, two Redis, two workers, a Postgres and the results service, all on 127.0.0.1 and in a
/// temporary folder, and stops them at the end. The binaries must be built in the same profile: cargo build --release
/// --bins
#[derive(Debug, Clone, Parser)]
#[command(name = "faults", max_term_width = 110, after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Determines the faults and their times, and who votes for what [default: random]
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// How long votes are cast and faults injected
    #[arg(long, value_name = "TIME", default_value = "300s", value_parser = span)]
    pub(crate) duration: Duration,
    /// Mean time from one fault to the next; a fault may last several times as long
    #[arg(long, value_name = "TIME", default_value = "4s", value_parser = span)]
    pub(crate) fault_every: Duration,
    /// Maximum number of votes per second
    #[arg(long, value_name = "VOTES_PER_S", default_value_t = 200.0, value_parser = rate)]
    pub(crate) rate: f64,
    /// Inject only faults of these kinds [default: all]
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    pub(crate) only: Vec<Kind>,
    /// How long the pipeline may take at the end to count all votes
    #[arg(long, value_name = "TIME", default_value = "90s", value_parser = span)]
    pub(crate) drain: Duration,
    /// Pause between audits during the run
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = span)]
    pub(crate) audit_every: Duration,
    /// Run Redis with appendfsync everysec, so that a power failure loses acknowledged votes: the check must detect it
    #[arg(long)]
    pub(crate) everysec: bool,
    /// Break a rule on purpose: the check must detect it
    #[arg(long, value_name = "MODE")]
    pub(crate) sabotage: Option<Sabotage>,
    /// Keep the folder with all logs even if the run was exact
    #[arg(long)]
    pub(crate) keep_logs: bool,
}

/// Rule that is broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sabotage {
    /// Workers trim entries before they are committed
    TrimFirst,
    /// Workers leave the read positions out of the transaction
    ForgetPosition,
    /// Each partition has two owners. Harmless: the version of the partition lets only one of them commit
    SharePartitions,
    /// Each partition has two owners, which commit whatever the version is
    IgnoreVersion,
    /// An entry is deleted from a queue by hand before it is read
    DeleteEntry,
    /// Committed entries are trimmed at once, although Postgres is rolled back
    TrimAtOnce,
}

impl Sabotage {
    /// Returns the mode of the example `faulty-worker` if the workers break the rule.
    pub(crate) const fn of_workers(self) -> Option<&'static str> {
        match self {
            Self::TrimFirst => Some("trim-first"),
            Self::ForgetPosition => Some("forget-position"),
            Self::SharePartitions => Some("share-partitions"),
            Self::IgnoreVersion => Some("ignore-version"),
            Self::DeleteEntry | Self::TrimAtOnce => None,
        }
    }
}

const AFTER_HELP: &str = "\
The last line of stdout is one JSON object:
  seed, duration_s, faults          faults by kind
  closing, rolls_back               how the third poll is closed; whether Postgres may be rolled back
  voters, sent                      voters who voted; requests that carried a vote
  acknowledged, unknown, refused    requests by outcome
  refusals                          answers to refused requests
  lost                              acknowledged votes that are neither effective nor superseded
  double_counted                    votes in the tally beyond those in the rows
  wrongly_counted                   rows that match no vote that was sent and not refused
  wrongly_taken                     votes acknowledged by a frontend whose file defines their poll differently
  wrongly_refused                   votes refused because of a difference between files that does not exist, or because
                                    of an unknown option that exists
  refused_for_the_file, taken_beside
                                    votes that such frontends refused for that poll, and accepted for other polls
  closed_seconds, final_seconds     when the third poll was first seen closed, and final
  final_votes                       votes counted for the third poll
  poll_failures                     polls closed before their time or open again, and final tallies that changed
  audits, audit_failures            audits that gave a result; audits that found something wrong
  drain_seconds                     from the end of the faults until all votes are counted; null if that did not happen
  unexpected_exits                  processes that ended without being stopped
  exact                             whether no vote is lost, counted twice, or accepted, refused or counted wrongly, the
                                    third poll is final, and every audit held

Exit codes: 0 exact; 1 not exact; 2 could not be checked; 64 usage; 130 interrupted.";

/// Parses a duration: `90s`, `5m`, `1500ms`, or a number of seconds.
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
        _ => return Err(format!("invalid unit of time {unit:?}: use ms, s, m or h")),
    };
    let number: f64 = number.parse().map_err(|_| "give a number and a unit, as in 90s".to_owned())?;
    Duration::try_from_secs_f64(number * seconds)
        .ok()
        .filter(|span| !span.is_zero())
        .ok_or_else(|| "give a time above 0".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_is_valid_for_clap() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_duration_has_a_unit_or_is_in_seconds() {
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
