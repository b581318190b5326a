//! The store: standing votes, tally, ledger and read positions, all of a partition moved by one transaction.
//!
//! The store does not decide which vote stands. A [lane](Lane) acquires a partition, looks up what stands, plans with
//! [`Batch`](crate::dedup::Batch), and hands the store a [`CommitPlan`] that is applied as a whole or not at all.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{
    Keep, OptionSlug, Partition, Poll, PollSlug, Position, QueueId, Timestamp, VoterKey,
    poll::{ResultsFrom, Voters},
    queue::{Counters, Layout},
};

mod books;
mod catalog;
pub mod memory;
#[cfg(feature = "postgres")]
pub mod postgres;
mod quarantine;
mod queues;
#[cfg(feature = "sqlite")]
pub mod sqlite;

pub use books::{Books, QuarantineTotal, SealRecord, Snapshot, TallyRow};
pub use catalog::{Catalog, MAX_CLOCK_DIFFERENCE, WORKER_LIVES_FOR, WorkerId, WorkerRecord};
pub(crate) use catalog::{FUTURE, UNKNOWN_AGE};
pub use memory::MemoryStore;
#[cfg(feature = "postgres")]
pub use postgres::PostgresStore;
pub use quarantine::{
    Decision, QuarantineKey, QuarantineRow, QuarantineState, QuarantinedFrame, QuarantinedVotes,
    ReplayOutcome, Replayed, Undecodable,
};
pub use queues::{QueueRecord, QueueState};
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteStore;

/// A voter's choice in one poll, without the poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ballot {
    /// Whose.
    pub voter: VoterKey,
    /// For what.
    pub option: OptionSlug,
    /// When the frontend accepted it.
    pub cast_at: Timestamp,
}

/// A poll as the store knows it. Options, `keep`, `voters` and `results` never change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisteredPoll {
    /// Its name.
    pub slug: PollSlug,
    /// Its options, in the order they had when it was registered.
    pub options: Vec<OptionSlug>,
    /// Which of a voter's votes stands.
    pub keep: Keep,
    /// How voters are told apart.
    pub voters: Voters,
    /// When its results may be shown. A file that says otherwise is no [difference](Self::difference), since the count
    /// is the same; whoever shows results keeps to the stricter of the two.
    pub results: ResultsFrom,
    /// When it stops taking votes, if that was said. Moves only when it is [rescheduled](Store::reschedule_poll), and
    /// no more once it is closed.
    pub closes_at: Option<Timestamp>,
    /// How often and why that moved, in order.
    pub reschedules: Vec<Reschedule>,
    /// Since when it is closed: from then on it is sealed in every queue. Never undone.
    pub closed_at: Option<Timestamp>,
    /// When its count became final: nothing is counted for it any more. Never undone.
    pub final_at: Option<Timestamp>,
}

/// A closing time that somebody moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reschedule {
    /// When it was moved, by the store's clock.
    pub at: Timestamp,
    /// The closing time before.
    pub from: Option<Timestamp>,
    /// The closing time after.
    pub to: Option<Timestamp>,
    /// Why.
    pub reason: String,
}

impl fmt::Display for Reschedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time =
            |at: Option<Timestamp>| at.map_or_else(|| "closing by hand".to_owned(), |at| at.to_string());
        let Self { at, from, to, reason } = self;
        write!(f, "closing time moved at {at} from {} to {}: {reason}", time(*from), time(*to))
    }
}

impl RegisteredPoll {
    /// What differs, for the count, from the poll as a file defines it now; none if nothing does.
    #[must_use]
    pub fn difference(&self, poll: &Poll) -> Option<String> {
        let names =
            |slugs: BTreeSet<OptionSlug>| slugs.iter().map(OptionSlug::as_str).collect::<Vec<_>>().join(", ");
        let ours: BTreeSet<_> = self.options.iter().copied().collect();
        let theirs: BTreeSet<_> = poll.options.iter().map(|o| o.slug).collect();
        if ours != theirs {
            Some(format!("options are {} where the file says {}", names(ours), names(theirs)))
        } else if self.keep != poll.keep {
            Some(format!("keep is {:?} where the file says {:?}", self.keep.as_str(), poll.keep.as_str()))
        } else if self.voters != poll.voters {
            Some(format!(
                "voters is {:?} where the file says {:?}",
                self.voters.as_str(),
                poll.voters.as_str()
            ))
        } else {
            None
        }
    }
}

