//! A queue in memory, for tests and examples: everything is lost when the process ends.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;

use super::{
    Accepted, AppendError, Appended, Backlog, Counters, Entry, Frame, LAYOUT_VERSION, Layout, Look,
    PollRecord, PollState, PollStates, Position, Queue, QueueClock, QueueError, QueueId, QueueStatus, Read,
    ReplacedQueue, Seal, Usage, polls::DroppedPoll,
};
use crate::{Clock, DurabilityProblem, Partition, PollDigest, PollSlug, SystemClock, Timestamp};

/// A queue in memory. Wrap it in an `Arc` to share it between a frontend and a worker of the same process.
#[derive(Default)]
pub struct MemoryQueue {
    data: Mutex<Data>,
    /// Source of identities; `None` for the random numbers of the operating system.
    ids: Option<Ids>,
}

/// A source of identities. It never returns the same one twice.
pub type Ids = Box<dyn Fn() -> QueueId + Send + Sync>;

impl fmt::Debug for MemoryQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryQueue").field("data", &self.data).finish_non_exhaustive()
    }
}

/// A copy of everything that a [`MemoryQueue`] held at some moment; see [`MemoryQueue::image`].
#[derive(Debug, Clone)]
pub struct MemoryQueueImage(Data);

#[derive(Debug, Default, Clone)]
struct Data {
    current: Option<Log>,
    /// Replaced queues that still hold entries, by the identity under which these are read.
    replaced: BTreeMap<QueueId, Log>,
}

#[derive(Debug, Clone)]
struct Log {
    id: QueueId,
    layout: Layout,
    active: bool,
    clock_ahead: Option<i64>,
    polls: PollStates,
    /// Definition that was dropped last, for each poll of which one was.
    dropped: BTreeMap<PollSlug, DroppedPoll>,
    partitions: Vec<PartitionLog>,
}

#[derive(Debug, Default, Clone)]
struct PartitionLog {
    entries: VecDeque<Entry>,
    /// Position of the last entry; known even after that entry was trimmed.
    last: Position,
    accepted: Counters,
}

impl MemoryQueue {
    /// Creates an empty queue.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates an empty queue that takes its identities from a source, so that a test with a seed is reproducible.
    #[must_use]
    pub fn with_ids(ids: Ids) -> Self {
        Self { data: Mutex::default(), ids: Some(ids) }
    }

    /// Returns a copy of everything that the queue holds, like a backup of a server.
    #[must_use]
    pub fn image(&self) -> MemoryQueueImage {
        MemoryQueueImage(self.lock().clone())
    }

    /// Replaces everything that the queue holds, like a server that is started from a backup: what came after the
    /// backup is lost.
    pub fn restore(&self, image: &MemoryQueueImage) {
        *self.lock() = image.0.clone();
    }

    /// Drops the entries of a partition before an order number, even the anchor. For a queue with a fault.
    #[cfg(feature = "conformance")]
    pub(crate) fn trim_blindly(&self, partition: Partition, before: u64) {
        if let Some(log) = &mut self.lock().current
            && let Ok(log) = log.partition(partition)
        {
            log.entries.retain(|entry| number(entry.position) >= before);
        }
    }

    /// Returns the identity of this queue among those in memory.
    fn server(&self) -> String {
        format!("{:p}", std::ptr::from_ref(self))
    }

    fn new_id(&self) -> Result<QueueId, QueueError> {
        self.ids.as_ref().map_or_else(QueueId::random, |ids| Ok(ids()))
    }

    fn lock(&self) -> MutexGuard<'_, Data> {
        // A poisoned lock can be used: nothing here panics between two changes that belong together.
        self.data.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(
        &self,
        id: QueueId,
        f: impl FnOnce(&mut Log) -> Result<T, QueueError>,
    ) -> Result<T, QueueError> {
        match &mut self.lock().current {
            Some(log) if log.id == id => f(log),
            _ => Err(QueueError::Replaced),
        }
    }
}

impl Data {
    /// Returns the current or replaced queue with this id, and whether it is the current one.
    fn log(&mut self, id: QueueId) -> Result<(&mut Log, bool), QueueError> {
        match &mut self.current {
            Some(log) if log.id == id => Ok((log, true)),
            _ => self.replaced.get_mut(&id).map(|log| (log, false)).ok_or(QueueError::Replaced),
        }
    }
}

impl Log {
    fn accepted(&self) -> Accepted {
        let of_partition = |(partition, log): (Partition, &PartitionLog)| {
            let counts = log.accepted.iter().map(move |(poll, votes)| (partition, poll.clone(), *votes));
            counts.collect::<Vec<_>>()
        };
        self.layout.partitions.iter().zip(&self.partitions).flat_map(of_partition).collect()
    }

