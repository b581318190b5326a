//! The connection to a Redis, and how scripts are run on it.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use fred::{
    clients::Client,
    error::{Error, ErrorKind},
    interfaces::{ClientLike, LuaInterface},
    types::{
        Builder, ConnectHandle, Value,
        config::{Config, Options, ReconnectPolicy, ServerConfig},
    },
};
use tokio::sync::OnceCell;

use crate::queue::QueueError;

/// Time limit of a command. In the worst case a frontend's voters wait that long.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(2);
/// Number of consecutive commands without an answer in time after which a connection is dropped.
const MAX_TIMEOUTS: u32 = 3;

/// Hash of a script, as Redis returned it when the script was loaded.
#[derive(Default)]
pub(super) struct Script(OnceCell<String>);

/// A connection, which is made in the background and made again whenever it is lost.
pub(super) struct Server {
    pub(super) client: Client,
    pub(super) address: String,
    connection: ConnectHandle,
    timeouts: AtomicU32,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Server {
    /// Connects to a server; returns at once.
    pub(super) fn connect(url: &str) -> Result<Self, QueueError> {
        let unreadable =
            |e: Error| QueueError::Incompatible(format!("invalid address of a Redis: {}", e.details()));
        let mut config = Config::from_url(url).map_err(unreadable)?;
        let address = address(&config)?;
        // A failed first connection is retried like any other, so that services can start in any order.
        config.fail_fast = false;
        let client = Builder::from_config(config)
            .with_performance_config(|performance| performance.default_command_timeout = COMMAND_TIMEOUT)
            .with_connection_config(|connection| {
                connection.connection_timeout = COMMAND_TIMEOUT;
                connection.internal_command_timeout = COMMAND_TIMEOUT;
                // With more attempts fred would repeat a write on its own, and store a frame twice.
                connection.max_command_attempts = 1;
                connection.max_command_buffer_len = 4096;
                connection.tcp.nodelay = Some(true);
            })
            .set_policy(ReconnectPolicy::new_exponential(0, 50, 1000, 2))
            .build()
            .map_err(unreadable)?;
        let connection = client.connect();
        Ok(Self { client, address, connection, timeouts: AtomicU32::new(0) })
    }

    /// Runs a script. Drops a connection that does not answer: if the server vanished without closing it, the kernel
    /// takes a quarter of an hour to notice.
    pub(super) async fn run(
        &self,
        script: &Script,
        source: &'static str,
        key: &str,
        args: Vec<Value>,
    ) -> Result<Value, Error> {
        let result = self.run_once(script, source, key, args).await;
        if result.as_ref().is_err_and(|e| *e.kind() == ErrorKind::Timeout) {
            if self.timeouts.fetch_add(1, Ordering::Relaxed) + 1 >= MAX_TIMEOUTS {
                self.timeouts.store(0, Ordering::Relaxed);
                tracing::warn!(address = %self.address, "no answer to {MAX_TIMEOUTS} commands in a row, reconnecting");
                // An error of the reconnect shows in the next command.
                let _ = tokio::time::timeout(COMMAND_TIMEOUT, self.client.force_reconnection()).await;
            }
        } else {
            self.timeouts.store(0, Ordering::Relaxed);
        }
        result
    }

    /// Runs a script, after loading it if the server does not have it.
    async fn run_once(
        &self,
        script: &Script,
        source: &'static str,
        key: &str,
        args: Vec<Value>,
    ) -> Result<Value, Error> {
        let load = || self.client.script_load::<String, _>(source);
        let hash = script.0.get_or_try_init(load).await?;
        // A command that can't be sent now is not buffered: its caller would be gone when it is sent.
        let options = Options { max_attempts: Some(1), fail_fast: true, ..Options::default() };
        let client = self.client.with_options(&options);
        match client.evalsha(hash.as_str(), key, args.clone()).await {
            // The server was restarted. The script did not run, so it may be sent again.
            Err(e) if e.details().starts_with("NOSCRIPT") => {
                load().await?;
                client.evalsha(hash.as_str(), key, args).await
            }
            other => other,
        }
    }
}

/// Returns the address of a configuration without the password.
fn address(config: &Config) -> Result<String, QueueError> {
    // Two databases of one server are two queues.
    let database = config.database.filter(|number| *number > 0);
    let database = database.map(|number| format!("/{number}")).unwrap_or_default();
    match &config.server {
        ServerConfig::Centralized { server } => {
            Ok(format!("redis://{}:{}{database}", server.host, server.port))
        }
        ServerConfig::Unix { path } => {
            Ok(format!("redis+unix://{}{}", path.display(), database.replace('/', "#")))
        }
        _ => Err(QueueError::Incompatible(
            "clusters and sentinels are not supported: give the address of one Redis".to_owned(),
        )),
    }
}
