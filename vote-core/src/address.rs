//! Addresses of queues and stores, as one text each, and how to open what is there.

use std::{fmt, path::PathBuf, str::FromStr, sync::Arc};

use crate::{
    Queue, Store, StoreReader, backends,
    queue::{MemoryQueue, QueueError},
    store::{MemoryStore, StoreError},
};

/// Address of a queue: `redis://[user:password@]host[:port][/db]`, `rediss://…` (TLS),
/// `redis+unix:///path/to/socket`, `sqlite:FILE`, or `memory:`.
#[derive(Clone, PartialEq, Eq)]
pub struct QueueAddress(Kind);

/// Address of a store: `postgres://user[:password]@host[:port]/database`, `sqlite:FILE`, or `memory:`.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreAddress(Kind);

#[derive(Clone, PartialEq, Eq)]
enum Kind {
    Server(String),
    File(PathBuf),
    Memory,
}

/// Error for a text that is not an address. It shows no password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AddressError(String);

impl Kind {
    fn parse(text: &str, servers: &[&str], expected: &str) -> Result<Self, AddressError> {
        if text == "memory:" {
            return Ok(Self::Memory);
        }
        if let Some(file) = text.strip_prefix("sqlite:") {
            // Other programs write `sqlite:///x`.
            let file = file.strip_prefix("//").unwrap_or(file);
            if file.is_empty() {
                return Err(AddressError("sqlite: needs a file name, as in sqlite:votes.db".to_owned()));
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
                format!("an address can't begin with {scheme}://, expected {expected}")
            }
            _ => format!("not an address: expected {expected}"),
        }))
    }

    /// Returns the address without its password.
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

/// Removes the options of an address, since they may hold a password too.
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
            /// Writes the address without its password.
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
    /// Returns whether the queue is on a server, to which each thread should have a connection of its own.
    #[must_use]
    pub const fn is_server(&self) -> bool {
        matches!(self.0, Kind::Server(_))
    }

    /// Opens the queue. A server need not be reachable yet. On Redis all keys begin with `prefix`.
    ///
    /// # Errors
    /// - [`QueueError::Incompatible`]: a part of the address is wrong, a file holds something else, or this build
    ///   does not support queues of this kind.
    /// - [`QueueError::Unavailable`]: a file can't be opened now.
    pub async fn open(&self, prefix: &str) -> Result<Arc<dyn Queue>, QueueError> {
        match &self.0 {
            Kind::Memory => Ok(Arc::new(MemoryQueue::new())),
            Kind::Server(url) => backends::queue_server(url, prefix),
            Kind::File(path) => backends::queue_file(path).await,
        }
    }

    /// Opens the queue on a server, without waiting for it. All keys begin with `prefix`.
    ///
    /// # Errors
    /// [`QueueError::Incompatible`]: a part of the address is wrong, it is not that of a server, or this build does not
    /// support queues on servers.
    pub fn connect(&self, prefix: &str) -> Result<Arc<dyn Queue>, QueueError> {
        match &self.0 {
            Kind::Server(url) => backends::queue_server(url, prefix),
            Kind::Memory | Kind::File(_) => {
                Err(QueueError::Incompatible(format!("{self} is not the address of a server")))
            }
        }
    }
}

impl StoreAddress {
    /// Returns whether the store is on a server, whose tables [`migrate`](Self::migrate) creates; files and memory
    /// need no migration.
    #[must_use]
    pub const fn is_server(&self) -> bool {
        matches!(self.0, Kind::Server(_))
    }

    /// Opens the store for a worker. A server need not be reachable yet. On Postgres all tables are in `schema`.
    ///
    /// # Errors
    /// - [`StoreError::InvalidAddress`], [`StoreError::InvalidSchema`]: a part of the address is wrong, or the schema.
    /// - [`StoreError::Unsupported`]: this build does not support stores of this kind.
    /// - [`StoreError::NotAStore`], [`StoreError::NewerVersion`], [`StoreError::Damaged`]: a file holds something else, is
    ///   of a newer version, or is damaged.
    /// - [`StoreError::Unavailable`]: a file can't be opened now.
    pub async fn open(&self, schema: &str) -> Result<Arc<dyn Store>, StoreError> {
        match &self.0 {
            Kind::Memory => Ok(Arc::new(MemoryStore::new())),
            Kind::Server(url) => Ok(backends::store_server(url, schema)?),
            Kind::File(path) => Ok(backends::store_file(path).await?),
        }
    }

    /// Opens the store for reading only.
    ///
    /// # Errors
    /// Those of [`open`](Self::open), and
    ///
    /// - [`StoreError::NotPrepared`], [`StoreError::OlderVersion`]: no worker of this version has opened the file yet.
    /// - [`StoreError::InvalidAddress`] also for `memory:`, which no other process can read.
    pub async fn open_read_only(&self, schema: &str) -> Result<Arc<dyn StoreReader>, StoreError> {
        match &self.0 {
            Kind::Memory => Err(StoreError::InvalidAddress(
                "memory: can't be read from another process; run all services in one, as the example `embedded` does"
                    .to_owned(),
            )),
            Kind::Server(url) => Ok(backends::store_server(url, schema)?),
            Kind::File(path) => Ok(backends::store_file_read_only(path).await?),
        }
    }

    /// Creates the tables of a server, or migrates them. For files and memory there is nothing to do.
    ///
    /// # Errors
    /// - [`StoreError::InvalidAddress`], [`StoreError::InvalidSchema`]: a part of the address is wrong, or the schema.
    /// - [`StoreError::Unsupported`]: this build does not support stores of this kind.
    /// - [`StoreError::NewerVersion`]: the tables are of a newer version.
    /// - [`StoreError::NotAStore`]: the schema holds other tables.
    /// - [`StoreError::Unavailable`]: the server is unreachable, or the user may not create tables.
    pub async fn migrate(&self, schema: &str) -> Result<(), StoreError> {
        match &self.0 {
            Kind::Server(url) => backends::migrate(url, schema).await,
            Kind::Memory | Kind::File(_) => Ok(()),
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
    fn an_invalid_address_is_refused_without_being_shown() {
        let e = "http://user:s3cret@host".parse::<QueueAddress>().unwrap_err().to_string();
        assert!(e.contains("redis://") && !e.contains("s3cret"), "{e}");
        let e = "s3cret@host:6379".parse::<QueueAddress>().unwrap_err().to_string();
        assert!(!e.contains("s3cret"), "{e}");
        assert!("sqlite:".parse::<StoreAddress>().is_err());
        assert!("redis://".parse::<QueueAddress>().is_err());
    }
}
