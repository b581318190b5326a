//! The implementations in memory.

use std::sync::Arc;

use async_trait::async_trait;
use vote_core::{
    Queue, Store,
    conformance::{QueueHarness, StoreHarness},
    queue::MemoryQueue,
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

/// The forwarding implementation, behind a second pointer.
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
