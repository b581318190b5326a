//! Stores with a fault.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::{
    DurabilityProblem, OptionSlug, Partition, Poll, PollSlug, Position, QueueId, Session, Store, StoreReader,
    Timestamp, VoterKey,
    conformance::{StoreHarness, layout},
    count::{
        Accounts, Ballot, CommitPlan, Decision, LedgerRow, QuarantineKey, QuarantineRow, QuarantineState,
        QuarantinedFrame, QuarantinedVotes, QueueRecord, QueueState, ReasonCode, RegisteredPoll,
        ReplayOutcome, Replayed, SealRecord, StoredReason, audit::Finding,
    },
    poll::ResultsFrom,
    queue::Layout,
    store::{Acquired, Catalog, Lookup, MemoryStore, Snapshot, StoreError, WorkerRecord},
};

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
    LooksUpHalf,
    ForgetsOnRestart,
    RevivesDivergedQueues,
    KeepsTheFirstReport,
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
    NeverKeepsPolls,
    ForgetsWhoGaveUp,
    RegistersTooEarly,
    KeepsPlansByReplacedPolls,
    SkipsUnregisteredPolls,
    SkipsUnknownOptions,
    RefusesUnregisteredPolls,
    OpensUnpreparedStores,
    ForgetsWorkers,
    KeepsFutureTimes,
    LeavesQueuesOutOfTheCatalog,
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
        if self.fault == StoreFault::RevivesDivergedQueues {
            queues.iter_mut().for_each(|queue| queue.state = QueueState::Active);
        }
        if self.fault == StoreFault::RevivesRetiredQueues {
            queues.retain_mut(|queue| {
                queue.state = queue.state.min(QueueState::Diverged);
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
            Err(StoreError::Layout(_)) if self.fault == StoreFault::AcceptsAnyLayout => Ok(()),
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
        if self.fault == StoreFault::RegistersTooEarly
            && let Some(found) = self.inner.polls().await?.into_iter().find(|known| known.slug == poll.slug)
            && let Some(withdrawal) = found.withdrawal
        {
            // As if every queue had given the poll up.
            for queue in self.inner.queues().await? {
                self.inner.note_given_up(queue.id, poll.slug, withdrawal.at).await?;
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
    async fn keep_poll(&self, poll: PollSlug, withdrawn_at: Timestamp) -> Result<(), StoreError> {
        if self.fault == StoreFault::NeverKeepsPolls {
            return Ok(());
        }
        self.inner.keep_poll(poll, withdrawn_at).await
    }
    async fn note_given_up(
        &self,
        queue: QueueId,
        poll: PollSlug,
        withdrawn_at: Timestamp,
    ) -> Result<(), StoreError> {
        if self.fault == StoreFault::ForgetsWhoGaveUp {
            return Ok(());
        }
        self.inner.note_given_up(queue, poll, withdrawn_at).await
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
            // What was complete before the new queue was recorded still counts as complete.
            StoreFault::IgnoresNewQueues
                if self.inner.snapshot().await?.accounts(false).await?.completions.len()
                    == usize::from(layout().partitions.count()) =>
            {
                self.inner.complete_all(poll);
            }
            StoreFault::FinishesTwice if self.inner.finish_poll(poll).await? => {
                self.inner.change_poll(poll, |poll| poll.final_at = Some(self.inner.now()));
            }
            _ => {}
        }
        self.inner.finish_poll(poll).await
    }
    async fn beat(&self, worker: &WorkerRecord) -> Result<(), StoreError> {
        let before = self.inner.queues().await?;
        self.inner.beat(worker).await?;
        if self.fault == StoreFault::KeepsFutureTimes {
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
    async fn durability_problems(&self) -> Result<Vec<DurabilityProblem>, StoreError> {
        self.inner.durability_problems().await
    }
    async fn open_session(&self) -> Result<Box<dyn Session>, StoreError> {
        if self.fault == StoreFault::OpensUnpreparedStores {
            self.inner.prepare(layout()).await?;
        }
        let inner = self.inner.open_session().await?;
        if self.fault == StoreFault::KeepsPartitionsOfDroppedSessions {
            // The inner session is leaked, so its partitions are never freed.
            let session: &'static mut dyn Session = Box::leak(inner);
            return Ok(Box::new(BrokenSession {
                inner: Inner::Leaked(session),
                store: self.inner.clone(),
                fault: self.fault,
            }));
        }
        Ok(Box::new(BrokenSession {
            inner: Inner::Owned(inner),
            store: self.inner.clone(),
            fault: self.fault,
        }))
    }
}

/// The inner session of a [`BrokenSession`].
#[derive(Debug)]
enum Inner {
    Owned(Box<dyn Session>),
    Leaked(&'static mut dyn Session),
}

#[derive(Debug)]
struct BrokenSession {
    inner: Inner,
    store: MemoryStore,
    fault: StoreFault,
}

impl BrokenSession {
    fn session(&mut self) -> &mut dyn Session {
        match &mut self.inner {
            Inner::Owned(session) => &mut **session,
            Inner::Leaked(session) => &mut **session,
        }
    }

    /// Returns the version of a partition, whatever version the caller expects.
    async fn version(&mut self, partition: Partition) -> Result<u64, StoreError> {
        let mut other = self.store.open_session().await?;
        let acquired = match self.session().acquire(partition).await? {
            Some(acquired) => Some(acquired),
            None => other.acquire(partition).await?,
        };
        Ok(acquired.map_or(1, |acquired| acquired.version))
    }

    /// Turns inserts of voters that have a ballot into replacements.
    async fn upsert(&mut self, plan: &mut CommitPlan) -> Result<(), StoreError> {
        for poll in &mut plan.polls {
            let mut inserts = Vec::new();
            for ballot in poll.inserts.drain(..) {
                match self.store.ballot(poll.poll, ballot.voter).await? {
                    Some(effective) => poll.replacements.push((effective, ballot)),
                    None => inserts.push(ballot),
                }
            }
            poll.inserts = inserts;
        }
        Ok(())
    }

    /// Makes replays expect the votes that are quarantined.
    async fn expect_what_is_quarantined(&mut self, plan: &mut CommitPlan) -> Result<(), StoreError> {
        for replayed in &mut plan.replayed {
            let row = self.store.quarantined(replayed.queue, plan.partition, replayed.position).await?;
            replayed.tried = row.map_or(QuarantinedVotes::All, |row| row.frame.quarantined);
        }
        Ok(())
    }

    /// Makes replacements expect the ballots that are effective.
    async fn expect_effective_ballots(&mut self, plan: &mut CommitPlan) -> Result<(), StoreError> {
        for poll in &mut plan.polls {
            for (old, _) in &mut poll.replacements {
                if let Some(effective) = self.store.ballot(poll.poll, old.voter).await? {
                    *old = effective;
                }
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Session for BrokenSession {
    async fn unowned(&mut self) -> Result<Vec<Partition>, StoreError> {
        match self.fault {
            StoreFault::ListsNoFreePartition => Ok(Vec::new()),
            _ => self.session().unowned().await,
        }
    }

    async fn acquire(&mut self, partition: Partition) -> Result<Option<Acquired>, StoreError> {
        match (self.session().acquire(partition).await?, self.fault) {
            (None, StoreFault::SharesPartitions) => {
                Ok(Some(Acquired { version: 0, checkpoints: std::collections::BTreeMap::new() }))
            }
            (other, _) => Ok(other),
        }
    }

    async fn release(&mut self, partition: Partition) -> Result<(), StoreError> {
        self.session().release(partition).await
    }

    async fn lookup(
        &mut self,
        partition: Partition,
        poll: PollSlug,
        voters: &[VoterKey],
        lookup: Lookup,
    ) -> Result<Vec<Ballot>, StoreError> {
        if self.fault == StoreFault::RefusesUnregisteredPolls
            && !self.store.polls().await?.iter().any(|known| known.slug == poll)
        {
            return Err(StoreError::Conflict("a test".to_owned()));
        }
        let mut found = self.session().lookup(partition, poll, voters, lookup).await?;
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
        let awaiting =
            |row: &QuarantineRow| row.state == QuarantineState::Quarantined && row.frame.reason.awaits_poll();
        let also = |row: &QuarantineRow| match fault {
            StoreFault::ReplaysRejectedFrames => rejected(row),
            StoreFault::ReplaysFinalPolls => awaiting(row),
            _ => false,
        };
        match fault {
            StoreFault::NeverReplays => Ok(Vec::new()),
            StoreFault::ReplaysRejectedFrames | StoreFault::ReplaysFinalPolls => {
                let rows = self.store.quarantine(None, limit).await?;
                Ok(rows
                    .into_iter()
                    .filter(|row| of_partition(row) && also(row))
                    .map(|row| row.frame)
                    .collect())
            }
            _ => self.session().replays(partition, limit).await,
        }
    }

    async fn commit(&mut self, plan: &CommitPlan) -> Result<(), StoreError> {
        let mut plan = plan.clone();
        match self.fault {
            StoreFault::KeepsCountedFrames => plan.replayed.clear(),
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
                if let ReplayOutcome::Quarantined { reason, .. } = &mut replayed.outcome {
                    *reason = StoredReason { code: ReasonCode::PollNotRegistered, text: "a test".to_owned() };
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
            StoreFault::SkipsUnregisteredPolls => {
                let polls = self.store.polls().await?;
                plan.polls.retain(|poll| polls.iter().any(|known| known.slug == poll.poll));
            }
            StoreFault::SkipsUnknownOptions => {
                let polls = self.store.polls().await?;
                for poll in &mut plan.polls {
                    let known = polls.iter().find(|known| known.slug == poll.poll);
                    let has = |option: &OptionSlug| known.is_some_and(|known| known.options.contains(option));
                    poll.inserts.retain(|ballot| has(&ballot.option));
                    poll.tally.retain(|option, _| has(option));
                }
            }
            StoreFault::DropsTheLedger => plan.ledger.clear(),
            StoreFault::ForgetsThePosition => plan.positions.clear(),
            StoreFault::DropsTheQuarantine => plan.quarantine.clear(),
            StoreFault::IgnoresTheVersion => plan.version = self.version(plan.partition).await?,
            StoreFault::KeepsPlansByReplacedPolls
                if self.store.polls().await?.iter().any(|poll| !poll.earlier.is_empty()) =>
            {
                plan.version = self.version(plan.partition).await?;
            }
            StoreFault::TurnsInsertsIntoReplacements => self.upsert(&mut plan).await?,
            StoreFault::ReplacesAnyBallot => self.expect_effective_ballots(&mut plan).await?,
            StoreFault::DropsReplacements => plan.polls.iter_mut().for_each(|poll| poll.replacements.clear()),
            StoreFault::AddsUpTheAcceptedCount => {
                let before = self.store.snapshot().await?.accounts(false).await?.ledger;
                for entry in &mut plan.ledger {
                    let same =
                        |row: &&LedgerRow| row.entry.queue == entry.queue && row.entry.poll == entry.poll;
                    entry.accepted += before.iter().find(same).map_or(0, |row| row.entry.accepted);
                }
            }
            // The first ballot of a voter stays, whatever the rule of the poll.
            StoreFault::KeepsTheFirstBallot => {
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
        if self.fault == StoreFault::CountsVotesOfFinalPolls {
            let polls = self.store.polls().await?;
            for poll in polls.iter().filter(|poll| poll.final_at.is_some()) {
                self.store.change_poll(poll.slug, |poll| poll.final_at = None);
            }
        }
        self.session().commit(&plan).await
    }

    async fn complete(
        &mut self,
        partition: Partition,
        version: u64,
        poll: PollSlug,
    ) -> Result<Vec<Finding>, StoreError> {
        let obstacles = self.session().complete(partition, version, poll).await?;
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
    async fn accounts(&mut self, recount: bool) -> Result<Accounts, StoreError> {
        let mut accounts = match self.fault {
            StoreFault::ReadsAccountsLate => self.store.snapshot().await?.accounts(recount).await?,
            _ => self.inner.accounts(recount).await?,
        };
        if self.fault == StoreFault::LeavesOutQuarantine {
            accounts.quarantine.clear();
        }
        if self.fault == StoreFault::AddsUpWholeFrames {
            for row in self.store.quarantine(None, usize::MAX).await? {
                let frame = &row.frame;
                let mut totals = accounts.quarantine.iter_mut();
                let total = totals.find(|total| (total.queue, &total.poll) == (frame.queue, &frame.poll));
                if let Some(total) = total {
                    total.votes += frame.accounted - frame.votes();
                }
            }
        }
        Ok(accounts)
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
