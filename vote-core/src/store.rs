//! The store: standing votes, tally, ledger and read positions, all of a partition moved by one transaction.
//!
//! The store does not decide which vote stands. A [lane](Lane) acquires a partition, looks up what stands, plans with
//! [`Batch`](crate::dedup::Batch), and hands the store a [`CommitPlan`] that is applied as a whole or not at all.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    Keep, OptionSlug, Partition, Poll, PollSlug, Position, QueueId, Timestamp, VoterKey,
    poll::Voters,
    queue::{Counters, Layout},
};

pub mod memory;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "sqlite")]
pub mod sqlite;

pub use memory::MemoryStore;
#[cfg(feature = "postgres")]
pub use postgres::PostgresStore;
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

/// A poll as the store knows it. Options, `keep` and `voters` never change.
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
    /// When it stops taking votes, if that was said.
    pub closes_at: Option<Timestamp>,
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

impl Default for Position {
    fn default() -> Self {
        Self::START
    }
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
    /// What could not be counted.
    pub quarantine: Vec<QuarantinedFrame>,
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
    /// Votes of frames that were set aside.
    pub quarantined: u64,
}

/// A frame that could not be counted, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantinedFrame {
    /// Where it was read.
    pub queue: QueueId,
    /// Where it stood.
    pub position: Position,
    /// The poll it was accounted under.
    pub poll: String,
    /// The number of votes it was accounted as.
    pub votes: u64,
    /// Why.
    pub reason: String,
    /// The bytes.
    pub frame: Bytes,
}

/// A row of the ledger: everything ever read from one partition of one queue for one poll.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerRow {
    /// The partition.
    pub partition: Partition,
    /// The totals. They hold `accepted = new_voters + superseded + quarantined`, or votes were lost.
    pub entry: LedgerEntry,
}

/// Whether a queue is what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueState {
    /// Read and booked.
    Active,
    /// Lost or rolled back data: nothing more is booked. It stays so.
    Cut,
}

/// What workers last saw of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueRecord {
    /// Which.
    pub id: QueueId,
    /// Where it was last seen.
    pub address: String,
    /// When.
    pub seen_at: Timestamp,
    /// Votes it said to have accepted.
    pub accepted: u64,
    /// Entries it held beyond the one that stays in each partition, as of that moment: those not yet committed, and
    /// those committed but not yet trimmed. A measure of the work left, not of votes.
    pub backlog: u64,
    /// What it is.
    pub state: QueueState,
}

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Nothing was committed: the partition has another version than the plan names, since another lane committed
    /// meanwhile. Acquire it again.
    #[error("partition {0} was committed to by another lane")]
    StaleVersion(Partition),
    /// Nothing was committed: a row was there that the plan did not expect, or not there that it did. Plan again
    /// with [`Lookup::Exhaustive`]; if it comes back, it is a bug.
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
    /// Why the frame at that place was set aside, if it was.
    async fn quarantined(
        &self,
        queue: QueueId,
        partition: Partition,
        position: Position,
    ) -> Result<Option<String>, StoreError>;
    /// The ledger, in one snapshot.
    async fn ledger(&self) -> Result<Vec<LedgerRow>, StoreError>;
    /// All queues ever reported.
    async fn queues(&self) -> Result<Vec<QueueRecord>, StoreError>;
}

/// What a worker needs beside.
#[async_trait]
pub trait Store: StoreReader {
    /// Writes the layout if the store has none, and makes its partitions. What is there wins.
    ///
    /// # Errors
    /// [`StoreError::Layout`] if it has another, [`StoreError::NotPrepared`] if it lacks its tables.
    async fn prepare(&self, layout: Layout) -> Result<(), StoreError>;
    /// Registers a poll if the store has none of that name; returns what it has then. `closes_at` follows the file.
    async fn register_poll(&self, poll: &Poll) -> Result<RegisteredPoll, StoreError>;
    /// Notes what was seen of queues, on disk when it returns. Reports of one queue may come in any order from
    /// several workers: the one with the latest `seen_at` stands, but [`QueueState::Cut`] is for good.
    async fn report(&self, queues: &[QueueRecord]) -> Result<(), StoreError>;
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
    /// How many lanes there are on this store, this one included; also a sign of life, to be given every 2 s.
    async fn live_lanes(&mut self) -> Result<u32, StoreError>;
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
    /// Applies a plan, on disk when it returns.
    async fn commit(&mut self, plan: &CommitPlan) -> Result<(), StoreError>;
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
    ) -> Result<Option<String>, StoreError> {
        (**self).quarantined(queue, partition, position).await
    }
    async fn ledger(&self) -> Result<Vec<LedgerRow>, StoreError> {
        (**self).ledger().await
    }
    async fn queues(&self) -> Result<Vec<QueueRecord>, StoreError> {
        (**self).queues().await
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
    async fn report(&self, queues: &[QueueRecord]) -> Result<(), StoreError> {
        (**self).report(queues).await
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
            closes_at: poll.closes_at,
        }
    }
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
