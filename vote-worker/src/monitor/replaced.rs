//! Replaced queues at the address of a queue, which are read to their ends.

use std::sync::Arc;

use vote_core::{Position, count::QueueRecord, queue::QueueStatus};

use super::{
    Monitor, ReplacedView, Unreadable,
    decision::{self, Evidence},
};
use crate::timeout::with_timeout;

impl Monitor {
    /// Finds out where new replaced queues end, and forgets those that are gone.
    pub(super) async fn update_replaced(&mut self, status: &QueueStatus) -> Result<(), Unreadable> {
        if self.replaced.iter().map(|known| known.id).eq(status.replaced.iter().map(|replaced| replaced.id)) {
            return Ok(());
        }
        let start = vec![Position::START; usize::from(status.layout.partitions.count())];
        let mut found = Vec::with_capacity(status.replaced.len());
        for replaced in &status.replaced {
            found.push(match self.replaced.iter().find(|known| known.id == replaced.id) {
                Some(known) => known.clone(),
                None => {
                    let backlog = self.queue.backlog(replaced.id, &start, 1).await?;
                    let ends = backlog.iter().map(|backlog| backlog.end).collect();
                    ReplacedView { id: replaced.id, of: replaced.of, ends }
                }
            });
        }
        self.replaced = found.into();
        Ok(())
    }

    /// Reports replaced queues that the store does not know: like any queue, they must be recorded before they are
    /// read.
    pub(super) async fn report_replaced(&mut self) -> Result<(), Unreadable> {
        let catalog = self.parts.registry.catalog();
        let known = Arc::clone(&self.replaced);
        for replaced in known.iter().filter(|replaced| !catalog.queues.contains_key(&replaced.id)) {
            if decision::is_read(replaced.of, &catalog) {
                self.report_divergence(replaced.of, &Evidence::ReplacedOnServer).await?;
            }
            with_timeout(self.parts.store.report(&[self.record_of(replaced)])).await?;
            tracing::info!(
                address = %self.address, queue = %replaced.of, replaced = %replaced.id,
                "reading the remaining entries of a replaced queue"
            );
            self.parts.registry.refresh().await?;
        }
        Ok(())
    }

    /// Returns the record of a replaced queue.
    pub(super) fn record_of(&self, replaced: &ReplacedView) -> QueueRecord {
        let record =
            QueueRecord::new(replaced.id, self.address.clone(), self.parts.registry.catalog().taken_at);
        QueueRecord { original_id: Some(replaced.of), ends: replaced.ends.clone(), ..record }
    }
}
