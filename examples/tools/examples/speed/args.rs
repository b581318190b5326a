//! The command line.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};

/// Measures what the pipeline costs, as ratios of CPU time per unit of work against a yardstick in the same run.
///
/// The last line of stdout is the report, a JSON object; a table for people is printed on stderr. Exits with 1 if a ratio
/// is not what it should be.
#[derive(Debug, Parser)]
#[command(name = "speed", max_term_width = 110)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) mode: Mode,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Mode {
    /// Compares requests to a frontend with a bare hyper server, nginx and webdis
    Front(Front),
    /// Compares what votes at a moderate rate cost a Redis with another build
    Queue(Queue),
    /// Compares what votes cost the whole pipeline with another build, by deploy/million
    Pipeline(Pipeline),
    /// Compares a lane's commits into an empty table with a binary COPY
    Commit(Commit),
    /// Compares a lane's commits into a large table with a small one, and with inserts of the whole range of keys
    Grown(Grown),
    /// Measures the memory of idle keep-alive connections to a frontend
    Idle(Idle),
    /// Opens connections to a frontend, sends a request over each, and holds them until killed
    #[command(hide = true)]
    Hold(Hold),
    /// Serves as a bare hyper server, until killed
    #[command(hide = true)]
    Bare(Bare),
}

/// How often and how long each side is measured.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct Rounds {
    /// Number of measurements of each side, which alternate
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=99))]
    pub(crate) rounds: u32,
    /// Seconds of one measurement
    #[arg(long, value_name = "S", default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(crate) seconds: u64,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Front {
    #[command(flatten)]
    pub(crate) rounds: Rounds,
    /// Only the sides whose names begin with one of these texts, separated by commas
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// Another build of vote-frontend, to see what a change brings
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) base: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Queue {
    #[command(flatten)]
    pub(crate) rounds: Rounds,
    /// Votes per second
    #[arg(long, value_name = "VOTES", default_value_t = 5000.0, value_parser = vote_tools::command::rate)]
    pub(crate) rate: f64,
    /// Folder with the other build of vote-frontend and vote-worker
    #[arg(long, value_name = "FOLDER")]
    pub(crate) base: PathBuf,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Pipeline {
    /// Number of measurements of each side, which alternate
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=99))]
    pub(crate) rounds: u32,
    /// Number of voters of each measurement
    #[arg(long, value_name = "VOTERS", default_value_t = 200_000)]
    pub(crate) voters: u64,
    /// Votes per second [default: as many as the machine takes]
    #[arg(long, value_name = "VOTES")]
    pub(crate) rate: Option<u64>,
    /// Folder with the other build of the services
    #[arg(long, value_name = "FOLDER")]
    pub(crate) base: PathBuf,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Commit {
    /// Number of measurements of each side, which alternate
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=99))]
    pub(crate) rounds: u32,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Grown {
    /// Number of measurements of each side, which alternate
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=99))]
    pub(crate) rounds: u32,
    /// Millions of rows of the table, ascending. A row needs 300 bytes of disk: 120 of the table and 180 of the WAL
    #[arg(long, value_name = "M", value_delimiter = ',', default_value = "30,50")]
    pub(crate) millions: Vec<u64>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Idle {
    /// Number of connections, half of them from each of two processes
    #[arg(long, value_name = "C", default_value_t = 18_000, value_parser = clap::value_parser!(u32).range(2..=50_000))]
    pub(crate) connections: u32,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Hold {
    /// Port on 127.0.0.1
    pub(crate) port: u16,
    /// Number of connections
    pub(crate) connections: u32,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Bare {
    /// Port on 127.0.0.1
    pub(crate) port: u16,
    /// File with the answer to every request, as it is sent
    pub(crate) answer: PathBuf,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_is_valid_for_clap() {
        Args::command().debug_assert();
    }
}
