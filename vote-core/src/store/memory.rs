//! A store in memory, for tests and examples: everything is lost with the process.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;

use super::{
    Acquired, Ballot, Checkpoint, CommitPlan, Lane, LedgerEntry, LedgerRow, Lookup, QuarantinedFrame,
    QueueRecord, QueueState, RegisteredPoll, Store, StoreError, StoreReader,
};
use crate::{OptionSlug, Partition, Poll, PollSlug, Position, QueueId, VoterKey, queue::Layout};

/// A store in memory. Clones are the same store.
#[derive(Debug, Default, Clone)]
pub struct MemoryStore {
    data: Arc<Mutex<Data>>,
}

#[derive(Debug, Default)]
struct Data {
    layout: Option<Layout>,
    polls: Vec<RegisteredPoll>,
    partitions: BTreeMap<Partition, PartitionData>,
    queues: BTreeMap<QueueId, QueueRecord>,
    lanes: u64,
    live_lanes: u32,
}

#[derive(Debug, Default)]
struct PartitionData {
    owner: Option<u64>,
    rows: Rows,
}

/// All that a commit moves.
#[derive(Debug, Default)]
struct Rows {
    version: u64,
    votes: HashMap<(PollSlug, VoterKey), Ballot>,
    tally: BTreeMap<(PollSlug, OptionSlug), i64>,
    positions: BTreeMap<QueueId, Position>,
    ledger: BTreeMap<(QueueId, String), LedgerEntry>,
    quarantine: Vec<QuarantinedFrame>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Data> {
        // A commit checks everything before it changes anything, so no panic leaves half of one.
        self.data.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Data {
    fn partition(&mut self, partition: Partition) -> Result<&mut PartitionData, StoreError> {
        self.partitions
            .get_mut(&partition)
            .ok_or_else(|| StoreError::NotPrepared(format!("the store has no partition {partition}")))
    }
}

impl Rows {
    /// Everything that could be wrong is found here, before [`apply`](Self::apply) changes anything.
    fn check(&self, plan: &CommitPlan) -> Result<(), StoreError> {
        if self.version != plan.version {
            return Err(StoreError::StaleVersion(plan.partition));
        }
        for poll in &plan.polls {
            let mut last = None;
            for ballot in &poll.inserts {
                if self.votes.contains_key(&(poll.poll, ballot.voter)) || last == Some(ballot.voter) {
                    return Err(StoreError::Conflict(format!(
                        "{} has a vote in {} already",
                        ballot.voter, poll.poll
                    )));
                }
                last = Some(ballot.voter);
            }
            for (old, _) in &poll.replacements {
                if self.votes.get(&(poll.poll, old.voter)) != Some(old) {
                    return Err(StoreError::Conflict(format!(
                        "another vote of {} stands in {}",
                        old.voter, poll.poll
                    )));
                }
            }
        }
        Ok(())
    }

    fn apply(&mut self, plan: &CommitPlan) {
        self.version += 1;
        for poll in &plan.polls {
            let stands = poll.inserts.iter().chain(poll.replacements.iter().map(|(_, new)| new));
            self.votes.extend(stands.map(|ballot| ((poll.poll, ballot.voter), *ballot)));
            for (option, n) in &poll.tally {
                *self.tally.entry((poll.poll, *option)).or_default() += n;
            }
        }
        self.positions.extend(plan.positions.iter().copied());
        for entry in &plan.ledger {
            let row = self.ledger.entry((entry.queue, entry.poll.clone())).or_insert_with(|| LedgerEntry {
                new_voters: 0,
                superseded: 0,
                quarantined: 0,
                ..entry.clone()
            });
            row.accepted = entry.accepted;
            row.new_voters += entry.new_voters;
            row.superseded += entry.superseded;
            row.quarantined += entry.quarantined;
        }
        self.quarantine.extend(plan.quarantine.iter().cloned());
    }

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

#[async_trait]
impl StoreReader for MemoryStore {
    async fn layout(&self) -> Result<Option<Layout>, StoreError> {
        Ok(self.lock().layout)
    }

    async fn polls(&self) -> Result<Vec<RegisteredPoll>, StoreError> {
        Ok(self.lock().polls.clone())
    }

    async fn tally(&self, poll: PollSlug) -> Result<Vec<(OptionSlug, u64)>, StoreError> {
        let data = self.lock();
        let Some(registered) = data.polls.iter().find(|p| p.slug == poll) else { return Ok(Vec::new()) };
        let sum =
            |option| data.partitions.values().filter_map(|p| p.rows.tally.get(&(poll, option))).sum::<i64>();
        Ok(registered
            .options
            .iter()
            .map(|option| (*option, u64::try_from(sum(*option)).unwrap_or(0)))
            .collect())
    }

    async fn ballot(&self, poll: PollSlug, voter: VoterKey) -> Result<Option<Ballot>, StoreError> {
        Ok(self.lock().partitions.values().find_map(|p| p.rows.votes.get(&(poll, voter)).copied()))
    }

    async fn position(&self, queue: QueueId, partition: Partition) -> Result<Position, StoreError> {
        let data = self.lock();
        Ok(data
            .partitions
            .get(&partition)
            .and_then(|p| p.rows.positions.get(&queue).copied())
            .unwrap_or_default())
    }

    async fn quarantined(
        &self,
        queue: QueueId,
        partition: Partition,
        position: Position,
    ) -> Result<Option<String>, StoreError> {
        let data = self.lock();
        let rows = data.partitions.get(&partition).map(|p| p.rows.quarantine.as_slice()).unwrap_or_default();
        Ok(rows.iter().find(|q| q.queue == queue && q.position == position).map(|q| q.reason.clone()))
    }

    async fn ledger(&self) -> Result<Vec<LedgerRow>, StoreError> {
        let data = self.lock();
        let rows = data.partitions.iter().flat_map(|(partition, p)| {
            p.rows.ledger.values().map(|entry| LedgerRow { partition: *partition, entry: entry.clone() })
        });
        Ok(rows.collect())
    }

    async fn queues(&self) -> Result<Vec<QueueRecord>, StoreError> {
        Ok(self.lock().queues.values().cloned().collect())
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn prepare(&self, layout: Layout) -> Result<(), StoreError> {
        let mut data = self.lock();
        let stands = *data.layout.get_or_insert(layout);
        for partition in stands.partitions.iter() {
            data.partitions.entry(partition).or_default();
        }
        super::same_layout(stands, layout)
    }

    async fn register_poll(&self, poll: &Poll) -> Result<RegisteredPoll, StoreError> {
        let mut data = self.lock();
        if let Some(registered) = data.polls.iter_mut().find(|p| p.slug == poll.slug) {
            registered.closes_at = poll.closes_at;
            return Ok(registered.clone());
        }
        let registered = RegisteredPoll::from(poll);
        data.polls.push(registered.clone());
        Ok(registered)
    }

    async fn report(&self, queues: &[QueueRecord]) -> Result<(), StoreError> {
        let mut data = self.lock();
        for record in queues {
            let stands = data.queues.entry(record.id).or_insert_with(|| record.clone());
            let cut = stands.state == QueueState::Cut || record.state == QueueState::Cut;
            if record.seen_at >= stands.seen_at {
                *stands = record.clone();
            }
            if cut {
                stands.state = QueueState::Cut;
            }
        }
        Ok(())
    }

    async fn check(&self) -> Result<Vec<String>, StoreError> {
        Ok(vec!["a store in memory is lost with its process".to_owned()])
    }

    async fn open_lane(&self) -> Result<Box<dyn Lane>, StoreError> {
        let mut data = self.lock();
        data.lanes += 1;
        data.live_lanes += 1;
        Ok(Box::new(MemoryLane { store: self.clone(), number: data.lanes }))
    }
}

#[derive(Debug)]
struct MemoryLane {
    store: MemoryStore,
    number: u64,
}

impl Drop for MemoryLane {
    fn drop(&mut self) {
        let mut data = self.store.lock();
        data.live_lanes -= 1;
        for partition in data.partitions.values_mut().filter(|p| p.owner == Some(self.number)) {
            partition.owner = None;
        }
    }
}

#[async_trait]
impl Lane for MemoryLane {
    async fn live_lanes(&mut self) -> Result<u32, StoreError> {
        Ok(self.store.lock().live_lanes)
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

    async fn commit(&mut self, plan: &CommitPlan) -> Result<(), StoreError> {
        let mut data = self.store.lock();
        let rows = &mut data.partition(plan.partition)?.rows;
        rows.check(plan)?;
        rows.apply(plan);
        Ok(())
    }
}
