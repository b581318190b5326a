//! Reports of queues to the store.

use std::sync::{Arc, atomic::AtomicUsize};

use vote_core::{Store, count::QueueRecord, store::StoreError};

use crate::{
    grouped::{Call, Grouped},
    timeout::with_timeout,
};

/// Records what monitors saw of queues. Clones share the reports that wait.
#[derive(Debug, Clone)]
pub(crate) struct Reports(Arc<Grouped<Recorder>>);

/// The call that records the reports of several monitors.
#[derive(Debug)]
struct Recorder(Arc<dyn Store>);

impl Reports {
    /// Creates a recorder for the monitors of so many queues.
    pub(crate) fn new(store: Arc<dyn Store>, watched: Arc<AtomicUsize>) -> Self {
        Self(Arc::new(Grouped::new(Recorder(store), watched)))
    }

    /// Records what a monitor saw of queues. Returns once it is stored.
    pub(crate) async fn record(&self, records: Vec<QueueRecord>) -> Result<(), StoreError> {
        self.0.answer(records).await
    }
}

impl Call for Recorder {
    type Request = Vec<QueueRecord>;
    type Answer = ();

    async fn ask(&self, reports: Vec<Vec<QueueRecord>>) -> Result<Vec<()>, StoreError> {
        with_timeout(self.0.report(&reports.concat())).await?;
        Ok(vec![(); reports.len()])
    }
}