/// How far a queue's partition was read and committed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Checkpoint {
    /// The last entry committed.
    pub position: Position,
    /// Votes accepted up to there, by poll, as the queue counted them.
    pub accepted: Counters,
}

/// A partition that a lane owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acquired {
    /// What the next commit must name.
    pub version: u64,
    /// How far each queue was read.
    pub checkpoints: BTreeMap<QueueId, Checkpoint>,
}

/// All that a commit does, for one partition. Applied as a whole or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitPlan {
    /// The partition.
    pub partition: Partition,
    /// The version it must have; it has one more afterwards.
    pub version: u64,
    /// What changes in each poll.
    pub polls: Vec<PollPlan>,
    /// What is accounted for. A row for each (queue, poll) that was read.
    pub ledger: Vec<LedgerEntry>,
    /// Where each queue was read to.
    pub positions: Vec<(QueueId, Position)>,
    /// Frames with votes that could not be counted.
    pub quarantine: Vec<QuarantinedFrame>,
    /// What became of quarantined votes that were [tried again](Lane::replays).
    pub replayed: Vec<Replayed>,
}

/// What a commit changes in one poll.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PollPlan {
    /// The poll, registered before.
    pub poll: PollSlug,
    /// Ballots of voters that have none, sorted by voter. One that exists already is a [conflict](StoreError::Conflict).
    pub inserts: Vec<Ballot>,
    /// Standing ballots and what takes their place, sorted by voter. If another one stands it is a
    /// [conflict](StoreError::Conflict).
    pub replacements: Vec<(Ballot, Ballot)>,
    /// What to add to the tally of each option.
    pub tally: BTreeMap<OptionSlug, i64>,
}

/// What was read from one queue for one poll.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerEntry {
    /// From where.
    pub queue: QueueId,
    /// For what poll, as the queue holds the name.
    pub poll: String,
    /// Votes accepted up to the new position: replaces what the store has.
    pub accepted: u64,
    /// Votes that added a row. This and the following are added to what the store has.
    pub new_voters: u64,
    /// Votes that met a row, whichever stood in the end.
    pub superseded: u64,
    /// Votes that were quarantined, less those that could be counted when tried again: so in a plan it may be below
    /// zero. The other votes of a frame are not among them.
    pub quarantined: i64,
}

impl LedgerEntry {
    /// Whether every accepted vote is accounted for: `accepted = new_voters + superseded + quarantined`. Holds in each
    /// row of a ledger, whatever is read or committed meanwhile, or votes were lost.
    #[must_use]
    pub fn is_conserved(&self) -> bool {
        i128::from(self.accepted)
            == i128::from(self.new_voters) + i128::from(self.superseded) + i128::from(self.quarantined)
    }
}

/// A row of the ledger: everything ever read from one partition of one queue for one poll.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerRow {
    /// The partition.
    pub partition: Partition,
    /// The totals. They hold `accepted = new_voters + superseded + quarantined`, or votes were lost.
    pub entry: LedgerEntry,
}

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Nothing was committed: the partition has another version than the plan names, since another lane committed
    /// meanwhile. Acquire it again.
    #[error("partition {0} was committed to by another lane")]
    StaleVersion(Partition),
    /// Nothing was committed: a row was there that the plan did not expect, or not there that it did, or other votes of
    /// a frame are quarantined than those it [tried again](Replayed::tried). Plan again with [`Lookup::Exhaustive`]; if
    /// it comes back, it is a bug.
    #[error("what stands is not what the plan expects: {0}")]
    Conflict(String),
    /// The store was made for another layout, or another deployment's pepper.
    #[error("{0}")]
    Layout(String),
    /// The store lacks what it should have, for example tables; says what to do.
    #[error("{0}")]
    NotPrepared(String),
    /// Not reachable, not answering in time, or failing. A commit may or may not have been applied: the version on
    /// the next [acquire](Lane::acquire) tells.
    #[error("the store is not available: {0}")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl StoreError {
    /// Whether the same may succeed later, on a new lane, with nothing changed by hand.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::StaleVersion(_) | Self::Conflict(_) | Self::Unavailable(_))
    }
}

/// How thoroughly standing votes are looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup {
    /// As fast as can be: the lane may know that a voter has no vote without asking the database.
    Filtered,
    /// Every voter is asked for; used after a [conflict](StoreError::Conflict).
    Exhaustive,
}

