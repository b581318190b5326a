//! How a queue's loss of data is noticed, and what is done then.
//!
//! An append-only log can't count fewer votes than before, nor lack an entry that was seen and is not read yet. Where
//! one does, the server lost data, or came back with an older copy of it: its box is *cut*. Nothing more is booked under
//! its identity; the server gets a box with a new one, and what is left of the old one is read as remains.

use tokio::time::Instant;
use vote_core::{
    Partition, Position, QueueId,
    queue::{QueueError, QueueStatus},
    store::{QueueRecord, QueueState},
};

use super::{Monitor, PATIENCE, Shut, accepted_by};

impl Monitor {
    /// What says, at the first sight of a box, or of its server since it was started again, that it lost data: it is
    /// compared with what was last reported of it.
    pub(super) async fn loss_since_the_last_report(
        &self,
        status: &QueueStatus,
        record: &QueueRecord,
    ) -> Result<Option<String>, Shut> {
        if record.state != QueueState::Active {
            return Ok(Some(record.reason.clone()));
        }
        let fewer = record.accepted.iter().find_map(|(poll, before)| {
            let now: u64 = status.accepted.values().filter_map(|polls| polls.get(poll)).sum();
            (now < *before)
                .then(|| format!("it counts {now} votes of poll {poll}, and last reported {before}"))
        });
        if fewer.is_some() {
            return Ok(fewer);
        }
        self.missing_entry(status.id, &record.ends).await
    }

    /// Whether an entry is missing that was the last of its partition when it was reported, and was not read since:
    /// what came after it may have made up for the count.
    async fn missing_entry(&self, id: QueueId, ends: &[Position]) -> Result<Option<String>, Shut> {
        for (end, partition) in ends.iter().zip(0..).filter(|(end, _)| **end != Position::START) {
            let partition = Partition(partition);
            match self.queue.read(id, partition, *end, 1).await {
                Ok(_) => continue,
                Err(QueueError::Cut(_)) => {}
                Err(e) => return Err(e.into()),
            }
            // Asked after the look: if it is read by now, it may have been trimmed.
            if self.parts.store.position(id, partition).await? < *end {
                return Ok(Some(format!(
                    "the entry at {end} of partition {partition} is gone, and was not read"
                )));
            }
        }
        Ok(None)
    }

    /// Boxes that were last seen at this address, and that nobody has seen for some time while another one was here:
    /// their server came back without them. Only where the address is one of a fixed list; behind a name, servers
    /// change their addresses.
    pub(super) fn vanished(&mut self, status: &QueueStatus) -> Vec<QueueRecord> {
        if !self.fixed {
            return Vec::new();
        }
        let catalog = self.parts.registry.catalog();
        let is_missing = |record: &&QueueRecord| {
            record.id != status.id
                && record.state == QueueState::Active
                && record.remains_of.is_none()
                && record.address == self.address
        };
        let missing: Vec<_> = catalog.queues.values().filter(is_missing).cloned().collect();
        self.missing.retain(|id, _| missing.iter().any(|record| record.id == *id));
        let mut is_gone = |record: &QueueRecord| {
            let (seen_at, since) =
                self.missing.entry(record.id).or_insert_with(|| (record.seen_at, Instant::now()));
            if *seen_at != record.seen_at {
                // Somebody saw it, wherever that was.
                (*seen_at, *since) = (record.seen_at, Instant::now());
            }
            since.elapsed() >= PATIENCE
        };
        missing.into_iter().filter(|record| is_gone(record)).collect()
    }

    /// Notes in the store that nothing more is booked under the identities of boxes.
    pub(super) async fn report_cut(&self, record: QueueRecord, reason: &str) -> Result<(), Shut> {
        tracing::error!(
            address = %self.address, queue = %record.id,
            "a queue lost data: {reason}. Nothing more is booked under its identity; what is left of it is read once \
             more. See `vote-results audit`"
        );
        // Not seen now: a report of the loss is no report of the queue.
        let record = QueueRecord { state: QueueState::Cut, reason: reason.to_owned(), ..record };
        self.parts.store.report(&[record]).await?;
        self.parts.registry.refresh().await?;
        Ok(())
    }

    /// Sees to it that nothing more is booked under the box's identity, and gives its server a new one, so that it can
    /// take votes again.
    pub(super) async fn replace(&mut self, status: &QueueStatus, reason: &str) -> Result<(), Shut> {
        let catalog = self.parts.registry.refresh().await?;
        let known = catalog.queues.get(&status.id).cloned();
        let record =
            known.unwrap_or_else(|| QueueRecord::new(status.id, self.address.clone(), catalog.taken_at));
        if record.state == QueueState::Active {
            self.report_cut(record, reason).await?;
        }
        tracing::warn!(
            address = %self.address, queue = %status.id,
            "its server has {} accepted votes under this identity, and gets a box with a new one",
            accepted_by(status)
        );
        self.queue.create(self.parts.layout, Some(status.id)).await?;
        Ok(())
    }
}