    fn partition(&mut self, partition: Partition) -> Result<&mut PartitionLog, QueueError> {
        self.partitions.get_mut(usize::from(partition.0)).ok_or(QueueError::NoPartition(partition))
    }

    fn is_empty(&self) -> bool {
        self.partitions.iter().all(|log| log.entries.is_empty())
    }
}

impl PartitionLog {
    fn push(&mut self, frame: &Frame) -> Position {
        let poll = String::from(frame.poll);
        let votes = u64::from(frame.votes);
        let order = (number(self.last) + 1).to_be_bytes();
        let position = Position::of_entry(&order, &poll, votes, &frame.bytes).unwrap_or_default();
        self.last = position;
        *self.accepted.entry(poll.clone()).or_default() += votes;
        self.entries.push_back(Entry { position, poll, votes, frame: frame.bytes.clone() });
        position
    }
}

/// Returns the order number of a position, 0 for the start. The check behind it does not take part in the order.
fn number(position: Position) -> u64 {
    position.as_bytes().first_chunk().copied().map_or(0, u64::from_be_bytes)
}

#[async_trait]
impl Queue for MemoryQueue {
    fn address(&self) -> String {
        "memory:".to_owned()
    }

    async fn create(&self, layout: Layout, replacing: Option<QueueId>) -> Result<QueueId, QueueError> {
        let mut data = self.lock();
        match &data.current {
            Some(log) if replacing != Some(log.id) => Ok(log.id),
            _ => {
                let (id, replaced_id) = (self.new_id()?, self.new_id()?);
                let replaced = data.current.replace(Log {
                    id,
                    layout,
                    active: false,
                    clock_ahead: None,
                    dropped: BTreeMap::new(),
                    polls: PollStates::new(),
                    partitions: vec![PartitionLog::default(); usize::from(layout.partitions.count())],
                });
                if let Some(log) = replaced {
                    data.replaced.insert(replaced_id, log);
                    data.replaced.retain(|_, log| !log.is_empty());
                }
                Ok(id)
            }
        }
    }

    async fn look(&self, partitions: &[Partition]) -> Result<Option<Look>, QueueError> {
        let data = self.lock();
        let Some(log) = &data.current else { return Ok(None) };
        let accepted = |partition: &Partition| {
            log.partitions.get(usize::from(partition.0)).map_or(0, |log| log.accepted.values().sum())
        };
        Ok(Some(Look {
            id: log.id,
            server: self.server(),
            is_replica: false,
            accepted: partitions.iter().map(accepted).collect(),
        }))
    }

    async fn status(&self) -> Result<Option<QueueStatus>, QueueError> {
        let data = self.lock();
        Ok(data.current.as_ref().map(|log| QueueStatus {
            id: log.id,
            server: self.server(),
            is_replica: false,
            version: LAYOUT_VERSION,
            layout: log.layout,
            active: log.active,
            accepted: log.accepted(),
            entries: log.partitions.iter().map(|log| log.entries.len() as u64).collect(),
            polls: log.polls.clone(),
            replaced: data.replaced.iter().map(|(id, log)| ReplacedQueue { id: *id, of: log.id }).collect(),
            clock: QueueClock { now: SystemClock.now(), ahead: log.clock_ahead },
        }))
    }

    async fn activate(&self, id: QueueId) -> Result<(), QueueError> {
        self.with(id, |log| {
            log.active = true;
            Ok(())
        })
    }

    async fn record_polls(&self, id: QueueId, polls: &[PollRecord]) -> Result<Vec<PollSlug>, QueueError> {
        self.with(id, |log| {
            let mut others = Vec::new();
            for record in polls {
                let is_recorded = log.polls.contains_key(&record.poll);
                if !is_recorded
                    && log.dropped.get(&record.poll).is_some_and(|dropped| dropped.refuses(record))
                {
                    others.push(record.poll);
                    continue;
                }
                match PollState::record(log.polls.get(&record.poll).copied(), record) {
                    Some(state) => drop(log.polls.insert(record.poll, state)),
                    None => others.push(record.poll),
                }
            }
            Ok(others)
        })
    }

