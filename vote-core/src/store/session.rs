//! Sessions: a lane's sequence of commits.

use std::{collections::BTreeMap, fmt};

use async_trait::async_trait;

use super::StoreError;
use crate::{
    Partition, PollSlug, QueueId, VoterKey,
    count::{Ballot, Checkpoint, CommitPlan, QuarantinedFrame, audit::Finding},
};

/// State of a partition at the moment a [session](Session::acquire) acquired it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acquired {
    /// The partition's version, which the next commit must name.
    pub version: u64,
    /// Where reading goes on in each queue from which entries were committed.
    pub checkpoints: BTreeMap<QueueId, Checkpoint>,
}

/// How thoroughly [`Session::lookup`] searches for effective ballots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup {
    /// As fast as possible: the session may rule out a voter by what it holds in memory, without asking the database.
    Filtered,
    /// Asks the database for every voter. Use it after a [conflict](StoreError::Conflict).
    Exhaustive,
}

/// A sequence of commits by one lane, with the partitions it owns; on Postgres, a connection.
///
/// Ownership only saves work: it keeps two lanes from planning the same commit. What keeps votes safe is the version of
/// the partition, so a session that has lost a partition without noticing does no harm.
///
/// Every method keeps these rules, unless its own documentation says otherwise:
///
/// - **End.** After any error, and after a dropped future, the session is broken: drop it, open another one, and
///   acquire again. Dropping a session frees its partitions, on a database server as soon as that notices.
/// - **Idempotence.** A method that does not commit can be repeated.
/// - **Time.** A call fails after a time limit of the implementation, even if the server never answers.
///
/// # Errors
/// Every method may fail with
/// - [`StoreError::NotPrepared`] or [`StoreError::OlderVersion`] if no worker of this version has prepared the store
///   yet: start one,
/// - [`StoreError::Damaged`] if it holds a value that this version can't read: an operator has to act,
/// - [`StoreError::UnknownPartition`] if the store has no such partition,
/// - [`StoreError::Unavailable`] if the store is not reachable, does not answer in time, or fails, or if an earlier
///   error ended the session: open another one later.
#[async_trait]
pub trait Session: Send + fmt::Debug {
    /// Returns the partitions that no session owns, in ascending order.
    ///
    /// - A session on a server that ends idle sessions must call this at least every 2 s.
    /// - On such a server it also ends other sessions that make no progress any more, which frees their partitions.
    ///
    /// Cost: one row for each partition.
    ///
    /// # Errors
    /// Those of [all methods](Session#errors).
    async fn unowned(&mut self) -> Result<Vec<Partition>, StoreError>;

    /// Takes a partition, and returns its version and checkpoints; `None` if another session owns it.
    ///
    /// Acquiring a partition that this session already owns reads its state again.
    ///
    /// Cost: one row for each queue, and one for each queue and poll, that were ever read in the partition.
    ///
    /// # Errors
    /// Those of [all methods](Session#errors).
    async fn acquire(&mut self, partition: Partition) -> Result<Option<Acquired>, StoreError>;

    /// Releases a partition, so that another session can acquire it. Does nothing if this session does not own it.
    ///
    /// # Errors
    /// Those of [all methods](Session#errors).
    async fn release(&mut self, partition: Partition) -> Result<(), StoreError>;

    /// Returns the effective ballots of those voters that have one, in any order.
    ///
    /// The session must have acquired the partition, and the voters must be sorted and belong to it. Of other calls the
    /// result is not defined. A poll that is not registered has no ballots.
    ///
    /// Cost: with [`Lookup::Exhaustive`] one row for each voter, found by its key; with [`Lookup::Filtered`], once the
    /// session has scanned the partition, hardly more than one for each ballot that is found.
    ///
    /// # Errors
    /// Those of [all methods](Session#errors).
    async fn lookup(
        &mut self,
        partition: Partition,
        poll: PollSlug,
        voters: &[VoterKey],
        lookup: Lookup,
    ) -> Result<Vec<Ballot>, StoreError>;

    /// Returns up to `limit` frames of a partition whose quarantined votes are to be replayed: those for which an
    /// operator [decided](crate::Store::decide) so, and those that [await](crate::count::StoredReason::awaits_poll) a poll that is
    /// registered by now and not final.
    ///
    /// The session must have acquired the partition. A frame is returned again until a [commit](Self::commit) records
    /// what became of it.
    ///
    /// Cost: the rows returned, with the bytes of the frames.
    ///
    /// # Errors
    /// Those of [all methods](Session#errors).
    async fn replays(
        &mut self,
        partition: Partition,
        limit: usize,
    ) -> Result<Vec<QuarantinedFrame>, StoreError>;

    /// Applies a plan in one transaction, and raises the partition's version by one.
    ///
    /// - `Ok` means that all of it is on disk; [`StoreError::StaleVersion`] and [`StoreError::Conflict`] mean that
    ///   nothing was changed.
    /// - Idempotent by the version: a plan that was applied is refused as stale when it is committed again.
    /// - After [`StoreError::Unavailable`] or a dropped future the plan was applied as a whole or not at all. Open
    ///   another session and acquire the partition: its version tells which.
    ///
    /// Cost: one row for each ballot that changes, and a few for each queue and poll of the plan.
    ///
    /// # Errors
    /// - [`StoreError::StaleVersion`] if the partition has another version, or if the plan counts votes of a poll that
    ///   is final: acquire the partition again, and read the polls again.
    /// - [`StoreError::Conflict`] if the plan does not fit the rows of the store: see there.
    /// - Those of [all methods](Session#errors).
    async fn commit(&mut self, plan: &CommitPlan) -> Result<(), StoreError>;

    /// Records that a partition holds all votes of a closed poll that can still come, as of the store's current
    /// [revision](crate::store::Catalog::revision), unless an [obstacle](crate::count::audit::obstacles_in) is found; returns the
    /// obstacles.
    ///
    /// - An empty list means that the record is on disk, and that the partition's version was raised by one, as by a
    ///   commit. With obstacles nothing was changed.
    /// - The session must have acquired the partition.
    /// - After [`StoreError::Unavailable`] or a dropped future acquire the partition again. A second record does no
    ///   harm.
    ///
    /// Cost: a few rows for each queue, found by partition and poll.
    ///
    /// # Errors
    /// - [`StoreError::StaleVersion`] if the partition has another version: acquire it again.
    /// - Those of [all methods](Session#errors).
    async fn complete(
        &mut self,
        partition: Partition,
        version: u64,
        poll: PollSlug,
    ) -> Result<Vec<Finding>, StoreError>;
}
