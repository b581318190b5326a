//! A queue that is trimmed before its entries are committed.

use std::sync::Arc;

use async_trait::async_trait;
use vote_core::{
    Partition, Position, Queue, QueueId,
    queue::{QueueError, QueueLayer, Read},
};

use crate::fault::Fault;

/// Queue that forwards all calls to another one, with a fault.
#[derive(Debug)]
pub(crate) struct FaultyQueue {
    inner: Arc<dyn Queue>,
    fault: Fault,
}

impl FaultyQueue {
    pub(crate) fn new(inner: Arc<dyn Queue>, fault: Fault) -> Self {
        Self { inner, fault }
    }
}

#[async_trait]
impl QueueLayer for FaultyQueue {
    fn inner(&self) -> &dyn Queue {
        &self.inner
    }

    async fn read(
        &self,
        id: QueueId,
        partition: Partition,
        after: Position,
        limit: usize,
    ) -> Result<Read, QueueError> {
        let read = self.inner.read(id, partition, after, limit).await?;
        if self.fault == Fault::TrimFirst
            && let Some(last) = read.entries.last()
        {
            self.inner.trim(id, partition, last.position).await?;
        }
        Ok(read)
    }
}
