//! The store: effective ballots, tally, ledger and read positions. One transaction moves all of them for a partition.
//!
//! The store does not decide which ballot is effective. A [session](Session) acquires a partition, looks up the
//! effective ballots, makes a plan with [`Batch`](crate::count::Batch), and hands the store a
//! [`CommitPlan`](crate::count::CommitPlan), which is applied as a whole or not at all.

use std::{collections::BTreeMap, fmt, time::Duration};

use async_trait::async_trait;

use crate::{
    DurabilityProblem, Partition, Poll, PollSlug, Position, QueueId, Timestamp, VoterKey,
    count::{Ballot, Decision, QuarantineKey, QuarantineRow, QueueRecord, RegisteredPoll, SealRecord},
    queue::Layout,
};

mod catalog;
mod error;
mod layer;
pub mod memory;
#[cfg(feature = "postgres")]
pub mod postgres;
mod session;
mod snapshot;
#[cfg(feature = "sqlite")]
pub mod sqlite;
mod withdrawal;

pub use crate::worker::WorkerId;
pub use catalog::{Catalog, CatalogQueue, LATE_AFTER, MAX_CLOCK_DIFFERENCE, WORKER_LIVES_FOR, WorkerRecord};
pub use error::StoreError;
pub use layer::{SessionLayer, StoreLayer, StoreReaderLayer};
pub use memory::MemoryStore;
#[cfg(feature = "postgres")]
pub use postgres::PostgresStore;
pub use session::{Acquired, Lookup, Session};
pub use snapshot::Snapshot;
#[cfg(feature = "sqlite")]
pub use sqlite::{SqliteReader, SqliteStore};

use error::{is_closed, no_option, not_prepared, not_registered, same_layout};

/// Read access to the store, for the results service and for audits.
///
/// Every method keeps these rules, unless its own documentation says otherwise:
///
/// - **Result.** `Ok` reflects what was committed before the call; on a standby of a database, what has reached it. Two
///   calls may see different moments: read what must belong together from one [snapshot](Self::snapshot).
/// - **Cancellation and repetition.** Nothing is changed, so a future may be dropped and a call repeated at any time.
/// - **Time.** A call fails after a time limit of the implementation, even if the server never answers.
///
/// # Errors
/// Every method may fail with
/// - [`StoreError::NotPrepared`] or [`StoreError::OlderVersion`] if no worker of this version has prepared the store
///   yet: start one,
/// - [`StoreError::Damaged`] if it holds a value that this version can't read: an operator has to act,
/// - [`StoreError::Unavailable`] if the store is not reachable, does not answer in time, or fails: try again later.
#[async_trait]
pub trait StoreReader: Send + Sync + fmt::Debug {
    /// Returns the layout that the store was made for; `None` before [`Store::prepare`].
    ///
    /// Cost: one row.
    ///
    /// # Errors
    /// Those of [all methods](StoreReader#errors).
    async fn layout(&self) -> Result<Option<Layout>, StoreError>;

    /// Returns all registered polls in the order of registration, open, withdrawn, closed and final ones.
    ///
    /// Cost: grows with the number of polls ever registered and of their options.
    ///
    /// # Errors
    /// Those of [all methods](StoreReader#errors).
    async fn polls(&self) -> Result<Vec<RegisteredPoll>, StoreError>;

    /// Returns the effective ballot of a voter; `None` if the voter has none or the poll is not registered.
    ///
    /// Cost: one row, found by its key.
    ///
    /// # Errors
    /// Those of [all methods](StoreReader#errors).
    async fn ballot(&self, poll: PollSlug, voter: VoterKey) -> Result<Option<Ballot>, StoreError>;

    /// Returns the position up to which a partition of a queue was read and committed; [`Position::START`] if nothing
    /// was.
    ///
    /// Cost: one row, found by its key.
    ///
    /// # Errors
    /// Those of [all methods](StoreReader#errors).
    async fn position(&self, queue: QueueId, partition: Partition) -> Result<Position, StoreError>;

    /// Returns the frame at a position if votes of it are quarantined, [rejected](Decision::Reject) ones included;
    /// `None` if all of its votes are counted, or it was not read.
    ///
    /// [`QuarantineRow::holds`] tells whether one particular vote of the frame is quarantined.
    ///
    /// Cost: one row with the bytes of the frame, found by its key.
    ///
    /// # Errors
    /// Those of [all methods](StoreReader#errors).
    async fn quarantined(
        &self,
        queue: QueueId,
        partition: Partition,
        position: Position,
    ) -> Result<Option<QuarantineRow>, StoreError>;

