//! A worker that breaks one rule, for tests of the checks that must detect it: `vote-worker`, wired as in its
//! `main.rs`, on a queue or a store that does not keep its contract.
//!
//! The variable `FAULTY_WORKER` selects the rule; see [`fault::Fault`]. All other settings are those of `vote-worker`.

mod fault;
mod queue;
mod store;

use std::{process::ExitCode, sync::Arc};

use vote_core::{SystemClock, WorkerId};
use vote_service::{BoxError, CliExit, ConfigError, Parsed, Program, Settings, Shutdown, program};
use vote_worker::{
    Health, Options, Parts, Source,
    config::{self, Config},
};

use crate::{fault::Fault, queue::FaultyQueue, store::FaultyStore};

fn main() -> ExitCode {
    program::main::<FaultyWorker>()
}

struct FaultyWorker;

impl Program for FaultyWorker {
    const NAME: &'static str = "faulty-worker";
    type Config = (Fault, Config);
    type Health = Health;

    fn parse() -> Result<Parsed, CliExit> {
        config::parse([])
    }

    fn config(settings: Settings) -> Result<(Fault, Config), ConfigError> {
        Ok((Fault::from_env().map_err(ConfigError::new)?, Config::from_settings(settings)?))
    }

    fn health(_: &(Fault, Config)) -> Health {
        Health::default()
    }

    async fn serve(
        (fault, config): (Fault, Config),
        health: Health,
        shutdown: Shutdown,
    ) -> Result<(), BoxError> {
        let sources = sources(fault, &config).await?;
        let witnesses = vote_worker::open_witnesses(&config).await?;
        let store = vote_worker::open_store(&config, &health, &shutdown).await?;
        let options = Options::from(&config);
        // With one lane, which acquires all partitions, in each of two workers, every partition has two owners.
        let options = if fault.shares() { Options { lanes: 1, ..options } } else { options };
        let parts = Parts {
            store: Arc::new(FaultyStore::new(store, fault)),
            witnesses,
            id: WorkerId::random()?,
            sources,
            polls: config.polls,
            clock: Arc::new(SystemClock),
            health,
        };
        Ok(vote_worker::run(parts, options, shutdown).await?)
    }
}

async fn sources(fault: Fault, config: &Config) -> Result<Vec<Source>, BoxError> {
    let mut sources = Vec::new();
    for queues in &config.queues {
        sources.push(match queues.open(&config.queue_prefix).await? {
            Source::Queue(queue) => Source::Queue(Arc::new(FaultyQueue::new(queue, fault))),
            Source::Name { .. } => {
                return Err(
                    "VOTE_QUEUES has a name to resolve, whose queues would not be faulty: list them".into()
                );
            }
        });
    }
    Ok(sources)
}
