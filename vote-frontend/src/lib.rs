//! The frontend: takes votes over HTTP and queues them, each acknowledged when it is on disk.
//!
//! [`run`] serves on a listener; [`Frontend`] is the tower service itself, to be mounted in another server. The binary
//! `vote-frontend` runs it once for each core, all on one port.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use vote_core::{
    Partitions, Queue,
    intake::{Intake, IntakeOptions},
    queue::Layout,
    writer::Writer,
};
use vote_service::{Connections, Guards, Limits, Shutdown, layers::guard, serve::serve};

mod app;
mod ballot;
pub mod config;
pub mod cookie;
pub mod identity;
pub mod metrics;
mod pages;
mod readiness;

pub use app::{Frontend, Parts};
pub use readiness::Readiness;

/// How often the queue is looked at: whether it is there, durable and registered.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How often it is measured whether votes are taken: somewhat more often than anybody asks.
const MEASURE_EVERY: Duration = Duration::from_secs(1);
/// The most votes of one flusher that wait for the disk: about a quarter of a second's worth.
const MAX_WAITING: usize = 16_384;

/// How the frontend works.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many partitions: as many as the store has.
    pub partitions: Partitions,
    /// Take votes even if the queue may lose them. For a laptop.
    pub allow_volatile: bool,
    /// Limits of the HTTP server.
    pub limits: Limits,
    /// The connections of the process.
    pub connections: Connections,
    /// The requests in flight of the process.
    pub guards: Guards,
}

/// Keeps the metrics that say whether votes are taken, and for how many more there is room.
async fn measure(readiness: &Readiness) -> Infallible {
    loop {
        metrics::taking_votes(readiness.ready().is_ok());
        for (poll, unavailable) in readiness.polls() {
            metrics::poll_unavailable(poll, unavailable);
        }
        if let Some(room) = readiness.room() {
            metrics::room(room);
        }
        tokio::time::sleep(MEASURE_EVERY).await;
    }
}

/// Serves the frontend on a listener until shutdown, and then until all votes are answered.
///
/// # Errors
/// When the listener fails for good.
pub async fn run(
    listener: tokio::net::TcpListener,
    queue: Arc<dyn Queue>,
    parts: Parts,
    options: Options,
    readiness: Readiness,
    shutdown: Shutdown,
) -> io::Result<()> {
    let layout = Layout { partitions: options.partitions, fingerprint: parts.pepper.fingerprint() };
    let intake = Intake::start(
        Arc::clone(&queue),
        IntakeOptions {
            layout,
            polls: Arc::clone(&parts.polls),
            allow_volatile: options.allow_volatile,
            interval: LOOK_EVERY,
        },
    );
    let watched = intake.clone();
    readiness.add(intake.clone(), Arc::clone(&parts.polls), Arc::clone(&parts.clock));
    let (writer, mut flusher) = Writer::start(queue, intake, MAX_WAITING, Arc::new(metrics::flushed));
    let app = guard(Frontend::new(parts, writer), &options.guards);
    tokio::select! {
        served = serve(listener, app, options.limits, options.connections, shutdown) => served?,
        never = measure(&readiness) => match never {},
        () = watched.ended() => return Err(io::Error::other("the task that watches the queue ended by itself, which is a bug")),
        ended = &mut flusher => {
            let why = ended.err().map(|e| format!(": {e}")).unwrap_or_default();
            return Err(io::Error::other(format!("the task that writes votes ended by itself, which is a bug{why}")));
        }
    }
    // The last handle to the writer went with the service, so the flusher ends when it has flushed.
    flusher.await.map_err(io::Error::other)
}
