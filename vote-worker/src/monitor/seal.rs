//! Seals of a queue for closed polls, which are recorded in the store.

use vote_core::{
    PollSlug, QueueId,
    count::SealRecord,
    queue::{QueueStatus, Seal},
};

use super::{
    Monitor, Unreadable,
    decision::{self, Evidence, SealCheck},
};
use crate::timeout::with_timeout;

impl Monitor {
    /// Seals the queue for every closed poll for which that is [to be done](decision::Memory::to_seal).
    pub(super) async fn seal(&mut self, status: &QueueStatus) -> Result<(), Unreadable> {
        let catalog = self.parts.registry.catalog();
        for poll in self.memory.to_seal(status, &catalog) {
            let seal = self.queue.seal(status.id, poll).await?;
            let lost = self.record_seal(status.id, poll, seal).await?;
            self.memory.record_seal_check(status.id, poll, lost);
        }
        Ok(())
    }

    /// Records a seal. Returns what the queue lost, if it held more when it was sealed before.
    async fn record_seal(
        &self,
        queue: QueueId,
        poll: PollSlug,
        seal: Seal,
    ) -> Result<Option<Evidence>, Unreadable> {
        let record = SealRecord { queue, poll, seal };
        let recorded = with_timeout(self.parts.store.record_seal(&record)).await?.seal;
        match decision::compare_seals(poll, &record.seal, &recorded) {
            SealCheck::Intact => Ok(None),
            SealCheck::Lost(evidence) => Ok(Some(evidence)),
            SealCheck::Unclear => {
                let again = self.queue.seal(queue, poll).await?;
                Ok(decision::first_end_less(poll, &again, &recorded))
            }
        }
    }
}
