//! The frontend: accepts votes over HTTP, appends them to a queue, and acknowledges each once it is on disk.
//!
//! [`run`] serves a listener; [`Frontend`] is the bare tower service, for use in another server. The binary
//! `vote-frontend` calls [`run`] once per core, with all listeners on one port.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use vote_core::{
    Partitions, Queue,
    admission::{Admission, AdmissionOptions},
    queue::Layout,
    writer::Writer,
};
use vote_service::{Connections, Guards, Limits, Readiness, Shutdown, layers::guard, serve::serve};

mod app;
mod ballot;
pub mod config;
pub mod cookie;
mod health;
pub mod identity;
pub mod metrics;
mod pages;

pub use app::{Frontend, Site};
pub use health::Health;

/// Interval at which admission checks whether the queue is reachable, durable and active.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Interval at which the metrics on admission are updated: shorter than the usual interval between scrapes.
const MEASURE_EVERY: Duration = Duration::from_secs(1);
/// Maximum number of votes of one flusher that wait for the disk: about a quarter of a second's worth.
const MAX_WAITING: usize = 16_384;

/// What the frontend is built from.
#[derive(Debug, Clone)]
pub struct Parts {
    /// The queue that votes are appended to.
    pub queue: Arc<dyn Queue>,
    /// Polls, keys, links and the clock.
    pub site: Site,
    /// Health of the process, for the admin routes. Frontends of one process share it.
    pub health: Health,
}

/// Settings of [`run`].
#[derive(Debug, Clone)]
pub struct Options {
    /// Number of partitions, which must equal that of the store.
    pub partitions: Partitions,
    /// Whether to accept votes even if the queue may lose them. For a laptop.
    pub allow_volatile: bool,
    /// Limits of the HTTP server.
    pub limits: Limits,
    /// Limit on open connections, shared by all frontends of the process.
    pub connections: Connections,
    /// Limits on requests in flight, shared by all frontends of the process.
    pub guards: Guards,
}

/// Updates the metrics on admission, on the queue's memory and on the clock, until dropped.
async fn measure(health: &Health) -> Infallible {
    loop {
        metrics::taking_votes(health.ready().is_ok());
        metrics::admission_closed(&health.closed());
        for (poll, unavailable) in health.polls() {
            metrics::poll_unavailable(poll, unavailable);
        }
        if let Some(usage) = health.usage() {
            metrics::usage(usage);
        }
        if let Some(ahead) = health.clock_ahead_by() {
            metrics::clock_difference(ahead);
            health.warn_of_clock(ahead);
        }
        tokio::time::sleep(MEASURE_EVERY).await;
    }
}

/// Serves the frontend on a listener until shutdown, then until all votes in flight are answered.
///
/// # Errors
/// Fails if the listener fails for good, or if one of the frontend's tasks ends by itself, which is a bug.
pub async fn run(
    listener: tokio::net::TcpListener,
    parts: Parts,
    options: Options,
    shutdown: Shutdown,
) -> io::Result<()> {
    metrics::describe();
    let Parts { queue, site, health } = parts;
    let layout = Layout { partitions: options.partitions, fingerprint: site.pepper.fingerprint() };
    let admission = Admission::start(
        Arc::clone(&queue),
        AdmissionOptions {
            layout,
            polls: Arc::clone(&site.polls),
            allow_volatile: options.allow_volatile,
            interval: LOOK_EVERY,
        },
    );
    let watched = admission.clone();
    health.add(admission.clone(), Arc::clone(&site.polls), Arc::clone(&site.clock));
    let (writer, mut flusher) = Writer::start(queue, admission, MAX_WAITING, Arc::new(metrics::flushed));
    let app = guard(Frontend::new(site, writer), &options.guards);
    tokio::select! {
        served = serve(listener, app, options.limits, options.connections, shutdown) => served?,
        never = measure(&health) => match never {},
        () = watched.ended() => {
            return Err(io::Error::other("the task that watches the queue ended by itself, which is a bug: report it"));
        }
        ended = &mut flusher => {
            let why = ended.err().map(|e| format!(" ({e})")).unwrap_or_default();
            let text = format!("the task that writes votes ended by itself, which is a bug: report it{why}");
            return Err(io::Error::other(text));
        }
    }
    // The service held the last handle to the writer, so the flusher ends after its last flush.
    flusher.await.map_err(io::Error::other)
}
