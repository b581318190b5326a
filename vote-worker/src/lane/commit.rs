//! Commits of a lane: decode, look up, plan, commit.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;
use tracing::Instrument;
use vote_core::{
    Partition, QueueId, TRACES,
    count::{Batch, Delivery, QuarantinedFrame},
    store::{Lookup, StoreError},
};

use super::Lane;
use crate::{owned::max_waiting, schedule};

/// Maximum number of frames whose quarantined votes are tried again at a time.
const MAX_REPLAYS: usize = 64;

impl Lane {
    /// Tries to count quarantined votes again, if an operator decided so or their poll is registered by now.
    pub(super) async fn replay(&mut self) -> Result<(), StoreError> {
        let partitions: Vec<Partition> = self.owned.keys().copied().collect();
        for partition in partitions {
            let replays = self.session.replays(partition, MAX_REPLAYS).await?;
            if !replays.is_empty() {
                tracing::info!(%partition, frames = replays.len(), "trying again to count quarantined votes");
                self.commit(partition, replays).await?;
            }
        }
        Ok(())
    }

    /// Commits what waits of a partition, together with replays of quarantined votes.
    #[tracing::instrument(target = TRACES, level = "trace", name = "batch", skip_all, fields(%partition, votes))]
    pub(super) async fn commit(
        &mut self,
        partition: Partition,
        replays: Vec<QuarantinedFrame>,
    ) -> Result<(), StoreError> {
        let Some(owned) = self.owned.get_mut(&partition) else { return Ok(()) };
        let started = Instant::now();
        let version = owned.version;
        let mut deliveries = owned.take_deliveries();
        let of_replays: BTreeSet<QueueId> = replays.iter().map(|frame| frame.queue).collect();
        for queue in of_replays {
            if !deliveries.iter().any(|delivery| delivery.queue == queue) {
                deliveries.push(Delivery::nothing_new(queue, owned.committed_to(queue)));
            }
        }
        let checkpoints: Vec<_> =
            deliveries.iter().map(|delivery| (delivery.queue, delivery.checkpoint.clone())).collect();
        let votes: u64 = deliveries.iter().map(Delivery::votes).sum();
        tracing::Span::current().record("votes", votes as i64);
        let catalog = self.parts.registry.catalog_for(&deliveries, &replays).await?;
        let batch =
            Batch::decode(partition, self.parts.layout.partitions, &catalog.polls, deliveries, replays);
        log_quarantined(partition, &batch);
        let lookup = if self.unfiltered.contains(&partition) { Lookup::Exhaustive } else { Lookup::Filtered };
        let mut effective = BTreeMap::new();
        for (poll, voters) in batch.voters() {
            effective.insert(poll, self.session.lookup(partition, poll, &voters, lookup).await?);
        }
        let plan = batch.plan(version, &effective);
        let span = tracing::trace_span!(target: TRACES, "commit");
        if let Err(e) = self.session.commit(&plan).instrument(span).await {
            if matches!(e, StoreError::Conflict(_)) {
                self.unfiltered.insert(partition);
            }
            return Err(e);
        }
        self.unfiltered.remove(&partition);
        self.parts.presence.lane_works(self.number);
        let took = started.elapsed();
        let limit = self.batch_limit.min(max_waiting(self.owned.len()));
        self.batch_limit = schedule::next_limit(limit, votes, took);
        crate::metrics::committed(&plan, votes, took);
        if let Some(owned) = self.owned.get_mut(&partition) {
            owned.record_commit(checkpoints.iter().cloned(), Instant::now());
        }
        for (queue, checkpoint) in checkpoints {
            self.trimmer.committed(queue, partition, checkpoint.position);
        }
        Ok(())
    }
}

/// Logs the votes of a batch that can't be counted, one line per reason.
fn log_quarantined(partition: Partition, batch: &Batch) {
    let mut by_reason: BTreeMap<&str, (usize, u64)> = BTreeMap::new();
    for frame in batch.quarantine() {
        let (frames, votes) = by_reason.entry(&frame.reason.text).or_default();
        (*frames, *votes) = (*frames + 1, *votes + frame.votes());
    }
    for (reason, (frames, votes)) in by_reason {
        tracing::error!(
            %partition, frames, votes,
            "votes can't be counted and are quarantined, see `vote-worker quarantine list --pending`: {reason}"
        );
    }
}
