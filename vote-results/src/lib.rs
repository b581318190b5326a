//! The results service: shows the outcome of polls, what became of a receipt, and the state of the whole pipeline.
//!
//! It reads the store, as a [`StoreReader`], and never a queue. One [`Poller`] a process reads it every second and
//! hands the [`State`] to all requests; a browser therefore costs the store nothing, except when it looks up a
//! receipt. [`Results`] is a tower service, to be mounted in a server of your own, and [`run`] is the server:
//!
//! ```
//! use std::sync::Arc;
//!
//! use vote_core::{Polls, Secret, SystemClock, store::MemoryStore};
//! use vote_results::{Parts, Serving};
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
//! };
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let shutdown = Shutdown::new();
//! # shutdown.trigger();
//! vote_results::run(listener, parts, Serving::default(), shutdown).await?;
//! # Ok(())
//! # }
//! ```
//!
//! In the order of the data: [`store`] → [`poller`] → [`figures`], which is all that the public may know, made of
//! [`snapshot`] and [`pipeline`] by the rule in [`disclosure`] → [`state`] → [`app`], which answers the addresses in
//! [`routes`] with [`events`], [`pages`], [`csv`] and [`receipts`]. Everything but the poller, the receipts' look-up and
//! the event streams is free of I/O.

use std::{future::pending, io, sync::Arc};

use tokio::net::TcpListener;
use vote_core::{Clock, Polls, StoreReader};
use vote_service::{Connections, Guards, Limits, ReceiptKey, Shutdown, admin, layers, serve};

pub mod app;
pub mod audit;
pub mod caching;
pub mod certificate;
pub mod config;
pub mod csv;
pub mod disclosure;
pub mod events;
pub mod figures;
pub mod metrics;
pub mod pages;
pub mod pipeline;
pub mod poller;
pub mod receipts;
pub mod routes;
pub mod snapshot;
pub mod state;
pub mod store;

pub use app::Results;
pub use figures::PublicFigures;
pub use poller::{Latest, Poller};
pub use snapshot::Snapshot;
pub use state::State;

/// What the service works with.
#[derive(Debug, Clone)]
pub struct Parts {
    /// Where the results are.
    pub store: Arc<dyn StoreReader>,
    /// The polls to show; others are not found.
    pub polls: Arc<Polls>,
    /// Opens receipts: the key that the frontends seal them with.
    pub receipt_key: ReceiptKey,
    /// What the time is.
    pub clock: Arc<dyn Clock>,
    /// Where the public votes, for links; without a `/` at its end.
    pub frontend_url: Option<String>,
}

/// What clients may take.
#[derive(Debug, Clone)]
pub struct Serving {
    /// Of one connection.
    pub limits: Limits,
    /// How many connections there may be. Of these, four in five may be [event streams](events): the rest is kept for
    /// pages and files.
    pub max_connections: usize,
}

impl Default for Serving {
    /// 10,000 connections.
    fn default() -> Self {
        Self { limits: Limits::default(), max_connections: 10_000 }
    }
}

impl Serving {
    /// How many event streams there may be.
    #[must_use]
    pub const fn max_event_streams(&self) -> usize {
        self.max_connections - self.max_connections / 5
    }
}

/// Reads the store and serves results until shutdown; then ends the event streams, finishes what is being answered,
/// and returns.
///
/// # Errors
/// When the listener is of no use.
pub async fn run(
    listener: TcpListener,
    parts: Parts,
    serving: Serving,
    shutdown: Shutdown,
) -> io::Result<()> {
    metrics::describe();
    let poller = Poller::new(&parts);
    serve_public(listener, poller, parts, serving, shutdown).await
}

/// [`run`], and beside it the admin routes `/healthz`, `/readyz` and `/metrics` on a listener of their own, until the
/// very end.
///
/// # Errors
/// When a listener is of no use.
pub async fn run_with_admin(
    listener: TcpListener,
    admin: TcpListener,
    parts: Parts,
    serving: Serving,
    shutdown: Shutdown,
) -> io::Result<()> {
    vote_service::metrics::exported();
    metrics::describe();
    let poller = Poller::new(&parts);
    let latest = poller.latest();
    let drained = Shutdown::new();
    let public = async {
        let result = serve_public(listener, poller, parts, serving, shutdown).await;
        drained.trigger();
        result
    };
    tokio::try_join!(public, admin::serve_admin(admin, move || latest.ready(), drained.clone()))?;
    Ok(())
}

async fn serve_public(
    listener: TcpListener,
    poller: Poller,
    parts: Parts,
    serving: Serving,
    shutdown: Shutdown,
) -> io::Result<()> {
    let results = Results::new(parts, poller.latest()).max_event_streams(serving.max_event_streams());
    let app = layers::guard(results, &Guards::default());
    let connections = Connections::new(serving.max_connections);
    // The poller ends at the shutdown, and with it the event streams: nothing else would end them before the drain
    // runs out.
    let polling = async {
        poller.run(shutdown.clone()).await;
        pending().await
    };
    tokio::select! {
        result = serve::serve(listener, app, serving.limits, connections, shutdown.clone()) => result,
        result = polling => result,
    }
}
