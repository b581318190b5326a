//! Whether a poll may be certified, by the books of a moment. Pure.

use vote_core::{
    PollSlug,
    audit::{self, Audit},
    store::{Books, RegisteredPoll},
};

use super::Status;

/// What the books say of a poll.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The poll.
    pub poll: RegisteredPoll,
    /// Its audit.
    pub audit: Audit,
    /// What is still to come, or to be done, before it is final.
    pub outstanding: Vec<String>,
    /// What contradicts what.
    pub problems: Vec<String>,
}

impl Verdict {
    /// Whether the count is complete and the books hold.
    #[must_use]
    pub fn status(&self) -> Status {
        if self.outstanding.is_empty() && self.problems.is_empty() && self.poll.final_at.is_some() {
            Status::Final
        } else {
            Status::Forced
        }
    }
}

/// Judges a poll; none if the store has no such poll.
#[must_use]
pub fn judge(books: &Books, poll: PollSlug) -> Option<Verdict> {
    let registered = books.polls.iter().find(|known| known.slug == poll)?.clone();
    let audit = audit::audit(books, Some(poll));
    let problems = audit.problems.clone();
    let mut outstanding = audit.outstanding.clone();
    if registered.final_at.is_none() {
        // An audit holds for an open poll, too, once its queues are drained; a certificate wants more.
        for obstacle in audit::obstacles(books, poll) {
            if !problems.contains(&obstacle) && !outstanding.contains(&obstacle) {
                outstanding.push(obstacle);
            }
        }
        if outstanding.is_empty() && problems.is_empty() {
            outstanding.push(format!("poll {poll} is counted, but no worker has noted that it is final yet"));
        }
    }
    Some(Verdict { poll: registered, audit, outstanding, problems })
}
