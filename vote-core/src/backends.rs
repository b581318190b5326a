//! Opens queues and stores of the kinds that this build supports, by its cargo features.

use std::{path::Path, sync::Arc};

use crate::{Queue, Store, StoreReader, queue::QueueError, store::StoreError};

pub(crate) fn queue_server(url: &str, prefix: &str) -> Result<Arc<dyn Queue>, QueueError> {
    #[cfg(feature = "redis")]
    {
        Ok(Arc::new(crate::queue::RedisQueue::connect(url, prefix)?))
    }
    #[cfg(not(feature = "redis"))]
    {
        let _ = (url, prefix);
        Err(QueueError::Incompatible(missing("queues on Redis", "redis")))
    }
}

pub(crate) async fn queue_file(path: &Path) -> Result<Arc<dyn Queue>, QueueError> {
    #[cfg(feature = "sqlite")]
    {
        Ok(Arc::new(crate::queue::SqliteQueue::open(path).await?))
    }
    #[cfg(not(feature = "sqlite"))]
    {
        let _ = path;
        Err(QueueError::Incompatible(missing("queues in SQLite files", "sqlite")))
    }
}

pub(crate) fn store_server(url: &str, schema: &str) -> Result<Arc<dyn Store>, StoreError> {
    #[cfg(feature = "postgres")]
    {
        Ok(Arc::new(crate::store::PostgresStore::connect(url, schema)?))
    }
    #[cfg(not(feature = "postgres"))]
    {
        let _ = (url, schema);
        Err(StoreError::Unsupported { kind: "stores on Postgres", feature: "postgres" })
    }
}

pub(crate) async fn migrate(url: &str, schema: &str) -> Result<(), StoreError> {
    #[cfg(feature = "postgres")]
    {
        crate::store::PostgresStore::connect(url, schema)?.migrate().await
    }
    #[cfg(not(feature = "postgres"))]
    {
        let _ = (url, schema);
        Err(StoreError::Unsupported { kind: "stores on Postgres", feature: "postgres" })
    }
}

pub(crate) async fn store_file(path: &Path) -> Result<Arc<dyn Store>, StoreError> {
    #[cfg(feature = "sqlite")]
    {
        Ok(Arc::new(crate::store::SqliteStore::open(path).await?))
    }
    #[cfg(not(feature = "sqlite"))]
    {
        let _ = path;
        Err(StoreError::Unsupported { kind: "stores in SQLite files", feature: "sqlite" })
    }
}

pub(crate) async fn store_file_read_only(path: &Path) -> Result<Arc<dyn StoreReader>, StoreError> {
    #[cfg(feature = "sqlite")]
    {
        Ok(Arc::new(crate::store::SqliteReader::open(path).await?))
    }
    #[cfg(not(feature = "sqlite"))]
    {
        let _ = path;
        Err(StoreError::Unsupported { kind: "stores in SQLite files", feature: "sqlite" })
    }
}

#[cfg(not(all(feature = "redis", feature = "sqlite")))]
fn missing(what: &str, feature: &str) -> String {
    format!("this build does not support {what}: enable the cargo feature `{feature}`")
}
