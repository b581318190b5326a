//! Discovery of queues: at fixed addresses, or behind a name that is resolved periodically.

use std::{collections::BTreeMap, fmt, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};
use vote_core::Queue;
use vote_service::Shutdown;

use crate::monitor::{MonitorParts, Monitored};

/// Pause between two resolutions of a name, and the time that one may take.
const RESOLVE_EVERY: Duration = Duration::from_secs(5);
/// A queue is dropped this long after its name last resolved to it. Docker's DNS omits a task while it restarts.
const DROP_AFTER: Duration = Duration::from_secs(60);

/// Connects to a queue at an address that a name resolves to.
pub type Connect = Arc<dyn Fn(SocketAddr) -> Arc<dyn Queue> + Send + Sync>;

/// Place where queues are found.
#[derive(Clone)]
pub enum Source {
    /// A queue at a fixed address.
    Queue(Arc<dyn Queue>),
    /// All queues that a name resolves to, such as `tasks.redis:6379` in a Swarm.
    Name {
        /// Host and port.
        name: String,
        /// Connects to each of them.
        connect: Connect,
    },
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Queue(queue) => f.debug_tuple("Queue").field(queue).finish(),
            Self::Name { name, .. } => f.debug_tuple("Name").field(name).finish(),
        }
    }
}

/// The watched queues, each by a key that stays the same as long as the queue is watched.
pub(crate) type Queues = BTreeMap<String, Monitored>;

/// Watches the queues of all sources, and returns the current set of them.
pub(crate) fn discover(
    sources: Vec<Source>,
    parts: MonitorParts,
    shutdown: Shutdown,
) -> watch::Receiver<Arc<Queues>> {
    let mut queues = Queues::new();
    let mut names = Vec::new();
    for (i, source) in sources.into_iter().enumerate() {
        match source {
            Source::Queue(queue) => {
                queues.insert(format!("{i}"), Monitored::start(queue, true, parts.clone(), shutdown.clone()));
            }
            Source::Name { name, connect } => names.push((name, connect)),
        }
    }
    let (send, receive) = watch::channel(Arc::new(queues.clone()));
    if !names.is_empty() {
        parts.tasks.clone().spawn("the discovery of queues", async move {
            let mut seen: BTreeMap<String, Instant> = BTreeMap::new();
            loop {
                for (name, connect) in &names {
                    for address in resolve(name).await {
                        let key = format!("{name} {address}");
                        if !queues.contains_key(&key) {
                            tracing::info!(%address, "found a queue behind the name {name}");
                            let monitored =
                                Monitored::start(connect(address), false, parts.clone(), shutdown.clone());
                            queues.insert(key.clone(), monitored);
                        }
                        seen.insert(key, Instant::now());
                    }
                }
                seen.retain(|key, at| {
                    let keep = at.elapsed() < DROP_AFTER;
                    if !keep {
                        tracing::warn!(
                            "{key}: the name has not resolved to this address for {} s, so its queue is no longer \
                             read; check whether its server runs",
                            DROP_AFTER.as_secs()
                        );
                        queues.remove(key);
                    }
                    keep
                });
                send.send_if_modified(|current| {
                    let changed = !current.keys().eq(queues.keys());
                    if changed {
                        *current = Arc::new(queues.clone());
                    }
                    changed
                });
                tokio::select! {
                    () = shutdown.requested() => return,
                    () = tokio::time::sleep(RESOLVE_EVERY) => {}
                }
            }
        });
    } else {
        // Keeps the sender alive as long as the receivers need it.
        parts.tasks.spawn("the task that keeps the list of queues", async move {
            shutdown.requested().await;
            drop(send);
        });
    }
    receive
}

async fn resolve(name: &str) -> Vec<SocketAddr> {
    match tokio::time::timeout(RESOLVE_EVERY, tokio::net::lookup_host(name)).await {
        Ok(Ok(addresses)) => addresses.collect(),
        Ok(Err(e)) => {
            tracing::warn!("can't resolve the name {name}, trying again: {e}");
            Vec::new()
        }
        Err(_) => {
            tracing::warn!("can't resolve the name {name}, trying again: no answer within {RESOLVE_EVERY:?}");
            Vec::new()
        }
    }
}
