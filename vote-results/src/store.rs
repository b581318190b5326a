//! Opening the store that an address names.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use tokio::sync::OnceCell;
use vote_core::{
    OptionSlug, Partition, PollSlug, Position, QueueId, StoreAddress, StoreReader, VoterKey,
    queue::Layout,
    store::{Ballot, QuarantineKey, QuarantineRow, QueueRecord, RegisteredPoll, Snapshot, StoreError},
};

/// A store that is opened when it is first read, and tried again each time until then: a SQLite file is made by a
/// worker, which may start later.
#[derive(Debug)]
pub struct LateStore {
    address: StoreAddress,
    schema: String,
    store: OnceCell<Arc<dyn StoreReader>>,
}

impl LateStore {
    /// The store at an address; tables of a Postgres are in `schema`.
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
impl StoreReader for LateStore {
    async fn layout(&self) -> Result<Option<Layout>, StoreError> {
        self.open().await?.layout().await
    }
    async fn polls(&self) -> Result<Vec<RegisteredPoll>, StoreError> {
        self.open().await?.polls().await
    }
    async fn tally(&self, poll: PollSlug) -> Result<Vec<(OptionSlug, u64)>, StoreError> {
        self.open().await?.tally(poll).await
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

/// Whether the address of a server can be used, without connecting: what no waiting mends should be known before
/// anything listens. A file may come later, so nothing is said of it. Blocks; not to be called within a runtime.
///
/// # Errors
/// With what is wrong.
pub fn check(address: &StoreAddress, schema: &str) -> Result<(), String> {
    if !address.is_server() {
        return Ok(());
    }
    // Even a pool that has yet to connect wants a runtime around it.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    runtime.block_on(address.open_read_only(schema)).map(drop).map_err(|e| e.to_string())
}
