//! A queue with one fault. There is a fault for each clause of the suite.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;

use crate::{
    Partition, PollDigest, PollSlug, Position, Queue, QueueId, Timestamp,
    conformance::{QueueHarness, layout},
    queue::{
        AppendError, Appended, Backlog, Frame, Layout, Look, MemoryQueue, PollRecord, PollState, PollStates,
        QueueError, QueueLayer, QueueStatus, Read, Seal,
    },
};

/// Fault of a [`BrokenQueue`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // The names say what is wrong.
pub enum QueueFault {
    CreatesUnasked,
    ActivatesItself,
    CreatesAnotherQueue,
    ReplacesAnyQueue,
    AcceptsWhileInactive,
    IgnoresTheIdentity,
    ReadsAnyQueue,
    Reorders,
    ReadsDestructively,
    ForgetsThePosition,
    IgnoresTheLimit,
    CountsTooEarly,
    CountsFrames,
    /// A look returns the votes of the first partition for each that was asked for.
    LooksAtOnePartition,
    TrimsTheAnchor,
    TrimsEverything,
    TrimsBlindly,
    RestartsPositions,
    HidesDivergence,
    IgnoresTheCheck,
    ForgetsThePolls,
    AcceptsAnyPoll,
    IgnoresTheDigest,
    HidesAnotherDigest,
    KeepsTheFirstClosingTime,
    KeepsTheFirstClock,
    PretendsToDrop,
    DropsPollsWithVotes,
    DropsAnyDefinition,
    IgnoresUndoneWithdrawals,
    TakesAnyWithdrawalForUndone,
    SealsRecordedPollsOnly,
    Unseals,
    RefusesTheRest,
    IgnoresTheSeal,
    SealsWithoutCounts,
    AcceptsAnyPartition,
    LosesAFlush,
    ForgetsOnRestart,
    ForgetsReplacedQueues,
    KeepsReplacedQueues,
    CountsReplacedQueues,
    ForgetsTheBacklog,
}

/// A queue in memory with one fault.
#[derive(Debug)]
pub struct BrokenQueue {
    inner: MemoryQueue,
    fault: QueueFault,
    appends: AtomicU64,
}

impl BrokenQueue {
    /// Creates an empty queue with this fault.
    #[must_use]
    pub fn new(fault: QueueFault) -> Self {
        Self { inner: MemoryQueue::new(), fault, appends: AtomicU64::new(0) }
    }

    /// Returns the id of the current queue, whichever the caller means.
    async fn current(&self) -> QueueId {
        let status = self.inner.status().await.ok().flatten();
        status.map_or(QueueId([0; 16]), |status| status.id)
    }

    /// Returns the states of the polls that the queue knows.
    async fn polls(&self) -> PollStates {
        let status = self.inner.status().await.ok().flatten();
        status.map(|status| status.polls).unwrap_or_default()
    }

    /// Records the polls of frames with the digests that the frames have.
    async fn record_polls_of(&self, id: QueueId, frames: &[Frame]) {
        let record = |frame: &Frame| PollRecord {
            poll: frame.poll,
            digest: frame.digest,
            closes_at: None,
            undone_withdrawal: None,
        };
        let records: Vec<_> = frames.iter().map(record).collect();
        drop(self.inner.record_polls(id, &records).await);
    }

    /// Appends frames up to the first one that is refused, and refuses all after it.
    async fn append_until_refused(
        &self,
        id: QueueId,
        frames: &[Frame],
    ) -> Result<Vec<Appended>, AppendError> {
        let mut answers = Vec::new();
        for frame in frames {
            let refused = answers.last().filter(|last| !matches!(last, Appended::Stored(_))).copied();
            answers.push(match refused {
                Some(refused) => refused,
                None => self.inner.append(id, std::slice::from_ref(frame)).await?[0],
            });
        }
        Ok(answers)
    }
}

#[async_trait]
impl QueueLayer for BrokenQueue {
    fn inner(&self) -> &dyn Queue {
        &self.inner
    }

    fn address(&self) -> String {
        format!("broken:{:?}", self.fault)
    }

    async fn create(&self, layout: Layout, replacing: Option<QueueId>) -> Result<QueueId, QueueError> {
        let current = self.inner.status().await?.map(|status| status.id);
        let replacing = match self.fault {
            QueueFault::CreatesAnotherQueue => current,
            QueueFault::ReplacesAnyQueue if replacing.is_some() => current,
            _ => replacing,
        };
        let id = self.inner.create(layout, replacing).await?;
        if self.fault == QueueFault::ActivatesItself {
            self.inner.activate(id).await?;
        }
        Ok(id)
    }

