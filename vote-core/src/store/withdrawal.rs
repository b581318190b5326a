//! Withdrawn polls, whose names can be registered with another definition.
//!
//! ```text
//! withdrawn by an operator → dropped by every queue that has no votes for it → registered with another definition
//!                          ↘ kept, if a queue has votes for it; the others record it again
//! ```
//!
//! A queue may accept votes for a definition until it has dropped it, and no vote may be acknowledged that the store
//! can't count. So the other definition waits for every queue.

use super::StoreError;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
use crate::PollSlug;
use crate::count::RegisteredPoll;

/// Error of withdrawing a poll that is closed or has votes.
pub(super) fn refused(poll: &RegisteredPoll) -> StoreError {
    let RegisteredPoll { slug, closed_at, .. } = poll;
    let why = if closed_at.is_some() { "is closed" } else { "has votes" };
    StoreError::Conflict(format!("poll {slug} {why}: it can't be withdrawn any more"))
}

/// Error of registering a definition that was withdrawn, while the name has no other definition yet.
#[cfg(feature = "postgres")]
pub(super) fn not_again(poll: PollSlug) -> StoreError {
    StoreError::Conflict(format!(
        "this definition of poll {poll} was withdrawn and can't be registered again: use the new one, which another \
         worker registers"
    ))
}

/// Separator in the names of earlier definitions: the table of polls has them as the poll's name, this, and a number.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(super) const EARLIER: char = '#';

/// Makes polls of the rows of the table of polls, which has earlier definitions beside the current ones. In the order
/// of registration.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(super) fn fold(rows: Vec<(String, RegisteredPoll)>) -> Vec<RegisteredPoll> {
    let (earlier, current): (Vec<_>, Vec<_>) = rows.into_iter().partition(|(name, _)| name.contains(EARLIER));
    let mut polls: Vec<RegisteredPoll> = current.into_iter().map(|(_, poll)| poll).collect();
    for (_, before) in &earlier {
        if let Some(poll) = polls.iter_mut().find(|poll| poll.slug == before.slug) {
            poll.earlier.extend(before.as_earlier());
        }
    }
    polls
}

/// Returns the name of a poll from that in its row, which may be the name of an earlier definition.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(super) fn slug(name: &str) -> Result<PollSlug, crate::slug::SlugError> {
    name.split(EARLIER).next().unwrap_or_default().parse()
}
