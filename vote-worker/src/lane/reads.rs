//! Reads of a lane: which are started, and what follows from their results.

use std::{collections::VecDeque, pin::pin, sync::Arc, time::Duration};

use tokio::time::{Instant, timeout};
use vote_core::{
    Partition, QueueId,
    count::Checkpoint,
    queue::{QueueError, Read},
    store::StoreError,
};

use super::{
    LOOK_EVERY, Lane,
    after_read::{self, AfterRead},
};
use crate::owned::{OwnedPartition, max_waiting, verify_every};

/// Maximum number of reads under way at a time. With a thousand queues and many partitions, all at once would keep the
/// worker busy for so long that the last ones time out.
pub(super) const MAX_READS: usize = 128;
/// A read that takes longer no longer counts as under way, so that queues that do not answer do not delay the others.
const SLOW_AFTER: Duration = Duration::from_millis(200);
/// Pause after a failed read of a queue.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(500);

/// Result of a read.
pub(super) struct ReadDone {
    partition: Partition,
    epoch: u64,
    key: String,
    queue: QueueId,
    from: Checkpoint,
    result: Result<Read, QueueError>,
}

impl Lane {
    /// Starts the reads that are due, of each partition in turn.
    pub(super) fn start_reads(&mut self) {
        // A catalog is a snapshot: with a queue that is in it, it also has the state that the polls had then.
        let catalog = self.parts.registry.catalog();
        let now = Instant::now();
        self.paused.retain(|_, until| *until > now);
        let (places, paused) = (&self.places, &self.paused);
        let not_before = |id: QueueId| match places.find(id) {
            Some(_) if !catalog.queues.contains_key(&id) => Some(now + LOOK_EVERY),
            Some((key, _)) => paused.get(key).copied(),
            // It is noted again when it is there again.
            None => Some(now + PAUSE_AFTER_ERROR),
        };
        let verify_every = verify_every(self.owned.values().map(OwnedPartition::queues).sum());
        let most = max_waiting(self.owned.len()).min(self.batch_limit);
        let mut turns: VecDeque<&mut OwnedPartition> = self.owned.values_mut().collect();
        let first = self.started % turns.len().max(1);
        turns.rotate_left(first);
        while let Some(owned) = turns.pop_front() {
            let read = owned.start_read(places.count(), most, verify_every, now, not_before);
            let Some((id, from, limit)) = read else { continue };
            let (partition, epoch) = (owned.partition, owned.epoch);
            turns.push_back(owned);
            let Some((key, queue)) = places.find(id) else { continue };
            let (key, queue, server) = (key.to_owned(), Arc::clone(queue), places.server(id));
            self.started = self.started.wrapping_add(1);
            let permits = Arc::clone(&self.read_permits);
            self.reads.spawn(async move {
                // Here, and not before: more reads begin while the lane commits.
                let permit = permits.acquire().await;
                let mut read = pin!(queue.read(id, partition, from.position, limit));
                let result = match timeout(SLOW_AFTER, &mut read).await {
                    Ok(result) => result,
                    Err(_) => {
                        drop(permit);
                        read.await
                    }
                };
                let result = result.and_then(|read| after_read::from_server(read, server.as_deref()));
                ReadDone { partition, epoch, key, queue: id, from, result }
            });
        }
    }

    /// Processes the result of a read.
    pub(super) async fn process_read(
        &mut self,
        done: Result<ReadDone, tokio::task::JoinError>,
    ) -> Result<(), StoreError> {
        // A read that panicked stays marked as running, and its queue would never be read again: so the session ends.
        let ended = |e| {
            StoreError::Unavailable(format!("a read ended by itself, which is a bug: report it ({e})").into())
        };
        let ReadDone { partition, epoch, key, queue, from, result } = done.map_err(ended)?;
        let Some(owned) = self.owned.get_mut(&partition).filter(|owned| owned.epoch == epoch) else {
            return Ok(());
        };
        owned.end_read(queue);
        if self.diverged.contains(&queue) {
            return Ok(());
        }
        let version = owned.version;
        let outcome = result.map(|read| owned.add_read(queue, &from, read, Instant::now()));
        match after_read::judge(partition, outcome) {
            AfterRead::Nothing => {}
            AfterRead::Trim => {
                // An earlier trim may have failed, and a replaced queue stays until it is trimmed to its end.
                if self.places.is_replaced(queue) {
                    self.trimmer.committed(queue, partition, from.position);
                }
            }
            AfterRead::Pause(e) => {
                tracing::debug!(%partition, "can't read a queue, pausing for {PAUSE_AFTER_ERROR:?}: {e}");
                let until = Instant::now() + PAUSE_AFTER_ERROR;
                self.paused.insert(key, until);
                if let Some(owned) = self.owned.get_mut(&partition) {
                    owned.retry_at(queue, until);
                }
            }
            AfterRead::Check(reason) => {
                let acquired = self.session.acquire(partition).await?;
                if after_read::is_behind(version, acquired.as_ref()) {
                    return Err(StoreError::StaleVersion(partition));
                }
                self.stop_counting(queue, &key, reason);
            }
        }
        Ok(())
    }

    /// Stops counting a queue that diverged, and reports it to its monitor.
    fn stop_counting(&mut self, queue: QueueId, key: &str, reason: String) {
        self.diverged.insert(queue);
        for owned in self.owned.values_mut() {
            owned.forget(queue);
        }
        if let Some(monitored) = self.parts.queues.borrow().get(key) {
            monitored.report_diverged(queue, reason);
        }
    }
}