/// What the results service needs: reads only.
#[async_trait]
pub trait StoreReader: Send + Sync + fmt::Debug {
    /// What the store was made for; none before [`Store::prepare`].
    async fn layout(&self) -> Result<Option<Layout>, StoreError>;
    /// All registered polls.
    async fn polls(&self) -> Result<Vec<RegisteredPoll>, StoreError>;
    /// The standing votes of a poll by option, with zeros, in the order of registration. Empty if it is not
    /// registered.
    async fn tally(&self, poll: PollSlug) -> Result<Vec<(OptionSlug, u64)>, StoreError>;
    /// What stands for a voter.
    async fn ballot(&self, poll: PollSlug, voter: VoterKey) -> Result<Option<Ballot>, StoreError>;
    /// How far a partition of a queue was read; [`Position::START`] if never.
    async fn position(&self, queue: QueueId, partition: Partition) -> Result<Position, StoreError>;
    /// The frame at that place, if votes of it are quarantined; none if all of them are counted. Whether a certain vote
    /// is quarantined says [`QuarantineRow::holds`].
    async fn quarantined(
        &self,
        queue: QueueId,
        partition: Partition,
        position: Position,
    ) -> Result<Option<QuarantineRow>, StoreError>;
    /// How far a queue was read in each partition in which anything was.
    async fn positions(&self, queue: QueueId) -> Result<BTreeMap<Partition, Position>, StoreError>;
    /// How far every queue was read in each partition in which anything was, as of one moment. What is on a standby of a
    /// database says which commits that standby has.
    async fn all_positions(&self) -> Result<BTreeMap<(QueueId, Partition), Position>, StoreError>;
    /// All queues ever reported.
    async fn queues(&self) -> Result<Vec<QueueRecord>, StoreError>;
    /// Up to `limit` frames with votes that are or were quarantined, by [key](QuarantineKey), those after one.
    async fn quarantine(
        &self,
        after: Option<QuarantineKey>,
        limit: usize,
    ) -> Result<Vec<QuarantineRow>, StoreError>;
    /// All that an audit compares, as of one moment.
    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError>;
}

/// What a worker needs beside.
#[async_trait]
pub trait Store: StoreReader {
    /// Writes the layout if the store has none, and makes its partitions. What is there wins.
    ///
    /// # Errors
    /// [`StoreError::Layout`] if it has another, [`StoreError::NotPrepared`] if it lacks its tables.
    async fn prepare(&self, layout: Layout) -> Result<(), StoreError>;
    /// What the store has on record.
    async fn catalog(&self) -> Result<Catalog, StoreError>;
    /// Registers a poll if the store has none of that name; returns what it has then.
    async fn register_poll(&self, poll: &Poll) -> Result<RegisteredPoll, StoreError>;
    /// Closes a poll now, by the store's clock, if it is not closed yet; returns what the store has then, none if there
    /// is no such poll.
    async fn close_poll(&self, poll: PollSlug) -> Result<Option<RegisteredPoll>, StoreError>;
    /// Closes the polls whose closing time is longer ago than `grace`, by the store's clock, and returns them. `now` is
    /// the caller's clock: where the two differ by more than [`MAX_CLOCK_DIFFERENCE`], one of them is wrong, nobody
    /// can say which, and nothing is closed.
    async fn close_due_polls(&self, grace: Duration, now: Timestamp) -> Result<Vec<PollSlug>, StoreError>;
    /// Moves the closing time of a poll; returns what the store has then, none if there is no such poll.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if the poll is closed.
    async fn reschedule_poll(
        &self,
        poll: PollSlug,
        closes_at: Option<Timestamp>,
        reason: &str,
    ) -> Result<Option<RegisteredPoll>, StoreError>;
    /// Records what a poll's [seal](crate::Queue::seal) said in a queue, and returns what is on record then: in each
    /// partition the highest position and count that was ever said.
    async fn note_seal(&self, seal: &SealRecord) -> Result<SealRecord, StoreError>;
    /// Records that a closed poll is final, if every partition is [complete](Lane::complete) up to the store's current
    /// [revision](Catalog::revision); returns whether it is final then. Never undone.
    async fn finish_poll(&self, poll: PollSlug) -> Result<bool, StoreError>;
    /// Records what was seen of queues, on disk when it returns. Reports of one queue may come in any order from
    /// several workers: see [`QueueRecord::merged`].
    async fn report(&self, queues: &[QueueRecord]) -> Result<(), StoreError>;
    /// Records a sign of life of a worker, at the store's time. Where that was set back, it forgets what workers said before,
    /// and takes queues last seen in the future for queues not seen for a minute, or they would pass for just seen when
    /// that time comes.
    async fn beat(&self, worker: &WorkerRecord) -> Result<(), StoreError>;
    /// Writes a queue off, for good. The first reason stays. False if there is no such queue.
    async fn retire(&self, queue: QueueId, reason: &str) -> Result<bool, StoreError>;
    /// Notes what is to become of the votes of these frames that are quarantined now; returns of how many frames that was
    /// still open.
    async fn decide(&self, frames: &[QuarantineKey], decision: &Decision) -> Result<u64, StoreError>;
    /// What keeps commits from being durable, each in words that say what to change.
    async fn check(&self) -> Result<Vec<String>, StoreError>;
    /// A new lane, which lives until dropped.
    async fn open_lane(&self) -> Result<Box<dyn Lane>, StoreError>;
}

