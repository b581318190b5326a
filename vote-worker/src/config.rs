//! The worker's settings. The only place that reads the environment.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use vote_core::{Partitions, Pepper, Polls, QueueAddress, StoreAddress};
use vote_service::{
    Cli, CliExit, ConfigError, LogFormat, Parsed, Settings, cli,
    settings::{self, Setting},
    telemetry,
    traces::Collector,
};

use crate::{Source, commands};

/// The settings that the worker has.
const SETTINGS: &[&Setting] = &[
    &settings::QUEUES,
    &settings::STORE,
    &settings::STORE_WITNESS,
    &settings::POLLS,
    &settings::PEPPER,
    &settings::PARTITIONS,
    &settings::LANES,
    &settings::ADMIN_LISTEN,
    &settings::QUEUE_PREFIX,
    &settings::STORE_SCHEMA,
    &settings::TRIM_DELAY,
    &settings::CLOSE_GRACE,
    &settings::MIGRATE,
    &settings::ALLOW_VOLATILE_QUEUE,
    &settings::LOG,
    &settings::LOG_FORMAT,
    &settings::OTLP_ENDPOINT,
    &settings::OTLP_RATIO,
];

/// Everything the worker is told.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where queues are.
    pub queues: Vec<QueuesAt>,
    /// Where the store is.
    pub store: StoreAddress,
    /// Standbys whose state limits trimming; mostly none.
    pub witnesses: Vec<StoreAddress>,
    /// The polls to register.
    pub polls: Polls,
    /// The pepper that frontends have.
    pub pepper: Pepper,
    /// How many partitions a new store gets, if given.
    pub partitions: Option<Partitions>,
    /// How many lanes.
    pub lanes: usize,
    /// Where health and metrics are served.
    pub admin_listen: SocketAddr,
    /// What keys of a Redis begin with.
    pub queue_prefix: String,
    /// Where tables of a Postgres are.
    pub store_schema: String,
    /// How long queues keep what is committed.
    pub trim_delay: Duration,
    /// How long after its closing time a poll is closed.
    pub close_grace: Duration,
    /// Make or update the tables at start.
    pub migrate: bool,
    /// Commit to a store that may lose commits.
    pub allow_volatile: bool,
    /// What is logged.
    pub log: String,
    /// How it is logged.
    pub log_format: LogFormat,
    /// Where traces are sent, if anywhere.
    pub traces: Option<Collector>,
}

/// A queue, or the name of many.
#[derive(Debug, Clone)]
pub enum QueuesAt {
    /// One queue.
    Address(QueueAddress),
    /// A name to be resolved again and again, with `user:password@` in front or nothing.
    Name {
        /// Credentials, with the `@`.
        credentials: Credentials,
        /// Host and port.
        name: String,
    },
}

/// `user:password@`, not shown.
#[derive(Clone, Default)]
pub struct Credentials(String);

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_empty() { "none" } else { "…" })
    }
}

impl std::str::FromStr for QueuesAt {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let Some(rest) = text.strip_prefix("dns+redis://") else {
            return text.parse().map(Self::Address).map_err(|e: vote_core::address::AddressError| {
                format!("{e}, or dns+redis://NAME:PORT for all that a name leads to")
            });
        };
        let (credentials, name) = rest.rsplit_once('@').map_or(("", rest), |(c, name)| (c, name));
        let credentials = if credentials.is_empty() { String::new() } else { format!("{credentials}@") };
        let name = name.trim_end_matches('/');
        let has_port =
            name.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        let name = if has_port { name.to_owned() } else { format!("{name}:6379") };
        if name.starts_with(':') {
            return Err("dns+redis:// needs a name, as in dns+redis://tasks.redis:6379".to_owned());
        }
        Ok(Self::Name { credentials: Credentials(credentials), name })
    }
}

impl QueuesAt {
    /// Opens it, so far as it is one.
    ///
    /// # Errors
    /// When the address can't be used.
    pub async fn open(&self, prefix: &str) -> Result<Source, vote_core::queue::QueueError> {
        match self {
            Self::Address(address) => Ok(Source::Queue(address.open(prefix).await?)),
            Self::Name { credentials, name } => {
                let (credentials, prefix) = (credentials.clone(), prefix.to_owned());
                // Whether credentials can be read is seen now, not when the first queue is found.
                vote_core::queue::RedisQueue::connect(
                    &format!("redis://{}127.0.0.1:1", credentials.0),
                    &prefix,
                )?;
                let connect = move |address: SocketAddr| {
                    let url = format!("redis://{}{address}", credentials.0);
                    match vote_core::queue::RedisQueue::connect(&url, &prefix) {
                        Ok(queue) => Arc::new(queue) as Arc<dyn vote_core::Queue>,
                        Err(e) => unreachable!("the same credentials could be read before: {e}"),
                    }
                };
                Ok(Source::Name { name: name.clone(), connect: Arc::new(connect) })
            }
        }
    }
}

