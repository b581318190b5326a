//! Which polls a queue takes votes for: those of the store, as the store defines them.

use std::{collections::BTreeSet, sync::Arc};

use vote_core::{
    PollSlug, QueueId,
    queue::{PollRecord, PollState, PollStates, QueueStatus},
    store::{Catalog, RegisteredPoll},
};

use super::{Monitor, Shut};

/// What was compared last, so that only what has changed is compared, and told, again.
#[derive(Debug, Default)]
pub(super) struct Compared {
    last: Option<(QueueId, Arc<Catalog>, PollStates)>,
    /// Polls that the queue has another definition of than the store.
    differing: BTreeSet<(QueueId, PollSlug)>,
}

impl Monitor {
    /// Records the registered polls that are not closed where the queue does not know them, or knows another closing
    /// time.
    pub(super) async fn record_polls(&mut self, status: &QueueStatus) -> Result<(), Shut> {
        let mut catalog = self.parts.registry.catalog();
        let is_old_news = |(id, compared, states): &(QueueId, Arc<Catalog>, PollStates)| {
            *id == status.id && Arc::ptr_eq(compared, &catalog) && *states == status.polls
        };
        if self.compared.last.as_ref().is_some_and(is_old_news) {
            return Ok(());
        }
        if !missing(&catalog.polls, status).is_empty() {
            // A worker that is cut off from the store must not undo what others have recorded since.
            catalog = self.parts.registry.refresh().await?;
        }
        let missing = missing(&catalog.polls, status);
        if !missing.is_empty() {
            let others = self.queue.record_polls(status.id, &missing).await?;
            tracing::info!(
                address = %self.address, queue = %status.id,
                "recorded {} poll(s) in the queue", missing.len() - others.len()
            );
        }
        self.tell_of(&differing(&catalog.polls, status), status.id);
        self.compared.last = Some((status.id, catalog, status.polls.clone()));
        Ok(())
    }

    fn tell_of(&mut self, differing: &BTreeSet<PollSlug>, queue: QueueId) {
        crate::metrics::queue_polls_differing(&self.address, differing.len());
        self.compared.differing.retain(|(id, poll)| *id == queue && differing.contains(poll));
        for poll in differing {
            if self.compared.differing.insert((queue, *poll)) {
                tracing::error!(
                    address = %self.address, %queue, %poll,
                    "the queue has another definition of the poll than the store, and takes votes for that one: was \
                     the store restored, and the poll registered anew with other options or rules? Put the file of \
                     polls back as it was, or give the new poll a new slug"
                );
            }
        }
    }
}

/// What is to be recorded. A closed poll never is: the queue would take votes for it until it is sealed.
fn missing(polls: &[RegisteredPoll], status: &QueueStatus) -> Vec<PollRecord> {
    let open = polls.iter().filter(|poll| poll.closed_at.is_none());
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

/// The registered polls that the queue takes votes for by another definition.
fn differing(polls: &[RegisteredPoll], status: &QueueStatus) -> BTreeSet<PollSlug> {
    let differs = |poll: &&RegisteredPoll| matches!(status.polls.get(&poll.slug), Some(PollState::Recorded { digest, .. }) if *digest != poll.digest());
    polls.iter().filter(differs).map(|poll| poll.slug).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use vote_core::{
        Keep, Partitions, PepperFingerprint, Polls, Timestamp,
        queue::{LAYOUT_VERSION, Layout},
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
            registered: true,
            server: String::new(),
            accepted: BTreeMap::new(),
            entries: Vec::new(),
            polls: polls.iter().copied().collect(),
            remains: Vec::new(),
        }
    }

    fn recorded(poll: &RegisteredPoll) -> (PollSlug, PollState) {
        (poll.slug, PollState::Recorded { digest: poll.digest(), closes_at: poll.closes_at })
    }

    #[test]
    fn what_is_recorded_already_is_not_missing() {
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
    fn another_definition_differs_and_is_not_recorded_again_and_again() {
        let other = RegisteredPoll { keep: Keep::Last, closes_at: Some(Timestamp::MAX), ..pets() };
        let status = status(&[recorded(&pets())]);
        assert_eq!(missing(std::slice::from_ref(&other), &status), []);
        assert_eq!(differing(&[other], &status), [pets().slug].into());
        assert_eq!(differing(&[pets()], &status), [].into());
    }
}
