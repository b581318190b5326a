//! Capacity: what an event of some size needs, and which limit is met first.
//!
//! The plan follows from [unit costs](Costs), measured by small loops, and from how often a pipeline of a given
//! [shape](Shape) does what. It is computed from the arguments alone: nothing is asked.

use std::{fs, path::PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use vote_core::Partitions;
use vote_service::{ConfigError, Settings, settings};

use super::{Done, text as argument};

mod costs;
mod limits;
mod load;
mod plan;
mod text;

pub use costs::{Costs, Unit};
pub use limits::{CONNECTIONS, DNS_BYTES, Limit, PLACES};
pub use load::{Cores, Rates, Shape};
pub use plan::{BALANCER_CONNECTIONS, Demand, KEEP_ALIVE_SECONDS, Plan};

/// Returns the definition of `vote-worker capacity`.
pub(super) fn definition() -> Command {
    let number = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    Command::new(super::CAPACITY)
        .about("Compute what an event of some size needs, and which limit is met first; of the settings, only --partitions is used")
        .arg(
            number("voters", "N", "Number of voters")
                .required(true)
                .value_parser(value_parser!(u64).range(1..=100_000_000_000)),
        )
        .arg(number("minutes", "M", "Minutes in which they vote").required(true).value_parser(above_zero))
        .arg(
            number("peak", "FACTOR", "Peak rate as a multiple of the mean")
                .default_value("4")
                .value_parser(factor),
        )
        .arg(
            number("polls-at-once", "Q", "Number of polls in which each voter votes, all at the same time")
                .default_value("1")
                .value_parser(value_parser!(u32).range(1..=10_000)),
        )
        .arg(number("costs", "FILE", "File with unit costs of your machines, as `deploy/scale measure` prints them"))
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print JSON instead of text"))
}

fn above_zero(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite() && *number > 0.0);
    number.ok_or_else(|| "expected a number above 0, such as 3 or 0.5".to_owned())
}

fn factor(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite() && *number >= 1.0);
    number.ok_or_else(|| "expected a number of 1 or more, such as 4".to_owned())
}

/// Reads the one setting that `vote-worker capacity` uses.
///
/// # Errors
/// Fails if it is invalid.
pub(super) fn partitions(mut settings: Settings) -> Result<Partitions, ConfigError> {
    let partitions = settings.required(&settings::PARTITIONS, settings::partitions);
    settings.finish_with(partitions)
}

/// Executes `vote-worker capacity`.
pub(super) fn execute(matches: &ArgMatches, partitions: Partitions) -> Done {
    let number = |name: &str| matches.get_one::<f64>(name).copied().unwrap_or(1.0);
    let demand = Demand {
        voters: matches.get_one::<u64>("voters").copied().unwrap_or(1),
        minutes: number("minutes"),
        peak: number("peak"),
        polls: matches.get_one::<u32>("polls-at-once").copied().unwrap_or(1),
        partitions: partitions.count(),
    };
    let costs = match matches.contains_id("costs") {
        true => costs_of(&PathBuf::from(argument(matches, "costs")))?,
        false => Costs::MEASURED,
    };
    let plan = Plan::of(demand, &costs);
    if matches.get_flag("json") {
        println!("{}", serde_json::to_string_pretty(&plan)?);
    } else {
        print!("{}", text::text(&plan));
    }
    Ok(())
}

/// Reads unit costs from a file.
fn costs_of(path: &PathBuf) -> Result<Costs, String> {
    let text = fs::read_to_string(path).map_err(|e| format!("can't read {}: {e}", path.display()))?;
    serde_json::from_str(&text)
        .map_err(|e| format!("{}: {e}; `deploy/scale measure` prints a valid file", path.display()))
}
