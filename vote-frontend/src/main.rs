//! `vote-frontend`: the frontend on a queue, with one thread per core.

use std::{net::TcpListener, process::ExitCode, sync::Arc};

use vote_core::{QueueAddress, SystemClock};
use vote_frontend::{
    Health, Options, Parts, Site,
    config::{self, Config},
};
use vote_service::{
    BoxError, CliExit, ConfigError, Connections, Guards, Limits, Parsed, Program, Settings, Shutdown,
    listen::listen, program, threads,
};

/// A vote is dozens of small values, most of which are freed on the thread that made them. `malloc` and `free` of glibc
/// were 14 % of a profile.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    program::main::<Frontend>()
}

struct Frontend;

impl Program for Frontend {
    const NAME: &'static str = "vote-frontend";
    type Config = Config;
    type Health = Health;

    fn parse() -> Result<Parsed, CliExit> {
        config::parse()
    }

    fn config(settings: Settings) -> Result<Config, ConfigError> {
        Config::from_settings(settings)
    }

    fn health(config: &Config) -> Health {
        Health::of(config.threads)
    }

    /// Votes are accepted on threads of their own, so the runtime has only the admin routes to serve.
    fn threads(_: &Config) -> Option<usize> {
        Some(1)
    }

    async fn serve(config: Config, health: Health, shutdown: Shutdown) -> Result<(), BoxError> {
        // Bind all listeners before any thread accepts votes, so that an address in use fails at once.
        let listeners: Vec<TcpListener> = (0..config.threads)
            .map(|_| listen(config.listen, config.threads > 1))
            .collect::<Result<_, _>>()?;
        tracing::info!("accepting votes on http://{} with {} thread(s)", config.listen, config.threads);
        let thread = Thread::new(config, health, shutdown.clone());
        threads::run_on_threads(listeners, &shutdown, |listener| thread.run(listener)).await?;
        Ok(())
    }
}

/// What each thread is started with.
#[derive(Clone)]
struct Thread {
    queue: QueueAddress,
    queue_prefix: String,
    site: Site,
    options: Options,
    health: Health,
    shutdown: Shutdown,
}

impl Thread {
    fn new(config: Config, health: Health, shutdown: Shutdown) -> Self {
        let options = Options {
            partitions: config.partitions,
            allow_volatile: config.allow_volatile,
            limits: Limits { drain: config.drain, ..Limits::default() },
            connections: Connections::new(config.max_connections),
            guards: Guards::default(),
        };
        let site = Site {
            polls: config.polls,
            pepper: config.pepper,
            cookie_keys: config.cookie_keys,
            receipt_key: config.receipt_key,
            results_url: config.results_url,
            clock: Arc::new(SystemClock),
        };
        Self { queue: config.queue, queue_prefix: config.queue_prefix, site, options, health, shutdown }
    }

    async fn run(self, listener: TcpListener) -> Result<(), BoxError> {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let queue = self.queue.open(&self.queue_prefix).await?;
        let parts = Parts { queue, site: self.site, health: self.health };
        vote_frontend::run(listener, parts, self.options, self.shutdown).await?;
        Ok(())
    }
}
