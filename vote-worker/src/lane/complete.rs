//! Completion of partitions: records that everything cast for a closed poll is committed.

use std::time::Duration;

use tokio::time::Instant;
use vote_core::{Partition, PollSlug, count::RegisteredPoll, store::StoreError};

use super::Lane;

/// Number of partitions that are checked each time although they do not look complete from here: another lane may have
/// read a queue to its seal that is gone now.
const COMPLETE_BLINDLY: usize = 4;
/// Time after which a lane goes on with its other work before it checks more partitions.
const COMPLETE_FOR: Duration = Duration::from_millis(500);

impl Lane {
    /// Records owned partitions as complete for closed polls. The store decides whether one is; what the lane knows
    /// only tells which ones are worth a check.
    pub(super) async fn complete_partitions(&mut self) -> Result<(), StoreError> {
        let (catalog, now) = (self.parts.registry.catalog(), Instant::now());
        let not_final = |poll: &&RegisteredPoll| poll.closed_at.is_some() && poll.final_at.is_none();
        let mut polls: Vec<PollSlug> = catalog.polls.iter().filter(not_final).map(|poll| poll.slug).collect();
        // Others come first each time, so that those that are not complete do not keep them from it.
        self.round = self.round.wrapping_add(1);
        rotate(&mut polls, self.round);
        let mut due = Vec::new();
        for poll in polls {
            if !catalog.is_sealed_everywhere(poll) {
                self.sealed_at.remove(&poll);
                continue;
            }
            let sealed_at = *self.sealed_at.entry(poll).or_insert_with(Instant::now);
            let is_pending =
                |partition: &Partition| self.completed.get(&(poll, *partition)) != Some(&catalog.revision);
            let pending: Vec<Partition> = self.owned.keys().copied().filter(is_pending).collect();
            let looks_complete = |partition: &Partition| {
                let owned = self.owned.get(partition);
                owned.is_some_and(|owned| owned.seems_to_have_committed_all_held_at(sealed_at, poll, now))
            };
            let (mut likely, mut unlikely): (Vec<_>, Vec<_>) = pending.into_iter().partition(looks_complete);
            rotate(&mut unlikely, self.round.wrapping_mul(COMPLETE_BLINDLY));
            likely.extend(unlikely.into_iter().take(COMPLETE_BLINDLY));
            rotate(&mut likely, self.round);
            due.extend(likely.into_iter().map(|partition| (poll, partition)));
        }
        for (poll, partition) in due {
            if now.elapsed() >= COMPLETE_FOR {
                break;
            }
            self.complete(poll, partition, catalog.revision).await?;
        }
        Ok(())
    }

    async fn complete(
        &mut self,
        poll: PollSlug,
        partition: Partition,
        revision: u64,
    ) -> Result<(), StoreError> {
        let Some(owned) = self.owned.get_mut(&partition) else { return Ok(()) };
        let obstacles = self.session.complete(partition, owned.version, poll).await?;
        match obstacles.first() {
            None => {
                owned.version += 1;
                self.completed.insert((poll, partition), revision);
            }
            Some(obstacle) => tracing::debug!(%poll, %partition, "not complete for the poll yet: {obstacle}"),
        }
        Ok(())
    }
}

/// Moves this number of items, or what is left of it after whole turns, from the front to the back.
fn rotate<T>(items: &mut [T], by: usize) {
    let by = by % items.len().max(1);
    items.rotate_left(by);
}
