//! Reports of a monitor to the store about its queue.

use tokio::sync::oneshot;
use vote_core::{
    Position, QueueId, Timestamp,
    count::QueueRecord,
    queue::{Backlog, Counters, QueueStatus},
    store::StoreError,
};

use super::{Monitor, Unreadable};
use crate::{positions::Committed, timeout::with_timeout};

/// Approximate number of entries that are counted for one report. Beyond it, the number of queued votes is a lower
/// bound.
const COUNTED_ENTRIES: usize = 4096;

/// Committed positions of a queue that were requested for its next report.
#[derive(Debug)]
pub(super) struct Requested {
    queue: QueueId,
    answer: oneshot::Receiver<Result<Committed, StoreError>>,
    received: Option<Result<Committed, StoreError>>,
}

impl Requested {
    fn has_ended(&mut self) -> bool {
        match self.answer.try_recv() {
            Ok(positions) => self.received = Some(positions),
            Err(oneshot::error::TryRecvError::Empty) => return false,
            // Received before, or the task has ended by itself: then they are requested again.
            Err(oneshot::error::TryRecvError::Closed) => {}
        }
        true
    }
}

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
        with_timeout(self.parts.store.report(&records)).await?;
        self.memory.record_report(super::now());
        Ok(())
    }

    /// Returns whether the positions for the next report of a queue are there, and requests them if they were not. The
    /// queue is looked at meanwhile.
    pub(super) fn has_positions(&mut self, queue: QueueId) -> bool {
        if let Some(requested) = self.requested.as_mut().filter(|requested| requested.queue == queue) {
            return requested.has_ended();
        }
        let (send, answer) = oneshot::channel();
        let positions = self.parts.positions.clone();
        self.parts.tasks.spawn("a read of committed positions", async move {
            // If the queue is no longer watched, nobody waits for them.
            let _ = send.send(positions.of(queue).await);
        });
        self.requested = Some(Requested { queue, answer, received: None });
        false
    }

    /// Returns how far the queue is committed. Nothing is in one that was never active.
    async fn committed(&mut self, status: &QueueStatus) -> Result<Committed, StoreError> {
        match self.requested.take().filter(|requested| requested.queue == status.id) {
            Some(Requested { received: Some(positions), .. }) => positions,
            _ if status.active => self.parts.positions.of(status.id).await,
            _ => Ok(Committed::new()),
        }
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
        *sums.entry(poll.clone()).or_default() += votes;
    }
    sums
}
