//! A store with one fault. There is a fault for each clause of the suite.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;

use self::{
    session::{BrokenSession, Leaked},
    snapshot::BrokenSnapshot,
};
use crate::{
    Partition, Poll, PollSlug, Position, QueueId, Session, Store, StoreReader, Timestamp,
    conformance::{StoreHarness, layout},
    count::{QuarantineKey, QuarantineRow, QueueRecord, QueueState, RegisteredPoll, SealRecord},
    poll::ResultsFrom,
    queue::Layout,
    store::{Catalog, MemoryStore, Snapshot, StoreError, StoreLayer, StoreReaderLayer, WorkerRecord},
};

mod session;
mod snapshot;

/// Fault of a [`BrokenStore`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // Each name is a verb phrase that states the fault.
pub enum StoreFault {
    InventsALayout,
    AcceptsAnyLayout,
    ReplacesPolls,
    PublishesAllResults,
    SharesPartitions,
    KeepsPartitionsOfDroppedSessions,
    ListsNoFreePartition,
    DropsAVote,
    DropsTheTally,
    DropsTheLedger,
    ForgetsThePosition,
    LeavesOutPositions,
    DropsTheQuarantine,
    IgnoresTheVersion,
    TurnsInsertsIntoReplacements,
    ReplacesAnyBallot,
    DropsReplacements,
    AddsUpTheAcceptedCount,
    ResetsOtherEntries,
    LooksUpHalf,
    ForgetsOnRestart,
    RevivesDivergedQueues,
    KeepsTheFirstReport,
    ReportsOneQueue,
    KeepsTheFirstBallot,
    ReopensPolls,
    FinishesTwice,
    FinishesIncompletePolls,
    FinishesOpenPolls,
    CountsVotesOfFinalPolls,
    CompletesWhatWasNotRead,
    IgnoresNewQueues,
    IgnoresHigherSeals,
    ClosesByTheCallersClock,
    FollowsTheFile,
    ReschedulesClosedPolls,
    WithdrawsPollsWithVotes,
    NeverUndoesWithdrawals,
    ForgetsUndoneWithdrawals,
    ForgetsWhoDroppedPolls,
    RegistersTooEarly,
    KeepsPlansByReplacedPolls,
    SkipsUnregisteredPolls,
    SkipsUnknownOptions,
    RefusesUnregisteredPolls,
    OpensUnpreparedStores,
    ForgetsWorkers,
    KeepsFutureTimes,
    LeavesQueuesOutOfTheCatalog,
    FindsAnyQueue,
    ForgetsLateQueues,
    /// A catalog that is read again stays as it was.
    MissesChanges,
    OverwritesSeals,
    RevivesRetiredQueues,
    ListsOnePage,
    NeverReplays,
    ReplaysFinalPolls,
    KeepsCountedFrames,
    ForgetsTheNewReason,
    CountsReplaysTwice,
    ReplaysRejectedFrames,
    QuarantinesWholeFrames,
    ForgetsTheRest,
    ReplaysFromAnyState,
    AddsUpWholeFrames,
    ReadsAccountsLate,
    LeavesOutQuarantine,
    MissesNoQueue,
    ForgetsWhatWasRetired,
    NeverDatesTheTally,
    RepeatsTheLastBallot,
}

/// A store in memory with one fault.
#[derive(Debug)]
pub struct BrokenStore {
    inner: MemoryStore,
    fault: StoreFault,
}

impl BrokenStore {
    /// Returns an empty store with a fault.
    #[must_use]
    pub fn new(fault: StoreFault) -> Self {
        Self { inner: MemoryStore::new(), fault }
    }

    /// Returns these polls as a store with the fault `PublishesAllResults` has them.
    fn published(&self, mut polls: Vec<RegisteredPoll>) -> Vec<RegisteredPoll> {
        if self.fault == StoreFault::PublishesAllResults {
            polls.iter_mut().for_each(|poll| poll.results = ResultsFrom::Live);
        }
        polls
    }
}

#[async_trait]
impl StoreReaderLayer for BrokenStore {
    type Inner = MemoryStore;