fn queues(text: &str) -> Result<Vec<QueuesAt>, String> {
    let all: Vec<&str> = text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
    if all.is_empty() {
        return Err("no address: give at least one".to_owned());
    }
    all.into_iter().map(str::parse).collect()
}

/// Standbys: servers, since a file has none.
fn witnesses(text: &str) -> Result<Vec<StoreAddress>, String> {
    let all: Vec<&str> = text.split([',', '\n']).map(str::trim).filter(|part| !part.is_empty()).collect();
    if all.is_empty() {
        return Err("no address: give at least one, or leave it out".to_owned());
    }
    let parse = |part: &str| match part.parse::<StoreAddress>() {
        Ok(address) if address.is_server() => Ok(address),
        Ok(_) => Err("a witness is a standby of Postgres: expected postgres://USER@HOST/DATABASE".to_owned()),
        Err(e) => Err(e.to_string()),
    };
    all.into_iter().map(parse).collect()
}

/// The command line as given, and the settings of command line and environment.
///
/// # Errors
/// For `--help`, `--version` and what can't be understood.
pub fn parse() -> Result<Parsed, CliExit> {
    Cli::new(
        "vote-worker",
        "Reads all queues, deduplicates, and commits votes to the store, each once.",
        SETTINGS,
    )
    .default_value(&settings::ADMIN_LISTEN, "127.0.0.1:9082")
    .command(clap::Command::new("migrate").about("Makes the tables in the store, or brings them up to date"))
    .command(commands::polls())
    .command(commands::queues())
    .command(commands::quarantine())
    .parse(std::env::args_os(), cli::lossy_env(std::env::vars_os()))
}

/// What a command needs that only works on the store.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// Where the store is.
    pub store: StoreAddress,
    /// Where tables of a Postgres are.
    pub store_schema: String,
}

impl StoreConfig {
    /// The configuration of these settings; what else is set is not looked at.
    ///
    /// # Errors
    /// With everything that is wrong.
    pub fn from_settings(mut settings: Settings) -> Result<Self, ConfigError> {
        let store = settings.required(&settings::STORE, str::parse);
        let schema = settings.required(&settings::STORE_SCHEMA, |text| Ok::<_, String>(text.to_owned()));
        settings.finish_with(store.zip(schema).map(|(store, store_schema)| Self { store, store_schema }))
    }
}

impl Config {
    /// The configuration of these settings.
    ///
    /// # Errors
    /// With everything that is wrong, each with the setting it is about.
    pub fn from_settings(mut settings: Settings) -> Result<Self, ConfigError> {
        let queues = settings.required(&settings::QUEUES, queues);
        let store = settings.required(&settings::STORE, str::parse);
        let witnesses = if settings.is_set(&settings::STORE_WITNESS) {
            settings.get(&settings::STORE_WITNESS, witnesses)
        } else {
            Some(Vec::new())
        };
        let polls = settings.polls();
        let pepper = settings.secret(&settings::PEPPER);
        let partitions = settings.get(&settings::PARTITIONS, settings::partitions);
        let partitions = partitions.filter(|_| settings.is_set(&settings::PARTITIONS));
        let lanes = settings.required(&settings::LANES, settings::count);
        let admin_listen = settings.required(&settings::ADMIN_LISTEN, str::parse);
        let queue_prefix =
            settings.required(&settings::QUEUE_PREFIX, |text| Ok::<_, String>(text.to_owned()));
        let store_schema =
            settings.required(&settings::STORE_SCHEMA, |text| Ok::<_, String>(text.to_owned()));
        let trim_delay = settings.required(&settings::TRIM_DELAY, settings::seconds);
        let close_grace = settings.required(&settings::CLOSE_GRACE, settings::seconds);
        let migrate = settings.flag(&settings::MIGRATE);
        let allow_volatile = settings.flag(&settings::ALLOW_VOLATILE_QUEUE);
        let log = settings.required(&settings::LOG, telemetry::valid_filter);
        let log_format = settings.required(&settings::LOG_FORMAT, str::parse);
        let traces = settings.collector();
        let config = || {
            Some(Self {
                queues: queues?,
                store: store?,
                witnesses: witnesses?,
                polls: polls?,
                pepper: pepper?.into(),
                partitions,
                lanes: lanes?,
                admin_listen: admin_listen?,
                queue_prefix: queue_prefix?,
                store_schema: store_schema?,
                trim_delay: trim_delay?,
                close_grace: close_grace?,
                migrate,
                allow_volatile,
                log: log?,
                log_format: log_format?,
                traces,
            })
        };
        settings.finish_with(config())
    }
}
