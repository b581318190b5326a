//! A queue in memory, for tests and examples: everything is lost with the process.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;

use super::{
    AppendError, Appended, Counters, Entry, Frame, LAYOUT_VERSION, Layout, PollRecord, PollState, PollStates,
    Position, Queue, QueueError, QueueId, QueueStatus, Read, Remains, Room, Seal, Unread,
};
use crate::{Partition, PollSlug};

/// A queue in memory. Share it between a frontend and a worker of the same process with an `Arc`.
#[derive(Default)]
pub struct MemoryQueue {
    data: Mutex<Data>,
    /// Where identities come from; the operating system's random numbers if nothing else is said.
    ids: Option<Ids>,
}

/// Makes identities, each another one than all before.
pub type Ids = Box<dyn Fn() -> QueueId + Send + Sync>;

impl fmt::Debug for MemoryQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryQueue").field("data", &self.data).finish_non_exhaustive()
    }
}

/// What a [`MemoryQueue`] held at a moment.
#[derive(Debug, Clone)]
pub struct MemoryQueueImage(Data);

#[derive(Debug, Default, Clone)]
struct Data {
    current: Option<Log>,
    /// What is left of replaced boxes, by the identity it got.
    remains: BTreeMap<QueueId, Log>,
}

#[derive(Debug, Clone)]
struct Log {
    id: QueueId,
    layout: Layout,
    registered: bool,
    polls: PollStates,
    partitions: Vec<PartitionLog>,
}

#[derive(Debug, Default, Clone)]
struct PartitionLog {
    entries: VecDeque<Entry>,
    /// The position of the last entry, which is known even when that is gone.
    last: Position,
    accepted: Counters,
}

impl MemoryQueue {
    /// An empty queue.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty queue that takes its identities from a source, so that a test with a seed can repeat what it did.
    #[must_use]
    pub fn with_ids(ids: Ids) -> Self {
        Self { data: Mutex::default(), ids: Some(ids) }
    }

    /// A copy of all that the queue holds, as a backup of its server would be.
    #[must_use]
    pub fn image(&self) -> MemoryQueueImage {
        MemoryQueueImage(self.lock().clone())
    }

    /// Replaces all that the queue holds, as a server does that starts from a backup: what came after it is lost.
    pub fn restore(&self, image: &MemoryQueueImage) {
        *self.lock() = image.0.clone();
    }

    /// For a queue with a fault.
    #[cfg(feature = "conformance")]
    pub(crate) fn trim_blindly(&self, partition: Partition, before: u64) {
        if let Some(log) = &mut self.lock().current
            && let Ok(log) = log.partition(partition)
        {
            log.entries.retain(|entry| number(entry.position) >= before);
        }
    }

    fn new_id(&self) -> Result<QueueId, QueueError> {
        self.ids.as_ref().map_or_else(QueueId::random, |ids| Ok(ids()))
    }

    fn lock(&self) -> MutexGuard<'_, Data> {
        // Nothing here panics between two changes that belong together.
        self.data.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(
        &self,
        id: QueueId,
        f: impl FnOnce(&mut Log) -> Result<T, QueueError>,
    ) -> Result<T, QueueError> {
        match &mut self.lock().current {
            Some(log) if log.id == id => f(log),
            _ => Err(QueueError::AnotherBox),
        }
    }
}

impl Data {
    /// The box or the remains of that name, and whether it is the box.
    fn log(&mut self, id: QueueId) -> Result<(&mut Log, bool), QueueError> {
        match &mut self.current {
            Some(log) if log.id == id => Ok((log, true)),
            _ => self.remains.get_mut(&id).map(|log| (log, false)).ok_or(QueueError::AnotherBox),
        }
    }
}

