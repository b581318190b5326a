//! Sessions of a store with a fault.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::StoreFault;
use crate::{
    OptionSlug, Partition, PollSlug, Session, Store, StoreReader, VoterKey,
    count::{
        Ballot, CommitPlan, LedgerEntry, LedgerRow, QuarantineRow, QuarantineState, QuarantinedFrame,
        QuarantinedVotes, ReasonCode, ReplayOutcome, Replayed, StoredReason, audit::Finding,
    },
    store::{Acquired, Lookup, MemoryStore, SessionLayer, StoreError},
};

/// Session that never ends, so that its partitions are never freed.
#[derive(Debug)]
pub(super) struct Leaked(pub(super) &'static mut dyn Session);

impl SessionLayer for Leaked {
    fn inner(&mut self) -> &mut dyn Session {
        self.0
    }
}

/// Session of a [`BrokenStore`](super::BrokenStore).
#[derive(Debug)]
pub(super) struct BrokenSession {
    pub(super) inner: Box<dyn Session>,
    pub(super) store: MemoryStore,
    pub(super) fault: StoreFault,
}

impl BrokenSession {
    /// Returns the version of a partition, whatever version the caller expects.
    async fn version(&mut self, partition: Partition) -> Result<u64, StoreError> {
        let mut other = self.store.open_session().await?;
        let acquired = match self.inner.acquire(partition).await? {
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

    /// Changes the ballots, the tally, the ledger or the positions of a plan.
    async fn miscount(&mut self, plan: &mut CommitPlan) -> Result<(), StoreError> {
        match self.fault {
            StoreFault::DropsAVote => plan
                .polls
                .iter_mut()
                .for_each(|poll| poll.inserts.truncate(poll.inserts.len().saturating_sub(1))),
            StoreFault::DropsTheTally => plan.polls.iter_mut().for_each(|poll| poll.tally.clear()),
            StoreFault::DropsTheLedger => plan.ledger.clear(),
            StoreFault::ForgetsThePosition => plan.positions.clear(),
            StoreFault::TurnsInsertsIntoReplacements => self.upsert(plan).await?,
            StoreFault::ReplacesAnyBallot => self.expect_effective_ballots(plan).await?,
            StoreFault::DropsReplacements => plan.polls.iter_mut().for_each(|poll| poll.replacements.clear()),
            StoreFault::AddsUpTheAcceptedCount => {
                let before = self.store.snapshot().await?.accounts(false).await?.ledger;
                for entry in &mut plan.ledger {
                    let same =
                        |row: &&LedgerRow| row.entry.queue == entry.queue && row.entry.poll == entry.poll;
                    entry.accepted += before.iter().find(same).map_or(0, |row| row.entry.accepted);
                }
            }
            StoreFault::ResetsOtherEntries => {
                let before = self.store.snapshot().await?.accounts(false).await?.ledger;
                let of_partition = before.into_iter().filter(|row| row.partition == plan.partition);
                for LedgerRow { entry, .. } in of_partition {
                    if !plan.ledger.iter().any(|e| (e.queue, &e.poll) == (entry.queue, &entry.poll)) {
                        let (new_voters, superseded, quarantined) = (0, 0, 0);
                        plan.ledger.push(LedgerEntry {
                            accepted: 0,
                            new_voters,
                            superseded,
                            quarantined,
                            ..entry
                        });
                    }
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
        Ok(())
    }

    /// Changes what a plan quarantines or replays.
    async fn misplace_quarantine(&mut self, plan: &mut CommitPlan) -> Result<(), StoreError> {
        match self.fault {
            StoreFault::DropsTheQuarantine => plan.quarantine.clear(),
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
            StoreFault::ReplaysFromAnyState => self.expect_what_is_quarantined(plan).await?,
            _ => {}
        }
        Ok(())
    }

    /// Makes a plan acceptable that the store must refuse.
    async fn accept(&mut self, plan: &mut CommitPlan) -> Result<(), StoreError> {
        let polls = self.store.polls().await?;
        match self.fault {
            StoreFault::SkipsUnregisteredPolls => {
                plan.polls.retain(|poll| polls.iter().any(|known| known.slug == poll.poll));
            }
            StoreFault::SkipsUnknownOptions => {
                for poll in &mut plan.polls {
                    let known = polls.iter().find(|known| known.slug == poll.poll);
                    let has = |option: &OptionSlug| known.is_some_and(|known| known.options.contains(option));
                    poll.inserts.retain(|ballot| has(&ballot.option));
                    poll.tally.retain(|option, _| has(option));
                }
            }
            StoreFault::IgnoresTheVersion => plan.version = self.version(plan.partition).await?,
            StoreFault::KeepsPlansByReplacedPolls if polls.iter().any(|poll| !poll.earlier.is_empty()) => {
                plan.version = self.version(plan.partition).await?;
            }
            StoreFault::CountsVotesOfFinalPolls => {
                for poll in polls.iter().filter(|poll| poll.final_at.is_some()) {
                    self.store.change_poll(poll.slug, |poll| poll.final_at = None);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

#[async_trait]
impl SessionLayer for BrokenSession {
    fn inner(&mut self) -> &mut dyn Session {
        &mut *self.inner
    }

    async fn unowned(&mut self) -> Result<Vec<Partition>, StoreError> {
        match self.fault {
            StoreFault::ListsNoFreePartition => Ok(Vec::new()),
            _ => self.inner.unowned().await,
        }
    }

    async fn acquire(&mut self, partition: Partition) -> Result<Option<Acquired>, StoreError> {
        match (self.inner.acquire(partition).await?, self.fault) {
            (None, StoreFault::SharesPartitions) => {
                Ok(Some(Acquired { version: 0, checkpoints: BTreeMap::new() }))
            }
            (other, _) => Ok(other),
        }
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
        let mut found = self.inner.lookup(partition, poll, voters, lookup).await?;
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
            _ => self.inner.replays(partition, limit).await,
        }
    }

    async fn commit(&mut self, plan: &CommitPlan) -> Result<(), StoreError> {
        let mut plan = plan.clone();
        self.miscount(&mut plan).await?;
        self.misplace_quarantine(&mut plan).await?;
        self.accept(&mut plan).await?;
        self.inner.commit(&plan).await
    }

    async fn complete(
        &mut self,
        partition: Partition,
        version: u64,
        poll: PollSlug,
    ) -> Result<Vec<Finding>, StoreError> {
        let obstacles = self.inner.complete(partition, version, poll).await?;
        if self.fault == StoreFault::CompletesWhatWasNotRead {
            self.store.complete_all(poll);
            return Ok(Vec::new());
        }
        Ok(obstacles)
    }
}