    /// Returns the positions up to which each partition of these queues was read and committed, as of one moment,
    /// without partitions in which nothing was.
    ///
    /// Cost: one row for each of the queues and each partition.
    ///
    /// # Errors
    /// Those of [all methods](StoreReader#errors).
    async fn positions(
        &self,
        queues: &[QueueId],
    ) -> Result<BTreeMap<(QueueId, Partition), Position>, StoreError>;

    /// Returns the positions up to which these partitions of each queue were read and committed, as of one moment. Read
    /// from a standby of a database, they tell which commits the standby has.
    ///
    /// Cost: one row for each queue and each of the partitions.
    ///
    /// # Errors
    /// Those of [all methods](StoreReader#errors).
    async fn positions_in(
        &self,
        partitions: &[Partition],
    ) -> Result<BTreeMap<(QueueId, Partition), Position>, StoreError>;

    /// Returns what was last reported of a queue, or of a [replaced](QueueRecord::original_id) one; `None` if it was
    /// never reported.
    ///
    /// Cost: one row, with its counts by poll and its end in each partition.
    ///
    /// # Errors
    /// Those of [all methods](StoreReader#errors).
    async fn queue(&self, queue: QueueId) -> Result<Option<QueueRecord>, StoreError>;

    /// Returns all queues ever reported, in the order of their identities, diverged, retired and
    /// [replaced](QueueRecord::original_id) ones included.
    ///
    /// Cost: one row for each queue, with its counts by poll and its end in each partition.
    ///
    /// # Errors
    /// Those of [all methods](StoreReader#errors).
    async fn queues(&self) -> Result<Vec<QueueRecord>, StoreError>;

    /// Returns up to `limit` frames with votes that are or were quarantined, in the order of their keys: those after
    /// `after`, or the first ones if it is `None`.
    ///
    /// Frames whose votes were counted later are among them. An empty page is the end.
    ///
    /// Cost: the rows of the page, with the bytes of the frames.
    ///
    /// # Errors
    /// Those of [all methods](StoreReader#errors).
    async fn quarantine(
        &self,
        after: Option<QuarantineKey>,
        limit: usize,
    ) -> Result<Vec<QuarantineRow>, StoreError>;

    /// Opens a view of the store as of one moment, for audits and certificates.
    ///
    /// Cost: on most stores a transaction, on a connection of its own, until the view is dropped.
    ///
    /// # Errors
    /// Those of [all methods](StoreReader#errors).
    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError>;
}

/// Write access to the store, for workers and operators.
///
/// Every method keeps these rules, unless its own documentation says otherwise:
///
/// - **Result.** `Ok` means that the change is on disk. It survives a loss of power if the store has no
///   [durability problems](Self::durability_problems).
/// - **Idempotence.** A repeated call changes nothing more and returns the same.
/// - **Cancellation.** After [`StoreError::Unavailable`] or a dropped future the change may have been made or not, and
///   of several records any number. Call again: the repeated call completes the change.
/// - **Concurrency.** Any number of workers and operators may call at once.
/// - **Cost.** One short transaction that touches a few rows.
///
/// # Errors
/// Every method may fail with
/// - [`StoreError::NotPrepared`] or [`StoreError::OlderVersion`] if no worker of this version has prepared the store
///   yet: start one,
/// - [`StoreError::Damaged`] if it holds a value that this version can't read: an operator has to act,
/// - [`StoreError::Unavailable`] if the store is not reachable, does not answer in time, or fails: try again later.
///
/// After any other error nothing was changed.
#[async_trait]
pub trait Store: StoreReader {
    /// Records the layout if the store has none yet, and creates its partitions. A recorded layout is never changed.
    ///
    /// `Ok` means that the store has exactly this layout, and all of its partitions. Each worker calls it at its start.
    ///
    /// # Errors
    /// - [`StoreError::Layout`] if the store has another number of partitions or another pepper: correct the settings.
    /// - Those of [all methods](Store#errors).
    async fn prepare(&self, layout: Layout) -> Result<(), StoreError>;

    /// Returns what workers act on: polls, queues, seals and workers, read in the order that [`Catalog`] promises.
    ///
    /// `known` is the catalog that the caller read last, from this store. The parts that have not changed since are
    /// taken from it.
    ///
    /// Changes nothing. Cost: a row for each live worker, each late queue, and each queue with a seal of a poll that is
    /// closed and not final; without `known`, or if the [version](Catalog::version) has changed, also for each poll and
    /// queue. Each worker calls it about once a second.
    ///
    /// # Errors
    /// Those of [all methods](Store#errors).
    async fn catalog(&self, known: Option<&Catalog>) -> Result<Catalog, StoreError>;

