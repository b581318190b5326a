//! `vote-worker`: the worker on the queues and the store of its settings, and the commands for operators.

use std::{process::ExitCode, sync::Arc};

use clap::ArgMatches;
use vote_core::{SystemClock, WorkerId};
use vote_service::{BoxError, CliExit, ConfigError, Parsed, Program, Settings, Shutdown, program};
use vote_worker::{
    Health, Options, Parts, WorkerError, commands,
    config::{self, Config},
};

/// A worker makes and frees many small values of different ages: replies of a thousand queues, and votes until they are
/// committed. With glibc's allocator that takes nearly half of the CPU time (see `docs/performance.md`).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    program::main::<Worker>()
}

struct Worker;

impl Program for Worker {
    const NAME: &'static str = "vote-worker";
    type Config = Config;
    type Health = Health;

    fn parse() -> Result<Parsed, CliExit> {
        config::parse(commands::definitions())
    }

    fn command(name: &str, matches: &ArgMatches, settings: Settings) -> Result<ExitCode, ConfigError> {
        commands::run(name, matches, settings)
    }

    fn config(settings: Settings) -> Result<Config, ConfigError> {
        Config::from_settings(settings)
    }

    fn health(_: &Config) -> Health {
        Health::default()
    }

    async fn serve(config: Config, health: Health, shutdown: Shutdown) -> Result<(), BoxError> {
        work(config, health, shutdown).await.map_err(|e| match e.downcast_ref() {
            Some(WorkerError::Store(error)) if error.is_wrong_setting() => {
                ConfigError::new(e.to_string()).into()
            }
            _ => e,
        })
    }
}

async fn work(config: Config, health: Health, shutdown: Shutdown) -> Result<(), BoxError> {
    let mut sources = Vec::new();
    for queues in &config.queues {
        sources.push(queues.open(&config.queue_prefix).await?);
    }
    tracing::info!("starting {} lane(s) on {}", config.lanes, config.store);
    let witnesses = vote_worker::open_witnesses(&config).await?;
    let store = vote_worker::open_store(&config, &health, &shutdown).await?;
    let id = WorkerId::random()?;
    let options = Options::from(&config);
    let parts =
        Parts { store, witnesses, id, sources, polls: config.polls, clock: Arc::new(SystemClock), health };
    Ok(vote_worker::run(parts, options, shutdown).await?)
}
