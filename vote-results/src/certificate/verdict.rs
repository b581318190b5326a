//! Decides from the accounts whether a poll may be certified. Pure.

use vote_core::{
    PollSlug,
    count::{
        Accounts, RegisteredPoll,
        audit::{self, Audit, Finding},
    },
};

use super::CertificateStatus;

/// The audit of a poll, and whether the poll may be certified as final.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The poll as registered in the store.
    pub poll: RegisteredPoll,
    /// The audit of the poll.
    pub audit: Audit,
    /// Everything that must happen before the poll is final.
    pub outstanding: Vec<Finding>,
    /// All accounting errors.
    pub problems: Vec<Finding>,
}

impl Verdict {
    /// Returns [`CertificateStatus::Final`] if the count is complete and free of accounting errors.
    #[must_use]
    pub fn status(&self) -> CertificateStatus {
        if self.outstanding.is_empty() && self.problems.is_empty() && self.poll.final_at.is_some() {
            CertificateStatus::Final
        } else {
            CertificateStatus::Forced
        }
    }
}

/// Audits a poll. Returns none if the store does not have it.
#[must_use]
pub fn judge(accounts: &Accounts, poll: PollSlug) -> Option<Verdict> {
    let registered = accounts.polls.iter().find(|known| known.slug == poll)?.clone();
    let audit = audit::audit(accounts, Some(poll));
    let problems = audit.problems.clone();
    let mut outstanding = audit.outstanding.clone();
    if registered.final_at.is_none() {
        // An audit also holds for an open poll once its queues are drained. A certificate requires a final poll.
        for obstacle in audit::obstacles(accounts, poll) {
            if !problems.contains(&obstacle) && !outstanding.contains(&obstacle) {
                outstanding.push(obstacle);
            }
        }
        if outstanding.is_empty() && problems.is_empty() {
            outstanding.push(Finding::NotRecordedAsFinal { poll });
        }
    }
    Some(Verdict { poll: registered, audit, outstanding, problems })
}
