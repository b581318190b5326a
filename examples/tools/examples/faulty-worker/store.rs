//! A store whose commits leave out the positions or ignore the version, or whose partitions can have several owners.

use std::sync::Arc;

use async_trait::async_trait;
use vote_core::{
    Partition, PollSlug, Session, Store, VoterKey,
    count::{Ballot, CommitPlan},
    store::{Acquired, Catalog, Lookup, SessionLayer, StoreError, StoreLayer, StoreReaderLayer},
};

use crate::fault::Fault;

/// Store that forwards all calls to another one, with a fault.
#[derive(Debug)]
pub(crate) struct FaultyStore {
    inner: Arc<dyn Store>,
    fault: Fault,
}

impl FaultyStore {
    pub(crate) fn new(inner: Arc<dyn Store>, fault: Fault) -> Self {
        Self { inner, fault }
    }
}

#[async_trait]
impl StoreReaderLayer for FaultyStore {
    type Inner = dyn Store;

    async fn inner(&self) -> Result<&Self::Inner, StoreError> {
        Ok(&self.inner)
    }
}

#[async_trait]
impl StoreLayer for FaultyStore {
    async fn catalog(&self, known: Option<&Catalog>) -> Result<Catalog, StoreError> {
        let mut catalog = self.inner.catalog(known).await?;
        if self.fault.shares() {
            // A worker that knows of no other takes all partitions.
            catalog.workers.clear();
        }
        Ok(catalog)
    }

    async fn open_session(&self) -> Result<Box<dyn Session>, StoreError> {
        Ok(Box::new(FaultySession { inner: self.inner.open_session().await?, fault: self.fault }))
    }
}

/// Session that forwards all calls to another one, with a fault.
#[derive(Debug)]
struct FaultySession {
    inner: Box<dyn Session>,
    fault: Fault,
}

#[async_trait]
impl SessionLayer for FaultySession {
    fn inner(&mut self) -> &mut dyn Session {
        &mut *self.inner
    }

    async fn acquire(&mut self, partition: Partition) -> Result<Option<Acquired>, StoreError> {
        let acquired = self.inner.acquire(partition).await?;
        if self.fault.shares() && acquired.is_some() {
            // So that another session can acquire it as well.
            self.inner.release(partition).await?;
        }
        Ok(acquired)
    }

    async fn lookup(
        &mut self,
        partition: Partition,
        poll: PollSlug,
        voters: &[VoterKey],
        lookup: Lookup,
    ) -> Result<Vec<Ballot>, StoreError> {
        // What a lane knows about a partition without a lookup is only valid while no other lane commits to it.
        let lookup = if self.fault.shares() { Lookup::Exhaustive } else { lookup };
        self.inner.lookup(partition, poll, voters, lookup).await
    }

    async fn commit(&mut self, plan: &CommitPlan) -> Result<(), StoreError> {
        let mut plan = plan.clone();
        match self.fault {
            Fault::ForgetPosition => plan.positions.clear(),
            Fault::IgnoreVersion => {
                if let Some(acquired) = SessionLayer::acquire(self, plan.partition).await? {
                    plan.version = acquired.version;
                }
            }
            Fault::TrimFirst | Fault::SharePartitions => {}
        }
        self.inner.commit(&plan).await
    }
}
