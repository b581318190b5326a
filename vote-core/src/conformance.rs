//! The suites that every queue and every store must pass, for yours too.
//!
//! A suite is a list of clauses, each a claim of the trait's contract with a name that states it. The macros make one
//! test of each; a harness says how to make the thing under test:
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
//!         queue // Nothing to reopen: memory has no second handle.
//!     }
//! }
//!
//! vote_core::queue_conformance!(Memory);
//! # fn main() {}
//! ```
//!
//! A suite that can't fail proves nothing. [`broken`] holds a faulty queue and a faulty store for each clause, and
//! the crate's own tests see each clause fail on the one made for it.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    Keep, Partition, Partitions, PepperFingerprint, PollDigest, PollSlug, Polls, Queue, QueueId, Store,
    Timestamp, Vote, VoterKey, frame,
    poll::Voters,
    queue::{Frame, Layout, PollRecord, QueueError},
    store::{Ballot, RegisteredPoll},
};

pub mod broken;
pub mod queue;
pub mod store;

/// How the suite gets queues to test.
#[async_trait]
pub trait QueueHarness: Send + Sync {
    /// A queue that has no box yet and that nobody else uses.
    async fn fresh(&self) -> Arc<dyn Queue>;
    /// The same queue as after a restart of the program that used it, and of the server where that is possible. What
    /// was acknowledged must be there.
    async fn reopen(&self, queue: Arc<dyn Queue>) -> Arc<dyn Queue>;
}

/// How the suite gets stores to test.
#[async_trait]
pub trait StoreHarness: Send + Sync {
    /// A store with its tables and nothing in them, that nobody else uses.
    async fn fresh(&self) -> Arc<dyn Store>;
    /// The same store as after a restart of the program that used it. What was committed must be there.
    async fn reopen(&self, store: Arc<dyn Store>) -> Arc<dyn Store>;
}

/// The layout that the suites use.
#[must_use]
pub fn layout() -> Layout {
    Layout { partitions: Partitions::default(), fingerprint: PepperFingerprint([7; 8]) }
}

/// A vote made up of numbers: `voter` spreads over all partitions, `option` is 0 for cats and 1 for dogs, `at` are
/// seconds.
#[must_use]
pub fn vote(voter: u64, option: u8, at: i64) -> Vote {
    let mut key = [0; 16];
    // An odd factor spreads small numbers over the leading bits, and no two of them meet.
    key[..8].copy_from_slice(&voter.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
    Vote {
        poll: poll(),
        voter: VoterKey(key),
        option: ["cats", "dogs"][usize::from(option % 2)].parse().unwrap_or_else(|_| unreachable!()),
        cast_at: Timestamp::MIN.saturating_add(at * 1_000_000),
    }
}

/// The poll that the suites use: the example.
#[must_use]
pub fn poll() -> PollSlug {
    Polls::example()
        .iter()
        .next()
        .map(|poll| poll.slug)
        .unwrap_or_else(|| unreachable!("the example has a poll"))
}

/// The digest of a poll of that name with the rules and options of the suites' poll.
#[must_use]
pub fn digest(poll: PollSlug) -> PollDigest {
    let options = ["cats", "dogs"].map(|slug| slug.parse().unwrap_or_else(|_| unreachable!()));
    PollDigest::of(poll, options, Keep::First, Voters::Cookie)
}

/// What is to be recorded of a poll of that name, which has no closing time.
#[must_use]
pub fn record(poll: PollSlug) -> PollRecord {
    PollRecord { poll, digest: digest(poll), closes_at: None }
}

/// Lets a queue take votes for polls of these names, as a worker does.
///
/// # Errors
/// Those of the queue.
pub async fn activate(queue: &dyn Queue, id: QueueId, polls: &[PollSlug]) -> Result<(), QueueError> {
    queue.record_polls(id, &polls.iter().copied().map(record).collect::<Vec<_>>()).await?;
    queue.register(id).await
}

/// Votes as frames, one a partition.
#[must_use]
pub fn frames(votes: &[Vote]) -> Vec<Frame> {
    let mut groups: BTreeMap<(PollSlug, Partition), Vec<Vote>> = BTreeMap::new();
    for vote in votes {
        groups.entry((vote.poll, layout().partitions.of(vote.voter))).or_default().push(*vote);
    }
    groups.into_iter().map(|((poll, partition), votes)| one_frame(poll, partition, &votes)).collect()
}

/// Votes of one poll as one frame of a partition.
///
/// # Panics
/// When they are of another poll, or more than a frame holds.
#[must_use]
#[allow(clippy::expect_used)]
pub fn one_frame(poll: PollSlug, partition: Partition, votes: &[Vote]) -> Frame {
    let bytes = frame::encode(poll, partition, votes).expect("the suite's votes fit into a frame");
    Frame { poll, partition, digest: digest(poll), votes: votes.len() as u32, bytes: Bytes::from(bytes) }
}

/// A vote as the store has it.
#[must_use]
pub const fn ballot(vote: &Vote) -> Ballot {
    Ballot { voter: vote.voter, option: vote.option, cast_at: vote.cast_at }
}

/// The poll of the suites, registered.
#[must_use]
pub fn registered_poll() -> RegisteredPoll {
    Polls::example()
        .iter()
        .next()
        .map(RegisteredPoll::from)
        .unwrap_or_else(|| unreachable!("the example has a poll"))
}

/// Some identity, the same for the same number.
#[must_use]
pub const fn queue_id(number: u8) -> QueueId {
    QueueId([number; 16])
}

/// Makes a suite's list of clauses, and a macro with one test of each.
macro_rules! suite {
    ($harness:ident, $fault:ident, $macro:ident, $module:ident, { $($clause:ident: $broken:ident),+ $(,)? }) => {
        /// A clause: its name, and the fault it must notice.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(non_camel_case_types, missing_docs)]
        pub enum Clause { $($clause),+ }

        impl Clause {
            /// Every clause, each with the fault it must notice.
            pub const ALL: &[(Self, super::broken::$fault)] =
                &[$((Self::$clause, super::broken::$fault::$broken)),+];

            /// Checks the clause.
            ///
            /// # Panics
            /// When it does not hold, saying what was expected.
            pub async fn check(self, harness: &dyn super::$harness) {
                match self { $(Self::$clause => $clause(harness).await),+ }
            }
        }

        /// Makes one test of each clause of the suite. The harness is an expression, evaluated in each test, and may
        /// await. Needs tokio with `macros` and `rt-multi-thread`.
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
