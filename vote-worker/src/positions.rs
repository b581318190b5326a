//! Committed positions of queues, for their reports: the monitors that ask at about the same time share one statement.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::oneshot, time::sleep};
use vote_core::{Partition, Position, QueueId, StoreReader, store::StoreError};

use crate::timeout::with_timeout;

/// Time for which requests are collected before the store is asked. With a thousand queues, which are reported every
/// 2 s, a statement serves about a hundred of them.
const COLLECT_FOR: Duration = Duration::from_millis(200);

/// Committed positions of one queue. Partitions of which nothing was committed are missing.
pub(crate) type Committed = BTreeMap<Partition, Position>;

/// A request that waits for the next statement.
type Request = (QueueId, oneshot::Sender<Result<Committed, String>>);

/// Source of committed positions. Clones share its requests.
#[derive(Debug, Clone)]
pub(crate) struct Positions {
    store: Arc<dyn StoreReader>,
    requests: Arc<Mutex<Vec<Request>>>,
    /// Held by the caller that asks the store for all.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Positions {
    pub(crate) fn new(store: Arc<dyn StoreReader>) -> Self {
        Self { store, requests: Arc::default(), turn: Arc::default() }
    }

    /// Returns how far a queue is committed, as of a moment after the call.
    pub(crate) async fn of(&self, queue: QueueId) -> Result<Committed, StoreError> {
        let (send, mut answer) = oneshot::channel();
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).push((queue, send));
        let ended = |_| "the caller that asked for several queues was cancelled".to_owned();
        tokio::select! {
            biased;
            answered = &mut answer => answered.map_err(ended),
            _turn = self.turn.lock() => {
                self.ask().await;
                answer.await.map_err(ended)
            }
        }
        .and_then(|positions| positions)
        .map_err(|reason| StoreError::Unavailable(reason.into()))
    }

    /// Collects requests for a moment and answers them.
    async fn ask(&self) {
        sleep(COLLECT_FOR).await;
        let requests = std::mem::take(&mut *self.requests.lock().unwrap_or_else(PoisonError::into_inner));
        let queues: Vec<QueueId> = requests.iter().map(|(queue, _)| *queue).collect();
        if queues.is_empty() {
            return;
        }
        let answer = with_timeout(self.store.positions(&queues)).await;
        let mut found: BTreeMap<QueueId, Committed> = BTreeMap::new();
        let outcome = answer.map_err(|e| e.to_string()).map(|positions| {
            for ((queue, partition), position) in positions {
                found.entry(queue).or_default().insert(partition, position);
            }
        });
        for (queue, send) in requests {
            let positions = outcome.clone().map(|()| found.get(&queue).cloned().unwrap_or_default());
            // A caller that was cancelled needs no answer.
            let _ = send.send(positions);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use async_trait::async_trait;
    use vote_core::store::{MemoryStore, StoreReaderLayer};

    use super::*;

    /// A store that counts statements, and fails every second one.
    #[derive(Debug, Default)]
    struct Counting {
        inner: MemoryStore,
        statements: AtomicU64,
    }

    #[async_trait]
    impl StoreReaderLayer for Counting {
        type Inner = MemoryStore;

        async fn inner(&self) -> Result<&MemoryStore, StoreError> {
            Ok(&self.inner)
        }

        async fn positions(
            &self,
            queues: &[QueueId],
        ) -> Result<BTreeMap<(QueueId, Partition), Position>, StoreError> {
            if self.statements.fetch_add(1, Ordering::Relaxed) % 2 == 1 {
                return Err(StoreError::Unavailable("down".into()));
            }
            Ok(queues.iter().map(|queue| ((*queue, Partition(queue.0[0].into())), Position::START)).collect())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn requests_at_the_same_time_share_a_statement() {
        let store = Arc::new(Counting::default());
        let positions = Positions::new(store.clone());
        let ask = |n: u8| {
            let positions = positions.clone();
            tokio::spawn(async move { positions.of(QueueId([n; 16])).await })
        };
        let asked: Vec<_> = (0..100).map(ask).collect();
        for (asked, n) in asked.into_iter().zip(0_u16..) {
            assert_eq!(asked.await.unwrap().unwrap(), Committed::from([(Partition(n), Position::START)]));
        }
        assert_eq!(store.statements.load(Ordering::Relaxed), 1);
        let failed: Vec<_> = (0..3).map(ask).collect();
        for failed in failed {
            assert!(matches!(failed.await.unwrap(), Err(StoreError::Unavailable(_))));
        }
        assert!(ask(7).await.unwrap().is_ok(), "the next statement serves the next request");
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_caller_takes_no_other_with_it() {
        let positions = Positions::new(Arc::new(Counting::default()));
        let first = tokio::spawn({
            let positions = positions.clone();
            async move { positions.of(QueueId([1; 16])).await }
        });
        sleep(COLLECT_FOR / 2).await;
        let second = tokio::spawn({
            let positions = positions.clone();
            async move { positions.of(QueueId([2; 16])).await }
        });
        sleep(COLLECT_FOR / 4).await;
        first.abort();
        assert_eq!(second.await.unwrap().unwrap().len(), 1);
    }
}
