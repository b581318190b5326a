//! Admission of single polls: whether a frontend's queue accepts votes for them.

use std::collections::BTreeMap;

use crate::{
    PollDigest, PollSlug, Timestamp,
    queue::{Appended, PollState, PollStates},
};

/// Whether a queue accepts votes for a poll, provided that the queue is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PollAdmission {
    /// Votes are accepted: the queue has the same definition of the poll.
    Accepted,
    /// No worker has recorded the poll in the queue yet.
    NotRecorded,
    /// The queue has another definition of the poll: other options, or another `keep` or `voters`.
    Differs {
        /// Digest of the definition in the frontend's file.
        file: PollDigest,
        /// Digest of the definition in the queue, which is that of the store.
        queue: PollDigest,
    },
    /// The poll is closed: the queue will never accept votes for it again.
    Sealed,
}

/// Poll states last seen in a queue.
#[derive(Debug, Default)]
pub(super) struct SeenPolls {
    /// States of all polls; `None` before the first inspection.
    states: Option<PollStates>,
    /// Closing time of each poll that was ever seen recorded, since a new queue may not have the record yet.
    closes_at: BTreeMap<PollSlug, Option<Timestamp>>,
}

impl SeenPolls {
    pub(super) fn reported(&mut self, states: &PollStates) {
        for (poll, state) in states {
            if let PollState::Recorded { closes_at, .. } = state {
                self.closes_at.insert(*poll, *closes_at);
            }
        }
        self.states = Some(states.clone());
    }

    pub(super) fn refused(&mut self, poll: PollSlug, why: Appended) {
        let Some(states) = &mut self.states else { return };
        match why {
            Appended::Sealed => drop(states.insert(poll, PollState::Sealed)),
            Appended::UnknownPoll => drop(states.remove(&poll)),
            // The next inspection finds out which definition the queue has.
            Appended::DifferentDefinition | Appended::Stored(_) => {}
        }
    }

    pub(super) fn poll_admission(&self, poll: PollSlug, file: PollDigest) -> Option<PollAdmission> {
        Some(match self.states.as_ref()?.get(&poll) {
            None => PollAdmission::NotRecorded,
            Some(PollState::Sealed) => PollAdmission::Sealed,
            Some(PollState::Recorded { digest, .. }) if *digest == file => PollAdmission::Accepted,
            Some(PollState::Recorded { digest, .. }) => PollAdmission::Differs { file, queue: *digest },
        })
    }

    pub(super) fn poll_admissions(
        &self,
        files: &BTreeMap<PollSlug, PollDigest>,
    ) -> BTreeMap<PollSlug, PollAdmission> {
        files.iter().filter_map(|(poll, file)| Some((*poll, self.poll_admission(*poll, *file)?))).collect()
    }

    /// Returns the closing time last seen recorded: `None` if the poll was never seen, `Some(None)` if it has none.
    pub(super) fn closes_at(&self, poll: PollSlug) -> Option<Option<Timestamp>> {
        self.closes_at.get(&poll).copied()
    }
}

/// Logs each poll whose admission changed since the last call.
pub(super) fn announce(
    address: &str,
    now: &BTreeMap<PollSlug, PollAdmission>,
    announced: &mut BTreeMap<PollSlug, PollAdmission>,
) {
    for (poll, admission) in now {
        let before = announced.insert(*poll, *admission);
        if before == Some(*admission) {
            continue;
        }
        match admission {
            PollAdmission::Accepted => {
                tracing::info!(%address, %poll, "the queue accepts votes for the poll")
            }
            PollAdmission::Sealed => tracing::info!(%address, %poll, "the poll is closed"),
            PollAdmission::NotRecorded => tracing::warn!(
                %address, %poll,
                "not accepting votes for the poll: no worker has recorded it in the queue; check that the polls file \
                 of the workers has it"
            ),
            PollAdmission::Differs { file, queue } => tracing::error!(
                %address, %poll,
                "not accepting votes for the poll: the definition in the file (digest {file}) is not the one in the \
                 store (digest {queue}): correct options, keep and voters in the file, or give a new poll a new slug"
            ),
        }
    }
}
