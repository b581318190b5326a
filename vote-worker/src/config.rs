//! The worker's configuration. No other module reads the environment.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use clap::Command;
use vote_core::{Partitions, Pepper, Polls, QueueAddress, StoreAddress, queue::QueueError};
use vote_service::{
    Cli, CliExit, ConfigError, Parsed, Settings, cli,
    settings::{self, Setting},
};

use crate::Source;

/// The settings of the worker.
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

/// The configuration of the worker, without the settings of the [program](vote_service::program).
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the queues are.
    pub queues: Vec<QueuesAt>,
    /// Address of the store.
    pub store: StoreAddress,
    /// Standbys whose state limits trimming; usually none.
    pub witnesses: Vec<StoreAddress>,
    /// The polls to register.
    pub polls: Polls,
    /// The pepper that the frontends use.
    pub pepper: Pepper,
    /// Number of partitions that the store must have. `None`: as an existing store has; a default for a new one.
    pub partitions: Option<Partitions>,
    /// Number of lanes.
    pub lanes: usize,
    /// Prefix of all keys in Redis.
    pub queue_prefix: String,
    /// Schema of the tables in Postgres.
    pub store_schema: String,
    /// How long queues keep committed entries.
    pub trim_delay: Duration,
    /// Time from a poll's `closes_at` until it is closed.
    pub close_grace: Duration,
    /// Create or update the tables at start.
    pub migrate: bool,
    /// Commit to a store that may lose commits.
    pub allow_volatile: bool,
}

/// Address of a queue, or name of many.
#[derive(Debug, Clone)]
pub enum QueuesAt {
    /// Address of one queue.
    Address(QueueAddress),
    /// A name that is resolved periodically.
    Name {
        /// Credentials for the servers behind the name; may be empty.
        credentials: Credentials,
        /// Host and port.
        name: String,
    },
}

/// Credentials in the form `user:password@`, or nothing. `Debug` hides them.
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
                format!("{e}, or dns+redis://NAME:PORT for all queues behind a name")
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
    /// Opens the queue at an address. A name is resolved later.
    ///
    /// # Errors
    /// Fails if the address or the credentials are invalid.
    pub async fn open(&self, prefix: &str) -> Result<Source, QueueError> {
        match self {
            Self::Address(address) => Ok(Source::Queue(address.open(prefix).await?)),
            Self::Name { credentials, name } => {
                let (credentials, prefix) = (credentials.clone(), prefix.to_owned());
                let open = move |address: SocketAddr| {
                    let url = format!("redis://{}{address}", credentials.0);
                    let url: QueueAddress =
                        url.parse().map_err(|e| QueueError::Incompatible(format!("{e}")))?;
                    url.connect(&prefix)
                };
                // Connects to nowhere, to find invalid credentials now and not when the first queue is found.
                open(SocketAddr::from(([127, 0, 0, 1], 1)))?;
                let connect = move |address| match open(address) {
                    Ok(queue) => queue,
                    Err(e) => unreachable!("the same credentials were valid before: {e}"),
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

/// Parses the addresses of standbys, which must be servers: a file has no standby.
fn witnesses(text: &str) -> Result<Vec<StoreAddress>, String> {
    let all: Vec<&str> = text.split([',', '\n']).map(str::trim).filter(|part| !part.is_empty()).collect();
    if all.is_empty() {
        return Err("no address: give at least one, or leave the setting out".to_owned());
    }
    let parse = |part: &str| match part.parse::<StoreAddress>() {
        Ok(address) if address.is_server() => Ok(address),
        Ok(_) => Err("a witness is a standby of Postgres: expected postgres://USER@HOST/DATABASE".to_owned()),
        Err(e) => Err(e.to_string()),
    };
    all.into_iter().map(parse).collect()
}

/// Parses the command line, which may name one of the commands, and the settings in it and in the environment.
///
/// # Errors
/// Returns what to print and the exit code for `--help`, `--version` and invalid arguments.
pub fn parse(commands: impl IntoIterator<Item = Command>) -> Result<Parsed, CliExit> {
    let cli = Cli::new(
        "vote-worker",
        "Read all queues, deduplicate the votes, and commit each to the store exactly once",
        SETTINGS,
    )
    .default_value(&settings::ADMIN_LISTEN, "127.0.0.1:9082");
    let cli = commands.into_iter().fold(cli, Cli::command);
    cli.parse(std::env::args_os(), cli::lossy_env(std::env::vars_os()))
}

/// The configuration of a command that works on the store only.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// Address of the store.
    pub store: StoreAddress,
    /// Schema of the tables in Postgres.
    pub store_schema: String,
}

impl StoreConfig {
    /// Builds the configuration from the settings, and ignores all others.
    ///
    /// # Errors
    /// Reports every invalid or missing setting by name.
    pub fn from_settings(mut settings: Settings) -> Result<Self, ConfigError> {
        let store = settings.required(&settings::STORE, str::parse);
        let schema = settings.required(&settings::STORE_SCHEMA, |text| Ok::<_, String>(text.to_owned()));
        settings.finish_with(store.zip(schema).map(|(store, store_schema)| Self { store, store_schema }))
    }
}

impl Config {
    /// Builds the configuration from the settings.
    ///
    /// # Errors
    /// Reports every invalid or missing setting by name.
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
        let queue_prefix =
            settings.required(&settings::QUEUE_PREFIX, |text| Ok::<_, String>(text.to_owned()));
        let store_schema =
            settings.required(&settings::STORE_SCHEMA, |text| Ok::<_, String>(text.to_owned()));
        let trim_delay = settings.required(&settings::TRIM_DELAY, settings::seconds);
        let close_grace = settings.required(&settings::CLOSE_GRACE, settings::seconds);
        let migrate = settings.flag(&settings::MIGRATE);
        let allow_volatile = settings.flag(&settings::ALLOW_VOLATILE_QUEUE);
        let config = || {
            Some(Self {
                queues: queues?,
                store: store?,
                witnesses: witnesses?,
                polls: polls?,
                pepper: pepper?.into(),
                partitions,
                lanes: lanes?,
                queue_prefix: queue_prefix?,
                store_schema: store_schema?,
                trim_delay: trim_delay?,
                close_grace: close_grace?,
                migrate,
                allow_volatile,
            })
        };
        settings.finish_with(config())
    }
}
