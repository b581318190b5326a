//! Where queues and stores are, as one text each, and opening what is there.

use std::{fmt, path::PathBuf, str::FromStr, sync::Arc};

use crate::{
    Queue, Store, StoreReader,
    queue::{MemoryQueue, QueueError},
    store::{MemoryStore, StoreError},
};

/// Where a queue is: `redis://[user:password@]host[:port][/db]`, `rediss://…` (TLS), `redis+unix:///path/to/socket`,
/// `sqlite:FILE`, or `memory:`.
#[derive(Clone, PartialEq, Eq)]
pub struct QueueAddress(Kind);

/// Where a store is: `postgres://user[:password]@host[:port]/database`, `sqlite:FILE`, or `memory:`.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreAddress(Kind);

#[derive(Clone, PartialEq, Eq)]
enum Kind {
    Server(String),
    File(PathBuf),
    Memory,
}

/// A text that is no address, or one of a kind that this build leaves out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AddressError(String);

impl Kind {
    fn parse(text: &str, servers: &[&str], expected: &str) -> Result<Self, AddressError> {
        if text == "memory:" {
            return Ok(Self::Memory);
        }
        if let Some(file) = text.strip_prefix("sqlite:") {
            // `sqlite:///x` is how others write it.
            let file = file.strip_prefix("//").unwrap_or(file);
            if file.is_empty() {
                return Err(AddressError(
                    "sqlite: needs the name of a file, as in sqlite:votes.db".to_owned(),
                ));
            }
            return Ok(Self::File(PathBuf::from(file)));
        }
        if servers.iter().any(|scheme| text.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty())) {
            return Ok(Self::Server(text.to_owned()));
        }
        // The text may hold a password, so only its scheme is shown.
        let is_scheme =
            |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'+');
        Err(AddressError(match text.split_once("://") {
            Some((scheme, _)) if is_scheme(scheme) => {
                format!("an address can't begin with {scheme}: expected {expected}")
            }
            _ => format!("not an address: expected {expected}"),
        }))
    }

    fn shown(&self) -> String {
        match self {
            Self::Memory => "memory:".to_owned(),
            Self::File(path) => format!("sqlite:{}", path.display()),
            Self::Server(url) => match (url.split_once("://"), url.rsplit_once('@')) {
                (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://…@{}", without_options(rest)),
                _ => without_options(url).to_owned(),
            },
        }
    }
}

/// Options may hold a password, too.
fn without_options(address: &str) -> &str {
    address.split_once('?').map_or(address, |(address, _)| address)
}

impl FromStr for QueueAddress {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let servers = ["redis://", "rediss://", "redis+unix://"];
        Kind::parse(text, &servers, "redis://HOST:PORT, redis+unix:///SOCKET, sqlite:FILE or memory:")
            .map(Self)
    }
}

impl FromStr for StoreAddress {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let servers = ["postgres://", "postgresql://"];
        Kind::parse(text, &servers, "postgres://USER@HOST/DATABASE, sqlite:FILE or memory:").map(Self)
    }
}