    /// Registers a poll, and returns the poll that the store has under its name then.
    ///
    /// - A poll that is already registered stays as it is: compare the result with the poll by
    ///   [`RegisteredPoll::difference`].
    /// - A [withdrawn](Self::withdraw_poll) poll is replaced once every queue has [dropped it](Self::record_dropped),
    ///   retired queues aside, and if no votes for it are known. The new definition must differ from it and from all
    ///   [earlier](RegisteredPoll::earlier) ones. A call that is interrupted may leave the name without a poll, until
    ///   the next registration.
    /// - A replacement raises the version of every partition. So a plan that was made by the withdrawn definition, and
    ///   might count or quarantine votes for the new one by the old options and the old [`keep`](Poll::keep), fails
    ///   with [`StoreError::StaleVersion`].
    ///
    /// # Errors
    /// - [`StoreError::Conflict`] if this definition was withdrawn, and its name is just about to get another one: read
    ///   the polls again.
    /// - Those of [all methods](Store#errors).
    async fn register_poll(&self, poll: &Poll) -> Result<RegisteredPoll, StoreError>;

    /// Closes a poll now, by the store's clock, and returns the poll as it is then; `None` if there is no such poll.
    ///
    /// A poll that is already closed keeps its first time. A withdrawn poll is not closed.
    ///
    /// # Errors
    /// Those of [all methods](Store#errors).
    async fn close_poll(&self, poll: PollSlug) -> Result<Option<RegisteredPoll>, StoreError>;

    /// Closes the polls whose closing time is at least `grace` ago by the store's clock, and returns those that this
    /// call has closed. Withdrawn polls are not closed.
    ///
    /// `now` is the caller's clock. If it differs from the store's by more than [`MAX_CLOCK_DIFFERENCE`], one of the
    /// two is wrong, the store can't tell which, and nothing is closed.
    ///
    /// A repeated call does not return the polls again that an interrupted one has closed: read them from
    /// [`polls`](StoreReader::polls).
    ///
    /// # Errors
    /// Those of [all methods](Store#errors).
    async fn close_due_polls(&self, grace: Duration, now: Timestamp) -> Result<Vec<PollSlug>, StoreError>;

    /// Moves the closing time of a poll, or removes it, and returns the poll as it is then; `None` if there is no such
    /// poll.
    ///
    /// Not idempotent: each call adds to the poll's [reschedules](RegisteredPoll::reschedules). After
    /// [`StoreError::Unavailable`] or a dropped future look there whether the call took effect.
    ///
    /// # Errors
    /// - [`StoreError::Conflict`] if the poll is closed.
    /// - Those of [all methods](Store#errors).
    async fn reschedule_poll(
        &self,
        poll: PollSlug,
        closes_at: Option<Timestamp>,
        reason: &str,
    ) -> Result<Option<RegisteredPoll>, StoreError>;

    /// Withdraws a poll without votes, so that its name can be registered with another definition; returns the poll as
    /// it is then, `None` if there is no such poll.
    ///
    /// - A poll that is already withdrawn keeps its first time and reason.
    /// - Queues may accept votes for it until they have [dropped it](Self::record_dropped). If a queue turns out
    ///   to have votes for it, the worker undoes the withdrawal by [`undo_withdrawal`](Self::undo_withdrawal).
    /// - The [time](crate::count::Withdrawal::at) of the withdrawal is later than that of the one that was
    ///   [undone](RegisteredPoll::undone_withdrawal) before, even if the store's clock was set back since.
    ///
    /// # Errors
    /// - [`StoreError::Conflict`] if the poll is closed, or if votes for it were reported or read.
    /// - Those of [all methods](Store#errors).
    async fn withdraw_poll(&self, poll: PollSlug, reason: &str)
    -> Result<Option<RegisteredPoll>, StoreError>;

    /// Undoes the withdrawal of a poll, because a queue has votes for it.
    ///
    /// `withdrawn_at` is the [time](crate::count::Withdrawal::at) of that withdrawal. If the poll is not withdrawn, or
    /// was withdrawn at another time, nothing is changed: so a late call can't undo a newer withdrawal. Otherwise the
    /// time becomes the poll's [`undone_withdrawal`](RegisteredPoll::undone_withdrawal), by which queues that have
    /// dropped the poll record it again. It stays there until the poll is withdrawn and replaced.
    ///
    /// # Errors
    /// Those of [all methods](Store#errors).
    async fn undo_withdrawal(&self, poll: PollSlug, withdrawn_at: Timestamp) -> Result<(), StoreError>;

