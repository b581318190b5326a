//! The frontend's configuration. No other module reads the environment.

use std::{net::SocketAddr, sync::Arc};

use vote_core::{Partitions, Pepper, Polls, QueueAddress};
use vote_service::{
    Cli, CliExit, ConfigError, Parsed, ReceiptKey, Settings, cli,
    settings::{self, Setting},
    threads,
};

use crate::cookie::CookieKeys;

/// The settings of the frontend.
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

/// The configuration of the frontend, without the settings of the [program](vote_service::program).
#[derive(Debug, Clone)]
pub struct Config {
    /// Address of the queue.
    pub queue: QueueAddress,
    /// Address to serve the public routes on.
    pub listen: SocketAddr,
    /// The polls to serve.
    pub polls: Arc<Polls>,
    /// Secret that turns voter ids into voter keys.
    pub pepper: Pepper,
    /// Keys that sign and verify cookies.
    pub cookie_keys: CookieKeys,
    /// Key that encrypts receipts.
    pub receipt_key: ReceiptKey,
    /// Number of partitions, which must equal that of the store.
    pub partitions: Partitions,
    /// Base URL of the results site, for links.
    pub results_url: Option<String>,
    /// Number of threads that serve requests.
    pub threads: usize,
    /// Maximum number of open connections.
    pub max_connections: usize,
    /// Prefix of all keys in Redis.
    pub queue_prefix: String,
    /// Accept votes even if the queue may lose them.
    pub allow_volatile: bool,
    /// Time that requests in flight have to finish at shutdown.
    pub drain: std::time::Duration,
}

/// Parses the base URL of a site that pages link to.
fn url(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    match rest {
        Some(rest) if !rest.is_empty() && !rest.contains(['"', '<', '>', ' ']) => {
            Ok(text.trim_end_matches('/').to_owned())
        }
        _ => {
            Err("expected a URL that starts with http:// or https://, without spaces, quotes or <>"
                .to_owned())
        }
    }
}

/// Parses the command line, and the settings in it and in the environment.
///
/// # Errors
/// Returns what to print and the exit code for `--help`, `--version` and invalid arguments.
pub fn parse() -> Result<Parsed, CliExit> {
    Cli::new(
        "vote-frontend",
        "Accept votes over HTTP, append them to a queue, and acknowledge each once it is on disk",
        SETTINGS,
    )
    .default_value(&settings::LISTEN, "127.0.0.1:8080")
    .default_value(&settings::ADMIN_LISTEN, "127.0.0.1:9081")
    .parse(std::env::args_os(), cli::lossy_env(std::env::vars_os()))
}

impl Config {
    /// Builds the configuration from the settings.
    ///
    /// # Errors
    /// Reports every invalid or missing setting by name.
    pub fn from_settings(mut settings: Settings) -> Result<Self, ConfigError> {
        let queue = settings.required(&settings::QUEUE, str::parse::<QueueAddress>);
        let listen = settings.required(&settings::LISTEN, str::parse);
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
        let config = || {
            let queue = queue?;
            Some(Self {
                // A queue in a file or in memory is opened once a process; only a server gets a connection per thread.
                threads: if queue.is_server() { threads } else { 1 },
                queue,
                listen: listen?,
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
            })
        };
        settings.finish_with(config())
    }
}
