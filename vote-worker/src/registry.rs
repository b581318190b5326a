//! What the store has on record, as last read. Shared by all tasks of a worker, so that the store is asked once for all
//! of them.

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use tokio::{sync::Mutex, time::Instant};
use vote_core::{
    Clock, PollSlug, Polls, Store, Timestamp,
    dedup::Delivery,
    store::{Catalog, QuarantinedFrame, StoreError},
};

/// An answer that took longer says too little of the difference between two clocks.
const PROMPT: Duration = Duration::from_secs(1);

/// What is on record. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Registry {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    file: Arc<Polls>,
    known: Arc<RwLock<Known>>,
    /// One reading at a time, so that none overtakes another: what is known never gets older. Holds the polls that
    /// were said to differ from the file.
    reading: Arc<Mutex<BTreeSet<PollSlug>>>,
}

#[derive(Debug)]
struct Known {
    catalog: Arc<Catalog>,
    /// When it was asked for.
    asked: Instant,
    /// How far this worker's clock is ahead of the store's, in microseconds, if an answer came promptly.
    ahead: Option<i64>,
}

impl Registry {
    /// Reads what is on record, and registers the polls of the file that the store lacks.
    pub(crate) async fn open(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        file: Polls,
    ) -> Result<Self, StoreError> {
        let asked = Instant::now();
        let catalog = Arc::new(store.catalog().await?);
        let known = Arc::new(RwLock::new(Known { catalog, asked, ahead: None }));
        let registry = Self { store, clock, file: Arc::new(file), known, reading: Arc::default() };
        registry.refresh().await?;
        Ok(registry)
    }

    /// Reads it again, and registers the polls of the file that the store lacks: it may have been restored to a state
    /// that forgot them.
    pub(crate) async fn refresh(&self) -> Result<Arc<Catalog>, StoreError> {
        let mut told = self.reading.lock().await;
        let mut catalog = self.read().await?;
        let lacks = |poll: PollSlug| !catalog.polls.iter().any(|known| known.slug == poll);
        let new: Vec<_> = self.file.iter().filter(|poll| lacks(poll.slug)).collect();
        if !new.is_empty() {
            for poll in new {
                self.store.register_poll(poll).await?;
            }
            catalog = self.read().await?;
        }
        self.compare_with_file(&catalog, &mut told);
        Ok(catalog)
    }

    async fn read(&self) -> Result<Arc<Catalog>, StoreError> {
        let (asked, before) = (Instant::now(), self.clock.now());
        let catalog = Arc::new(self.store.catalog().await?);
        let took = asked.elapsed();
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if took <= PROMPT {
            let middle = before.as_micros() + took.as_micros() as i64 / 2;
            known.ahead = Some(middle - catalog.taken_at.as_micros());
        }
        (known.catalog, known.asked) = (Arc::clone(&catalog), asked);
        Ok(catalog)
    }

    /// Says once where file and store differ: what is registered stays.
    fn compare_with_file(&self, catalog: &Catalog, told: &mut BTreeSet<PollSlug>) {
        for poll in self.file.iter() {
            let Some(registered) = catalog.polls.iter().find(|known| known.slug == poll.slug) else {
                continue;
            };
            if let Some(difference) = registered.difference(poll) {
                if told.insert(poll.slug) {
                    tracing::error!(
                        poll = %poll.slug,
                        "the poll was registered with other rules, which stay: {difference}. Put the file right, or give \
                         a new poll a new slug"
                    );
                }
            } else if registered.closes_at != poll.closes_at && told.insert(poll.slug) {
                tracing::warn!(
                    poll = %poll.slug,
                    "the file has another closing time than the store, whose time stays: use `vote-worker polls \
                     reschedule` to move it"
                );
            }
        }
    }

    /// What was read last.
    pub(crate) fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.known.read().unwrap_or_else(PoisonError::into_inner).catalog)
    }

    /// The store's time, as far as can be told from when it was last asked.
    pub(crate) fn store_time(&self) -> Timestamp {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let since = i64::try_from(known.asked.elapsed().as_micros()).unwrap_or(i64::MAX);
        known.catalog.taken_at.saturating_add(since)
    }

    /// How far this worker's clock is ahead of the store's, in microseconds, if that is known.
    pub(crate) fn clock_is_ahead_by(&self) -> Option<i64> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).ahead
    }

    /// What is on record, asked for again if something was delivered for a poll that is not: another worker may have
    /// registered it meanwhile, and votes of no poll are quarantined.
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