    /// Records that a queue no longer accepts votes for a withdrawn poll.
    ///
    /// `withdrawn_at` is the [time](crate::count::Withdrawal::at) of that withdrawal. The record counts for no other
    /// withdrawal of the poll.
    ///
    /// # Errors
    /// Those of [all methods](Store#errors).
    async fn record_dropped(
        &self,
        queue: QueueId,
        poll: PollSlug,
        withdrawn_at: Timestamp,
    ) -> Result<(), StoreError>;

    /// Records the [seal](crate::Queue::seal) of a poll in a queue, and returns the seal on record: for each partition
    /// the highest position and the highest count ever recorded.
    ///
    /// Calls may come in any order, from several workers. One that raises a recorded count also raises the
    /// [revision](Catalog::revision), in the same transaction.
    ///
    /// Cost: one row for each partition.
    ///
    /// # Errors
    /// Those of [all methods](Store#errors).
    async fn record_seal(&self, seal: &SealRecord) -> Result<SealRecord, StoreError>;

    /// Makes a closed poll final if every partition is [complete](Session::complete) up to the store's current
    /// [revision](Catalog::revision); returns whether the poll is final then.
    ///
    /// Never undone. False if the poll is open, or not registered.
    ///
    /// # Errors
    /// Those of [all methods](Store#errors).
    async fn finalize_poll(&self, poll: PollSlug) -> Result<bool, StoreError>;

    /// Records what a worker saw of queues.
    ///
    /// - Reports of one queue may come in any order, from several workers: [`QueueRecord::merged`] defines the outcome.
    /// - A queue that is new, or has diverged, raises the [revision](Catalog::revision) in the same transaction.
    /// - Each queue is recorded as a whole; an interrupted call may have recorded some queues and not the others.
    ///
    /// Cost: one row for each queue. Each queue is reported by one worker, every 2 s.
    ///
    /// # Errors
    /// Those of [all methods](Store#errors).
    async fn report(&self, queues: &[QueueRecord]) -> Result<(), StoreError>;

    /// Records that a worker is alive, at the time of the store's clock. A worker that has not called for
    /// [`WORKER_LIVES_FOR`] is left out of the [catalog](Self::catalog).
    ///
    /// A time in the future shows that the clock was set back. Workers last seen in the future are removed, and queues
    /// last seen in the future count as last seen a minute ago: otherwise both would pass for just seen once the clock
    /// reaches that time. If a worker was last seen in the future, the age of no report is known, and all queues count
    /// as last seen a minute ago.
    ///
    /// # Errors
    /// Those of [all methods](Store#errors).
    async fn heartbeat(&self, worker: &WorkerRecord) -> Result<(), StoreError>;

    /// Retires a queue for good: an operator accepts that votes in it may be lost, and no poll waits for it any longer.
    /// Returns false if there is no such queue.
    ///
    /// - A queue that is already retired keeps its first reason.
    /// - Not checked: whether votes may be lost by it. See [`retirement_obstacle`](crate::count::retirement_obstacle).
    ///
    /// # Errors
    /// Those of [all methods](Store#errors).
    async fn retire(&self, queue: QueueId, reason: &str) -> Result<bool, StoreError>;

    /// Records what is to become of the quarantined votes of these frames, and returns the number of frames that were
    /// [pending](crate::count::QuarantineState::is_pending).
    ///
    /// Frames whose votes were counted or rejected stay as they are. So a repeated [`Decision::Reject`] returns 0; a
    /// repeated [`Decision::Replay`] counts a frame again until its votes are counted.
    ///
    /// Cost: one row for each frame.
    ///
    /// # Errors
    /// Those of [all methods](Store#errors).
    async fn decide(&self, frames: &[QuarantineKey], decision: &Decision) -> Result<u64, StoreError>;

    /// Returns what keeps commits from being durable; an empty list if a commit survives a loss of power.
    ///
    /// Changes nothing.
    ///
    /// # Errors
    /// Those of [all methods](Store#errors).
    async fn durability_problems(&self) -> Result<Vec<DurabilityProblem>, StoreError>;

    /// Opens a new session, which lives until it is dropped.
    ///
    /// Cost: a connection, on a database server.
    ///
    /// # Errors
    /// - [`StoreError::NotPrepared`] also if the store was not [prepared](Self::prepare) yet.
    /// - [`StoreError::InUse`] if the store allows sessions in one process only, and another process has some.
    /// - Those of [all methods](Store#errors).
    async fn open_session(&self) -> Result<Box<dyn Session>, StoreError>;
}
