//! The limit on the number of connections, for the whole process.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::metrics::CONNECTIONS;

/// Limit on the number of open connections. Clones share it, so that it applies to all threads together.
#[derive(Debug, Clone)]
pub struct Connections {
    free: Arc<Semaphore>,
    max: usize,
    counted: bool,
}

impl Connections {
    /// Allows at most `max` connections at a time. Further ones wait in the kernel until one is closed. The metric
    /// `vote_http_connections` counts the open ones.
    #[must_use]
    pub fn new(max: usize) -> Self {
        let max = max.clamp(1, Semaphore::MAX_PERMITS);
        Self { free: Arc::new(Semaphore::new(max)), max, counted: true }
    }

    /// Creates a limit whose connections the metric does not count, for the admin port.
    pub(crate) fn uncounted(max: usize) -> Self {
        Self { counted: false, ..Self::new(max) }
    }

    pub(super) fn max(&self) -> usize {
        self.max
    }

    pub(super) fn is_full(&self) -> bool {
        self.free.available_permits() == 0
    }

    /// Waits until a place is free, without taking it.
    pub(super) async fn vacancy(&self) {
        drop(self.free.acquire().await);
    }

    /// Takes a place, waiting until one is free if necessary.
    pub(super) async fn enter(&self) -> Place {
        self.place(Arc::clone(&self.free).acquire_owned().await.ok())
    }

    /// Takes a place if one is free.
    pub(super) fn try_enter(&self) -> Option<Place> {
        Some(self.place(Some(Arc::clone(&self.free).try_acquire_owned().ok()?)))
    }

    /// Counts a new connection. There is always a permit, because the semaphore is never closed.
    fn place(&self, permit: Option<OwnedSemaphorePermit>) -> Place {
        if self.counted {
            metrics::gauge!(CONNECTIONS.name).increment(1);
        }
        Place { _permit: permit, counted: self.counted }
    }
}

/// Place of one connection, released on drop.
pub(super) struct Place {
    _permit: Option<OwnedSemaphorePermit>,
    counted: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.counted {
            metrics::gauge!(CONNECTIONS.name).decrement(1);
        }
    }
}
