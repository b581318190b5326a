//! The store's catalog, as last read. All tasks of a worker share it, so that the store is asked once for all of them.

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use tokio::{sync::Mutex, time::Instant};
use vote_core::{
    Clock, Poll, PollSlug, Polls, Store, Timestamp,
    count::{Delivery, QuarantinedFrame},
    store::{Catalog, StoreError},
};

use crate::timeout::with_timeout;

/// Longest time of an answer from which the difference between two clocks is computed: a slower one is too imprecise.
pub(crate) const PROMPT: Duration = Duration::from_secs(1);

/// The catalog as last read. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Registry {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    file: Arc<Polls>,
    known: Arc<RwLock<Known>>,
    /// Allows one read at a time, so that the catalog never goes back to an older one.
    reading: Arc<Mutex<Compared>>,
}

/// Result of the last comparison of catalog and file.
#[derive(Debug, Default)]
struct Compared {
    /// Polls whose difference from the file has been logged.
    logged: BTreeSet<PollSlug>,
    /// Version of the catalog in which no poll of the file was missing.
    version: Option<u64>,
}

#[derive(Debug)]
struct Known {
    catalog: Arc<Catalog>,
    /// When the catalog was requested.
    asked: Instant,
    /// How far this worker's clock is ahead of the store's, in microseconds; `None` until an answer was prompt.
    ahead: Option<i64>,
}

impl Registry {
    /// Reads the catalog, and registers the polls of the file that the store lacks.
    pub(crate) async fn open(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        file: Polls,
    ) -> Result<Self, StoreError> {
        let asked = Instant::now();
        let catalog = Arc::new(store.catalog(None).await?);
        let known = Arc::new(RwLock::new(Known { catalog, asked, ahead: None }));
        let registry = Self { store, clock, file: Arc::new(file), known, reading: Arc::default() };
        registry.refresh().await?;
        Ok(registry)
    }

    /// Returns a catalog that was read after this call began, and registers the polls of the file that the store lacks:
    /// it may have been restored to a state without them. Callers that wait for one another share one read.
    pub(crate) async fn refresh(&self) -> Result<Arc<Catalog>, StoreError> {
        let called = Instant::now();
        let mut compared = self.reading.lock().await;
        if let Some(catalog) = self.read_since(called) {
            return Ok(catalog);
        }
        let mut catalog = self.read().await?;
        if compared.version == Some(catalog.version) {
            return Ok(catalog);
        }
        let lacks = |poll: &&Poll| match catalog.polls.iter().find(|known| known.slug == poll.slug) {
            None => true,
            // The store registers it once every queue has dropped the other definition.
            Some(known) => known.withdrawal.is_some() && known.digest() != poll.digest(),
        };
        let new: Vec<_> = self.file.iter().filter(lacks).collect();
        if !new.is_empty() {
            for poll in new {
                with_timeout(self.store.register_poll(poll)).await?;
            }
            catalog = self.read().await?;
        } else {
            compared.version = Some(catalog.version);
        }
        self.compare_with_file(&catalog, &mut compared.logged);
        Ok(catalog)
    }

    /// Returns the catalog as last read, if it was requested after `called`.
    fn read_since(&self, called: Instant) -> Option<Arc<Catalog>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        (known.asked > called).then(|| Arc::clone(&known.catalog))
    }

    async fn read(&self) -> Result<Arc<Catalog>, StoreError> {
        let (asked, before) = (Instant::now(), self.clock.now());
        let known = self.catalog();
        let catalog = Arc::new(with_timeout(self.store.catalog(Some(&known))).await?);
        let took = asked.elapsed();
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if took <= PROMPT {
            let middle = before.as_micros() + took.as_micros() as i64 / 2;
            known.ahead = Some(middle - catalog.taken_at.as_micros());
        }
        (known.catalog, known.asked) = (Arc::clone(&catalog), asked);
        Ok(catalog)
    }

    /// Logs once for each poll that file and store differ. What is registered stays in force.
    fn compare_with_file(&self, catalog: &Catalog, logged: &mut BTreeSet<PollSlug>) {
        for poll in self.file.iter() {
            let Some(registered) = catalog.polls.iter().find(|known| known.slug == poll.slug) else {
                continue;
            };
            let is_withdrawn = registered.withdrawal.is_some();
            if is_withdrawn && registered.digest() == poll.digest() {
                if logged.insert(poll.slug) {
                    tracing::warn!(
                        poll = %poll.slug,
                        "the poll is withdrawn, but this worker's file still has the withdrawn definition: put the new \
                         definition into the file"
                    );
                }
            } else if let Some(difference) = registered.difference(poll).filter(|_| !is_withdrawn) {
                if logged.insert(poll.slug) {
                    tracing::error!(
                        poll = %poll.slug,
                        "this worker's file defines the poll differently from the store, whose definition stays in \
                         force: {difference}. Correct the file, or give the new poll a new slug"
                    );
                }
            } else if registered.closes_at != poll.closes_at && logged.insert(poll.slug) {
                tracing::warn!(
                    poll = %poll.slug,
                    "this worker's file has another closing time than the store, whose time stays in force: to change \
                     it, use `vote-worker polls reschedule`"
                );
            }
        }
    }

    /// Returns the catalog as last read.
    pub(crate) fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.known.read().unwrap_or_else(PoisonError::into_inner).catalog)
    }

    /// Returns the store's time, estimated from the catalog as last read.
    pub(crate) fn store_time(&self) -> Timestamp {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let since = i64::try_from(known.asked.elapsed().as_micros()).unwrap_or(i64::MAX);
        known.catalog.taken_at.saturating_add(since)
    }

    /// Returns how far this worker's clock is ahead of the store's, in microseconds, if known.
    pub(crate) fn clock_is_ahead_by(&self) -> Option<i64> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).ahead
    }

    /// Returns the catalog, read again if it lacks a poll for which something was delivered: another worker may have
    /// registered that poll meanwhile, and votes for an unregistered poll are quarantined.
    pub(crate) async fn catalog_for(
        &self,
        deliveries: &[Delivery],
        replays: &[QuarantinedFrame],
    ) -> Result<Arc<Catalog>, StoreError> {
        let catalog = self.catalog();
        let delivered = deliveries.iter().flat_map(|delivery| &delivery.entries).map(|entry| &entry.poll);
        let mut names = delivered.chain(replays.iter().map(|frame| &frame.poll));
        if names.all(|name| catalog.polls.iter().any(|poll| poll.slug.as_str() == name)) {
            return Ok(catalog);
        }
        self.refresh().await
    }
}
