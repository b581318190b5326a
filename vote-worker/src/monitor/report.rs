//! What a monitor tells the store of its queue.

use std::sync::Arc;

use tokio::time::Instant;
use vote_core::{
    Position, Timestamp,
    queue::{Counters, QueueStatus, Unread},
    store::QueueRecord,
};

use super::{Leftover, Monitor, Shut};

/// About how many entries are looked at for one report. Beyond that, what is queued is "at least".
const COUNTED_ENTRIES: usize = 4096;

impl Monitor {
    /// Notes in the store what there is, counted from the entries that are there, as of when it was asked for.
    pub(super) async fn report(&mut self, status: &QueueStatus, asked_at: Timestamp) -> Result<(), Shut> {
        match self.parts.store.positions(status.id).await {
            Ok(positions) => self.positions = positions,
            Err(e) => {
                // Nothing is committed without the store, and just then somebody wants to know what piles up.
                self.measure(status).await?;
                return Err(e.into());
            }
        }
        let (unread, backlog) = self.measure(status).await?;
        let mut record = QueueRecord::new(status.id, self.address.clone(), asked_at);
        record.accepted = sums(status.accepted.values());
        record.queued = sums(unread.iter().map(|unread| &unread.votes));
        record.queued_complete = unread.iter().all(|unread| unread.complete);
        record.ends = unread.iter().map(|unread| unread.end).collect();
        record.backlog = backlog;
        let mut records: Vec<QueueRecord> =
            self.remains.iter().map(|remains| self.record_of(remains)).collect();
        records.push(record);
        self.parts.store.report(&records).await?;
        self.reported_at = Some(Instant::now());
        Ok(())
    }

    /// Counts what is behind the positions last known, and the entries stored.
    async fn measure(&self, status: &QueueStatus) -> Result<(Vec<Unread>, u64), Shut> {
        let partitions = status.layout.partitions;
        let after: Vec<Position> = partitions
            .iter()
            .map(|partition| self.positions.get(&partition).copied().unwrap_or_default())
            .collect();
        let limit = (COUNTED_ENTRIES / usize::from(partitions.count())).max(16);
        // What is committed may have moved on since; then a little less is queued than is said.
        let unread = self.queue.unread(status.id, &after, limit).await?;
        // One entry a partition stays as the anchor of the next read.
        let backlog = status.entries.iter().map(|entries| entries.saturating_sub(1)).sum();
        crate::metrics::queue_holds(&self.address, backlog, &unread, self.parts.clock.now());
        Ok((unread, backlog))
    }

    /// Remains must be known before they are read, like any box.
    pub(super) async fn report_remains(&mut self) -> Result<(), Shut> {
        let catalog = self.parts.registry.catalog();
        let known = Arc::clone(&self.remains);
        for remains in known.iter().filter(|remains| !catalog.queues.contains_key(&remains.id)) {
            if let Some(record) =
                catalog.queues.get(&remains.of).cloned().filter(|record| !record.state.is_over())
            {
                self.report_cut(record, "its server has another box by now").await?;
            }
            self.parts.store.report(&[self.record_of(remains)]).await?;
            tracing::info!(
                address = %self.address, queue = %remains.of, remains = %remains.id,
                "what is left of a queue is read once more"
            );
            self.parts.registry.refresh().await?;
        }
        Ok(())
    }

    fn record_of(&self, remains: &Leftover) -> QueueRecord {
        let record =
            QueueRecord::new(remains.id, self.address.clone(), self.parts.registry.catalog().taken_at);
        QueueRecord { remains_of: Some(remains.of), ends: remains.ends.clone(), ..record }
    }
}

fn sums<'a>(counters: impl Iterator<Item = &'a Counters>) -> Counters {
    let mut sums = Counters::new();
    for (poll, votes) in counters.flatten() {
        *sums.entry(poll.clone()).or_default() += votes;
    }
    sums
}
