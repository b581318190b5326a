//! The partitions that the lanes of this worker own.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use vote_core::Partition;

/// The partitions that each lane owns. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ownership(Arc<Mutex<BTreeMap<usize, BTreeSet<Partition>>>>);

impl Ownership {
    /// Records which partitions a lane owns now.
    pub(crate) fn set(&self, lane: usize, partitions: impl IntoIterator<Item = Partition>) {
        let partitions = partitions.into_iter().collect();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(lane, partitions);
    }

    /// Returns the partitions of all lanes, in ascending order.
    pub(crate) fn partitions(&self) -> Vec<Partition> {
        let lanes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.values().flatten().copied().collect::<BTreeSet<_>>().into_iter().collect()
    }
}
