//! Snapshots of a store with a fault.

use async_trait::async_trait;

use super::StoreFault;
use crate::{
    PollSlug, StoreReader, VoterKey,
    count::{Accounts, Balances, Ballot, QueueState, Summary},
    store::{MemoryStore, Snapshot, StoreError},
};

/// Snapshot of a [`BrokenStore`](super::BrokenStore).
#[derive(Debug)]
pub(super) struct BrokenSnapshot {
    pub(super) inner: Box<dyn Snapshot>,
    pub(super) store: MemoryStore,
    pub(super) fault: StoreFault,
}

#[async_trait]
impl Snapshot for BrokenSnapshot {
    async fn accounts(&mut self, recount: bool) -> Result<Accounts, StoreError> {
        let mut accounts = match self.fault {
            StoreFault::ReadsAccountsLate => self.store.snapshot().await?.accounts(recount).await?,
            _ => self.inner.accounts(recount).await?,
        };
        if self.fault == StoreFault::NeverDatesTheTally {
            accounts.tally_changed_at.clear();
        }
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

    async fn summary(&mut self) -> Result<Summary, StoreError> {
        let mut summary = self.inner.summary().await?;
        if self.fault == StoreFault::MissesNoQueue {
            summary.queues.iter_mut().for_each(|queue| queue.is_not_heard_from = false);
        }
        Ok(summary)
    }

    async fn balances(&mut self) -> Result<Balances, StoreError> {
        if self.fault == StoreFault::ForgetsWhatWasRetired {
            let mut accounts = self.inner.accounts(false).await?;
            accounts.queues.iter_mut().for_each(|queue| queue.state = queue.state.min(QueueState::Diverged));
            return Ok(Balances::of(&accounts));
        }
        self.inner.balances().await
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
