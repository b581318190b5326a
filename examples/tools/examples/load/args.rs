//! The command line.

use std::time::Duration;

use clap::Parser;
use vote_core::{Keep, PollSlug};
use vote_tools::command::{random_seed, rate};

use crate::address::Url;

/// Casts votes at one or more frontends as browsers would, and checks that the tally is exactly what the acknowledged
/// votes imply.
///
/// Every voter first votes without a cookie, takes the cookie from the 401 answer, and votes with it; --double-votes
/// percent of them then vote once more, for another option, at another frontend. A vote that is answered by 503, or not
/// at all, may or may not be stored: it is retried, as a person would, and if no attempt settles it, it counts as
/// unknown. The tally must then be what the acknowledged votes and some subset of the unknown ones imply.
///
/// The tool puts load on your own test hosts only: hosts whose addresses are not loopback or private are refused.
#[derive(Debug, Parser)]
#[command(name = "load", max_term_width = 110, after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// A frontend, as http://HOST:PORT; repeat the flag or separate with commas. Only loopback and private addresses
    #[arg(long = "target", value_name = "URL", required = true, value_delimiter = ',')]
    targets: Vec<Url>,
    /// The results service, as http://HOST:PORT. Only loopback and private addresses
    #[arg(long, value_name = "URL")]
    results: Url,
    /// The poll to vote in
    #[arg(long, value_name = "SLUG")]
    poll: PollSlug,
    /// Number of voters
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    voters: u64,
    /// Percentage of voters who vote a second time; exactly that share does
    #[arg(long, value_name = "PERCENT", default_value = "0", value_parser = percent)]
    double_votes: f64,
    /// Number of connections to keep open to each target; each serves one voter at a time
    #[arg(long, value_name = "C", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// Determines who votes for what; with the same seed every voter votes the same [default: random]
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Which of a voter's votes is effective in this poll: first or last
    #[arg(long, value_name = "KEEP", default_value = "first")]
    keep: Keep,
    /// Seconds without progress after which casting votes, or waiting for the complete tally, is given up
    #[arg(long, value_name = "S", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout_seconds: u64,
    /// Maximum number of votes per second [default: as many as the connections can carry]
    #[arg(long, value_name = "VOTES_PER_SECOND", value_parser = rate)]
    rate: Option<f64>,
    /// Maximum number of attempts for one vote while its outcome is unknown
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    attempts: u32,
    /// Seconds to wait for an answer before the outcome counts as unknown
    #[arg(long, value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    request_timeout_seconds: u64,
}

const AFTER_HELP: &str = "\
The last line of stdout is one JSON object:
  acked, unknown, refused, unsent  votes by outcome (unsent: never reached a frontend)
  retries, double_votes            attempts beyond the first of a vote; second votes that were cast
  votes_per_second, seconds        acknowledged votes per second; time from the first vote to the last acknowledgement
  p50_ms, p99_ms                   time from sending a vote to its acknowledgement, of one attempt
  drain_seconds                    from the last acknowledgement to the complete tally; null if it was never complete
  expected, tally                  votes by option: what the acknowledged ones imply; what was counted since the start
  ambiguous                        voters whose contribution to the tally is open because of unknown votes
  exact                            whether tally is what the acknowledged votes and some of the unknown ones imply
  voters, double_votes_percent, keep, seed

Exit codes: 0 exact; 1 not exact; 2 could not be checked, or not all voters could vote; 64 usage.";

fn percent(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|percent| (0.0..=100.0).contains(percent))
        .ok_or_else(|| "give a number from 0 to 100".to_owned())
}

/// Parameters of a run.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) targets: Vec<Url>,
    pub(crate) results: Url,
    pub(crate) poll: PollSlug,
    pub(crate) voters: u64,
    /// Share of voters who vote twice, from 0 to 1.
    pub(crate) double: f64,
    pub(crate) connections: u32,
    pub(crate) seed: u64,
    pub(crate) keep: Keep,
    /// Maximum number of attempts for one vote.
    pub(crate) attempts: u32,
    pub(crate) request_timeout: Duration,
    /// Maximum number of votes per second.
    pub(crate) rate: Option<f64>,
    /// How long to wait without progress before giving up.
    pub(crate) timeout: Duration,
    /// How long a tally must be unchanged to be taken as complete. The results service shows a snapshot that it renews
    /// about once a second, so within a shorter time the same snapshot would be read twice.
    pub(crate) settle: Duration,
}

impl From<Args> for Config {
    fn from(args: Args) -> Self {
        Self {
            targets: args.targets,
            results: args.results,
            poll: args.poll,
            voters: args.voters,
            double: args.double_votes / 100.0,
            connections: args.connections,
            seed: args.seed.unwrap_or_else(random_seed),
            keep: args.keep,
            attempts: args.attempts,
            request_timeout: Duration::from_secs(args.request_timeout_seconds),
            rate: args.rate,
            timeout: Duration::from_secs(args.timeout_seconds),
            settle: Duration::from_secs(2),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(more: &str) -> Result<Args, clap::Error> {
        let line = "load --results http://localhost:2 --poll pets --voters 10 ";
        Args::try_parse_from((line.to_owned() + more).split_whitespace())
    }

    #[test]
    fn the_command_is_valid_for_clap() {
        Args::command().debug_assert();
    }

    #[test]
    fn targets_can_be_repeated_or_separated_by_commas() {
        let args = parse("--target http://localhost:1,http://[::1]:3 --target http://10.0.0.1:4").unwrap();
        let targets: Vec<String> = args.targets.iter().map(Url::to_string).collect();
        assert_eq!(targets, ["http://localhost:1", "http://[::1]:3", "http://10.0.0.1:4"]);
    }

    #[test]
    fn invalid_arguments_are_usage_errors() {
        for more in [
            "",
            "--target localhost:1",
            "--target http://localhost:1 --double-votes 101",
            "--target http://localhost:1 --double-votes=-1",
            "--target http://localhost:1 --rate 0",
            "--target http://localhost:1 --rate NaN",
            "--target http://localhost:1 --keep middle",
            "--target http://localhost:1 --connections 0",
            "--target http://localhost:1 --poll Pets",
        ] {
            assert!(parse(more).is_err_and(|e| e.use_stderr()), "{more:?}");
        }
        assert!(parse("--target http://localhost:1").is_ok());
    }

    #[test]
    fn the_help_says_that_public_hosts_are_refused() {
        let help = Args::command().render_long_help().to_string();
        assert!(help.contains("not loopback or private are refused"), "{help}");
    }
}
