//! Opens the store at a configured address.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use tokio::sync::OnceCell;
use vote_core::{
    Partition, PollSlug, Position, QueueId, StoreAddress, StoreReader, VoterKey,
    count::{Ballot, QuarantineKey, QuarantineRow, QueueRecord, RegisteredPoll},
    queue::Layout,
    store::{Snapshot, StoreError},
};

/// A store that is opened by the first read. Each read retries until opening succeeds, since a worker creates the
/// SQLite file and may start later than this service.
#[derive(Debug)]
pub struct LazyStore {
    address: StoreAddress,
    schema: String,
    store: OnceCell<Arc<dyn StoreReader>>,
}

impl LazyStore {
    /// Creates a reader of the store at `address` without opening it. On Postgres, `schema` holds the tables.
    #[must_use]
    pub fn new(address: StoreAddress, schema: impl Into<String>) -> Self {
        Self { address, schema: schema.into(), store: OnceCell::new() }
    }

    async fn open(&self) -> Result<&dyn StoreReader, StoreError> {
        let open = || self.address.open_read_only(&self.schema);
        Ok(&**self.store.get_or_try_init(open).await?)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl StoreReader for LazyStore {
    async fn layout(&self) -> Result<Option<Layout>, StoreError> {
        self.open().await?.layout().await
    }
    async fn polls(&self) -> Result<Vec<RegisteredPoll>, StoreError> {
        self.open().await?.polls().await
    }
    async fn ballot(&self, poll: PollSlug, voter: VoterKey) -> Result<Option<Ballot>, StoreError> {
        self.open().await?.ballot(poll, voter).await
    }
    async fn position(&self, queue: QueueId, partition: Partition) -> Result<Position, StoreError> {
        self.open().await?.position(queue, partition).await
    }
    async fn quarantined(
        &self,
        queue: QueueId,
        partition: Partition,
        position: Position,
    ) -> Result<Option<QuarantineRow>, StoreError> {
        self.open().await?.quarantined(queue, partition, position).await
    }
    async fn positions(&self, queue: QueueId) -> Result<BTreeMap<Partition, Position>, StoreError> {
        self.open().await?.positions(queue).await
    }
    async fn all_positions(&self) -> Result<BTreeMap<(QueueId, Partition), Position>, StoreError> {
        self.open().await?.all_positions().await
    }
    async fn queues(&self) -> Result<Vec<QueueRecord>, StoreError> {
        self.open().await?.queues().await
    }
    async fn quarantine(
        &self,
        after: Option<QuarantineKey>,
        limit: usize,
    ) -> Result<Vec<QuarantineRow>, StoreError> {
        self.open().await?.quarantine(after, limit).await
    }
    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        self.open().await?.snapshot().await
    }
}

/// Checks the address of a database server without connecting, so that an error that no retry can fix is reported at
/// startup. A file is not checked, since a worker may create it later. Blocks; must not be called inside a runtime.
///
/// # Errors
/// Fails with a description of what is wrong with the address or the schema.
pub fn check(address: &StoreAddress, schema: &str) -> Result<(), String> {
    if !address.is_server() {
        return Ok(());
    }
    // Creating a connection pool needs a runtime, even before it connects.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    runtime.block_on(address.open_read_only(schema)).map(drop).map_err(|e| e.to_string())
}
