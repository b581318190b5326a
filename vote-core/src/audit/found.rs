//! What an audit found: the verdict, and the figures it follows from.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Timestamp, store::Reschedule};

/// What an audit found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Every accepted vote is accounted for, and none waits.
    Holds,
    /// Every vote that was read is accounted for, but some are still queued, or nobody knows.
    NotDrained,
    /// The books contradict each other, or a queue lost votes.
    Broken,
}

impl Verdict {
    /// As what a program exits with: 0, 2 and 1.
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

/// The audit of a store, or of one poll in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    /// When the books were read.
    pub taken_at: Timestamp,
    /// The outcome.
    pub verdict: Verdict,
    /// What is wrong: each in a sentence that names poll, queue and figures.
    pub problems: Vec<String>,
    /// What is still to come, or to be decided by somebody.
    pub outstanding: Vec<String>,
    /// The figures, poll by poll.
    pub polls: Vec<PollAudit>,
}

/// How far a poll is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PollState {
    /// It takes votes.
    Open,
    /// It takes no more votes; some may still be queued.
    Closed,
    /// Its count is complete.
    Final,
    /// Votes came for it, but the store does not know it.
    Unregistered,
}

/// The books of one poll.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PollAudit {
    /// Its name, as queues hold it.
    pub poll: String,
    /// How far it is.
    pub state: PollState,
    /// How often and why its closing time was moved, in order.
    pub reschedules: Vec<Reschedule>,
    /// Standing votes, by the tally.
    pub tally: i64,
    /// Standing votes, counted row by row; none if they were not counted.
    pub rows: Option<u64>,
    /// All queues together.
    #[serde(flatten)]
    pub total: Figures,
    /// Queue by queue.
    pub queues: Vec<QueueAudit>,
}

/// What became of votes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Figures {
    /// Votes that queues accepted, so far as they were read.
    pub accepted: u64,
    /// Those that added a voter.
    pub new_voters: u64,
    /// Those of voters that had one already, whichever stood in the end.
    pub superseded: u64,
    /// Those that could not be counted and are quarantined; the other votes of their frames are not among them.
    pub quarantined: i64,
    /// Votes that were not read yet, as last counted by a worker.
    pub queued: u64,
    /// Votes read from what was left of queues that lost data; they may have been counted before.
    pub reread: u64,
    /// Those among them that added a voter.
    pub reread_new: u64,
    /// Those among them that could not be counted and are quarantined: not one of them is in the tally.
    pub reread_quarantined: i64,
}

impl Figures {
    /// Whether every vote that was read is accounted for.
    #[must_use]
    pub fn is_conserved(&self) -> bool {
        i128::from(self.accepted)
            == i128::from(self.new_voters) + i128::from(self.superseded) + i128::from(self.quarantined)
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

/// The books of one poll in one queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueAudit {
    /// Its identity.
    pub queue: String,
    /// Where it was last seen.
    pub address: String,
    /// When.
    pub seen_at: Timestamp,
    /// `active`, `cut` or `retired`.
    pub state: String,
    /// Why it is cut or retired.
    pub reason: String,
    /// Votes of the poll that it said to have accepted when it was last seen.
    pub reported: u64,
    /// Whether the count of queued votes reached the end.
    pub queued_complete: bool,
    /// Whether the poll is sealed in it, and all there was has been read.
    pub complete: bool,
    /// What became of them.
    #[serde(flatten)]
    pub figures: Figures,
}
