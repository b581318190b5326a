//! Polls of a store in memory.

use std::time::Duration;

use super::Data;
use crate::{
    Poll, PollSlug, Timestamp,
    count::{RegisteredPoll, Reschedule},
    store::{StoreError, is_closed},
};

impl Data {
    pub(super) fn poll(&mut self, slug: PollSlug) -> Option<&mut RegisteredPoll> {
        self.polls.iter_mut().find(|poll| poll.slug == slug)
    }

    pub(super) fn register(&mut self, poll: &Poll) -> RegisteredPoll {
        let mut registered = RegisteredPoll::from(poll);
        if let Some(found) = self.polls.iter().find(|known| known.slug == poll.slug) {
            if !found.makes_way_for(poll) || !self.is_dropped(found) {
                return found.clone();
            }
            registered.earlier = found.earlier.iter().cloned().chain(found.as_earlier()).collect();
            self.polls.retain(|known| known.slug != poll.slug);
            self.partitions.values_mut().for_each(|partition| partition.rows.version += 1);
        }
        self.polls.push(registered.clone());
        registered
    }

    pub(super) fn close(&mut self, poll: PollSlug, now: Timestamp) -> Option<RegisteredPoll> {
        self.poll(poll).map(|poll| {
            if poll.withdrawal.is_none() {
                poll.closed_at.get_or_insert(now);
            }
            poll.clone()
        })
    }

    pub(super) fn close_due(&mut self, grace: Duration, now: Timestamp) -> Vec<PollSlug> {
        let grace = i64::try_from(grace.as_micros()).unwrap_or(i64::MAX);
        let mut closed = Vec::new();
        let is_open = |poll: &&mut RegisteredPoll| poll.closed_at.is_none() && poll.withdrawal.is_none();
        for poll in self.polls.iter_mut().filter(is_open) {
            if poll.closes_at.is_some_and(|at| at.saturating_add(grace) <= now) {
                poll.closed_at = Some(now);
                closed.push(poll.slug);
            }
        }
        closed
    }

    pub(super) fn reschedule(
        &mut self,
        poll: PollSlug,
        closes_at: Option<Timestamp>,
        reason: &str,
        at: Timestamp,
    ) -> Result<Option<RegisteredPoll>, StoreError> {
        let Some(poll) = self.poll(poll) else { return Ok(None) };
        if poll.closed_at.is_some() {
            return Err(is_closed(poll.slug));
        }
        let reason = reason.to_owned();
        poll.reschedules.push(Reschedule { at, from: poll.closes_at, to: closes_at, reason });
        poll.closes_at = closes_at;
        Ok(Some(poll.clone()))
    }

    pub(super) fn finish(&mut self, poll: PollSlug, now: Timestamp) -> bool {
        let covered = self
            .partitions
            .keys()
            .all(|partition| self.completions.get(&(poll, *partition)) == Some(&self.revision));
        self.poll(poll).is_some_and(|poll| {
            if covered && poll.closed_at.is_some() {
                poll.final_at.get_or_insert(now);
            }
            poll.final_at.is_some()
        })
    }
}
