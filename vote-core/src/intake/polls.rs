//! What a queue knows of the polls of a frontend.

use std::collections::BTreeMap;

use crate::{
    PollDigest, PollSlug, Timestamp,
    queue::{Appended, PollState, PollStates},
};

/// Whether votes for a poll are taken by a queue, if that takes any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PollAdmission {
    /// The queue has the same definition of the poll.
    Taken,
    /// No worker has recorded the poll in the queue yet.
    Unknown,
    /// The queue has another definition of the poll: other options, or another `keep` or `voters`.
    Differs {
        /// The digest of the definition in the file of the frontend.
        file: PollDigest,
        /// The digest of the definition in the queue, which is that of the store.
        queue: PollDigest,
    },
    /// The poll is closed: the queue will never take votes for it again.
    Sealed,
}

/// What was last seen of polls in a queue.
#[derive(Debug, Default)]
pub(super) struct SeenPolls {
    /// None before the queue was looked at.
    states: Option<PollStates>,
    /// When each poll closes that was ever seen recorded: a new incarnation of the queue may not have it yet.
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
            // The next look tells which definition the queue has.
            Appended::OtherPoll | Appended::Stored(_) => {}
        }
    }

    pub(super) fn admission(&self, poll: PollSlug, file: PollDigest) -> Option<PollAdmission> {
        Some(match self.states.as_ref()?.get(&poll) {
            None => PollAdmission::Unknown,
            Some(PollState::Sealed) => PollAdmission::Sealed,
            Some(PollState::Recorded { digest, .. }) if *digest == file => PollAdmission::Taken,
            Some(PollState::Recorded { digest, .. }) => PollAdmission::Differs { file, queue: *digest },
        })
    }

    pub(super) fn admissions(
        &self,
        files: &BTreeMap<PollSlug, PollDigest>,
    ) -> BTreeMap<PollSlug, PollAdmission> {
        files.iter().filter_map(|(poll, file)| Some((*poll, self.admission(*poll, *file)?))).collect()
    }

    /// The closing time that was last seen recorded, if any was.
    pub(super) fn closes_at(&self, poll: PollSlug) -> Option<Option<Timestamp>> {
        self.closes_at.get(&poll).copied()
    }
}

/// Logs what has changed since it was announced last.
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
            PollAdmission::Taken => tracing::info!(%address, %poll, "the queue takes votes for the poll"),
            PollAdmission::Sealed => tracing::info!(%address, %poll, "the poll is closed"),
            PollAdmission::Unknown => tracing::warn!(
                %address, %poll,
                "taking no votes for the poll: no worker has recorded it in the queue. Does the file of the workers have \
                 it?"
            ),
            PollAdmission::Differs { file, queue } => tracing::error!(
                %address, %poll,
                "taking no votes for the poll: the file defines it otherwise (digest {file}) than the store (digest \
                 {queue}). Put options, keep and voters right in the file, or give a new poll a new slug"
            ),
        }
    }
}
