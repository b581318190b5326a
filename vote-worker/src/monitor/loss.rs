//! Checks whether a queue lost data, and the reaction to a loss.
//!
//! An append-only log can't count fewer votes than before, nor lack an entry that was seen and not read yet. If it
//! does, the server lost data or came back with an older copy of it: the queue has *diverged*. Nothing more is counted
//! under its identity. The server gets a queue with a new identity, and the remaining entries of the old one are read
//! as a replaced queue.

use vote_core::{
    Partition, Position, QueueId,
    count::{QueueRecord, QueueState},
    queue::{QueueError, QueueStatus},
};

use super::{
    Monitor, Unreadable,
    decision::{self, Evidence, LastReport, Obstacle},
};
use crate::timeout::with_timeout;

impl Monitor {
    /// Checks a queue that was not seen before, or whose server was restarted, against the last report of it. Returns a
    /// newer status.
    pub(super) async fn check_new(&mut self, first: QueueStatus) -> Result<QueueStatus, Unreadable> {
        // The previous queue is no longer here, wherever it is now.
        self.parts.claims.release(self.number);
        self.positions.clear();
        self.memory.start_check();
        let known = with_timeout(self.parts.store.queue(first.id)).await?;
        // Requested again, after the read of the store: this status is newer than any report, so less is a loss.
        let status = self.status().await?;
        if status.id != first.id {
            return Err(Obstacle::ReplacedMeanwhile.into());
        }
        let lost = match known.map(|known| decision::compare_with_report(&status, &known)) {
            Some(LastReport::Contradicts(evidence)) => Some(evidence),
            Some(LastReport::Agrees { ends }) => self.missing_entry(status.id, &ends).await?,
            None => None,
        };
        self.memory.end_check(first.id, first.server, lost);
        Ok(status)
    }

    /// Looks for entries, each by its partition, and returns the evidence that one of them is gone, if it is.
    async fn missing_entry(
        &self,
        id: QueueId,
        ends: &[(Partition, Position)],
    ) -> Result<Option<Evidence>, Unreadable> {
        for (partition, end) in ends.iter().copied() {
            match self.queue.read(id, partition, end, 1).await {
                Ok(_) => continue,
                Err(QueueError::Diverged(_)) => {}
                Err(e) => return Err(e.into()),
            }
            // Asked only now: if the entry has been read meanwhile, it may have been trimmed.
            let committed = with_timeout(self.parts.store.position(id, partition)).await?;
            let gone = decision::evidence_if_gone(partition, end, committed);
            if gone.is_some() {
                return Ok(gone);
            }
        }
        Ok(None)
    }

    /// Records in the store that a queue diverged, unless it is recorded as ended already, so that no lane goes on
    /// reading under its identity. What a lane has read before may still be committed, which the merge makes harmless.
    pub(super) async fn report_divergence(&self, id: QueueId, evidence: &Evidence) -> Result<(), Unreadable> {
        let known = with_timeout(self.parts.store.queue(id)).await?;
        let seen_at = self.parts.registry.catalog().taken_at;
        let record = known.unwrap_or_else(|| QueueRecord::new(id, self.address.clone(), seen_at));
        if record.state.is_ended() {
            return Ok(());
        }
        tracing::error!(
            address = %self.address, queue = %id,
            "a queue has diverged: {evidence}. Nothing more is read under its identity; entries that are left are read \
             under another one. Keep the disk of its server, and run `vote-results audit`"
        );
        // Keeps the old `seen_at`: reporting the loss is not a sighting of the queue.
        let record = QueueRecord { state: QueueState::Diverged, reason: evidence.to_string(), ..record };
        with_timeout(self.parts.store.report(&[record])).await?;
        self.parts.registry.refresh().await?;
        Ok(())
    }

    /// Makes sure that nothing more is counted under the queue's identity, and replaces it by a queue with a new
    /// identity, so that the server can accept votes again.
    pub(super) async fn replace(&self, id: QueueId, evidence: &Evidence) -> Result<(), Unreadable> {
        self.report_divergence(id, evidence).await?;
        let status = self.status().await?;
        if status.id != id {
            return Err(Obstacle::ReplacedMeanwhile.into());
        }
        tracing::warn!(
            address = %self.address, queue = %id,
            "replacing this queue, which counts {} accepted votes, by one with a new identity",
            status.accepted.total()
        );
        self.queue.create(self.parts.layout, Some(id)).await?;
        Ok(())
    }
}