impl Log {
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

/// The order number of a position, which is 0 at the start. The check behind it does not decide what comes first.
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
                let (id, remains) = (self.new_id()?, self.new_id()?);
                let replaced = data.current.replace(Log {
                    id,
                    layout,
                    registered: false,
                    polls: PollStates::new(),
                    partitions: vec![PartitionLog::default(); usize::from(layout.partitions.count())],
                });
                if let Some(log) = replaced {
                    data.remains.insert(remains, log);
                    data.remains.retain(|_, log| !log.is_empty());
                }
                Ok(id)
            }
        }
    }

    async fn status(&self) -> Result<Option<QueueStatus>, QueueError> {
        let data = self.lock();
        Ok(data.current.as_ref().map(|log| QueueStatus {
            id: log.id,
            server: format!("{:p}", std::ptr::from_ref(self)),
            version: LAYOUT_VERSION,
            layout: log.layout,
            registered: log.registered,
            accepted: log
                .layout
                .partitions
                .iter()
                .zip(&log.partitions)
                .filter(|(_, log)| !log.accepted.is_empty())
                .map(|(partition, log)| (partition, log.accepted.clone()))
                .collect::<BTreeMap<_, _>>(),
            entries: log.partitions.iter().map(|log| log.entries.len() as u64).collect(),
            polls: log.polls.clone(),
            remains: data.remains.iter().map(|(id, log)| Remains { id: *id, of: log.id }).collect(),
        }))
    }

    async fn register(&self, id: QueueId) -> Result<(), QueueError> {
        self.with(id, |log| {
            log.registered = true;
            Ok(())
        })
    }

    async fn record_polls(&self, id: QueueId, polls: &[PollRecord]) -> Result<Vec<PollSlug>, QueueError> {
        self.with(id, |log| {
            let mut others = Vec::new();
            for record in polls {
                match PollState::record(log.polls.get(&record.poll).copied(), record) {
                    Some(state) => drop(log.polls.insert(record.poll, state)),
                    None => others.push(record.poll),
                }
            }
            Ok(others)
        })
    }

    async fn append(&self, id: QueueId, frames: &[Frame]) -> Result<Vec<Appended>, AppendError> {
        let mut data = self.lock();
        let log = match &mut data.current {
            Some(log) if log.id == id => log,
            _ => return Err(AppendError::AnotherBox),
        };
        if !log.registered {
            return Err(AppendError::NotRegistered);
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
        let (log, is_box) = data.log(id)?;
        let log = log.partition(partition)?;
        let start = log.entries.partition_point(|entry| number(entry.position) <= number(after));
        let anchored = start > 0 && after.is_of(&log.entries[start - 1].position);
        if is_box && after != Position::START && !anchored {
            return Err(QueueError::Cut(after));
        }
        let entries: Vec<Entry> = log.entries.range(start..).take(limit).cloned().collect();
        let at_end = start + entries.len() == log.entries.len();
        Ok(Read { entries, at_end, accepted: (is_box && at_end).then(|| log.accepted.clone()) })
    }

    async fn trim(&self, id: QueueId, partition: Partition, upto: Position) -> Result<(), QueueError> {
        let mut data = self.lock();
        let (log, is_box) = data.log(id)?;
        let entries = &mut log.partition(partition)?.entries;
        if is_box && !entries.iter().any(|entry| upto.is_of(&entry.position)) {
            return Ok(());
        }
        let first = if is_box { number(upto) } else { number(upto).saturating_add(1) };
        entries.retain(|entry| number(entry.position) >= first);
        data.remains.retain(|_, log| !log.is_empty());
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

    async fn unread(&self, id: QueueId, after: &[Position], limit: usize) -> Result<Vec<Unread>, QueueError> {
        let mut data = self.lock();
        let (log, _) = data.log(id)?;
        let unread = |(log, after): (&PartitionLog, &Position)| {
            let behind = || log.entries.iter().filter(|entry| number(entry.position) > number(*after));
            let mut votes = Counters::new();
            for entry in behind().take(limit) {
                *votes.entry(entry.poll.clone()).or_default() += entry.votes;
            }
            let end = behind().last().map_or(*after, |entry| entry.position);
            Unread { end, votes, complete: behind().count() <= limit, oldest: None }
        };
        Ok(log.partitions.iter().zip(after).map(unread).collect())
    }

    async fn check(&self) -> Result<Vec<String>, QueueError> {
        Ok(vec!["a queue in memory is lost with its process".to_owned()])
    }

    async fn room(&self) -> Result<Option<Room>, QueueError> {
        Ok(None)
    }
}
