//! `vote-results`: the results service on the store of its settings, and the commands that audit, certify and verify.

use std::{process::ExitCode, sync::Arc};

use clap::ArgMatches;
use tokio::net::TcpListener;
use vote_core::SystemClock;
use vote_results::{
    Health, Parts, commands,
    config::{self, Config},
    store::LazyStore,
};
use vote_service::{
    BoxError, CliExit, ConfigError, Parsed, Program, Settings, Shutdown, listen::listen, program,
};

fn main() -> ExitCode {
    program::main::<Results>()
}

struct Results;

impl Program for Results {
    const NAME: &'static str = "vote-results";
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

    fn threads(config: &Config) -> Option<usize> {
        config.threads
    }

    async fn serve(config: Config, health: Health, shutdown: Shutdown) -> Result<(), BoxError> {
        let listener = TcpListener::from_std(listen(config.listen, false)?)?;
        tracing::info!("serving the results of {} on http://{}", config.store, config.listen);
        let parts = Parts {
            store: Arc::new(LazyStore::new(config.store, config.store_schema)),
            polls: Arc::new(config.polls),
            receipt_key: config.receipt_key,
            clock: Arc::new(SystemClock),
            frontend_url: config.frontend_url,
            health,
        };
        Ok(vote_results::run(listener, parts, config.options, shutdown).await?)
    }
}
