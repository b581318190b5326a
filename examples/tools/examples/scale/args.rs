//! The command line.

use clap::{Args as ClapArgs, Parser, Subcommand};

/// Measures how the pipeline grows with the numbers of queues, workers, partitions and polls.
///
/// Starts Redis servers with a database for each queue, a Postgres, and the workers, and stops them at the end. The last line
/// of stdout is the report, a JSON object; tables for people are printed on stderr. Exits with 1 if what the mode checks
/// does not hold.
///
/// Postgres needs the library pg_stat_statements, which is in Debian's package of the server.
#[derive(Debug, Parser)]
#[command(name = "scale", max_term_width = 110)]
pub(crate) struct Args {
    /// Print the log of the workers on stderr
    #[arg(long)]
    pub(crate) verbose: bool,
    #[command(subcommand)]
    pub(crate) mode: Mode,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Mode {
    /// Counts calls, statements, rows and CPU time per second, without votes or at a steady rate
    Steady(Steady),
    /// Casts votes, double votes among them, and checks that the result is exact and that the audit holds
    Exact(Exact),
    /// Lets workers start on a backlog in every queue, and compares the progress of the slowest with the mean
    Fairness(Fairness),
    /// Closes a poll while another one takes votes, and measures the time until it is final
    Finality(Finality),
    /// Measures the unit costs that `vote-worker capacity --costs` reads, in about four minutes
    Measure,
    /// Predicts the CPU time of six pipelines from the unit costs, and compares it with runs of them
    Predict(Predict),
}

/// Size of the pipeline.
#[derive(Debug, Clone, Copy, ClapArgs)]
pub(crate) struct Size {
    /// Number of queues
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=4000))]
    pub(crate) queues: u32,
    /// Number of workers
    #[arg(long, value_name = "M", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) workers: u32,
    /// Number of partitions
    #[arg(long, value_name = "P", default_value_t = 16)]
    pub(crate) partitions: u16,
    /// Number of polls
    #[arg(long, value_name = "Q", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) polls: u32,
    /// Number of lanes of each worker
    #[arg(long, value_name = "L", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) lanes: u32,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Steady {
    #[command(flatten)]
    pub(crate) size: Size,
    /// Votes per second over all queues; 0 for none
    #[arg(long, value_name = "VOTES_PER_SECOND", default_value_t = 0.0)]
    pub(crate) rate: f64,
    /// Votes in one append [default: those of a tenth of a second, at least one]
    #[arg(long, value_name = "VOTES")]
    pub(crate) flush: Option<usize>,
    /// Seconds that are measured
    #[arg(long, value_name = "S", default_value_t = 20)]
    pub(crate) seconds: u64,
    /// Seconds from the activation of all queues until the measurement begins
    #[arg(long, value_name = "S", default_value_t = 8)]
    pub(crate) settle: u64,
    /// Do not cast a vote in each queue, partition and poll before the measurement
    #[arg(long)]
    pub(crate) no_first_votes: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Exact {
    #[command(flatten)]
    pub(crate) size: Size,
    /// Number of votes, of which 1 in 21 is a double vote at another queue
    #[arg(long, value_name = "V", default_value_t = 1000)]
    pub(crate) votes: u64,
    /// Votes in one append
    #[arg(long, value_name = "VOTES", default_value_t = 100)]
    pub(crate) flush: usize,
    /// Seconds within which the result must be exact, from the start of the workers
    #[arg(long, value_name = "S", default_value_t = 600)]
    pub(crate) within: u64,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Fairness {
    #[command(flatten)]
    pub(crate) size: Size,
    /// Entries, of one vote each, in each queue and partition before workers start
    #[arg(long, value_name = "ENTRIES", default_value_t = 400)]
    pub(crate) backlog: u64,
    /// Milliseconds by which each commit is delayed, as by a slow disk, so that the backlog lasts
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub(crate) commit_delay: u64,
    /// Seconds from the first commit to the comparison
    #[arg(long, value_name = "S", default_value_t = 30)]
    pub(crate) seconds: u64,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Finality {
    #[command(flatten)]
    pub(crate) size: Size,
    /// Votes per second of the poll that stays open
    #[arg(long, value_name = "VOTES_PER_SECOND", default_value_t = 5000.0)]
    pub(crate) rate: f64,
    /// Votes of the poll that is closed
    #[arg(long, value_name = "V", default_value_t = 10_000)]
    pub(crate) votes: u64,
    /// Seconds within which the poll must be final
    #[arg(long, value_name = "S", default_value_t = 10)]
    pub(crate) within: u64,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Predict {
    /// File with unit costs, as `measure` prints them [default: measure them first]
    #[arg(long, value_name = "FILE")]
    pub(crate) costs: Option<std::path::PathBuf>,
    /// Seconds that are measured in each run
    #[arg(long, value_name = "S", default_value_t = 20)]
    pub(crate) seconds: u64,
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
