//! The rules of counting: pure functions and the values they work on, without I/O and without a clock.
//!
//! A [`Batch`] decodes what was read from queues and plans a commit; [`merge()`] picks the effective ballot of each
//! voter. [`Accounts`] are a snapshot of all counts in a store, and [`audit`] checks that they are consistent and
//! complete.

mod accounts;
mod age;
pub mod audit;
mod batch;
mod ledger;
mod merge;
mod plan;
mod polls;
mod quarantine;
mod queues;
mod reason;
mod retirement;
mod summary;

pub use accounts::{Accounts, QuarantineTotal, SealRecord, TallyRow};
pub(crate) use age::{FUTURE, UNKNOWN_AGE, was_within};
pub use batch::{Batch, Delivery};
pub use ledger::{LedgerEntry, LedgerRow};
pub use merge::{Ballot, merge};
pub use plan::{Checkpoint, CommitPlan, PollPlan};
pub use polls::{EarlierDefinition, RegisteredPoll, Reschedule, Withdrawal};
pub use quarantine::{
    Decision, QuarantineKey, QuarantineRow, QuarantineState, QuarantinedFrame, QuarantinedVotes,
    ReplayOutcome, Replayed, Undecodable,
};
pub use queues::{QueueRecord, QueueState};
pub use reason::{QuarantineReason, ReasonCode, StoredReason};
pub use retirement::{RetirementObstacle, retirement_obstacle};
#[cfg(feature = "postgres")]
pub(crate) use summary::Sums;
pub use summary::{Balance, Balances, PollSummary, QueueSummary, Summary};
