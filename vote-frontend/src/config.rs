//! The frontend's settings. The only place that reads the environment.

use std::{net::SocketAddr, sync::Arc};

use vote_core::{Partitions, Pepper, Polls, QueueAddress};
use vote_service::{
    Cli, CliExit, ConfigError, LogFormat, Parsed, ReceiptKey, Settings, cli,
    settings::{self, Setting},
    telemetry, threads,
    traces::Collector,
};

use crate::cookie::CookieKeys;

/// The settings that the frontend has.
const SETTINGS: &[&Setting] = &[
    &settings::QUEUE,
    &settings::LISTEN,
    &settings::ADMIN_LISTEN,
    &settings::POLLS,
    &settings::PEPPER,
    &settings::COOKIE_KEYS,
    &settings::RECEIPT_KEY,
    &settings::PARTITIONS,
    &settings::RESULTS_URL,
    &settings::TLS,
    &settings::THREADS,
    &settings::MAX_CONNECTIONS,
    &settings::QUEUE_PREFIX,
    &settings::ALLOW_VOLATILE_QUEUE,
    &settings::SHUTDOWN_SECONDS,
    &settings::LOG,
    &settings::LOG_FORMAT,
    &settings::OTLP_ENDPOINT,
    &settings::OTLP_RATIO,
];

/// Everything the frontend is told.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the queue is.
    pub queue: QueueAddress,
    /// Where votes are taken.
    pub listen: SocketAddr,
    /// Where health and metrics are served.
    pub admin_listen: SocketAddr,
    /// The polls.
    pub polls: Arc<Polls>,
    /// Turns voters into keys.
    pub pepper: Pepper,
    /// Signs cookies.
    pub cookie_keys: CookieKeys,
    /// Seals receipts.
    pub receipt_key: ReceiptKey,
    /// How many partitions the store has.
    pub partitions: Partitions,
    /// Where results are shown.
    pub results_url: Option<String>,
    /// How many threads.
    pub threads: usize,
    /// How many connections at once.
    pub max_connections: usize,
    /// What keys of a Redis begin with.
    pub queue_prefix: String,
    /// Take votes even if the queue may lose them.
    pub allow_volatile: bool,
    /// How long requests in flight get at shutdown.
    pub drain: std::time::Duration,
    /// What is logged.
    pub log: String,
    /// How it is logged.
    pub log_format: LogFormat,
    /// Where traces are sent, if anywhere.
    pub traces: Option<Collector>,
}

/// An address that pages can link to.
fn url(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    match rest {
        Some(rest) if !rest.is_empty() && !rest.contains(['"', '<', '>', ' ']) => {
            Ok(text.trim_end_matches('/').to_owned())
        }
        _ => Err("give an address that starts with http:// or https://".to_owned()),
    }
}

/// The command line as given, and the settings of command line and environment.
///
/// # Errors
/// For `--help`, `--version` and what can't be understood.
pub fn parse() -> Result<Parsed, CliExit> {
    Cli::new(
        "vote-frontend",
        "Takes votes over HTTP and queues them, each acknowledged when it is on disk.",
        SETTINGS,
    )
    .default_value(&settings::LISTEN, "127.0.0.1:8080")
    .default_value(&settings::ADMIN_LISTEN, "127.0.0.1:9081")
    .parse(std::env::args_os(), cli::lossy_env(std::env::vars_os()))
}

impl Config {
    /// The configuration of these settings.
    ///
    /// # Errors
    /// With everything that is wrong, each with the setting it is about.
    pub fn from_settings(mut settings: Settings) -> Result<Self, ConfigError> {
        let queue = settings.required(&settings::QUEUE, str::parse::<QueueAddress>);
        let listen = settings.required(&settings::LISTEN, str::parse);
        let admin_listen = settings.required(&settings::ADMIN_LISTEN, str::parse);
        let polls = settings.polls();
        let pepper = settings.secret(&settings::PEPPER);
        let cookie_keys = settings.secrets(&settings::COOKIE_KEYS);
        let receipt_key = settings.secret(&settings::RECEIPT_KEY);
        let partitions = settings.required(&settings::PARTITIONS, settings::partitions);
        let results_url = settings.get(&settings::RESULTS_URL, url);
        let tls = settings.flag(&settings::TLS);
        let threads = settings.get(&settings::THREADS, settings::count).unwrap_or_else(threads::cores);
        let max_connections = settings.required(&settings::MAX_CONNECTIONS, settings::count);
        let queue_prefix =
            settings.required(&settings::QUEUE_PREFIX, |text| Ok::<_, String>(text.to_owned()));
        let allow_volatile = settings.flag(&settings::ALLOW_VOLATILE_QUEUE);
        let drain = settings.required(&settings::SHUTDOWN_SECONDS, settings::seconds);
        let log = settings.required(&settings::LOG, telemetry::valid_filter);
        let log_format = settings.required(&settings::LOG_FORMAT, str::parse);
        let traces = settings.collector();
        let config = || {
            let queue = queue?;
            Some(Self {
                // A file or memory is one for the process; only a server has a connection for each thread.
                threads: if queue.is_server() { threads } else { 1 },
                queue,
                listen: listen?,
                admin_listen: admin_listen?,
                polls: Arc::new(polls?),
                pepper: pepper?.into(),
                cookie_keys: CookieKeys::new(&cookie_keys?, tls)?,
                receipt_key: receipt_key?.into(),
                partitions: partitions?,
                results_url,
                max_connections: max_connections?,
                queue_prefix: queue_prefix?,
                allow_volatile,
                drain: drain?,
                log: log?,
                log_format: log_format?,
                traces,
            })
        };
        settings.finish_with(config())
    }
}
