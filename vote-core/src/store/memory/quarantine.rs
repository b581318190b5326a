//! Quarantined votes of a store in memory.

use super::Data;
use crate::{
    Partition,
    count::{Decision, QuarantineKey, QuarantineRow, QuarantineState, QuarantinedFrame},
    store::StoreError,
};

impl Data {
    pub(super) fn quarantine(&self) -> impl Iterator<Item = &QuarantineRow> {
        self.rows().flat_map(|(_, rows)| rows.quarantine.values())
    }

    pub(super) fn page(&self, after: Option<QuarantineKey>, limit: usize) -> Vec<QuarantineRow> {
        let mut rows: Vec<_> = self.quarantine().cloned().collect();
        rows.sort_unstable_by_key(QuarantineRow::key);
        rows.into_iter().filter(|row| Some(row.key()) > after).take(limit).collect()
    }

    pub(super) fn replays(
        &mut self,
        partition: Partition,
        limit: usize,
    ) -> Result<Vec<QuarantinedFrame>, StoreError> {
        let polls: Vec<String> = self
            .polls
            .iter()
            .filter(|poll| poll.final_at.is_none())
            .map(|poll| poll.slug.to_string())
            .collect();
        let rows = self.partition(partition)?.rows.quarantine.values();
        let again = |row: &&QuarantineRow| match row.state {
            QuarantineState::Replay => true,
            QuarantineState::Quarantined => row.frame.reason.awaits_poll() && polls.contains(&row.frame.poll),
            QuarantineState::Counted | QuarantineState::Rejected => false,
        };
        Ok(rows.filter(again).take(limit).map(|row| row.frame.clone()).collect())
    }

    pub(super) fn decide(&mut self, frames: &[QuarantineKey], decision: &Decision) -> u64 {
        let mut decided = 0;
        for key in frames {
            let rows = self.partitions.get_mut(&key.partition).map(|data| &mut data.rows.quarantine);
            let row = rows.and_then(|rows| rows.get_mut(&(key.queue, key.position)));
            let Some(row) = row.filter(|row| row.state.is_pending()) else { continue };
            match decision {
                Decision::Replay => row.state = QuarantineState::Replay,
                Decision::Reject(reason) => {
                    row.state = QuarantineState::Rejected;
                    row.rejection = Some(reason.clone());
                }
            }
            decided += 1;
        }
        decided
    }
}
