//! Conformance suites, which every queue and every store must pass. They are public, so that you can run them on yours.
//!
//! A suite is a list of clauses. Each clause tests one rule of the trait's contract, and its name states the rule. The
//! macros turn each clause into a test; a harness makes the queues or stores to test:
//!
//! ```
//! use std::sync::Arc;
//! use vote_core::{Queue, conformance::QueueHarness, queue::MemoryQueue};
//!
//! struct Memory;
//!
//! #[async_trait::async_trait]
//! impl QueueHarness for Memory {
//!     async fn fresh(&self) -> Arc<dyn Queue> {
//!         Arc::new(MemoryQueue::new())
//!     }
//!     async fn reopen(&self, queue: Arc<dyn Queue>) -> Arc<dyn Queue> {
//!         queue // A queue in memory ends with its handle, so it can't be reopened.
//!     }
//! }
//!
//! vote_core::queue_conformance!(Memory);
//! # fn main() {}
//! ```
//!
//! A suite that can't fail proves nothing. So [`broken`] has a queue or a store with a fault for each clause, and this
//! crate's own tests check that each clause fails on the one made for it.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    Keep, Partition, Partitions, PepperFingerprint, PollDigest, PollSlug, Polls, Queue, QueueId, Store,
    Timestamp, Vote, VoterKey,
    count::{Ballot, RegisteredPoll},
    frame,
    poll::Voters,
    queue::{Frame, Layout, PollRecord, QueueError},
};

pub mod broken;
pub mod queue;
pub mod store;

/// Makes the queues that the suite tests.
#[async_trait]
pub trait QueueHarness: Send + Sync {
    /// Returns an address at which no queue was created yet, and which only the caller uses.
    async fn fresh(&self) -> Arc<dyn Queue>;
    /// Returns the same queue as after a restart of the program that used it, and of its server where that is possible.
    /// Every acknowledged frame must still be in it.
    async fn reopen(&self, queue: Arc<dyn Queue>) -> Arc<dyn Queue>;
}

/// Makes the stores that the suite tests.
#[async_trait]
pub trait StoreHarness: Send + Sync {
    /// Returns a store with empty tables, which only the caller uses.
    async fn fresh(&self) -> Arc<dyn Store>;
    /// Returns the same store as after a restart of the program that used it. Everything committed must still be in it.
    async fn reopen(&self, store: Arc<dyn Store>) -> Arc<dyn Store>;
}

/// Returns the layout that the suites use.
#[must_use]
pub fn layout() -> Layout {
    Layout { partitions: Partitions::default(), fingerprint: PepperFingerprint([7; 8]) }
}