    async fn status(&self) -> Result<Option<QueueStatus>, QueueError> {
        if self.fault == QueueFault::CreatesUnasked {
            self.inner.create(layout(), None).await?;
        }
        let mut status = self.inner.status().await?;
        if let (QueueFault::ForgetsReplacedQueues, Some(status)) = (self.fault, &mut status) {
            status.replaced.clear();
        }
        match (self.fault, &mut status) {
            (QueueFault::ForgetsThePolls, Some(status)) => status.polls.clear(),
            (QueueFault::Unseals, Some(status)) => {
                let state = PollState::Recorded { digest: PollDigest([0; 16]), closes_at: None };
                status.polls.values_mut().for_each(|poll| *poll = state);
            }
            _ => {}
        }
        Ok(status)
    }

    async fn look(&self, partitions: &[Partition]) -> Result<Option<Look>, QueueError> {
        let mut look = self.inner.look(partitions).await?;
        if let (QueueFault::LooksAtOnePartition, Some(look)) = (self.fault, &mut look) {
            let first = look.accepted.first().copied().unwrap_or_default();
            look.accepted.fill(first);
        }
        Ok(look)
    }

    async fn record_polls(&self, id: QueueId, polls: &[PollRecord]) -> Result<Vec<PollSlug>, QueueError> {
        let mut polls = polls.to_vec();
        if self.fault == QueueFault::KeepsTheFirstClosingTime {
            let known = self.polls().await;
            polls.retain(|record| !known.contains_key(&record.poll));
        }
        for record in &mut polls {
            record.undone_withdrawal = match self.fault {
                QueueFault::IgnoresUndoneWithdrawals => None,
                QueueFault::TakesAnyWithdrawalForUndone => record.undone_withdrawal.and(Some(Timestamp::MAX)),
                _ => record.undone_withdrawal,
            };
        }
        let others = self.inner.record_polls(id, &polls).await?;
        Ok(if self.fault == QueueFault::HidesAnotherDigest { Vec::new() } else { others })
    }

    async fn drop_poll(
        &self,
        id: QueueId,
        poll: PollSlug,
        digest: PollDigest,
        withdrawn_at: Timestamp,
    ) -> Result<bool, QueueError> {
        let status = self.inner.status().await?;
        let has_votes = status.is_some_and(|status| status.accepted.of_poll(poll.as_str()) > 0);
        match self.fault {
            QueueFault::DropsPollsWithVotes if has_votes => Ok(true),
            QueueFault::PretendsToDrop if !has_votes => Ok(true),
            QueueFault::DropsAnyDefinition => {
                let found = match self.polls().await.get(&poll) {
                    Some(PollState::Recorded { digest, .. }) => *digest,
                    _ => digest,
                };
                self.inner.drop_poll(id, poll, found, withdrawn_at).await
            }
            _ => self.inner.drop_poll(id, poll, digest, withdrawn_at).await,
        }
    }

    async fn record_clock(&self, id: QueueId, ahead: i64) -> Result<(), QueueError> {
        if self.fault == QueueFault::KeepsTheFirstClock
            && let Some(status) = self.inner.status().await?
            && status.clock.ahead.is_some()
        {
            return Ok(());
        }
        self.inner.record_clock(id, ahead).await
    }

    async fn append(&self, id: QueueId, frames: &[Frame]) -> Result<Vec<Appended>, AppendError> {
        let count = self.appends.fetch_add(1, Ordering::Relaxed);
        let mut frames = frames.to_vec();
        match self.fault {
            QueueFault::AcceptsWhileInactive => self.inner.activate(id).await.unwrap_or_default(),
            QueueFault::IgnoresTheIdentity => return self.inner.append(self.current().await, &frames).await,
            QueueFault::Reorders => frames.reverse(),
            QueueFault::CountsFrames => frames.iter_mut().for_each(|frame| frame.votes = 1),
            QueueFault::AcceptsAnyPartition => {
                let partitions = layout().partitions;
                frames.retain(|frame| partitions.contains(frame.partition));
            }
            QueueFault::LosesAFlush if count == 40 => {
                return Ok(frames.iter().map(|_| Appended::Stored(Position::START)).collect());
            }
            QueueFault::IgnoresTheSeal => {
                // Under another name, which is not sealed.
                for frame in &mut frames {
                    frame.poll = "unsealed".parse().unwrap_or(frame.poll);
                }
                self.record_polls_of(id, &frames).await;
            }
            QueueFault::AcceptsAnyPoll => self.record_polls_of(id, &frames).await,
            QueueFault::IgnoresTheDigest => {
                let known = self.polls().await;
                for frame in &mut frames {
                    if let Some(PollState::Recorded { digest, .. }) = known.get(&frame.poll) {
                        frame.digest = *digest;
                    }
                }
            }
            QueueFault::RefusesTheRest => return self.append_until_refused(id, &frames).await,
            QueueFault::RestartsPositions if count == 1 => {
                return Ok(vec![Appended::Stored(
                    Position::from_bytes(&1_u64.to_be_bytes()).unwrap_or_default(),
                )]);
            }
            _ => {}
        }
        self.inner.append(id, &frames).await
    }