    async fn inner(&self) -> Result<&MemoryStore, StoreError> {
        Ok(&self.inner)
    }
    async fn layout(&self) -> Result<Option<Layout>, StoreError> {
        match self.fault {
            StoreFault::InventsALayout => Ok(Some(layout())),
            _ => self.inner.layout().await,
        }
    }
    async fn polls(&self) -> Result<Vec<RegisteredPoll>, StoreError> {
        Ok(self.published(self.inner.polls().await?))
    }
    async fn positions(
        &self,
        queues: &[QueueId],
    ) -> Result<BTreeMap<(QueueId, Partition), Position>, StoreError> {
        let mut positions = self.inner.positions(queues).await?;
        if self.fault == StoreFault::LeavesOutPositions {
            positions.pop_last();
        }
        Ok(positions)
    }
    async fn queue(&self, queue: QueueId) -> Result<Option<QueueRecord>, StoreError> {
        match self.fault {
            StoreFault::FindsAnyQueue => Ok(self.inner.queues().await?.into_iter().next()),
            _ => self.inner.queue(queue).await,
        }
    }
    async fn queues(&self) -> Result<Vec<QueueRecord>, StoreError> {
        let mut queues = self.inner.queues().await?;
        if self.fault == StoreFault::RevivesDivergedQueues {
            queues.iter_mut().for_each(|queue| queue.state = QueueState::Active);
        }
        if self.fault == StoreFault::RevivesRetiredQueues {
            queues.iter_mut().for_each(|queue| queue.state = queue.state.min(QueueState::Diverged));
        }
        Ok(queues)
    }
    async fn quarantine(
        &self,
        after: Option<QuarantineKey>,
        limit: usize,
    ) -> Result<Vec<QuarantineRow>, StoreError> {
        match self.fault {
            StoreFault::ListsOnePage if after.is_some() => Ok(Vec::new()),
            _ => self.inner.quarantine(after, limit).await,
        }
    }
    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        let inner = self.inner.snapshot().await?;
        Ok(Box::new(BrokenSnapshot { inner, store: self.inner.clone(), fault: self.fault }))
    }
}

