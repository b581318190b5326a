//! A view of a store as of one moment.

use std::fmt;

use async_trait::async_trait;

use super::StoreError;
use crate::{
    PollSlug, VoterKey,
    count::{Accounts, Balances, Ballot, Summary},
};

/// A view of a store as of one moment: whatever is committed meanwhile, it stays the same.
///
/// Every method keeps these rules:
///
/// - **End.** On most stores the view holds a transaction, and a connection of its own, until it is dropped: drop it
///   soon. After any error, and after a dropped future, drop it and take another one.
/// - **Repetition.** Nothing is changed, and a repeated call returns the same.
/// - **Time.** A call fails after a time limit of the implementation, even if the server never answers.
///
/// # Errors
/// Every method may fail with
/// - [`StoreError::NotPrepared`] or [`StoreError::OlderVersion`] if no worker of this version has prepared the store
///   yet: start one,
/// - [`StoreError::Damaged`] if it holds a value that this version can't read: an operator has to act,
/// - [`StoreError::Unavailable`] if the store is not reachable, does not answer in time, or fails: try again later.
#[async_trait]
pub trait Snapshot: Send + fmt::Debug {
    /// Returns the accounts of the whole store; with `recount`, also the effective ballots
    /// [counted row by row](Accounts::rows).
    ///
    /// Cost: grows with the numbers of polls, queues and partitions. A recount reads every ballot: about 1 s for
    /// every ten million on Postgres, 5 s on SQLite.
    ///
    /// # Errors
    /// Those of [all methods](Snapshot#errors).
    async fn accounts(&mut self, recount: bool) -> Result<Accounts, StoreError>;

    /// Returns the [summary](Summary::of) of the accounts.
    ///
    /// Cost: by default, that of [`accounts`](Self::accounts). Stores in this crate read a row for each poll, option and
    /// queue, and more only of queues that no worker has reported lately.
    ///
    /// # Errors
    /// Those of [all methods](Snapshot#errors).
    async fn summary(&mut self) -> Result<Summary, StoreError> {
        Ok(Summary::of(&self.accounts(false).await?))
    }

    /// Returns the [balances](Balances::of) of the accounts.
    ///
    /// Cost: by default, that of [`accounts`](Self::accounts). On Postgres, the server reads all rows of the ledger and
    /// of the quarantine, and returns one for each poll.
    ///
    /// # Errors
    /// Those of [all methods](Snapshot#errors).
    async fn balances(&mut self) -> Result<Balances, StoreError> {
        Ok(Balances::of(&self.accounts(false).await?))
    }

    /// Returns up to `limit` effective ballots of a poll in the order of their voters: those after `after`, or the
    /// first ones if it is `None`.
    ///
    /// An empty page is the end. For a poll that is not registered the first page is empty.
    ///
    /// Cost: the rows of the page.
    ///
    /// # Errors
    /// Those of [all methods](Snapshot#errors).
    async fn ballots(
        &mut self,
        poll: PollSlug,
        after: Option<VoterKey>,
        limit: usize,
    ) -> Result<Vec<Ballot>, StoreError>;
}
