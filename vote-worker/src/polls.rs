//! The polls as the store has them, which is what decides how votes are counted.

use std::sync::{Arc, PoisonError, RwLock};

use vote_core::{
    Polls, Store,
    dedup::Delivery,
    store::{RegisteredPoll, StoreError},
};

/// The registered polls, shared by all lanes.
#[derive(Debug, Clone)]
pub(crate) struct PollBook {
    store: Arc<dyn Store>,
    polls: Arc<RwLock<Arc<[RegisteredPoll]>>>,
}

impl PollBook {
    /// Registers the polls of the file, and reads all that are registered. A poll that was registered with other
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
        }
        let book = Self { store, polls: Arc::default() };
        book.refresh().await?;
        Ok(book)
    }

    async fn refresh(&self) -> Result<(), StoreError> {
        let polls = self.store.polls().await?;
        *self.polls.write().unwrap_or_else(PoisonError::into_inner) = polls.into();
        Ok(())
    }

    fn known(&self) -> Arc<[RegisteredPoll]> {
        Arc::clone(&self.polls.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The registered polls, asked for anew if something was delivered for one that is not among them: another worker
    /// may have registered it meanwhile, and what is of no poll is set aside.
    pub(crate) async fn for_deliveries(
        &self,
        deliveries: &[Delivery],
    ) -> Result<Arc<[RegisteredPoll]>, StoreError> {
        let polls = self.known();
        let mut entries = deliveries.iter().flat_map(|delivery| &delivery.entries);
        if entries.all(|entry| polls.iter().any(|poll| poll.slug.as_str() == entry.poll)) {
            return Ok(polls);
        }
        self.refresh().await?;
        Ok(self.known())
    }
}
