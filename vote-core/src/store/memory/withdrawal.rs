//! Withdrawn polls of a store in memory.

use super::Data;
use crate::{
    PollSlug, QueueId, Timestamp,
    count::{QueueRecord, QueueState, RegisteredPoll, Withdrawal},
    store::{StoreError, withdrawal},
};

impl Data {
    pub(super) fn withdraw(
        &mut self,
        poll: PollSlug,
        reason: &str,
        at: Timestamp,
    ) -> Result<Option<RegisteredPoll>, StoreError> {
        let has_votes = self.has_votes(poll);
        let Some(found) = self.poll(poll) else { return Ok(None) };
        if found.withdrawal.is_none() {
            if found.closed_at.is_some() || has_votes {
                return Err(withdrawal::refused(found));
            }
            // Later than what was undone, even if the clock was set back: queues compare the two.
            let at = found.undone_withdrawal.map_or(at, |undone| at.max(undone.saturating_add(1)));
            found.withdrawal = Some(Withdrawal { at, reason: reason.to_owned() });
        }
        Ok(Some(found.clone()))
    }

    pub(super) fn undo_withdrawal(&mut self, poll: PollSlug, withdrawn_at: Timestamp) {
        if let Some(found) = self.poll(poll)
            && found.withdrawal.take_if(|withdrawal| withdrawal.at == withdrawn_at).is_some()
        {
            found.undone_withdrawal = Some(withdrawn_at);
        }
    }

    /// Returns which queues have dropped which polls, as far as these are still withdrawn.
    pub(super) fn dropped(&self) -> impl Iterator<Item = (QueueId, PollSlug)> {
        self.dropped.iter().filter_map(|dropped| self.still_dropped(dropped))
    }

    /// Returns the queue and the poll of a record of a drop, if it is about the poll's current withdrawal.
    fn still_dropped(&self, dropped: &(QueueId, PollSlug, Timestamp)) -> Option<(QueueId, PollSlug)> {
        let (queue, slug, at) = *dropped;
        let poll = self.polls.iter().find(|poll| poll.slug == slug)?;
        poll.withdrawal.as_ref().filter(|withdrawal| withdrawal.at == at).map(|_| (queue, slug))
    }

    /// Returns whether votes for a poll were read or reported.
    fn has_votes(&self, poll: PollSlug) -> bool {
        let name = poll.as_str();
        let reported = |queue: &QueueRecord| queue.accepted.get(name).is_some_and(|n| *n > 0);
        self.queues.values().any(reported)
            || self.rows().any(|(_, rows)| rows.ledger.keys().any(|(_, of)| of == name))
    }

    /// Returns whether every queue has dropped a withdrawn poll.
    pub(super) fn is_dropped(&self, poll: &RegisteredPoll) -> bool {
        let Some(at) = poll.withdrawal.as_ref().map(|withdrawal| withdrawal.at) else { return false };
        if self.has_votes(poll.slug) {
            return false;
        }
        let counts = |queue: &QueueRecord| queue.state != QueueState::Retired && queue.original_id.is_none();
        let mut queues = self.queues.values().filter(|queue| counts(queue));
        queues.all(|queue| self.dropped.contains(&(queue.id, poll.slug, at)))
    }
}