/// One sequence of commits, with the partitions it owns: on Postgres a connection.
///
/// After any error, and after a future of it was dropped, a lane is broken: drop it, open another, acquire again.
/// Dropping it frees its partitions. Ownership saves work, it is not what keeps votes safe: that is the version.
#[async_trait]
pub trait Lane: Send + fmt::Debug {
    /// The partitions that no lane owns. A lane on a server that ends idle sessions must ask at least every 2 s; asking
    /// also frees what lanes hold that make no progress any more.
    async fn unowned(&mut self) -> Result<Vec<Partition>, StoreError>;
    /// Takes a partition if no other lane has it. Taking one that this lane has reads it anew.
    async fn acquire(&mut self, partition: Partition) -> Result<Option<Acquired>, StoreError>;
    /// Gives a partition up.
    async fn release(&mut self, partition: Partition) -> Result<(), StoreError>;
    /// The standing ballots of those voters that have one, in any order. The voters must be sorted and belong to the
    /// partition, which this lane must have acquired.
    async fn lookup(
        &mut self,
        partition: Partition,
        poll: PollSlug,
        voters: &[VoterKey],
        lookup: Lookup,
    ) -> Result<Vec<Ballot>, StoreError>;
    /// Up to `limit` frames of a partition whose quarantined votes are to be tried again: those somebody
    /// [decided](Store::decide) so, and those that [await](QuarantinedFrame::awaits_poll) a poll that is registered by
    /// now and not final. The lane must have acquired the partition.
    async fn replays(
        &mut self,
        partition: Partition,
        limit: usize,
    ) -> Result<Vec<QuarantinedFrame>, StoreError>;
    /// Applies a plan, on disk when it returns.
    ///
    /// # Errors
    /// [`StoreError::StaleVersion`] if the partition has another version, or if the plan counts votes of a poll that is
    /// final: the lane does not know yet what the store knows. [`StoreError::Conflict`] as said there.
    async fn commit(&mut self, plan: &CommitPlan) -> Result<(), StoreError>;
    /// Records that a partition holds all votes of a closed poll that can come, as of the store's current
    /// [revision](Catalog::revision), if [nothing stands against it](crate::audit::obstacles_in); returns what does.
    /// When nothing does, the partition's version has moved by one, as with a commit. The lane must have acquired the
    /// partition.
    ///
    /// # Errors
    /// [`StoreError::StaleVersion`] if the partition has another version.
    async fn complete(
        &mut self,
        partition: Partition,
        version: u64,
        poll: PollSlug,
    ) -> Result<Vec<String>, StoreError>;
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: StoreReader + ?Sized> StoreReader for Arc<S> {
    async fn layout(&self) -> Result<Option<Layout>, StoreError> {
        (**self).layout().await
    }
    async fn polls(&self) -> Result<Vec<RegisteredPoll>, StoreError> {
        (**self).polls().await
    }
    async fn tally(&self, poll: PollSlug) -> Result<Vec<(OptionSlug, u64)>, StoreError> {
        (**self).tally(poll).await
    }
    async fn ballot(&self, poll: PollSlug, voter: VoterKey) -> Result<Option<Ballot>, StoreError> {
        (**self).ballot(poll, voter).await
    }
    async fn position(&self, queue: QueueId, partition: Partition) -> Result<Position, StoreError> {
        (**self).position(queue, partition).await
    }
    async fn quarantined(
        &self,
        queue: QueueId,
        partition: Partition,
        position: Position,
    ) -> Result<Option<QuarantineRow>, StoreError> {
        (**self).quarantined(queue, partition, position).await
    }
    async fn positions(&self, queue: QueueId) -> Result<BTreeMap<Partition, Position>, StoreError> {
        (**self).positions(queue).await
    }
    async fn all_positions(&self) -> Result<BTreeMap<(QueueId, Partition), Position>, StoreError> {
        (**self).all_positions().await
    }
    async fn queues(&self) -> Result<Vec<QueueRecord>, StoreError> {
        (**self).queues().await
    }
    async fn quarantine(
        &self,
        after: Option<QuarantineKey>,
        limit: usize,
    ) -> Result<Vec<QuarantineRow>, StoreError> {
        (**self).quarantine(after, limit).await
    }
    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        (**self).snapshot().await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: Store + ?Sized> Store for Arc<S> {
    async fn prepare(&self, layout: Layout) -> Result<(), StoreError> {
        (**self).prepare(layout).await
    }
    async fn register_poll(&self, poll: &Poll) -> Result<RegisteredPoll, StoreError> {
        (**self).register_poll(poll).await
    }
    async fn catalog(&self) -> Result<Catalog, StoreError> {
        (**self).catalog().await
    }
    async fn close_poll(&self, poll: PollSlug) -> Result<Option<RegisteredPoll>, StoreError> {
        (**self).close_poll(poll).await
    }
    async fn close_due_polls(&self, grace: Duration, now: Timestamp) -> Result<Vec<PollSlug>, StoreError> {
        (**self).close_due_polls(grace, now).await
    }
    async fn reschedule_poll(
        &self,
        poll: PollSlug,
        closes_at: Option<Timestamp>,
        reason: &str,
    ) -> Result<Option<RegisteredPoll>, StoreError> {
        (**self).reschedule_poll(poll, closes_at, reason).await
    }
    async fn note_seal(&self, seal: &SealRecord) -> Result<SealRecord, StoreError> {
        (**self).note_seal(seal).await
    }
    async fn finish_poll(&self, poll: PollSlug) -> Result<bool, StoreError> {
        (**self).finish_poll(poll).await
    }
    async fn beat(&self, worker: &WorkerRecord) -> Result<(), StoreError> {
        (**self).beat(worker).await
    }
    async fn report(&self, queues: &[QueueRecord]) -> Result<(), StoreError> {
        (**self).report(queues).await
    }
    async fn retire(&self, queue: QueueId, reason: &str) -> Result<bool, StoreError> {
        (**self).retire(queue, reason).await
    }
    async fn decide(&self, frames: &[QuarantineKey], decision: &Decision) -> Result<u64, StoreError> {
        (**self).decide(frames, decision).await
    }
    async fn check(&self) -> Result<Vec<String>, StoreError> {
        (**self).check().await
    }
    async fn open_lane(&self) -> Result<Box<dyn Lane>, StoreError> {
        (**self).open_lane().await
    }
}

impl From<&Poll> for RegisteredPoll {
    fn from(poll: &Poll) -> Self {
        Self {
            slug: poll.slug,
            options: poll.options.iter().map(|option| option.slug).collect(),
            keep: poll.keep,
            voters: poll.voters,
            results: poll.results,
            closes_at: poll.closes_at,
            reschedules: Vec::new(),
            closed_at: None,
            final_at: None,
        }
    }
}

/// Why a poll's closing time can't be moved.
fn is_closed(poll: PollSlug) -> StoreError {
    StoreError::Conflict(format!("poll {poll} is closed: its closing time can't be moved any more"))
}

/// The layout that stands in a store against the one that is asked for.
fn same_layout(stands: Layout, asked: Layout) -> Result<(), StoreError> {
    if stands.partitions != asked.partitions {
        return Err(StoreError::Layout(format!(
            "the store has {} partitions, VOTE_PARTITIONS says {}: the number can't be changed, say {}",
            stands.partitions, asked.partitions, stands.partitions
        )));
    }
    if stands.fingerprint != asked.fingerprint {
        return Err(StoreError::Layout(format!(
            "the store was filled with another pepper (fingerprint {}, VOTE_PEPPER has {}): with a new one everybody \
             could vote again; use the old one, or a new database for new polls",
            stands.fingerprint, asked.fingerprint
        )));
    }
    Ok(())
}
