//! What the store has registered: the polls, which decide how votes are counted, and the queues. Shared by all tasks of
//! a worker, so that the store is asked once for all of them.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use tokio::sync::Mutex;
use vote_core::{
    PollSlug, Polls, QueueId, Store,
    dedup::Delivery,
    store::{QuarantinedFrame, QueueRecord, RegisteredPoll, StoreError},
};

/// What is registered, as last read. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Registry {
    store: Arc<dyn Store>,
    known: Arc<RwLock<Known>>,
    /// One reading at a time, so that none overtakes another: what is known never gets older.
    reading: Arc<Mutex<()>>,
}

#[derive(Debug, Default)]
struct Known {
    polls: Arc<[RegisteredPoll]>,
    queues: Arc<BTreeMap<QueueId, QueueRecord>>,
}

impl Registry {
    /// Registers the polls of the file, and reads all that is registered. A poll that was registered with other
    /// options or rules is counted as registered, and reported.
    pub(crate) async fn register(store: Arc<dyn Store>, file: &Polls) -> Result<Self, StoreError> {
        for poll in file {
            let registered = store.register_poll(poll).await?;
            if let Some(difference) = registered.difference(poll) {
                tracing::error!(
                    poll = %poll.slug,
                    "the poll was registered with other rules, which stay: {difference}. Put the file right, or give a \
                     new poll a new slug"
                );
            }
            if registered.closed_at.is_some() && poll.closes_at != registered.closes_at {
                tracing::warn!(poll = %poll.slug, "the poll is closed: its closing time does not change any more");
            }
        }
        let registry = Self { store, known: Arc::default(), reading: Arc::default() };
        registry.refresh().await?;
        Ok(registry)
    }

    /// Reads it anew.
    pub(crate) async fn refresh(&self) -> Result<(), StoreError> {
        let _reading = self.reading.lock().await;
        let polls = self.store.polls().await?;
        let queues = self.store.queues().await?;
        let queues = queues.into_iter().map(|record| (record.id, record)).collect();
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        *known = Known { polls: polls.into(), queues: Arc::new(queues) };
        Ok(())
    }

    pub(crate) fn polls(&self) -> Arc<[RegisteredPoll]> {
        Arc::clone(&self.known.read().unwrap_or_else(PoisonError::into_inner).polls)
    }

    pub(crate) fn queues(&self) -> Arc<BTreeMap<QueueId, QueueRecord>> {
        Arc::clone(&self.known.read().unwrap_or_else(PoisonError::into_inner).queues)
    }

    /// The polls that take no more votes.
    pub(crate) fn closed(&self) -> Vec<PollSlug> {
        self.polls().iter().filter(|poll| poll.closed_at.is_some()).map(|poll| poll.slug).collect()
    }

    /// The registered polls, asked for anew if something was delivered for one that is not among them: another worker
    /// may have registered it meanwhile, and what is of no poll is set aside.
    pub(crate) async fn polls_for(
        &self,
        deliveries: &[Delivery],
        replays: &[QuarantinedFrame],
    ) -> Result<Arc<[RegisteredPoll]>, StoreError> {
        let polls = self.polls();
        let delivered = deliveries.iter().flat_map(|delivery| &delivery.entries).map(|entry| &entry.poll);
        let mut names = delivered.chain(replays.iter().map(|frame| &frame.poll));
        if names.all(|name| polls.iter().any(|poll| poll.slug.as_str() == name)) {
            return Ok(polls);
        }
        self.refresh().await?;
        Ok(self.polls())
    }
}