macro_rules! shown {
    ($($name:ident)+) => {$(
        impl fmt::Display for $name {
            /// Without a password.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0.shown())
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    )+};
}
shown!(QueueAddress StoreAddress);

impl QueueAddress {
    /// Whether the queue is a server, to which every thread has a connection of its own.
    #[must_use]
    pub const fn is_server(&self) -> bool {
        matches!(self.0, Kind::Server(_))
    }

    /// Opens the queue. A server need not be there yet. Keys of a Redis begin with `prefix`.
    ///
    /// # Errors
    /// When the address can't be used: a part of it is wrong, a file can't be opened, or this build leaves its kind
    /// out.
    pub async fn open(&self, prefix: &str) -> Result<Arc<dyn Queue>, QueueError> {
        let _ = prefix;
        match &self.0 {
            Kind::Memory => Ok(Arc::new(MemoryQueue::new())),
            #[cfg(feature = "redis")]
            Kind::Server(url) => Ok(Arc::new(crate::queue::RedisQueue::connect(url, prefix)?)),
            #[cfg(feature = "sqlite")]
            Kind::File(path) => Ok(Arc::new(crate::queue::SqliteQueue::open(path).await?)),
            #[allow(unreachable_patterns)]
            _ => Err(QueueError::Incompatible(format!("{self}: this build has no queues of this kind"))),
        }
    }
}

impl StoreAddress {
    /// Whether the store is a server, whose tables are made by `migrate`; files and memory prepare themselves.
    #[must_use]
    pub const fn is_server(&self) -> bool {
        matches!(self.0, Kind::Server(_))
    }

    /// Opens the store for a worker. A server need not be there yet. Tables of a Postgres are in `schema`.
    ///
    /// # Errors
    /// As [`QueueAddress::open`].
    pub async fn open(&self, schema: &str) -> Result<Arc<dyn Store>, StoreError> {
        let _ = schema;
        match &self.0 {
            Kind::Memory => Ok(Arc::new(MemoryStore::new())),
            #[cfg(feature = "postgres")]
            Kind::Server(url) => Ok(Arc::new(crate::store::PostgresStore::connect(url, schema)?)),
            #[cfg(feature = "sqlite")]
            Kind::File(path) => Ok(Arc::new(crate::store::SqliteStore::open(path).await?)),
            #[allow(unreachable_patterns)]
            _ => Err(StoreError::NotPrepared(format!("{self}: this build has no stores of this kind"))),
        }
    }

    /// Opens the store for reading only.
    ///
    /// # Errors
    /// As [`QueueAddress::open`]; also when a file is not there yet.
    pub async fn open_read_only(&self, schema: &str) -> Result<Arc<dyn StoreReader>, StoreError> {
        let _ = schema;
        match &self.0 {
            Kind::Memory => Err(StoreError::NotPrepared(
                "memory: can't be read from another process; run the services in one, as the example `embedded` does"
                    .to_owned(),
            )),
            #[cfg(feature = "postgres")]
            Kind::Server(url) => Ok(Arc::new(crate::store::PostgresStore::connect(url, schema)?)),
            #[cfg(feature = "sqlite")]
            Kind::File(path) => Ok(Arc::new(crate::store::SqliteStore::open_read_only(path).await?)),
            #[allow(unreachable_patterns)]
            _ => Err(StoreError::NotPrepared(format!("{self}: this build has no stores of this kind"))),
        }
    }

    /// Makes the tables of a server, or brings them up to date; nothing is to be done for files and memory.
    ///
    /// # Errors
    /// When the server is not reachable or the user may not make tables.
    pub async fn migrate(&self, schema: &str) -> Result<(), StoreError> {
        let _ = schema;
        match &self.0 {
            #[cfg(feature = "postgres")]
            Kind::Server(url) => crate::store::PostgresStore::connect(url, schema)?.migrate().await,
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        let queue: QueueAddress = "redis://vote:s3cret@host:6379".parse().unwrap();
        assert_eq!(format!("{queue:?}"), "redis://…@host:6379");
        let store: StoreAddress = "postgres://vote:s3@cret@host/db".parse().unwrap();
        assert!(!store.to_string().contains("cret@h"), "{store}");
        let store: StoreAddress = "postgres://vote@host/db?password=s3cret".parse().unwrap();
        assert_eq!(store.to_string(), "postgres://…@host/db");
    }

    #[test]
    fn what_is_no_address_is_refused_without_showing_it() {
        let e = "http://user:s3cret@host".parse::<QueueAddress>().unwrap_err().to_string();
        assert!(e.contains("redis://") && !e.contains("s3cret"), "{e}");
        let e = "s3cret@host:6379".parse::<QueueAddress>().unwrap_err().to_string();
        assert!(!e.contains("s3cret"), "{e}");
        assert!("sqlite:".parse::<StoreAddress>().is_err());
        assert!("redis://".parse::<QueueAddress>().is_err());
    }
}
