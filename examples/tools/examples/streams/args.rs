//! The command line.

use std::net::SocketAddr;

use clap::Parser;

/// Opens event streams of live results, commits votes, and measures the time until every stream has received them.
///
/// It starts a Postgres and the results services itself, all on this machine.
#[derive(Debug, Parser)]
#[command(name = "streams", max_term_width = 110, after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Number of streams
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) streams: u32,
    /// Maximum number of streams of one results service, and of the process that watches it
    #[arg(long, value_name = "N", default_value_t = 15_000, value_parser = clap::value_parser!(u32).range(1..=15_000))]
    pub(crate) per_service: u32,
    /// Number of votes to commit, one after the other
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) votes: u32,
    /// Seconds without votes during which the cost of idle streams is measured
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    pub(crate) idle_seconds: u32,
    /// Only watches the streams of one service, and prints what it sees: how this tool calls itself
    #[arg(long, value_name = "ADDRESS", hide = true)]
    pub(crate) watch: Option<SocketAddr>,
}

const AFTER_HELP: &str = "\
Each results service needs a third more open files than it has streams (`ulimit -n`).

The last line of stdout is one JSON object:
  streams, services           number of streams, and of results services that serve them
  open_seconds                time until every stream was open and had received the results
  received_ms                 for each vote, time from its commit until every stream has received the event
  received_ms_median          the median of them
  cpu_us_per_event            CPU time of the services for one event on one stream
  idle_cpu_us_per_second      CPU time of the services for one second of one idle stream
  memory_bytes_per_stream     resident memory of the services for one stream

Exit codes: 0 measured; 1 not measured, for example because a stream ended; 64 usage.";