    async fn drop_poll(
        &self,
        id: QueueId,
        poll: PollSlug,
        digest: PollDigest,
        withdrawn_at: Timestamp,
    ) -> Result<bool, QueueError> {
        self.with(id, |log| {
            let has_votes = log.partitions.iter().any(|log| log.accepted.contains_key(poll.as_str()));
            match log.polls.get(&poll) {
                Some(PollState::Sealed) => return Ok(false),
                Some(PollState::Recorded { digest: found, .. }) if *found != digest => return Ok(true),
                _ if has_votes => return Ok(false),
                _ => {}
            }
            log.polls.remove(&poll);
            let dropped = DroppedPoll { digest, withdrawn_at: Some(withdrawn_at) };
            log.dropped.insert(poll, dropped.after(log.dropped.get(&poll).copied()));
            Ok(true)
        })
    }

    async fn record_clock(&self, id: QueueId, ahead: i64) -> Result<(), QueueError> {
        self.with(id, |log| {
            log.clock_ahead = Some(ahead);
            Ok(())
        })
    }

    async fn append(&self, id: QueueId, frames: &[Frame]) -> Result<Vec<Appended>, AppendError> {
        let mut data = self.lock();
        let log = match &mut data.current {
            Some(log) if log.id == id => log,
            _ => return Err(AppendError::Replaced),
        };
        if !log.active {
            return Err(AppendError::NotActivated);
        }
        if let Some(frame) = frames.iter().find(|frame| !log.layout.partitions.contains(frame.partition)) {
            return Err(AppendError::NotStored(QueueError::NoPartition(frame.partition).to_string()));
        }
        let mut appended = Vec::with_capacity(frames.len());
        for frame in frames {
            let refused = PollState::refuses(log.polls.get(&frame.poll), frame.digest);
            let log = &mut log.partitions[usize::from(frame.partition.0)];
            appended.push(refused.unwrap_or_else(|| Appended::Stored(log.push(frame))));
        }
        Ok(appended)
    }

    async fn read(
        &self,
        id: QueueId,
        partition: Partition,
        after: Position,
        limit: usize,
    ) -> Result<Read, QueueError> {
        let mut data = self.lock();
        let (log, is_current) = data.log(id)?;
        let log = log.partition(partition)?;
        let start = log.entries.partition_point(|entry| number(entry.position) <= number(after));
        let anchored = start > 0 && after.is_of(&log.entries[start - 1].position);
        if is_current && after != Position::START && !anchored {
            return Err(QueueError::Diverged(after));
        }
        let entries: Vec<Entry> = log.entries.range(start..).take(limit).cloned().collect();
        let at_end = start + entries.len() == log.entries.len();
        let accepted = (is_current && at_end).then(|| log.accepted.clone());
        Ok(Read { entries, at_end, accepted, server: self.server() })
    }

    async fn trim(&self, id: QueueId, partition: Partition, upto: Position) -> Result<(), QueueError> {
        let mut data = self.lock();
        let (log, is_current) = data.log(id)?;
        let entries = &mut log.partition(partition)?.entries;
        if is_current && !entries.iter().any(|entry| upto.is_of(&entry.position)) {
            return Ok(());
        }
        let first = if is_current { number(upto) } else { number(upto).saturating_add(1) };
        entries.retain(|entry| number(entry.position) >= first);
        data.replaced.retain(|_, log| !log.is_empty());
        Ok(())
    }

    async fn seal(&self, id: QueueId, poll: PollSlug) -> Result<Seal, QueueError> {
        self.with(id, |log| {
            log.polls.insert(poll, PollState::Sealed);
            Ok(Seal {
                ends: log.partitions.iter().map(|log| log.last).collect(),
                accepted: log
                    .partitions
                    .iter()
                    .map(|log| log.accepted.get(poll.as_str()).copied().unwrap_or_default())
                    .collect(),
            })
        })
    }

    async fn backlog(
        &self,
        id: QueueId,
        after: &[Position],
        limit: usize,
    ) -> Result<Vec<Backlog>, QueueError> {
        let mut data = self.lock();
        let (log, _) = data.log(id)?;
        let backlog = |(log, after): (&PartitionLog, &Position)| {
            let behind = || log.entries.iter().filter(|entry| number(entry.position) > number(*after));
            let mut votes = Counters::new();
            for entry in behind().take(limit) {
                *votes.entry(entry.poll.clone()).or_default() += entry.votes;
            }
            let end = behind().last().map_or(*after, |entry| entry.position);
            Backlog { end, votes, complete: behind().count() <= limit, oldest: None }
        };
        Ok(log.partitions.iter().zip(after).map(backlog).collect())
    }

    async fn durability_problems(&self) -> Result<Vec<DurabilityProblem>, QueueError> {
        Ok(vec![DurabilityProblem::InMemory { what: "queue", instead: "Redis or a SQLite file" }])
    }

    async fn usage(&self) -> Result<Option<Usage>, QueueError> {
        Ok(None)
    }
}