#[async_trait]
impl StoreLayer for BrokenStore {
    async fn prepare(&self, layout: Layout) -> Result<(), StoreError> {
        match self.inner.prepare(layout).await {
            Err(StoreError::Layout(_)) if self.fault == StoreFault::AcceptsAnyLayout => Ok(()),
            other => other,
        }
    }
    async fn catalog(&self, known: Option<&Catalog>) -> Result<Catalog, StoreError> {
        let mut catalog = self.inner.catalog(known).await?;
        match self.fault {
            StoreFault::ForgetsWorkers => catalog.workers.clear(),
            StoreFault::LeavesQueuesOutOfTheCatalog => catalog.queues = Arc::default(),
            StoreFault::ForgetsLateQueues => catalog.late.clear(),
            StoreFault::MissesChanges => {
                if let Some(known) = known {
                    return Ok(known.clone());
                }
            }
            _ => {}
        }
        Ok(catalog)
    }
    async fn register_poll(&self, poll: &Poll) -> Result<RegisteredPoll, StoreError> {
        if self.fault == StoreFault::RegistersTooEarly
            && let Some(found) = self.inner.polls().await?.into_iter().find(|known| known.slug == poll.slug)
            && let Some(withdrawal) = found.withdrawal
        {
            // As if every queue had dropped the poll.
            for queue in self.inner.queues().await? {
                self.inner.record_dropped(queue.id, poll.slug, withdrawal.at).await?;
            }
        }
        let registered = self.inner.register_poll(poll).await?;
        match self.fault {
            StoreFault::ReplacesPolls => Ok(RegisteredPoll::from(poll)),
            StoreFault::FollowsTheFile => {
                self.inner.change_poll(poll.slug, |known| known.closes_at = poll.closes_at);
                Ok(RegisteredPoll { closes_at: poll.closes_at, ..registered })
            }
            _ => Ok(registered),
        }
    }
    async fn close_poll(&self, poll: PollSlug) -> Result<Option<RegisteredPoll>, StoreError> {
        if self.fault == StoreFault::ReopensPolls {
            self.inner.change_poll(poll, |poll| poll.closed_at = None);
        }
        self.inner.close_poll(poll).await
    }
    async fn close_due_polls(&self, grace: Duration, now: Timestamp) -> Result<Vec<PollSlug>, StoreError> {
        if self.fault != StoreFault::ClosesByTheCallersClock {
            return self.inner.close_due_polls(grace, now).await;
        }
        let grace = grace.as_micros() as i64;
        let mut closed = Vec::new();
        for poll in self.inner.polls().await?.iter().filter(|poll| poll.closed_at.is_none()) {
            if poll.closes_at.is_some_and(|at| at.saturating_add(grace) <= now) {
                self.inner.close_poll(poll.slug).await?;
                closed.push(poll.slug);
            }
        }
        Ok(closed)
    }
    async fn reschedule_poll(
        &self,
        poll: PollSlug,
        closes_at: Option<Timestamp>,
        reason: &str,
    ) -> Result<Option<RegisteredPoll>, StoreError> {
        match self.inner.reschedule_poll(poll, closes_at, reason).await {
            Err(StoreError::Conflict(_)) if self.fault == StoreFault::ReschedulesClosedPolls => {
                self.inner.change_poll(poll, |poll| poll.closes_at = closes_at);
                Ok(self.inner.polls().await?.into_iter().find(|known| known.slug == poll))
            }
            other => other,
        }
    }
    async fn withdraw_poll(
        &self,
        poll: PollSlug,
        reason: &str,
    ) -> Result<Option<RegisteredPoll>, StoreError> {
        match self.inner.withdraw_poll(poll, reason).await {
            Err(StoreError::Conflict(_)) if self.fault == StoreFault::WithdrawsPollsWithVotes => {
                Ok(self.inner.polls().await?.into_iter().find(|known| known.slug == poll))
            }
            other => other,
        }
    }
    async fn undo_withdrawal(&self, poll: PollSlug, withdrawn_at: Timestamp) -> Result<(), StoreError> {
        if self.fault == StoreFault::NeverUndoesWithdrawals {
            return Ok(());
        }
        self.inner.undo_withdrawal(poll, withdrawn_at).await?;
        if self.fault == StoreFault::ForgetsUndoneWithdrawals {
            self.inner.change_poll(poll, |poll| poll.undone_withdrawal = None);
        }
        Ok(())
    }
    async fn record_dropped(
        &self,
        queue: QueueId,
        poll: PollSlug,
        withdrawn_at: Timestamp,
    ) -> Result<(), StoreError> {
        if self.fault == StoreFault::ForgetsWhoDroppedPolls {
            return Ok(());
        }
        self.inner.record_dropped(queue, poll, withdrawn_at).await
    }
    async fn record_seal(&self, seal: &SealRecord) -> Result<SealRecord, StoreError> {
        if matches!(self.fault, StoreFault::OverwritesSeals | StoreFault::IgnoresHigherSeals) {
            self.inner.forget_seal(seal);
        }
        self.inner.record_seal(seal).await
    }
    async fn finalize_poll(&self, poll: PollSlug) -> Result<bool, StoreError> {
        match self.fault {
            StoreFault::FinishesIncompletePolls => self.inner.complete_all(poll),
            StoreFault::FinishesOpenPolls => {
                self.inner.close_poll(poll).await?;
                self.inner.complete_all(poll);
            }
            // What was complete before the new queue was recorded still counts as complete.
            StoreFault::IgnoresNewQueues
                if self.inner.snapshot().await?.accounts(false).await?.completions.len()
                    == usize::from(layout().partitions.count()) =>
            {
                self.inner.complete_all(poll);
            }
            StoreFault::FinishesTwice if self.inner.finalize_poll(poll).await? => {
                self.inner.change_poll(poll, |poll| poll.final_at = Some(self.inner.now()));
            }
            _ => {}
        }
        self.inner.finalize_poll(poll).await
    }
    async fn heartbeat(&self, worker: &WorkerRecord) -> Result<(), StoreError> {
        let before = self.inner.queues().await?;
        self.inner.heartbeat(worker).await?;
        if self.fault == StoreFault::KeepsFutureTimes {
            self.inner.report(&before).await?;
        }
        Ok(())
    }
    async fn report(&self, queues: &[QueueRecord]) -> Result<(), StoreError> {
        if self.fault == StoreFault::KeepsTheFirstReport && !self.inner.queues().await?.is_empty() {
            return Ok(());
        }
        let most = if self.fault == StoreFault::ReportsOneQueue { 1 } else { queues.len() };
        self.inner.report(queues.get(..most).unwrap_or_default()).await
    }
    async fn open_session(&self) -> Result<Box<dyn Session>, StoreError> {
        if self.fault == StoreFault::OpensUnpreparedStores {
            self.inner.prepare(layout()).await?;
        }
        let mut inner = self.inner.open_session().await?;
        if self.fault == StoreFault::KeepsPartitionsOfDroppedSessions {
            inner = Box::new(Leaked(Box::leak(inner)));
        }
        Ok(Box::new(BrokenSession { inner, store: self.inner.clone(), fault: self.fault }))
    }
}

/// Harness that makes stores with a fault.
#[derive(Debug, Clone, Copy)]
pub struct BrokenStores(pub StoreFault);

#[async_trait]
impl StoreHarness for BrokenStores {
    async fn fresh(&self) -> Arc<dyn Store> {
        Arc::new(BrokenStore::new(self.0))
    }

    async fn reopen(&self, store: Arc<dyn Store>) -> Arc<dyn Store> {
        if self.0 == StoreFault::ForgetsOnRestart { self.fresh().await } else { store }
    }
}
