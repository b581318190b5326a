//! A store with a fault.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::{
    Lane, OptionSlug, Partition, Poll, PollSlug, Position, QueueId, Store, StoreReader, Timestamp, VoterKey,
    conformance::{StoreHarness, layout},
    poll::ResultsFrom,
    queue::Layout,
    store::{
        Acquired, Ballot, Books, Catalog, CommitPlan, Decision, LedgerRow, Lookup, MemoryStore,
        QuarantineKey, QuarantineRow, QuarantineState, QuarantinedFrame, QuarantinedVotes, QueueRecord,
        QueueState, RegisteredPoll, ReplayOutcome, Replayed, SealRecord, Snapshot, StoreError, WorkerRecord,
    },
};

/// What a [`BrokenStore`] does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // Each name says it.
pub enum StoreFault {
    InventsALayout,
    TakesAnyLayout,
    ReplacesPolls,
    PublishesAllResults,
    SharesPartitions,
    KeepsPartitionsOfTheDead,
    NamesNoFreePartition,
    DropsAVote,
    DropsTheTally,
    DropsTheLedger,
    ForgetsThePosition,
    LeavesOutPositions,
    DropsTheQuarantine,
    IgnoresTheVersion,
    UpsertsByItself,
    ReplacesWithoutLooking,
    DropsReplacements,
    AddsUpTheAcceptedCount,
    LooksUpHalf,
    ForgetsOnRestart,
    RevivesCutQueues,
    KeepsTheFirstReport,
    Reorders,
    ReopensPolls,
    FinishesTwice,
    FinishesIncompletePolls,
    FinishesOpenPolls,
    CountsAfterTheEnd,
    CompletesWhatWasNotRead,
    IgnoresNewQueues,
    IgnoresHigherSeals,
    ClosesByTheCallersClock,
    FollowsTheFile,
    ReschedulesClosedPolls,
    ForgetsWorkers,
    KeepsTimesAhead,
    LeavesQueuesOutOfTheCatalog,
    OverwritesSeals,
    RevivesRetiredQueues,
    ListsOnePage,
    NeverReplays,
    ReplaysFinalPolls,
    KeepsWhatWasCounted,
    ForgetsTheNewReason,
    CountsReplaysTwice,
    ReplaysWhatWasRejected,
    QuarantinesWholeFrames,
    ForgetsTheRest,
    ReplaysFromAnyState,
    AddsUpWholeFrames,
    ReadsBooksLate,
    LeavesOutQuarantine,
    RepeatsTheLastBallot,
}

/// A store in memory with one fault.
#[derive(Debug)]
pub struct BrokenStore {
    inner: MemoryStore,
    fault: StoreFault,
}

impl BrokenStore {
    /// An empty one.
    #[must_use]
    pub fn new(fault: StoreFault) -> Self {
        Self { inner: MemoryStore::new(), fault }
    }

    /// These polls, as a store has them that does not keep when results may be shown.
    fn published(&self, mut polls: Vec<RegisteredPoll>) -> Vec<RegisteredPoll> {
        if self.fault == StoreFault::PublishesAllResults {
            polls.iter_mut().for_each(|poll| poll.results = ResultsFrom::Live);
        }
        polls
    }
}

