//! The partitions that the lanes of this worker own.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio::sync::watch;
use vote_core::Partition;

/// The partitions that each lane owns. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Ownership(Arc<watch::Sender<BTreeMap<usize, BTreeSet<Partition>>>>);

impl Default for Ownership {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(BTreeMap::new())))
    }
}

impl Ownership {
    /// Records which partitions a lane owns now.
    pub(crate) fn set(&self, lane: usize, partitions: impl IntoIterator<Item = Partition>) {
        let partitions: BTreeSet<Partition> = partitions.into_iter().collect();
        self.0.send_if_modified(|lanes| lanes.insert(lane, partitions.clone()) != Some(partitions));
    }

    /// Returns the partitions of all lanes, in ascending order.
    pub(crate) fn partitions(&self) -> Vec<Partition> {
        let lanes = self.0.borrow();
        lanes.values().flatten().copied().collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Returns a future that is ready when a lane owns other partitions than at this call.
    pub(crate) fn changed(&self) -> impl Future<Output = ()> + use<> {
        let mut lanes = self.0.subscribe();
        async move {
            // The sender lives as long as this worker: without it, nothing changes any more.
            if lanes.changed().await.is_err() {
                std::future::pending().await
            }
        }
    }
}
