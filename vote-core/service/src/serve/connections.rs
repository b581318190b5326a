//! The number of connections, bounded for the whole process.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::metrics::CONNECTIONS;

/// How many connections there may be; clones share the number, so that it holds for all threads together.
#[derive(Debug, Clone)]
pub struct Connections {
    free: Arc<Semaphore>,
    max: usize,
    counted: bool,
}

impl Connections {
    /// At most `max` at a time. More wait in the kernel until one is closed. The number of open ones is the metric
    /// `vote_http_connections`.
    #[must_use]
    pub fn new(max: usize) -> Self {
        let max = max.clamp(1, Semaphore::MAX_PERMITS);
        Self { free: Arc::new(Semaphore::new(max)), max, counted: true }
    }

    /// Those of the admin port, which are no part of the metric.
    pub(crate) fn uncounted(max: usize) -> Self {
        Self { counted: false, ..Self::new(max) }
    }

    pub(super) fn max(&self) -> usize {
        self.max
    }

    pub(super) fn is_full(&self) -> bool {
        self.free.available_permits() == 0
    }

    /// Waits until there is a place, without taking it.
    pub(super) async fn vacancy(&self) {
        drop(self.free.acquire().await);
    }

    /// Takes a place, waiting for one if need be.
    pub(super) async fn enter(&self) -> Place {
        self.place(Arc::clone(&self.free).acquire_owned().await.ok())
    }

    /// Takes a place if there is one.
    pub(super) fn try_enter(&self) -> Option<Place> {
        Some(self.place(Some(Arc::clone(&self.free).try_acquire_owned().ok()?)))
    }

    /// The semaphore is never closed, so there always is a permit.
    fn place(&self, permit: Option<OwnedSemaphorePermit>) -> Place {
        if self.counted {
            metrics::gauge!(CONNECTIONS.name).increment(1);
        }
        Place { _permit: permit, counted: self.counted }
    }
}

/// The place of one connection, free again when dropped.
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
