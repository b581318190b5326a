//! Queue and store in memory.

use std::sync::Arc;

use async_trait::async_trait;
use vote_core::{
    Queue, Store,
    conformance::{QueueHarness, StoreHarness, activate, frames, layout, poll, vote},
    queue::{Appended, MemoryQueue, QueueError},
    store::MemoryStore,
};

struct Memory;

#[async_trait]
impl QueueHarness for Memory {
    async fn fresh(&self) -> Arc<dyn Queue> {
        Arc::new(MemoryQueue::new())
    }
    async fn reopen(&self, queue: Arc<dyn Queue>) -> Arc<dyn Queue> {
        queue
    }
}

#[async_trait]
impl StoreHarness for Memory {
    async fn fresh(&self) -> Arc<dyn Store> {
        Arc::new(MemoryStore::new())
    }
    async fn reopen(&self, store: Arc<dyn Store>) -> Arc<dyn Store> {
        store
    }
}

mod queue {
    vote_core::queue_conformance!(super::Memory);
}

mod store {
    vote_core::store_conformance!(super::Memory);
}

#[tokio::test]
async fn an_order_number_reused_after_a_rollback_is_no_anchor() {
    let queue = MemoryQueue::new();
    let id = queue.create(layout(), None).await.unwrap();
    activate(&queue, id, &[poll()]).await.unwrap();
    let partition = frames(&[vote(1, 0, 1)])[0].partition;
    let backup = queue.image();
    let lost = queue.append(id, &frames(&[vote(1, 0, 1)])).await.unwrap();
    let Appended::Stored(committed) = lost[0] else { panic!("{lost:?}") };
    queue.read(id, partition, committed, 9).await.unwrap();
    queue.restore(&backup);
    queue.append(id, &frames(&[vote(1, 1, 2)])).await.unwrap();
    assert_eq!(queue.read(id, partition, committed, 9).await, Err(QueueError::Diverged(committed)));
}

/// The forwarding implementation: a pointer to a pointer.
mod arc_of_dyn {
    use super::*;

    struct Pointed;

    #[async_trait]
    impl QueueHarness for Pointed {
        async fn fresh(&self) -> Arc<dyn Queue> {
            let queue: Arc<dyn Queue> = Arc::new(MemoryQueue::new());
            Arc::new(queue)
        }
        async fn reopen(&self, queue: Arc<dyn Queue>) -> Arc<dyn Queue> {
            Arc::new(queue)
        }
    }

    #[async_trait]
    impl StoreHarness for Pointed {
        async fn fresh(&self) -> Arc<dyn Store> {
            let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
            Arc::new(store)
        }
        async fn reopen(&self, store: Arc<dyn Store>) -> Arc<dyn Store> {
            Arc::new(store)
        }
    }

    mod queue {
        vote_core::queue_conformance!(super::Pointed);
    }
    mod store {
        vote_core::store_conformance!(super::Pointed);
    }
}
