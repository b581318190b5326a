//! Commands for operators: they create the tables, list, close, reschedule and withdraw polls, list and retire queues,
//! and decide on quarantined votes. Each decision is recorded in the store; the workers carry it out. One command,
//! [`capacity`], needs no store: it computes what an event needs.

use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command};
use vote_core::store::StoreError;
use vote_service::{BoxError, ConfigError, Settings, settings::EX_CONFIG};

use crate::config::StoreConfig;

pub mod capacity;
mod polls;
mod quarantine;
mod queues;

const CAPACITY: &str = "capacity";
const MIGRATE: &str = "migrate";
const POLLS: &str = "polls";
const QUEUES: &str = "queues";

/// Returns the definitions of all commands.
#[must_use]
pub fn definitions() -> [Command; 5] {
    let migrate = Command::new(MIGRATE).about("Create the tables in the store, or update them");
    [migrate, polls::definition(), queues::definition(), quarantine::definition(), capacity::definition()]
}

fn reason(about: &'static str) -> Arg {
    Arg::new("reason").long("reason").value_name("TEXT").required(true).help(about)
}

/// Runs a command. Returns exit code 0, 78 if a setting is [wrong](StoreError::is_wrong_setting), or 1 if it failed
/// otherwise.
///
/// # Errors
/// Fails if a setting that the command needs is missing or invalid.
pub fn run(name: &str, matches: &ArgMatches, settings: Settings) -> Result<ExitCode, ConfigError> {
    if name == CAPACITY {
        let done = capacity::execute(matches, capacity::partitions(settings)?);
        return Ok(done.map_or_else(|e| failed(&*e, 1), |()| ExitCode::SUCCESS));
    }
    let config = StoreConfig::from_settings(settings)?;
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return Ok(failed(&e, 1)),
    };
    let done = runtime.block_on(execute(name, matches, &config));
    let code = |error: &BoxError| match error.downcast_ref::<StoreError>() {
        Some(e) if e.is_wrong_setting() => EX_CONFIG,
        _ => 1,
    };
    Ok(done.map_or_else(|e| failed(&*e, code(&e)), |()| ExitCode::SUCCESS))
}

async fn execute(name: &str, matches: &ArgMatches, config: &StoreConfig) -> Done {
    // `migrate` is the only one without a subcommand.
    let Some((what, matches)) = matches.subcommand() else {
        return Ok(config.store.migrate(&config.store_schema).await?);
    };
    let store = config.store.open(&config.store_schema).await?;
    match name {
        POLLS => polls::execute(what, &*store, matches).await,
        QUEUES => queues::execute(what, &*store, matches).await,
        _ => quarantine::execute(what, &*store, matches).await,
    }
}

fn failed(error: &dyn std::fmt::Display, code: u8) -> ExitCode {
    eprintln!("vote-worker: {error}");
    ExitCode::from(code)
}

/// Outcome of a command.
type Done = Result<(), BoxError>;

fn text(matches: &ArgMatches, name: &str) -> String {
    matches.get_one::<String>(name).cloned().unwrap_or_default()
}
