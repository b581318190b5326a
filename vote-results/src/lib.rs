//! The results service: shows the outcome of polls, the status of receipts, and the state of the whole pipeline.
//!
//! It reads the store through a [`StoreReader`] and never opens a queue. One [`Refresher`] per process reads the store
//! every second and shares the [`State`] with all requests, so a browser costs the store nothing unless it looks up a
//! receipt. [`Results`] is a tower service that any server can mount, and [`run`] is a complete server:
//!
//! ```
//! use std::sync::Arc;
//!
//! use vote_core::{Polls, Secret, SystemClock, store::MemoryStore};
//! use vote_results::{Health, Options, Parts};
//! use vote_service::Shutdown;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let parts = Parts {
//!     store: Arc::new(MemoryStore::new()),
//!     polls: Arc::new(Polls::example()),
//!     receipt_key: Secret::new(vec![7; 32])?.into(),
//!     clock: Arc::new(SystemClock),
//!     frontend_url: None,
//!     health: Health::default(),
//! };
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let shutdown = Shutdown::new();
//! # shutdown.trigger();
//! vote_results::run(listener, parts, Options::default(), shutdown).await?;
//! # Ok(())
//! # }
//! ```
//!
//! Data passes through the modules in this order: [`store`] → [`refresh`] → [`figures`] (everything the public may see,
//! built from [`snapshot`] and [`pipeline`] by the rule in [`disclosure`]) → [`state`] → [`app`], which serves the
//! addresses in [`routes`] with [`events`], [`pages`], [`csv`] and [`receipts`]. Only the refresher, the receipt lookup
//! and the event streams do I/O.

use std::{future::pending, io, sync::Arc};

use tokio::net::TcpListener;
use vote_core::{Clock, Polls, StoreReader};
use vote_service::{Connections, Guards, Limits, ReceiptKey, Shutdown, layers, serve};

pub mod app;
pub mod audit;
pub mod caching;
pub mod certificate;
pub mod commands;
pub mod config;
pub mod csv;
pub mod disclosure;
pub mod events;
pub mod figures;
mod health;
pub mod metrics;
pub mod pages;
pub mod pipeline;
mod reader;
pub mod receipts;
pub mod refresh;
pub mod routes;
pub mod snapshot;
pub mod state;
pub mod store;
mod thousands;

pub use app::Results;
pub use figures::PublicFigures;
pub use health::Health;
pub use refresh::{Latest, Refresher};
pub use snapshot::Snapshot;
pub use state::State;

/// Everything that the service depends on.
#[derive(Debug, Clone)]
pub struct Parts {
    /// The store that holds the results.
    pub store: Arc<dyn StoreReader>,
    /// The polls to show. A request for any other poll is answered with 404.
    pub polls: Arc<Polls>,
    /// Opens receipts. Must be the key that the frontends seal them with.
    pub receipt_key: ReceiptKey,
    /// Source of the current time.
    pub clock: Arc<dyn Clock>,
    /// Address of the voting site, for links, without a trailing `/`.
    pub frontend_url: Option<String>,
    /// Health of the service, for the admin routes.
    pub health: Health,
}

/// Settings of [`run`]: limits on what clients may use.
#[derive(Debug, Clone)]
pub struct Options {
    /// Limits of each connection.
    pub limits: Limits,
    /// Maximum number of open connections. Four fifths of them may be [event streams](events); the rest is reserved for
    /// pages and files.
    pub max_connections: usize,
}

impl Default for Options {
    /// Allows 10,000 connections.
    fn default() -> Self {
        Self { limits: Limits::default(), max_connections: 10_000 }
    }
}

impl Options {
    /// Returns the maximum number of event streams: four fifths of the connections.
    #[must_use]
    pub const fn max_event_streams(&self) -> usize {
        self.max_connections - self.max_connections / 5
    }
}

/// Reads the store and serves results until shutdown. Then ends the event streams, finishes the requests in progress,
/// and returns.
///
/// # Errors
/// Fails if the listener can't be used.
pub async fn run(
    listener: TcpListener,
    parts: Parts,
    options: Options,
    shutdown: Shutdown,
) -> io::Result<()> {
    metrics::describe();
    let refresher = Refresher::new(&parts);
    parts.health.watch(refresher.latest());
    let results = Results::new(parts, refresher.latest()).max_event_streams(options.max_event_streams());
    let app = layers::guard(results, &Guards::default());
    let connections = Connections::new(options.max_connections);
    // The refresher ends at shutdown, and the event streams end with it. Otherwise they would stay open until the drain
    // timeout.
    let polling = async {
        refresher.run(shutdown.clone()).await;
        pending().await
    };
    tokio::select! {
        result = serve::serve(listener, app, options.limits, connections, shutdown.clone()) => result,
        result = polling => result,
    }
}