/// Returns a vote made of numbers: `voter` is spread over all partitions, `option` is 0 for cats and 1 for dogs, and
/// `at` is its time in seconds.
#[must_use]
pub fn vote(voter: u64, option: u8, at: i64) -> Vote {
    let mut key = [0; 16];
    // An odd factor spreads small numbers over the leading bits, without two of them giving the same key.
    key[..8].copy_from_slice(&voter.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
    Vote {
        poll: poll(),
        voter: VoterKey(key),
        option: ["cats", "dogs"][usize::from(option % 2)].parse().unwrap_or_else(|_| unreachable!()),
        cast_at: Timestamp::MIN.saturating_add(at * 1_000_000),
    }
}

/// Returns the name of the poll that the suites use: that of the example.
#[must_use]
pub fn poll() -> PollSlug {
    Polls::example()
        .iter()
        .next()
        .map(|poll| poll.slug)
        .unwrap_or_else(|| unreachable!("the example has a poll"))
}

/// Returns the digest of a poll of that name with the rules and options of the suites' poll.
#[must_use]
pub fn digest(poll: PollSlug) -> PollDigest {
    let options = ["cats", "dogs"].map(|slug| slug.parse().unwrap_or_else(|_| unreachable!()));
    PollDigest::of(poll, options, Keep::First, Voters::Cookie)
}

/// Returns what a worker records in a queue of a poll of that name without a closing time.
#[must_use]
pub fn record(poll: PollSlug) -> PollRecord {
    PollRecord { poll, digest: digest(poll), closes_at: None, undone_withdrawal: None }
}

/// Records polls of these names in a queue and activates it, as a worker does.
///
/// # Errors
/// Those of [`Queue::record_polls`] and [`Queue::activate`].
pub async fn activate(queue: &dyn Queue, id: QueueId, polls: &[PollSlug]) -> Result<(), QueueError> {
    queue.record_polls(id, &polls.iter().copied().map(record).collect::<Vec<_>>()).await?;
    queue.activate(id).await
}

/// Encodes votes as frames, one for each poll and partition.
#[must_use]
pub fn frames(votes: &[Vote]) -> Vec<Frame> {
    let mut groups: BTreeMap<(PollSlug, Partition), Vec<Vote>> = BTreeMap::new();
    for vote in votes {
        groups.entry((vote.poll, layout().partitions.of(vote.voter))).or_default().push(*vote);
    }
    groups.into_iter().map(|((poll, partition), votes)| one_frame(poll, partition, &votes)).collect()
}

/// Encodes votes of one poll as one frame of a partition.
///
/// # Panics
/// If a vote is for another poll, or if a frame can't hold so many.
#[must_use]
#[allow(clippy::expect_used)]
pub fn one_frame(poll: PollSlug, partition: Partition, votes: &[Vote]) -> Frame {
    let bytes = frame::encode(poll, partition, votes).expect("the suite's votes fit into a frame");
    Frame { poll, partition, digest: digest(poll), votes: votes.len() as u32, bytes: Bytes::from(bytes) }
}

/// Returns the ballot of a vote, which is what the store keeps of it.
#[must_use]
pub const fn ballot(vote: &Vote) -> Ballot {
    Ballot { voter: vote.voter, option: vote.option, cast_at: vote.cast_at }
}

/// Returns the poll of the suites as a store has it once it is registered.
#[must_use]
pub fn registered_poll() -> RegisteredPoll {
    Polls::example()
        .iter()
        .next()
        .map(RegisteredPoll::from)
        .unwrap_or_else(|| unreachable!("the example has a poll"))
}

/// Returns an identity that is the same for the same number.
#[must_use]
pub const fn queue_id(number: u8) -> QueueId {
    QueueId([number; 16])
}

/// Defines the list of a suite's clauses, and a macro that turns each of them into a test.
macro_rules! suite {
    ($harness:ident, $fault:ident, $macro:ident, $module:ident, { $($clause:ident: $broken:ident),+ $(,)? }) => {
        /// A clause of the suite. Its name states the rule that it tests.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(non_camel_case_types, missing_docs)]
        pub enum Clause { $($clause),+ }

        impl Clause {
            /// Every clause, each with a fault that it must detect.
            pub const ALL: &[(Self, super::broken::$fault)] =
                &[$((Self::$clause, super::broken::$fault::$broken)),+];

            /// Tests the clause.
            ///
            /// # Panics
            /// If the rule is violated; the message tells what was expected.
            pub async fn check(self, harness: &dyn super::$harness) {
                match self { $(Self::$clause => $clause(harness).await),+ }
            }
        }

        /// Turns each clause of the suite into a test. The argument is an expression for the harness; it is evaluated
        /// in each test and may await. Needs tokio with the features `macros` and `rt-multi-thread`.
        #[macro_export]
        macro_rules! $macro {
            ($make:expr) => {
                $(
                    #[::tokio::test(flavor = "multi_thread", worker_threads = 2)]
                    async fn $clause() {
                        let harness = $make;
                        $crate::conformance::$module::Clause::$clause.check(&harness).await;
                    }
                )+
            };
        }
    };
}
pub(crate) use suite;
