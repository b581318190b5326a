//! Reports of a monitor to the store about its queue.

use vote_core::{
    Position, Timestamp,
    count::QueueRecord,
    queue::{Backlog, Counters, QueueStatus},
    store::StoreError,
};

use super::{Monitor, Unreadable};
use crate::positions::Committed;

/// Approximate number of entries that are counted for one report. Beyond it, the number of queued votes is a lower
/// bound. A Redis takes 2 ms for them, and no vote meanwhile.
const COUNTED_ENTRIES: usize = 1024;

impl Monitor {
    /// Reports the queue to the store, as of when its status was requested. Its backlog is counted from the entries.
    pub(super) async fn report(
        &mut self,
        status: &QueueStatus,
        asked_at: Timestamp,
    ) -> Result<(), Unreadable> {
        match self.committed(status).await {
            Ok(positions) => self.positions = positions,
            Err(e) => {
                // While the store is down nothing is committed, and the metrics of the backlog are needed most.
                self.measure(status).await?;
                return Err(e.into());
            }
        }
        let (backlogs, entries) = self.measure(status).await?;
        let mut record = QueueRecord::new(status.id, self.address.clone(), asked_at);
        record.server.clone_from(&status.server);
        record.reporter = Some(self.parts.me);
        record.accepted = status.accepted.by_poll();
        record.queued = sums(backlogs.iter().map(|backlog| &backlog.votes));
        record.queued_complete = backlogs.iter().all(|backlog| backlog.complete);
        record.ends = backlogs.iter().map(|backlog| backlog.end).collect();
        record.backlog = entries;
        let mut records: Vec<QueueRecord> =
            self.replaced.iter().map(|replaced| self.record_of(replaced)).collect();
        records.push(record);
        self.parts.reports.record(records).await?;
        self.memory.record_report(super::now());
        Ok(())
    }

    /// Returns how far the queue is committed. Nothing is in one that was never active.
    async fn committed(&self, status: &QueueStatus) -> Result<Committed, StoreError> {
        if !status.active {
            return Ok(Committed::new());
        }
        self.parts.positions.of(status.id).await
    }

    /// Counts the backlog behind the last known positions, and the stored entries.
    async fn measure(&self, status: &QueueStatus) -> Result<(Vec<Backlog>, u64), Unreadable> {
        let partitions = status.layout.partitions;
        let after: Vec<Position> = partitions
            .iter()
            .map(|partition| self.positions.get(&partition).copied().unwrap_or_default())
            .collect();
        let limit = (COUNTED_ENTRIES / usize::from(partitions.count())).max(16);
        // The committed positions may have advanced since; then the backlog is a little smaller than reported.
        let backlogs = self.queue.backlog(status.id, &after, limit).await?;
        // One entry per partition stays as the anchor of the next read.
        let entries = status.entries.iter().map(|entries| entries.saturating_sub(1)).sum();
        crate::metrics::queue_holds(&self.address, entries, &backlogs, self.parts.clock.now());
        Ok((backlogs, entries))
    }
}

fn sums<'a>(counters: impl Iterator<Item = &'a Counters>) -> Counters {
    let mut sums = Counters::new();
    for (poll, votes) in counters.flatten() {
        match sums.get_mut(poll) {
            Some(sum) => *sum += votes,
            None => drop(sums.insert(poll.clone(), *votes)),
        }
    }
    sums
}
