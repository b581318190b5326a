//! Committed positions of queues, for their reports.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicUsize},
};

use vote_core::{Partition, Position, QueueId, StoreReader, store::StoreError};

use crate::{
    grouped::{Call, Grouped},
    timeout::with_timeout,
};

/// Committed positions of one queue. Partitions of which nothing was committed are missing.
pub(crate) type Committed = BTreeMap<Partition, Position>;

/// Source of committed positions. Clones share its requests.
#[derive(Debug, Clone)]
pub(crate) struct Positions(Arc<Grouped<Reader>>);

/// The call for the positions of several queues.
#[derive(Debug)]
struct Reader(Arc<dyn StoreReader>);

impl Positions {
    /// Creates a source for the monitors of so many queues.
    pub(crate) fn new(store: Arc<dyn StoreReader>, watched: Arc<AtomicUsize>) -> Self {
        Self(Arc::new(Grouped::new(Reader(store), watched)))
    }

    /// Returns how far a queue is committed, as of a moment after the call.
    pub(crate) async fn of(&self, queue: QueueId) -> Result<Committed, StoreError> {
        self.0.answer(queue).await
    }
}

impl Call for Reader {
    type Request = QueueId;
    type Answer = Committed;

    async fn ask(&self, queues: Vec<QueueId>) -> Result<Vec<Committed>, StoreError> {
        let mut found: BTreeMap<QueueId, Committed> = BTreeMap::new();
        for ((queue, partition), position) in with_timeout(self.0.positions(&queues)).await? {
            found.entry(queue).or_default().insert(partition, position);
        }
        // Not removed: two monitors may have asked for the same queue.
        Ok(queues.iter().map(|queue| found.get(queue).cloned().unwrap_or_default()).collect())
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use vote_core::store::{MemoryStore, StoreReaderLayer};

    use super::*;

    /// A store whose queue 9 has no positions, and each other one a position in the partition of its number.
    #[derive(Debug, Default)]
    struct Fixed(MemoryStore);

    #[async_trait]
    impl StoreReaderLayer for Fixed {
        type Inner = MemoryStore;

        async fn inner(&self) -> Result<&MemoryStore, StoreError> {
            Ok(&self.0)
        }

        async fn positions(
            &self,
            queues: &[QueueId],
        ) -> Result<BTreeMap<(QueueId, Partition), Position>, StoreError> {
            let known = queues.iter().filter(|queue| queue.0[0] != 9);
            Ok(known.map(|queue| ((*queue, Partition(queue.0[0].into())), Position::START)).collect())
        }
    }

    #[tokio::test]
    async fn each_monitor_gets_the_positions_of_its_queue() {
        let positions = Positions::new(Arc::new(Fixed::default()), Arc::default());
        let of = |n: u8| positions.of(QueueId([n; 16]));
        let (one, two, again, none) = tokio::join!(of(1), of(2), of(1), of(9));
        let at = |n| Committed::from([(Partition(n), Position::START)]);
        assert_eq!((one.unwrap(), two.unwrap(), again.unwrap()), (at(1), at(2), at(1)));
        assert_eq!(none.unwrap(), Committed::new());
    }
}
