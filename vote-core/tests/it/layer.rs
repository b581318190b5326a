//! Layers: those that change nothing pass the suites, and what one changes is all that changes.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use vote_core::{
    Queue, Session, Store, StoreReader,
    conformance::{QueueHarness, StoreHarness, layout},
    queue::{MemoryQueue, QueueError, QueueLayer, Usage},
    store::{Catalog, MemoryStore, SessionLayer, StoreError, StoreLayer, StoreReaderLayer},
};

/// A queue that changes nothing.
#[derive(Debug)]
struct PlainQueue(MemoryQueue);

impl QueueLayer for PlainQueue {
    fn inner(&self) -> &dyn Queue {
        &self.0
    }
}

/// A store that changes nothing, and whose sessions change nothing.
#[derive(Debug)]
struct PlainStore(MemoryStore);

#[async_trait]
impl StoreReaderLayer for PlainStore {
    type Inner = MemoryStore;

    async fn inner(&self) -> Result<&Self::Inner, StoreError> {
        Ok(&self.0)
    }
}

#[async_trait]
impl StoreLayer for PlainStore {
    async fn open_session(&self) -> Result<Box<dyn Session>, StoreError> {
        Ok(Box::new(PlainSession(self.0.open_session().await?)))
    }
}

#[derive(Debug)]
struct PlainSession(Box<dyn Session>);

impl SessionLayer for PlainSession {
    fn inner(&mut self) -> &mut dyn Session {
        &mut *self.0
    }
}

struct Plain;

#[async_trait]
impl QueueHarness for Plain {
    async fn fresh(&self) -> Arc<dyn Queue> {
        Arc::new(PlainQueue(MemoryQueue::new()))
    }
    async fn reopen(&self, queue: Arc<dyn Queue>) -> Arc<dyn Queue> {
        queue
    }
}

#[async_trait]
impl StoreHarness for Plain {
    async fn fresh(&self) -> Arc<dyn Store> {
        Arc::new(PlainStore(MemoryStore::new()))
    }
    async fn reopen(&self, store: Arc<dyn Store>) -> Arc<dyn Store> {
        store
    }
}

mod queue {
    vote_core::queue_conformance!(super::Plain);
}

mod store {
    vote_core::store_conformance!(super::Plain);
}

/// A queue that is always full, on any other.
#[derive(Debug)]
struct Full(Arc<dyn Queue>);

#[async_trait]
impl QueueLayer for Full {
    fn inner(&self) -> &dyn Queue {
        &self.0
    }

    async fn usage(&self) -> Result<Option<Usage>, QueueError> {
        Ok(Some(Usage { used: 1, limit: Some(1) }))
    }
}

#[tokio::test]
async fn a_layer_on_a_layer_changes_what_it_overrides_and_forwards_the_rest() {
    let queue: Arc<dyn Queue> = Arc::new(Full(Arc::new(PlainQueue(MemoryQueue::new()))));
    let id = queue.create(layout(), None).await.unwrap();
    assert_eq!(queue.status().await.unwrap().unwrap().id, id);
    assert_eq!(queue.usage().await.unwrap(), Some(Usage { used: 1, limit: Some(1) }));
}

/// A store that is down for all but its catalog.
#[derive(Debug)]
struct Down;

#[async_trait]
impl StoreReaderLayer for Down {
    type Inner = MemoryStore;

    async fn inner(&self) -> Result<&Self::Inner, StoreError> {
        Err(StoreError::Unavailable("down".into()))
    }
}

#[async_trait]
impl StoreLayer for Down {
    async fn catalog(&self, known: Option<&Catalog>) -> Result<Catalog, StoreError> {
        MemoryStore::new().catalog(known).await
    }
}

#[tokio::test]
async fn without_an_inner_store_every_forwarded_call_fails() {
    let store: Arc<dyn Store> = Arc::new(Down);
    assert!(matches!(store.polls().await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.durability_problems().await, Err(StoreError::Unavailable(_))));
    store.catalog(None).await.unwrap();
}

/// Names of the calls that layers have observed.
type Calls = Arc<Mutex<Vec<&'static str>>>;

#[derive(Debug)]
struct Observed<T>(T, Calls);

impl QueueLayer for Observed<Arc<dyn Queue>> {
    fn inner(&self) -> &dyn Queue {
        &self.0
    }

    fn on_call(&self, method: &'static str) {
        self.1.lock().unwrap().push(method);
    }
}

#[async_trait]
impl StoreReaderLayer for Observed<Arc<dyn Store>> {
    type Inner = dyn Store;

    async fn inner(&self) -> Result<&Self::Inner, StoreError> {
        Ok(&self.0)
    }

    fn on_call(&self, method: &'static str) {
        self.1.lock().unwrap().push(method);
    }
}

#[async_trait]
impl StoreLayer for Observed<Arc<dyn Store>> {
    async fn open_session(&self) -> Result<Box<dyn Session>, StoreError> {
        Ok(Box::new(Observed(self.0.open_session().await?, Arc::clone(&self.1))))
    }
}

impl SessionLayer for Observed<Box<dyn Session>> {
    fn inner(&mut self) -> &mut dyn Session {
        &mut *self.0
    }

    fn on_call(&self, method: &'static str) {
        self.1.lock().unwrap().push(method);
    }
}

#[tokio::test]
async fn a_layer_observes_the_name_of_each_call_whether_it_overrides_the_method_or_not() {
    let calls = Calls::default();
    let queue: Arc<dyn Queue> = Arc::new(MemoryQueue::new());
    let queue: Arc<dyn Queue> = Arc::new(Observed(queue, Arc::clone(&calls)));
    queue.create(layout(), None).await.unwrap();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let store: Arc<dyn Store> = Arc::new(Observed(store, Arc::clone(&calls)));
    store.prepare(layout()).await.unwrap();
    store.layout().await.unwrap();
    store.open_session().await.unwrap().unowned().await.unwrap();
    assert_eq!(*calls.lock().unwrap(), ["create", "prepare", "layout", "open_session", "unowned"]);
}