#[async_trait]
impl StoreReader for BrokenStore {
    async fn layout(&self) -> Result<Option<Layout>, StoreError> {
        match self.fault {
            StoreFault::InventsALayout => Ok(Some(layout())),
            _ => self.inner.layout().await,
        }
    }
    async fn polls(&self) -> Result<Vec<RegisteredPoll>, StoreError> {
        Ok(self.published(self.inner.polls().await?))
    }
    async fn tally(&self, poll: PollSlug) -> Result<Vec<(OptionSlug, u64)>, StoreError> {
        self.inner.tally(poll).await
    }
    async fn ballot(&self, poll: PollSlug, voter: VoterKey) -> Result<Option<Ballot>, StoreError> {
        self.inner.ballot(poll, voter).await
    }
    async fn position(&self, queue: QueueId, partition: Partition) -> Result<Position, StoreError> {
        self.inner.position(queue, partition).await
    }
    async fn quarantined(
        &self,
        queue: QueueId,
        partition: Partition,
        position: Position,
    ) -> Result<Option<QuarantineRow>, StoreError> {
        self.inner.quarantined(queue, partition, position).await
    }
    async fn positions(&self, queue: QueueId) -> Result<BTreeMap<Partition, Position>, StoreError> {
        self.inner.positions(queue).await
    }
    async fn all_positions(&self) -> Result<BTreeMap<(QueueId, Partition), Position>, StoreError> {
        let mut positions = self.inner.all_positions().await?;
        if self.fault == StoreFault::LeavesOutPositions {
            positions.pop_last();
        }
        Ok(positions)
    }
    async fn queues(&self) -> Result<Vec<QueueRecord>, StoreError> {
        let mut queues = self.inner.queues().await?;
        if self.fault == StoreFault::RevivesCutQueues {
            queues.iter_mut().for_each(|queue| queue.state = QueueState::Active);
        }
        if self.fault == StoreFault::RevivesRetiredQueues {
            queues.retain_mut(|queue| {
                queue.state = queue.state.min(QueueState::Cut);
                true
            });
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
impl Store for BrokenStore {
    async fn prepare(&self, layout: Layout) -> Result<(), StoreError> {
        match self.inner.prepare(layout).await {
            Err(StoreError::Layout(_)) if self.fault == StoreFault::TakesAnyLayout => Ok(()),
            other => other,
        }
    }
    async fn catalog(&self) -> Result<Catalog, StoreError> {
        let mut catalog = self.inner.catalog().await?;
        match self.fault {
            StoreFault::ForgetsWorkers => catalog.workers.clear(),
            StoreFault::LeavesQueuesOutOfTheCatalog => catalog.queues.clear(),
            _ => {}
        }
        Ok(catalog)
    }
    async fn register_poll(&self, poll: &Poll) -> Result<RegisteredPoll, StoreError> {
        let registered = self.inner.register_poll(poll).await?;
        match self.fault {
            StoreFault::ReplacesPolls => Ok(RegisteredPoll::from(poll)),
            StoreFault::FollowsTheFile => {
                self.inner.set_closes_at(poll.slug, poll.closes_at);
                Ok(RegisteredPoll { closes_at: poll.closes_at, ..registered })
            }
            _ => Ok(registered),
        }
    }
    async fn close_poll(&self, poll: PollSlug) -> Result<Option<RegisteredPoll>, StoreError> {
        if self.fault == StoreFault::ReopensPolls {
            self.inner.set_closed(poll, None);
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
                self.inner.set_closes_at(poll, closes_at);
                Ok(self.inner.polls().await?.into_iter().find(|known| known.slug == poll))
            }
            other => other,
        }
    }
    async fn note_seal(&self, seal: &SealRecord) -> Result<SealRecord, StoreError> {
        if matches!(self.fault, StoreFault::OverwritesSeals | StoreFault::IgnoresHigherSeals) {
            self.inner.forget_seal(seal);
        }
        self.inner.note_seal(seal).await
    }
    async fn finish_poll(&self, poll: PollSlug) -> Result<bool, StoreError> {
        match self.fault {
            StoreFault::FinishesIncompletePolls => self.inner.complete_all(poll),
            StoreFault::FinishesOpenPolls => {
                self.inner.close_poll(poll).await?;
                self.inner.complete_all(poll);
            }
            // Whatever was complete before the queue was recorded is taken to be so still.
            StoreFault::IgnoresNewQueues
                if self.inner.snapshot().await?.books(false).await?.completions.len()
                    == usize::from(layout().partitions.count()) =>
            {
                self.inner.complete_all(poll);
            }
            StoreFault::FinishesTwice if self.inner.finish_poll(poll).await? => {
                self.inner.set_final(poll, self.inner.now());
            }
            _ => {}
        }
        self.inner.finish_poll(poll).await
    }
    async fn beat(&self, worker: &WorkerRecord) -> Result<(), StoreError> {
        let before = self.inner.queues().await?;
        self.inner.beat(worker).await?;
        if self.fault == StoreFault::KeepsTimesAhead {
            self.inner.report(&before).await?;
        }
        Ok(())
    }
    async fn retire(&self, queue: QueueId, reason: &str) -> Result<bool, StoreError> {
        self.inner.retire(queue, reason).await
    }
    async fn decide(&self, frames: &[QuarantineKey], decision: &Decision) -> Result<u64, StoreError> {
        self.inner.decide(frames, decision).await
    }
    async fn report(&self, queues: &[QueueRecord]) -> Result<(), StoreError> {
        if self.fault == StoreFault::KeepsTheFirstReport && !self.inner.queues().await?.is_empty() {
            return Ok(());
        }
        self.inner.report(queues).await
    }
    async fn check(&self) -> Result<Vec<String>, StoreError> {
        self.inner.check().await
    }
    async fn open_lane(&self) -> Result<Box<dyn Lane>, StoreError> {
        let inner = self.inner.open_lane().await?;
        if self.fault == StoreFault::KeepsPartitionsOfTheDead {
            // The lane is not dropped with its handle, so its partitions stay taken.
            let lane: &'static mut dyn Lane = Box::leak(inner);
            return Ok(Box::new(BrokenLane {
                inner: Held::Leaked(lane),
                store: self.inner.clone(),
                fault: self.fault,
            }));
        }
        Ok(Box::new(BrokenLane { inner: Held::Owned(inner), store: self.inner.clone(), fault: self.fault }))
    }
}

#[derive(Debug)]
enum Held {
    Owned(Box<dyn Lane>),
    Leaked(&'static mut dyn Lane),
}

#[derive(Debug)]
struct BrokenLane {
    inner: Held,
    store: MemoryStore,
    fault: StoreFault,
}

impl BrokenLane {
    fn lane(&mut self) -> &mut dyn Lane {
        match &mut self.inner {
            Held::Owned(lane) => &mut **lane,
            Held::Leaked(lane) => &mut **lane,
        }
    }

    /// The version the partition has, whatever the caller thinks.
    async fn version(&mut self, partition: Partition) -> Result<u64, StoreError> {
        let mut other = self.store.open_lane().await?;
        let acquired = match self.lane().acquire(partition).await? {
            Some(acquired) => Some(acquired),
            None => other.acquire(partition).await?,
        };
        Ok(acquired.map_or(1, |acquired| acquired.version))
    }

    /// Makes replacements of inserts that would be refused.
    async fn upsert(&mut self, plan: &mut CommitPlan) -> Result<(), StoreError> {
        for poll in &mut plan.polls {
            let mut inserts = Vec::new();
            for ballot in poll.inserts.drain(..) {
                match self.store.ballot(poll.poll, ballot.voter).await? {
                    Some(stands) => poll.replacements.push((stands, ballot)),
                    None => inserts.push(ballot),
                }
            }
            poll.inserts = inserts;
        }
        Ok(())
    }

    /// Makes replays expect what is quarantined.
    async fn expect_what_is_quarantined(&mut self, plan: &mut CommitPlan) -> Result<(), StoreError> {
        for replayed in &mut plan.replayed {
            let row = self.store.quarantined(replayed.queue, plan.partition, replayed.position).await?;
            replayed.tried = row.map_or(QuarantinedVotes::All, |row| row.frame.quarantined);
        }
        Ok(())
    }

    /// Makes replacements expect what stands.
    async fn expect_what_stands(&mut self, plan: &mut CommitPlan) -> Result<(), StoreError> {
        for poll in &mut plan.polls {
            for (old, _) in &mut poll.replacements {
                if let Some(stands) = self.store.ballot(poll.poll, old.voter).await? {
                    *old = stands;
                }
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Lane for BrokenLane {
    async fn unowned(&mut self) -> Result<Vec<Partition>, StoreError> {
        match self.fault {
            StoreFault::NamesNoFreePartition => Ok(Vec::new()),
            _ => self.lane().unowned().await,
        }
    }

    async fn acquire(&mut self, partition: Partition) -> Result<Option<Acquired>, StoreError> {
        match (self.lane().acquire(partition).await?, self.fault) {
            (None, StoreFault::SharesPartitions) => {
                Ok(Some(Acquired { version: 0, checkpoints: std::collections::BTreeMap::new() }))
            }
            (other, _) => Ok(other),
        }
    }

    async fn release(&mut self, partition: Partition) -> Result<(), StoreError> {
        self.lane().release(partition).await
    }

    async fn lookup(
        &mut self,
        partition: Partition,
        poll: PollSlug,
        voters: &[VoterKey],
        lookup: Lookup,
    ) -> Result<Vec<Ballot>, StoreError> {
        let mut found = self.lane().lookup(partition, poll, voters, lookup).await?;
        if self.fault == StoreFault::LooksUpHalf {
            found.truncate(found.len() / 2);
        }
        Ok(found)
    }

    async fn replays(
        &mut self,
        partition: Partition,
        limit: usize,
    ) -> Result<Vec<QuarantinedFrame>, StoreError> {
        let fault = self.fault;
        let of_partition = |row: &QuarantineRow| row.partition == partition;
        let rejected = |row: &QuarantineRow| row.state == QuarantineState::Rejected;
        let awaiting = |row: &QuarantineRow| row.state == QuarantineState::Held && row.frame.awaits_poll;
        let also = |row: &QuarantineRow| match fault {
            StoreFault::ReplaysWhatWasRejected => rejected(row),
            StoreFault::ReplaysFinalPolls => awaiting(row),
            _ => false,
        };
        match fault {
            StoreFault::NeverReplays => Ok(Vec::new()),
            StoreFault::ReplaysWhatWasRejected | StoreFault::ReplaysFinalPolls => {
                let rows = self.store.quarantine(None, limit).await?;
                Ok(rows
                    .into_iter()
                    .filter(|row| of_partition(row) && also(row))
                    .map(|row| row.frame)
                    .collect())
            }
            _ => self.lane().replays(partition, limit).await,
        }
    }

    async fn commit(&mut self, plan: &CommitPlan) -> Result<(), StoreError> {
        let mut plan = plan.clone();
        match self.fault {
            StoreFault::KeepsWhatWasCounted => plan.replayed.clear(),
            StoreFault::CountsReplaysTwice => {
                let counted = self.store.quarantine(None, usize::MAX).await?;
                let counted = |replayed: &Replayed| {
                    counted.iter().any(|row| {
                        row.frame.position == replayed.position && row.state == QuarantineState::Counted
                    })
                };
                plan.replayed.retain(|replayed| !counted(replayed));
            }
            StoreFault::ForgetsTheNewReason => plan.replayed.iter_mut().for_each(|replayed| {
                if let ReplayOutcome::Held { reason, awaits_poll, .. } = &mut replayed.outcome {
                    (*reason, *awaits_poll) = ("a test".to_owned(), true);
                }
            }),
            StoreFault::QuarantinesWholeFrames => {
                plan.quarantine.iter_mut().for_each(|frame| frame.quarantined = QuarantinedVotes::All);
            }
            StoreFault::ForgetsTheRest => {
                plan.replayed.iter_mut().for_each(|replayed| replayed.outcome = ReplayOutcome::Counted);
            }
            StoreFault::ReplaysFromAnyState => self.expect_what_is_quarantined(&mut plan).await?,
            StoreFault::DropsAVote => plan
                .polls
                .iter_mut()
                .for_each(|poll| poll.inserts.truncate(poll.inserts.len().saturating_sub(1))),
            StoreFault::DropsTheTally => plan.polls.iter_mut().for_each(|poll| poll.tally.clear()),
            StoreFault::DropsTheLedger => plan.ledger.clear(),
            StoreFault::ForgetsThePosition => plan.positions.clear(),
            StoreFault::DropsTheQuarantine => plan.quarantine.clear(),
            StoreFault::IgnoresTheVersion => plan.version = self.version(plan.partition).await?,
            StoreFault::UpsertsByItself => self.upsert(&mut plan).await?,
            StoreFault::ReplacesWithoutLooking => self.expect_what_stands(&mut plan).await?,
            StoreFault::DropsReplacements => plan.polls.iter_mut().for_each(|poll| poll.replacements.clear()),
            StoreFault::AddsUpTheAcceptedCount => {
                let before = self.store.snapshot().await?.books(false).await?.ledger;
                for entry in &mut plan.ledger {
                    let same =
                        |row: &&LedgerRow| row.entry.queue == entry.queue && row.entry.poll == entry.poll;
                    entry.accepted += before.iter().find(same).map_or(0, |row| row.entry.accepted);
                }
            }
            // Keeps what was there, in whatever order votes came.
            StoreFault::Reorders => {
                for poll in &mut plan.polls {
                    poll.replacements.clear();
                    poll.tally.clear();
                    for ballot in &poll.inserts {
                        *poll.tally.entry(ballot.option).or_default() += 1;
                    }
                }
            }
            _ => {}
        }
        if self.fault == StoreFault::CountsAfterTheEnd {
            let polls = self.store.polls().await?;
            for poll in polls.iter().filter(|poll| poll.final_at.is_some()) {
                self.store.reopen(poll.slug);
            }
        }
        self.lane().commit(&plan).await
    }

    async fn complete(
        &mut self,
        partition: Partition,
        version: u64,
        poll: PollSlug,
    ) -> Result<Vec<String>, StoreError> {
        let obstacles = self.lane().complete(partition, version, poll).await?;
        if self.fault == StoreFault::CompletesWhatWasNotRead {
            self.store.complete_all(poll);
            return Ok(Vec::new());
        }
        Ok(obstacles)
    }
}

#[derive(Debug)]
struct BrokenSnapshot {
    inner: Box<dyn Snapshot>,
    store: MemoryStore,
    fault: StoreFault,
}

#[async_trait]
impl Snapshot for BrokenSnapshot {
    async fn books(&mut self, recount: bool) -> Result<Books, StoreError> {
        let mut books = match self.fault {
            StoreFault::ReadsBooksLate => self.store.snapshot().await?.books(recount).await?,
            _ => self.inner.books(recount).await?,
        };
        if self.fault == StoreFault::LeavesOutQuarantine {
            books.quarantine.clear();
        }
        if self.fault == StoreFault::AddsUpWholeFrames {
            for row in self.store.quarantine(None, usize::MAX).await? {
                let frame = &row.frame;
                let mut totals = books.quarantine.iter_mut();
                let total = totals.find(|total| (total.queue, &total.poll) == (frame.queue, &frame.poll));
                if let Some(total) = total {
                    total.votes += frame.accounted - frame.votes();
                }
            }
        }
        Ok(books)
    }

    async fn ballots(
        &mut self,
        poll: PollSlug,
        after: Option<VoterKey>,
        limit: usize,
    ) -> Result<Vec<Ballot>, StoreError> {
        let before = |key: VoterKey| VoterKey(u128::from_be_bytes(key.0).saturating_sub(1).to_be_bytes());
        let after = match self.fault {
            StoreFault::RepeatsTheLastBallot => after.map(before),
            _ => after,
        };
        self.inner.ballots(poll, after, limit).await
    }
}

/// Makes stores with a fault.
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
