//! Where queues are found: at fixed addresses, or behind a name that is resolved again and again.

use std::{collections::BTreeMap, fmt, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};
use vote_core::Queue;
use vote_service::Shutdown;

use crate::monitor::{MonitorParts, Monitored};

/// How often names are resolved.
const RESOLVE_EVERY: Duration = Duration::from_secs(5);
/// A queue is given up this long after its name last led to it. Docker's DNS forgets a task while it restarts.
const GIVE_UP_AFTER: Duration = Duration::from_secs(60);

/// Makes a queue of an address that a name led to.
pub type Connect = Arc<dyn Fn(SocketAddr) -> Arc<dyn Queue> + Send + Sync>;

/// Where to find queues.
#[derive(Clone)]
pub enum Source {
    /// This one.
    Queue(Arc<dyn Queue>),
    /// All that a name leads to, such as `tasks.redis:6379` in a Swarm.
    Name {
        /// Host and port.
        name: String,
        /// How to connect to each.
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

/// The queues that are watched, by a key that is theirs as long as they are.
pub(crate) type Queues = BTreeMap<String, Monitored>;

/// Watches all queues of the sources, and says which these are.
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
        parts.tasks.clone().spawn("discovery", async move {
            let mut seen: BTreeMap<String, Instant> = BTreeMap::new();
            loop {
                for (name, connect) in &names {
                    for address in resolve(name).await {
                        let key = format!("{name} {address}");
                        if !queues.contains_key(&key) {
                            tracing::info!(%address, "found a queue by the name {name}");
                            let monitored =
                                Monitored::start(connect(address), false, parts.clone(), shutdown.clone());
                            queues.insert(key.clone(), monitored);
                        }
                        seen.insert(key, Instant::now());
                    }
                }
                seen.retain(|key, at| {
                    let keep = at.elapsed() < GIVE_UP_AFTER;
                    if !keep {
                        tracing::warn!("{key}: the name no longer leads there, the queue is no longer read");
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
        // The sender has to live as long as the receivers.
        parts.tasks.spawn("the list of queues", async move {
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
            tracing::warn!("the name {name} can't be resolved: {e}");
            Vec::new()
        }
        Err(_) => {
            tracing::warn!("the name {name} can't be resolved: no answer in time");
            Vec::new()
        }
    }
}
