//! Opens the store at a configured address.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::OnceCell;
use vote_core::{
    StoreAddress, StoreReader,
    store::{StoreError, StoreReaderLayer},
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
}

#[async_trait]
impl StoreReaderLayer for LazyStore {
    type Inner = dyn StoreReader;

    async fn inner(&self) -> Result<&Self::Inner, StoreError> {
        let open = || self.address.open_read_only(&self.schema);
        Ok(&**self.store.get_or_try_init(open).await?)
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
