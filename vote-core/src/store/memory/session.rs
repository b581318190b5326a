//! Sessions of a store in memory.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::{MemoryStore, Rows};
use crate::{
    Partition, PollSlug, QueueId, VoterKey,
    count::{Ballot, Checkpoint, CommitPlan, QuarantinedFrame, audit, audit::Finding},
    store::{Acquired, Lookup, Session, StoreError},
};

/// A session on a store in memory.
#[derive(Debug)]
pub(super) struct MemorySession {
    pub(super) store: MemoryStore,
    pub(super) number: u64,
}

impl Drop for MemorySession {
    fn drop(&mut self) {
        let mut data = self.store.lock();
        for partition in data.partitions.values_mut().filter(|p| p.owner == Some(self.number)) {
            partition.owner = None;
        }
    }
}

#[async_trait]
impl Session for MemorySession {
    async fn unowned(&mut self) -> Result<Vec<Partition>, StoreError> {
        Ok(self.store.unowned())
    }

    async fn acquire(&mut self, partition: Partition) -> Result<Option<Acquired>, StoreError> {
        let mut data = self.store.lock();
        let data = data.partition(partition)?;
        if *data.owner.get_or_insert(self.number) != self.number {
            return Ok(None);
        }
        Ok(Some(Acquired { version: data.rows.version, checkpoints: data.rows.checkpoints() }))
    }

    async fn release(&mut self, partition: Partition) -> Result<(), StoreError> {
        let mut data = self.store.lock();
        let data = data.partition(partition)?;
        if data.owner == Some(self.number) {
            data.owner = None;
        }
        Ok(())
    }

    async fn lookup(
        &mut self,
        partition: Partition,
        poll: PollSlug,
        voters: &[VoterKey],
        _lookup: Lookup,
    ) -> Result<Vec<Ballot>, StoreError> {
        let mut data = self.store.lock();
        let rows = &data.partition(partition)?.rows;
        Ok(voters.iter().filter_map(|voter| rows.votes.get(&(poll, *voter)).copied()).collect())
    }

    async fn replays(
        &mut self,
        partition: Partition,
        limit: usize,
    ) -> Result<Vec<QuarantinedFrame>, StoreError> {
        self.store.lock().replays(partition, limit)
    }

    async fn commit(&mut self, plan: &CommitPlan) -> Result<(), StoreError> {
        let now = self.store.now();
        self.store.lock().commit(plan, now)
    }

    async fn complete(
        &mut self,
        partition: Partition,
        version: u64,
        poll: PollSlug,
    ) -> Result<Vec<Finding>, StoreError> {
        let now = self.store.now();
        let mut data = self.store.lock();
        if data.partition(partition)?.rows.version != version {
            return Err(StoreError::StaleVersion(partition));
        }
        let obstacles = audit::obstacles_in(&data.accounts(now, false), poll, partition);
        if obstacles.is_empty() {
            let revision = data.revision;
            data.completions.insert((poll, partition), revision);
            data.partition(partition)?.rows.version += 1;
        }
        Ok(obstacles)
    }
}

impl Rows {
    fn checkpoints(&self) -> BTreeMap<QueueId, Checkpoint> {
        let mut checkpoints: BTreeMap<QueueId, Checkpoint> = self
            .positions
            .iter()
            .map(|(queue, position)| (*queue, Checkpoint { position: *position, ..Checkpoint::default() }))
            .collect();
        for ((queue, poll), entry) in &self.ledger {
            checkpoints.entry(*queue).or_default().accepted.insert(poll.clone(), entry.accepted);
        }
        checkpoints
    }
}
