//! `vote-worker`: runs the worker on Redis and Postgres, and the commands for operators.

use std::{fmt::Display, process::ExitCode, sync::Arc};

use vote_core::SystemClock;
use vote_service::{Shutdown, admin, settings::EX_CONFIG, shutdown, telemetry};
use vote_worker::{
    Health, Options, Parts, WorkerError, commands,
    config::{self, Config, StoreConfig},
};

fn main() -> ExitCode {
    let parsed = match config::parse() {
        Ok(parsed) => parsed,
        Err(exit) => return exit.exit(),
    };
    let format = parsed.settings.log_format();
    let fail = |error: &dyn Display, code: u8| {
        telemetry::log_fatal("vote-worker", format, error);
        ExitCode::from(code)
    };
    let command = match parsed.command {
        Some((name, matches)) if commands::is_of(&name) => {
            return match StoreConfig::from_settings(parsed.settings) {
                Ok(config) => commands::run(&name, &matches, &config),
                Err(e) => fail(&e, EX_CONFIG),
            };
        }
        other => other.map(|(name, _)| name),
    };
    let config = match Config::from_settings(parsed.settings) {
        Ok(config) => config,
        Err(e) => return fail(&e, EX_CONFIG),
    };
    let traces = config.traces.as_ref();
    let _sending = match telemetry::init_with_traces(&config.log, config.log_format, "vote-worker", traces) {
        Ok(sending) => sending,
        Err(e) => return fail(&e, EX_CONFIG),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return fail(&e, 1),
    };
    let result = match command.as_deref() {
        Some("check-config") => {
            println!("configuration ok");
            return ExitCode::SUCCESS;
        }
        Some("healthcheck") => admin::healthcheck(config.admin_listen).map_err(Into::into),
        _ => shutdown::on_signals()
            .map_err(Into::into)
            .and_then(|shutdown| runtime.block_on(run(config, shutdown))),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            let wrong_setting =
                matches!(e.downcast_ref(), Some(WorkerError::Store(e)) if e.is_wrong_setting());
            fail(&*e, if wrong_setting { EX_CONFIG } else { 1 })
        }
    }
}

async fn run(config: Config, shutdown: Shutdown) -> Result<(), vote_service::BoxError> {
    vote_service::metrics::exported();
    vote_worker::metrics::describe();
    let mut sources = Vec::new();
    for queues in &config.queues {
        sources.push(queues.open(&config.queue_prefix).await?);
    }
    tracing::info!(
        "starting {} lane(s) on {}, admin routes on {}",
        config.lanes,
        config.store,
        config.admin_listen
    );
    let health = Health::default();
    let admin = tokio::net::TcpListener::from_std(vote_service::listen::listen(config.admin_listen, false)?)?;
    let (ready, stopping) = (health.clone(), shutdown.clone());
    let ready = move || if stopping.is_requested() { Err("shutting down".to_owned()) } else { ready.ready() };
    // The admin routes keep answering until the lanes have ended.
    let ended = Shutdown::new();
    let admin = tokio::spawn(admin::serve_admin(admin, ready, ended.clone()));
    let witnesses = vote_worker::open_witnesses(&config).await?;
    let store = vote_worker::open_store(&config, &health, &shutdown).await?;
    let options = Options {
        lanes: config.lanes,
        partitions: config.partitions,
        fingerprint: config.pepper.fingerprint(),
        trim_delay: config.trim_delay,
        close_grace: config.close_grace,
        allow_volatile: config.allow_volatile,
    };
    let parts =
        Parts { store, witnesses, sources, polls: config.polls, clock: Arc::new(SystemClock), health };
    let result = vote_worker::run(parts, options, shutdown.clone()).await;
    ended.trigger();
    admin.await??;
    Ok(result?)
}
