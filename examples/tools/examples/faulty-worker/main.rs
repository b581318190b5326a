//! A worker that breaks one rule, for tests of the checks that must detect it: `vote-worker`, wired as in its
//! `main.rs`, on a queue or a store that does not keep its contract.
//!
//! The variable `FAULTY_WORKER` selects the rule; see [`fault::Fault`]. All other settings are those of `vote-worker`.

mod fault;
mod queue;
mod store;

use std::{process::ExitCode, sync::Arc};

use vote_core::SystemClock;
use vote_service::{BoxError, Shutdown, admin, settings::EX_CONFIG, shutdown, telemetry};
use vote_worker::{
    Health, Options, Parts, Source,
    config::{self, Config},
};

use crate::{fault::Fault, queue::FaultyQueue, store::FaultyStore};

fn main() -> ExitCode {
    let fault = match Fault::from_env() {
        Ok(fault) => fault,
        Err(e) => return fail(&e, EX_CONFIG),
    };
    let config = match config::parse() {
        Ok(parsed) => Config::from_settings(parsed.settings),
        Err(exit) => return exit.exit(),
    };
    let config = match config {
        Ok(config) => config,
        Err(e) => return fail(&e, EX_CONFIG),
    };
    if let Err(e) = telemetry::init(&config.log, config.log_format) {
        return fail(&e, EX_CONFIG);
    }
    let result = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(BoxError::from)
        .and_then(|runtime| Ok((runtime, shutdown::on_signals()?)))
        .and_then(|(runtime, shutdown)| runtime.block_on(run(fault, config, shutdown)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => fail(&e, 1),
    }
}

fn fail(error: &dyn std::fmt::Display, code: u8) -> ExitCode {
    eprintln!("faulty-worker: {error}");
    ExitCode::from(code)
}

async fn run(fault: Fault, config: Config, shutdown: Shutdown) -> Result<(), BoxError> {
    vote_service::metrics::exported();
    vote_worker::metrics::describe();
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
    let health = Health::default();
    let admin = tokio::net::TcpListener::from_std(vote_service::listen::listen(config.admin_listen, false)?)?;
    let ready = health.clone();
    let ended = Shutdown::new();
    let admin = tokio::spawn(admin::serve_admin(admin, move || ready.ready(), ended.clone()));
    let witnesses = vote_worker::open_witnesses(&config).await?;
    let store = vote_worker::open_store(&config, &health, &shutdown).await?;
    let options = Options {
        // With one lane, which acquires all partitions, in each of two workers, every partition has two owners.
        lanes: if fault.shares() { 1 } else { config.lanes },
        partitions: config.partitions,
        fingerprint: config.pepper.fingerprint(),
        trim_delay: config.trim_delay,
        close_grace: config.close_grace,
        allow_volatile: config.allow_volatile,
    };
    let parts = Parts {
        store: Arc::new(FaultyStore::new(store, fault)),
        witnesses,
        sources,
        polls: config.polls,
        clock: Arc::new(SystemClock),
        health,
    };
    let result = vote_worker::run(parts, options, shutdown.clone()).await;
    ended.trigger();
    admin.await??;
    Ok(result?)
}
