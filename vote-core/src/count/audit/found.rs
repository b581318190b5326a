//! Result of an audit: the verdict, and the figures it follows from.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Finding;
use crate::{
    Timestamp,
    count::{QueueState, RegisteredPoll, Reschedule, ledger::unaccounted},
};

/// Verdict of an audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Every accepted vote is accounted for, and nothing is outstanding.
    Holds,
    /// Every vote that was read is accounted for, but votes are still queued or await a decision, or a queue was not
    /// heard from.
    NotDrained,
    /// The accounts contradict each other, or a queue lost votes.
    Broken,
}

impl Verdict {
    /// Returns the exit code of a program with this verdict: 0 if it holds, 1 if it is broken, 2 if it is not drained.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Holds => 0,
            Self::NotDrained => 2,
            Self::Broken => 1,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Holds => "holds",
            Self::NotDrained => "not drained",
            Self::Broken => "broken",
        })
    }
}

/// Audit of a store, or of one poll in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    /// Time of the accounts, by the store's clock.
    pub taken_at: Timestamp,
    /// The verdict.
    pub verdict: Verdict,
    /// Everything that is wrong.
    pub problems: Vec<Finding>,
    /// Everything that is still to come, or awaits a decision of an operator.
    pub outstanding: Vec<Finding>,
    /// Figures of each poll.
    pub polls: Vec<PollAudit>,
}

/// Stage of a poll, as an audit finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PollStage {
    /// It accepts votes.
    Open,
    /// It was withdrawn before any vote was cast for it, and may be replaced by another definition.
    Withdrawn,
    /// It accepts no more votes; some may still be queued.
    Closed,
    /// Its count is complete.
    Final,
    /// It is not registered in the store, although queues have votes for it.
    Unregistered,
}

impl PollStage {
    /// Returns the stage of a poll by its record in the store, if it has one.
    pub(super) fn of(poll: Option<&RegisteredPoll>) -> Self {
        match poll {
            None => Self::Unregistered,
            Some(poll) if poll.final_at.is_some() => Self::Final,
            Some(poll) if poll.closed_at.is_some() => Self::Closed,
            Some(poll) if poll.withdrawal.is_some() => Self::Withdrawn,
            Some(_) => Self::Open,
        }
    }
}

/// Accounts of one poll.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PollAudit {
    /// Name of the poll, as queues hold it.
    pub poll: String,
    /// State of the poll.
    pub state: PollStage,
    /// All changes of its closing time, in order.
    pub reschedules: Vec<Reschedule>,
    /// Number of effective ballots, by the tally.
    pub tally: i64,
    /// Number of effective ballots, counted row by row; `None` if they were not counted.
    pub rows: Option<u64>,
    /// Figures of all queues together.
    #[serde(flatten)]
    pub total: Figures,
    /// Figures of each queue.
    pub queues: Vec<QueueAudit>,
}

/// Numbers of votes, by what happened to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Figures {
    /// Accepted votes, up to the positions read.
    pub accepted: u64,
    /// Accepted votes that added a voter.
    pub new_voters: u64,
    /// Accepted votes of voters who had a ballot already, whichever of the two became effective.
    pub superseded: u64,
    /// Accepted votes that could not be counted and are quarantined. Other votes of the same frames are not included.
    pub quarantined: i64,
    /// Votes that were not read yet, as last counted by a worker.
    pub queued: u64,
    /// Votes read from replaced queues. They may have been counted before, and are not among the accepted ones.
    pub reread: u64,
    /// Reread votes that added a voter.
    pub reread_new: u64,
    /// Reread votes that could not be counted and are quarantined. None of them is in the tally.
    pub reread_quarantined: i64,
}

impl Figures {
    /// Returns the votes that violate the conservation invariant, as [`LedgerEntry::unaccounted`](crate::count::LedgerEntry::unaccounted) does for one row.
    #[must_use]
    pub fn unaccounted(&self, is_retired: bool) -> i128 {
        unaccounted([self.accepted, self.new_voters, self.superseded], self.quarantined, is_retired)
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.accepted += other.accepted;
        self.new_voters += other.new_voters;
        self.superseded += other.superseded;
        self.quarantined += other.quarantined;
        self.queued += other.queued;
        self.reread += other.reread;
        self.reread_new += other.reread_new;
        self.reread_quarantined += other.reread_quarantined;
    }
}

/// Accounts of one poll in one queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueAudit {
    /// Identity of the queue.
    pub queue: String,
    /// Address at which it was last seen.
    pub address: String,
    /// Time of the last report, by the store's clock.
    pub seen_at: Timestamp,
    /// State of the queue, serialized as `active`, `diverged` or `retired`.
    pub state: QueueState,
    /// Why it diverged or was retired; otherwise empty.
    pub reason: String,
    /// Votes for the poll that it last reported as accepted.
    pub reported: u64,
    /// Whether the count of queued votes reached the end of the log.
    pub queued_complete: bool,
    /// Whether the poll is sealed in it, and everything up to the seal was read.
    pub complete: bool,
    /// Figures of the poll in this queue.
    #[serde(flatten)]
    pub figures: Figures,
}
