//! Polls that a queue accepts votes for: those of the store, as the store defines them, and none that was withdrawn.

use std::collections::BTreeSet;

use vote_core::{
    PollSlug, QueueId,
    count::RegisteredPoll,
    queue::{PollRecord, PollState, PollStates, QueueStatus},
    store::Catalog,
};

use super::{Monitor, Unreadable};
use crate::timeout::with_timeout;

/// Result of the last comparison of queue and store, by the version of the catalog, so that only changes are compared
/// and logged.
#[derive(Debug, Default)]
pub(super) struct Compared {
    last: Option<(QueueId, u64, PollStates)>,
    /// Polls of which the queue has another definition than the store, as logged.
    differing: BTreeSet<(QueueId, PollSlug)>,
    /// Polls that the queue refuses to record, as logged.
    refused: BTreeSet<(QueueId, PollSlug)>,
}

impl Monitor {
    /// Records the registered polls that are not closed, if the queue does not know them or knows another closing time.
    pub(super) async fn record_polls(&mut self, status: &QueueStatus) -> Result<(), Unreadable> {
        let mut catalog = self.parts.registry.catalog();
        let is_unchanged = |(id, version, states): &(QueueId, u64, PollStates)| {
            *id == status.id && *version == catalog.version && *states == status.polls
        };
        if self.compared.last.as_ref().is_some_and(is_unchanged) {
            return Ok(());
        }
        if !missing(&catalog.polls, status).is_empty() {
            // A worker that can't reach the store must not undo what others have recorded since.
            catalog = self.parts.registry.refresh().await?;
        }
        let missing = missing(&catalog.polls, status);
        let mut refused = Vec::new();
        if !missing.is_empty() {
            refused = self.queue.record_polls(status.id, &missing).await?;
            let recorded = missing.len() - refused.len();
            if recorded > 0 {
                tracing::info!(
                    address = %self.address, queue = %status.id, "recorded {recorded} poll(s) in the queue"
                );
            }
        }
        self.log_refused(&refused, status.id);
        self.drop_withdrawn_polls(&catalog, status).await?;
        self.log_differing(&differing(&catalog.polls, status), status.id);
        self.compared.last = Some((status.id, catalog.version, status.polls.clone()));
        Ok(())
    }

    /// Makes the queue drop withdrawn polls and earlier definitions, and records in the store that it did. A queue
    /// that has votes for a withdrawn poll keeps it, and the withdrawal is undone.
    async fn drop_withdrawn_polls(&self, catalog: &Catalog, status: &QueueStatus) -> Result<(), Unreadable> {
        for poll in catalog.polls.iter() {
            let found = match status.polls.get(&poll.slug) {
                Some(PollState::Recorded { digest, .. }) => Some(*digest),
                _ => None,
            };
            // A queue that was rolled back may have it again.
            let has_it = found == Some(poll.digest());
            if let Some(withdrawal) = &poll.withdrawal
                && (has_it || !catalog.dropped.contains(&(status.id, poll.slug)))
            {
                if self.queue.drop_poll(status.id, poll.slug, poll.digest(), withdrawal.at).await? {
                    with_timeout(self.parts.store.record_dropped(status.id, poll.slug, withdrawal.at))
                        .await?;
                    tracing::info!(
                        address = %self.address, queue = %status.id, poll = %poll.slug,
                        "the queue has dropped the withdrawn poll"
                    );
                } else {
                    with_timeout(self.parts.store.undo_withdrawal(poll.slug, withdrawal.at)).await?;
                    tracing::error!(
                        address = %self.address, queue = %status.id, poll = %poll.slug,
                        "the queue has votes for the withdrawn poll, or has sealed it: the withdrawal is undone, and \
                         the poll keeps its definition. Give the new definition a new slug"
                    );
                }
            }
            // A queue that has votes for an earlier definition keeps it, and is reported as differing.
            if let Some(found) = found.filter(|_| !has_it)
                && let Some(earlier) = poll.earlier.iter().find(|earlier| earlier.digest == found)
            {
                self.queue.drop_poll(status.id, poll.slug, found, earlier.withdrawal.at).await?;
            }
        }
        Ok(())
    }

    /// Logs each poll that the queue refuses to record, once.
    fn log_refused(&mut self, refused: &[PollSlug], queue: QueueId) {
        self.compared.refused.retain(|(id, poll)| *id == queue && refused.contains(poll));
        for poll in refused {
            if self.compared.refused.insert((queue, *poll)) {
                tracing::warn!(
                    address = %self.address, %queue, %poll,
                    "the queue has dropped this definition of the poll and accepts no votes for it: it is recorded \
                     again once the store says that the withdrawal was undone, and another definition once that is \
                     registered. If the store has lost the withdrawal, withdraw the poll again"
                );
            }
        }
    }

