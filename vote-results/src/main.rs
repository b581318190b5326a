//! `vote-results`: the results service on Postgres or SQLite.

use std::{
    fmt::Display,
    io::{self, Write},
    process::ExitCode,
    sync::Arc,
};

use tokio::{net::TcpListener, runtime::Runtime};
use vote_core::SystemClock;
use vote_results::{
    Parts, audit,
    certificate::command::{run_certify, run_verify},
    config::{self, AuditConfig, CertifyConfig, Command, Config},
    run_with_admin,
    store::LazyStore,
};
use vote_service::{Shutdown, admin, listen::listen, shutdown, telemetry};

fn main() -> ExitCode {
    let done = match config::from_process() {
        Err(exit) => return exit.exit(),
        Ok(Command::CheckConfig) => {
            println!("configuration ok");
            Ok(())
        }
        Ok(Command::Healthcheck(addr)) => admin::healthcheck(addr).map_err(io::Error::other),
        Ok(Command::Audit(config)) => return audit(config),
        Ok(Command::Certify(config)) => return certify(*config),
        Ok(Command::Verify(config)) => {
            return ExitCode::from(run_verify(&config, &mut io::stdout(), &mut io::stderr()));
        }
        Ok(Command::Run(config)) => {
            let format = config.log_format;
            return start(*config).map_or_else(
                |e| {
                    telemetry::log_fatal("vote-results", format, &e);
                    ExitCode::FAILURE
                },
                |()| ExitCode::SUCCESS,
            );
        }
    };
    done.map_or_else(fail, |()| ExitCode::SUCCESS)
}

fn fail(error: impl Display) -> ExitCode {
    eprintln!("vote-results: {error}");
    ExitCode::FAILURE
}

/// Runs the audit and exits with its verdict. An error has an exit code of its own, since it says nothing about votes.
fn audit(config: AuditConfig) -> ExitCode {
    let store = LazyStore::new(config.store, config.store_schema);
    let runtime = match one_thread() {
        Ok(runtime) => runtime,
        Err(e) => return fail(e),
    };
    match runtime.block_on(audit::audit(&store, config.poll)) {
        Ok(audit) => {
            let text = if config.json {
                serde_json::to_string_pretty(&audit).map(|json| json + "\n").unwrap_or_else(|e| e.to_string())
            } else {
                audit::table(&audit)
            };
            // A closed pipe is no failure: the exit code carries the verdict.
            let _ = io::stdout().write_all(text.as_bytes());
            ExitCode::from(audit.verdict.exit_code())
        }
        Err(e) => {
            eprintln!("vote-results: {e}");
            ExitCode::from(audit::EX_UNAVAILABLE)
        }
    }
}

/// Writes a certificate. The exit code tells whether it was written, or why it was not.
fn certify(config: CertifyConfig) -> ExitCode {
    let store = LazyStore::new(config.store.clone(), config.store_schema.clone());
    let (mut out, mut err) = (io::stdout(), io::stderr());
    let certifying = run_certify(&config, &store, &mut out, &mut err);
    match one_thread() {
        Ok(runtime) => ExitCode::from(runtime.block_on(certifying)),
        Err(e) => fail(e),
    }
}

fn one_thread() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

fn start(config: Config) -> io::Result<()> {
    let traces = config.traces.as_ref();
    let _sending = telemetry::init_with_traces(&config.log, config.log_format, "vote-results", traces)
        .map_err(io::Error::other)?;
    let shutdown = shutdown::on_signals()?;
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    config.threads.map(|threads| runtime.worker_threads(threads));
    runtime.enable_all().build()?.block_on(serve(config, shutdown))
}

async fn serve(config: Config, shutdown: Shutdown) -> io::Result<()> {
    let public = TcpListener::from_std(listen(config.listen, false)?)?;
    let admin = TcpListener::from_std(listen(config.admin_listen, false)?)?;
    tracing::info!(
        "serving the results of {} on http://{}, admin routes on {}",
        config.store,
        config.listen,
        config.admin_listen
    );
    let parts = Parts {
        store: Arc::new(LazyStore::new(config.store, config.store_schema)),
        polls: Arc::new(config.polls),
        receipt_key: config.receipt_key,
        clock: Arc::new(SystemClock),
        frontend_url: config.frontend_url,
    };
    run_with_admin(public, admin, parts, config.options, shutdown).await
}
