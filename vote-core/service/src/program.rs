//! Start and end of a service as a program, the same for all services.
//!
//! [`main`] parses the command line and reads the settings. Then it executes a command, or starts the log, the signals,
//! the runtime and the admin routes, and serves. The admin routes answer from before the service connects to anything
//! until it has ended; once a shutdown is requested, `/readyz` says so.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | the service was shut down, or the command succeeded |
//! | 1 | the service or the command failed |
//! | [64](crate::cli::EX_USAGE) | the command line is invalid |
//! | [78](EX_CONFIG) | settings are invalid, or do not fit what the store was set up with |
//!
//! A command of a service may have exit codes of its own.

use std::{net::SocketAddr, process::ExitCode};

use clap::ArgMatches;
use tokio::{net::TcpListener, runtime};

use crate::{
    BoxError, CliExit, ConfigError, LogFormat, Parsed, Settings, Shutdown, admin,
    cli::{CHECK_CONFIG, HEALTHCHECK},
    listen::listen,
    metrics,
    readiness::{Readiness, UntilShutdown},
    settings::{self, EX_CONFIG},
    shutdown, telemetry,
    traces::Collector,
};

/// A service that [`main`] runs.
pub trait Program {
    /// Name of the program: precedes its errors, and names the service in traces.
    const NAME: &'static str;
    /// The configuration, without the settings that [`main`] reads: those of the admin routes, the log and the traces.
    type Config: Send;
    /// What the admin routes tell about the service. Clones share it.
    type Health: Readiness + Clone;

    /// Parses the command line and the environment of the process.
    ///
    /// # Errors
    /// Fails if help or the version was requested, or if the command line is invalid.
    fn parse() -> Result<Parsed, CliExit>;

    /// Executes a command that only this service has, and returns its exit code.
    ///
    /// # Errors
    /// Fails if a setting that the command needs is missing or invalid.
    fn command(name: &str, _: &ArgMatches, _: Settings) -> Result<ExitCode, ConfigError> {
        Err(ConfigError::new(format!("{name}: this program does not have the command")))
    }

    /// Builds the configuration from the settings.
    ///
    /// # Errors
    /// Reports every invalid or missing setting by name.
    fn config(settings: Settings) -> Result<Self::Config, ConfigError>;

    /// Returns the health of a service that has not been started yet.
    fn health(config: &Self::Config) -> Self::Health;

    /// Returns the number of threads of the runtime that [`serve`](Self::serve) is called in; `None` for one per core.
    fn threads(_: &Self::Config) -> Option<usize> {
        None
    }

    /// Serves until shutdown, then finishes the work in progress.
    ///
    /// # Errors
    /// Fails if the service can't be started or breaks down. A [`ConfigError`] ends the program with 78 instead of 1.
    fn serve(
        config: Self::Config,
        health: Self::Health,
        shutdown: Shutdown,
    ) -> impl Future<Output = Result<(), BoxError>> + Send;
}

/// Runs a service as a program, and returns the exit code. To be called by `main` and nothing else.
#[must_use]
pub fn main<P: Program>() -> ExitCode {
    let Parsed { command, settings } = match P::parse() {
        Ok(parsed) => parsed,
        Err(exit) => return exit.exit(),
    };
    let format = settings.log_format();
    let done = match command.as_ref().map(|(name, matches)| (name.as_str(), matches)) {
        None => run::<P>(settings),
        Some((CHECK_CONFIG, _)) => read::<P>(settings).map(|_| println!("configuration ok")),
        Some((HEALTHCHECK, _)) => healthcheck(settings),
        Some((name, matches)) => match P::command(name, matches, settings) {
            Ok(code) => return code,
            Err(e) => Err(e.into()),
        },
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            telemetry::log_fatal(P::NAME, format, &e);
            ExitCode::from(if e.is::<ConfigError>() { EX_CONFIG } else { 1 })
        }
    }
}

/// The settings that every service has and that only [`main`] reads.
struct Process {
    admin_listen: SocketAddr,
    log: String,
    log_format: LogFormat,
    traces: Option<Collector>,
}

impl Process {
    fn read(settings: &mut Settings) -> Option<Self> {
        let admin_listen = settings.required(&settings::ADMIN_LISTEN, str::parse);
        let log = settings.required(&settings::LOG, telemetry::valid_filter);
        let log_format = settings.required(&settings::LOG_FORMAT, str::parse);
        let traces = settings.collector();
        Some(Self { admin_listen: admin_listen?, log: log?, log_format: log_format?, traces })
    }
}

/// Reads all settings, so that the problems with them are reported together.
fn read<P: Program>(mut settings: Settings) -> Result<(Process, P::Config), BoxError> {
    let process = Process::read(&mut settings);
    let config = P::config(settings)?;
    Ok((process.ok_or("a problem with a setting was not reported, which is a bug")?, config))
}

/// Asks the running service whether it is healthy. It reads one setting only, because it runs every few seconds, and
/// the service itself reports problems with the others.
fn healthcheck(mut settings: Settings) -> Result<(), BoxError> {
    let address = settings.required(&settings::ADMIN_LISTEN, str::parse);
    Ok(admin::healthcheck(settings.finish_with(address)?)?)
}

fn run<P: Program>(settings: Settings) -> Result<(), BoxError> {
    let (process, config) = read::<P>(settings)?;
    let traces = process.traces.as_ref();
    let _sending = telemetry::init_with_traces(&process.log, process.log_format, P::NAME, traces)
        .map_err(|e| ConfigError::new(e.to_string()))?;
    let shutdown = shutdown::on_signals()?;
    let mut runtime = runtime::Builder::new_multi_thread();
    if let Some(threads) = P::threads(&config) {
        runtime.worker_threads(threads);
    }
    runtime.enable_all().build()?.block_on(serve::<P>(config, process.admin_listen, shutdown))
}

/// Serves with the admin routes, which end after the service.
async fn serve<P: Program>(
    config: P::Config,
    admin_listen: SocketAddr,
    shutdown: Shutdown,
) -> Result<(), BoxError> {
    metrics::exported();
    let health = P::health(&config);
    let listener = TcpListener::from_std(listen(admin_listen, false)?)?;
    tracing::info!("serving admin routes on http://{admin_listen}");
    let readiness = UntilShutdown { readiness: health.clone(), shutdown: shutdown.clone() };
    let ended = Shutdown::new();
    let admin = tokio::spawn({
        let (ended, shutdown) = (ended.clone(), shutdown.clone());
        async move {
            let result = admin::serve_admin(listener, readiness, ended).await;
            // Nothing can tell any more whether the service works, so it finishes, also if the port has failed.
            shutdown.trigger();
            result
        }
    });
    let result = P::serve(config, health, shutdown).await;
    ended.trigger();
    let admin = admin.await;
    result?;
    Ok(admin??)
}