    /// Publishes how many polls differ, and logs each once.
    fn log_differing(&mut self, differing: &BTreeSet<PollSlug>, queue: QueueId) {
        crate::metrics::queue_polls_differing(&self.address, differing.len());
        self.compared.differing.retain(|(id, poll)| *id == queue && differing.contains(poll));
        for poll in differing {
            if self.compared.differing.insert((queue, *poll)) {
                tracing::error!(
                    address = %self.address, %queue, %poll,
                    "the queue has another definition of the poll than the store, and accepts votes by it. Was the \
                     store restored, and the poll registered again with other options or rules? Put the file of polls \
                     back as it was, or give the new poll a new slug"
                );
            }
        }
    }
}

/// Returns what is to be recorded in the queue. A closed poll never is, because the queue would accept votes for it
/// until it is sealed; nor is a withdrawn one.
fn missing(polls: &[RegisteredPoll], status: &QueueStatus) -> Vec<PollRecord> {
    let open = polls.iter().filter(|poll| poll.closed_at.is_none() && poll.withdrawal.is_none());
    let records = open.map(PollRecord::from);
    let is_missing = |record: &PollRecord| match status.polls.get(&record.poll) {
        None => true,
        Some(PollState::Sealed) => false,
        Some(PollState::Recorded { digest, closes_at }) => {
            *digest == record.digest && *closes_at != record.closes_at
        }
    };
    records.filter(is_missing).collect()
}

/// Returns the registered polls for which the queue accepts votes by another definition.
fn differing(polls: &[RegisteredPoll], status: &QueueStatus) -> BTreeSet<PollSlug> {
    let differs = |poll: &&RegisteredPoll| {
        let state = status.polls.get(&poll.slug);
        matches!(state, Some(PollState::Recorded { digest, .. }) if *digest != poll.digest())
    };
    polls.iter().filter(differs).map(|poll| poll.slug).collect()
}

#[cfg(test)]
mod tests {
    use vote_core::{
        Keep, Partitions, PepperFingerprint, Polls, Timestamp,
        count::Withdrawal,
        queue::{Accepted, LAYOUT_VERSION, Layout, QueueClock},
    };

    use super::*;

    fn pets() -> RegisteredPoll {
        RegisteredPoll::from(Polls::example().get("pets").unwrap())
    }

    fn status(polls: &[(PollSlug, PollState)]) -> QueueStatus {
        QueueStatus {
            id: QueueId([1; 16]),
            version: LAYOUT_VERSION,
            layout: Layout { partitions: Partitions::default(), fingerprint: PepperFingerprint([7; 8]) },
            active: true,
            server: String::new(),
            is_replica: false,
            accepted: Accepted::default(),
            entries: Vec::new(),
            polls: polls.iter().copied().collect(),
            replaced: Vec::new(),
            clock: QueueClock { now: Timestamp::MIN, ahead: None },
        }
    }

    fn recorded(poll: &RegisteredPoll) -> (PollSlug, PollState) {
        (poll.slug, PollState::Recorded { digest: poll.digest(), closes_at: poll.closes_at })
    }

    #[test]
    fn a_poll_is_missing_if_it_is_not_recorded_or_its_closing_time_moved() {
        let moved = RegisteredPoll { closes_at: Some(Timestamp::MAX), ..pets() };
        assert_eq!(missing(&[pets()], &status(&[])).len(), 1);
        assert_eq!(missing(&[pets()], &status(&[recorded(&pets())])), []);
        assert_eq!(missing(&[moved], &status(&[recorded(&pets())]))[0].closes_at, Some(Timestamp::MAX));
    }

    #[test]
    fn a_closed_poll_is_never_recorded() {
        let closed = RegisteredPoll { closed_at: Some(Timestamp::MIN), ..pets() };
        assert_eq!(missing(&[closed], &status(&[])), []);
        assert_eq!(missing(&[pets()], &status(&[(pets().slug, PollState::Sealed)])), []);
    }

    #[test]
    fn a_withdrawn_poll_is_never_recorded() {
        let withdrawal = Some(Withdrawal { at: Timestamp::MIN, reason: "a typo".to_owned() });
        assert_eq!(missing(&[RegisteredPoll { withdrawal, ..pets() }], &status(&[])), []);
    }

    #[test]
    fn a_poll_with_another_definition_differs_and_is_not_recorded() {
        let other = RegisteredPoll { keep: Keep::Last, closes_at: Some(Timestamp::MAX), ..pets() };
        let status = status(&[recorded(&pets())]);
        assert_eq!(missing(std::slice::from_ref(&other), &status), []);
        assert_eq!(differing(&[other], &status), [pets().slug].into());
        assert_eq!(differing(&[pets()], &status), [].into());
    }
}
