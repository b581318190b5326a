//! `vote-frontend`: runs the frontend on a queue, with one thread per core.

use std::{fmt::Display, process::ExitCode, sync::Arc};

use vote_core::SystemClock;
use vote_frontend::{
    Options, Parts, Readiness, Site,
    config::{self, Config},
};
use vote_service::{
    BoxError, Connections, Guards, Limits, Shutdown, admin, listen, settings::EX_CONFIG, shutdown, telemetry,
    threads,
};

fn main() -> ExitCode {
    let parsed = match config::parse() {
        Ok(parsed) => parsed,
        Err(exit) => return exit.exit(),
    };
    let format = parsed.settings.log_format();
    let fail = |error: &dyn Display, code: u8| {
        telemetry::log_fatal("vote-frontend", format, error);
        ExitCode::from(code)
    };
    let config = match Config::from_settings(parsed.settings) {
        Ok(config) => config,
        Err(e) => return fail(&e, EX_CONFIG),
    };
    let traces = config.traces.as_ref();
    let _sending = match telemetry::init_with_traces(&config.log, config.log_format, "vote-frontend", traces)
    {
        Ok(sending) => sending,
        Err(e) => return fail(&e, EX_CONFIG),
    };
    let result = match parsed.command.as_ref().map(|(name, _)| name.as_str()) {
        Some("check-config") => {
            println!("configuration ok");
            return ExitCode::SUCCESS;
        }
        Some("healthcheck") => admin::healthcheck(config.admin_listen).map_err(BoxError::from),
        _ => shutdown::on_signals().map_err(BoxError::from).and_then(|shutdown| run(&config, &shutdown)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => fail(&*e, 1),
    }
}

fn run(config: &Config, shutdown: &Shutdown) -> Result<(), BoxError> {
    vote_service::metrics::exported();
    vote_frontend::metrics::describe();
    let readiness = Readiness::of(config.threads);
    let options = Options {
        partitions: config.partitions,
        allow_volatile: config.allow_volatile,
        limits: Limits { drain: config.drain, ..Limits::default() },
        connections: Connections::new(config.max_connections),
        guards: Guards::default(),
    };
    let site = Site {
        polls: Arc::clone(&config.polls),
        pepper: config.pepper.clone(),
        cookie_keys: config.cookie_keys.clone(),
        receipt_key: config.receipt_key.clone(),
        results_url: config.results_url.clone(),
        clock: Arc::new(SystemClock),
    };
    // Bind all listeners before any thread accepts votes, so that an address in use fails at once.
    let listeners = (0..config.threads)
        .map(|_| listen::listen(config.listen, config.threads > 1).map(|listener| Some(listener).into()))
        .collect::<Result<Vec<std::sync::Mutex<_>>, _>>()?;
    let admin_listener = std::sync::Mutex::new(Some(listen::listen(config.admin_listen, false)?));
    tracing::info!(
        "accepting votes on http://{} with {} thread(s), admin routes on {}",
        config.listen,
        config.threads,
        config.admin_listen
    );
    let shared = Arc::new((listeners, admin_listener));
    let (queue, prefix) = (config.queue.clone(), config.queue_prefix.clone());
    let stop = shutdown.clone();
    threads::run_per_core(config.threads, shutdown, move |thread| {
        let (shared, queue, prefix) = (Arc::clone(&shared), queue.clone(), prefix.clone());
        let (site, options, readiness, shutdown) =
            (site.clone(), options.clone(), readiness.clone(), stop.clone());
        async move {
            let take = |slot: &std::sync::Mutex<Option<std::net::TcpListener>>| slot.lock().ok()?.take();
            if let Some(listener) = take(&shared.1) {
                let (listener, ready) = (tokio::net::TcpListener::from_std(listener)?, readiness.clone());
                // The admin routes keep answering while requests in flight finish, and end with this thread's runtime.
                let stopping = shutdown.clone();
                let ready = move || {
                    if stopping.is_requested() { Err("shutting down".to_owned()) } else { ready.ready() }
                };
                let remarks = readiness.clone();
                let admin = admin::Admin::new(ready).with_remarks(move || remarks.remarks());
                tokio::spawn(admin::serve_as(listener, admin, Shutdown::new()));
            }
            let listener =
                take(&shared.0[thread]).ok_or("a thread was started twice, which is a bug: report it")?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let parts = Parts { queue: queue.open(&prefix).await?, site, readiness };
            vote_frontend::run(listener, parts, options, shutdown).await?;
            Ok::<(), BoxError>(())
        }
    })?;
    Ok(())
}
