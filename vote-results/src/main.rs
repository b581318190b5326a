//! `vote-results`: the results service on Postgres or SQLite.

use std::{fmt::Display, io, process::ExitCode, sync::Arc};

use tokio::net::TcpListener;
use vote_core::SystemClock;
use vote_results::{
    Parts,
    config::{self, Command, Config},
    run_with_admin,
    store::LateStore,
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
        Ok(Command::Run(config)) => start(*config),
    };
    done.map_or_else(fail, |()| ExitCode::SUCCESS)
}

fn fail(error: impl Display) -> ExitCode {
    eprintln!("vote-results: {error}");
    ExitCode::FAILURE
}

fn start(config: Config) -> io::Result<()> {
    telemetry::init(&config.log, config.log_format).map_err(io::Error::other)?;
    let shutdown = shutdown::on_signals()?;
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    config.threads.map(|threads| runtime.worker_threads(threads));
    runtime.enable_all().build()?.block_on(serve(config, shutdown))
}

async fn serve(config: Config, shutdown: Shutdown) -> io::Result<()> {
    let public = TcpListener::from_std(listen(config.listen, false)?)?;
    let admin = TcpListener::from_std(listen(config.admin_listen, false)?)?;
    tracing::info!(
        "results of {} on http://{}, admin routes on {}",
        config.store,
        config.listen,
        config.admin_listen
    );
    let parts = Parts {
        store: Arc::new(LateStore::new(config.store, config.store_schema)),
        polls: Arc::new(config.polls),
        receipt_key: config.receipt_key,
        clock: Arc::new(SystemClock),
        frontend_url: config.frontend_url,
    };
    run_with_admin(public, admin, parts, config.serving, shutdown).await
}
