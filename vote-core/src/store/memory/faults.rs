//! Changes of a store in memory that no caller of a store can make: for stores with a fault, which the conformance
//! suite has to detect.

use super::MemoryStore;
use crate::{
    PollSlug,
    count::{RegisteredPoll, SealRecord},
};

impl MemoryStore {
    /// Changes the record of a poll, if there is one.
    pub(crate) fn change_poll(&self, poll: PollSlug, change: impl FnOnce(&mut RegisteredPoll)) {
        if let Some(poll) = self.lock().poll(poll) {
            change(poll);
        }
    }

    /// Records every partition as complete for a poll.
    pub(crate) fn complete_all(&self, poll: PollSlug) {
        let mut data = self.lock();
        let (revision, partitions): (u64, Vec<_>) =
            (data.revision, data.partitions.keys().copied().collect());
        data.completions.extend(partitions.into_iter().map(|partition| ((poll, partition), revision)));
    }

    /// Removes a recorded seal.
    pub(crate) fn forget_seal(&self, seal: &SealRecord) {
        self.lock().seals.remove(&(seal.queue, seal.poll));
    }
}