    async fn read(
        &self,
        id: QueueId,
        partition: Partition,
        after: Position,
        limit: usize,
    ) -> Result<Read, QueueError> {
        let (id, after, limit) = match self.fault {
            QueueFault::ReadsAnyQueue => (self.current().await, after, limit),
            QueueFault::ForgetsThePosition => (id, Position::START, limit),
            QueueFault::IgnoresTheLimit => (id, after, usize::MAX >> 1),
            QueueFault::IgnoresTheCheck => {
                let order = &after.as_bytes()[..after.as_bytes().len().min(8)];
                (id, Position::from_bytes(order).unwrap_or_default(), limit)
            }
            _ => (id, after, limit),
        };
        let mut read = match self.inner.read(id, partition, after, limit).await {
            Err(QueueError::Diverged(_)) if self.fault == QueueFault::HidesDivergence => Read::default(),
            other => other?,
        };
        match self.fault {
            QueueFault::CountsReplacedQueues if read.at_end && id != self.current().await => {
                read.accepted = Some(crate::queue::Counters::new());
            }
            QueueFault::CountsTooEarly => read.accepted = Some(crate::queue::Counters::new()),
            QueueFault::ReadsDestructively => {
                if let Some(last) = read.entries.last() {
                    self.inner.trim(id, partition, last.position).await?;
                }
            }
            _ => {}
        }
        Ok(read)
    }

    async fn trim(&self, id: QueueId, partition: Partition, upto: Position) -> Result<(), QueueError> {
        let order = upto.as_bytes().first_chunk().copied().map_or(0, u64::from_be_bytes);
        match self.fault {
            QueueFault::TrimsTheAnchor => self.inner.trim_blindly(partition, order + 1),
            QueueFault::KeepsReplacedQueues if id != self.current().await => {}
            QueueFault::TrimsEverything => self.inner.trim_blindly(partition, u64::MAX),
            QueueFault::TrimsBlindly => self.inner.trim_blindly(partition, order),
            _ => self.inner.trim(id, partition, upto).await?,
        }
        Ok(())
    }

    async fn seal(&self, id: QueueId, poll: PollSlug) -> Result<Seal, QueueError> {
        if self.fault == QueueFault::SealsRecordedPollsOnly && !self.polls().await.contains_key(&poll) {
            let count = usize::from(layout().partitions.count());
            return Ok(Seal { ends: vec![Position::START; count], accepted: vec![0; count] });
        }
        let mut seal = self.inner.seal(id, poll).await?;
        if self.fault == QueueFault::SealsWithoutCounts {
            seal.accepted.fill(0);
        }
        Ok(seal)
    }

    async fn backlog(
        &self,
        id: QueueId,
        after: &[Position],
        limit: usize,
    ) -> Result<Vec<Backlog>, QueueError> {
        let mut backlog = self.inner.backlog(id, after, limit).await?;
        if self.fault == QueueFault::ForgetsTheBacklog {
            backlog.iter_mut().for_each(|backlog| backlog.votes.clear());
        }
        Ok(backlog)
    }
}

/// Harness for queues with this fault.
#[derive(Debug, Clone, Copy)]
pub struct BrokenQueues(pub QueueFault);

#[async_trait]
impl QueueHarness for BrokenQueues {
    async fn fresh(&self) -> Arc<dyn Queue> {
        Arc::new(BrokenQueue::new(self.0))
    }

    async fn reopen(&self, queue: Arc<dyn Queue>) -> Arc<dyn Queue> {
        if self.0 == QueueFault::ForgetsOnRestart { self.fresh().await } else { queue }
    }
}
