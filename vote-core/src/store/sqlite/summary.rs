//! Summary and balances of a SQLite store: made of those accounts on which they depend.

use super::{accounts, quarantine, queues, registered};
use crate::{
    Timestamp,
    count::{Accounts, Balances, QueueSummary, Summary},
    sqlite::{Failure, Transaction},
};

/// Reads the summary.
pub(super) async fn summary(tx: &mut Transaction<'_>, taken_at: Timestamp) -> Result<Summary, Failure> {
    let mut accounts = Accounts {
        taken_at,
        polls: registered::all(tx).await?,
        queues: queues::all(tx).await?,
        tally: accounts::tally(tx, None).await?,
        tally_changed_at: accounts::tally_changed_at(tx, None).await?,
        ..Accounts::default()
    };
    // What is still to be read decides only whether a queue that is late is not heard from.
    if accounts.queues.iter().any(|record| QueueSummary::from(record).is_late(taken_at)) {
        accounts.positions = accounts::positions(tx, None).await?;
        accounts.seals = accounts::seals(tx, None).await?;
    }
    Ok(Summary::of(&accounts))
}

/// Reads the balances.
pub(super) async fn balances(tx: &mut Transaction<'_>) -> Result<Balances, Failure> {
    Ok(Balances::of(&Accounts {
        polls: registered::all(tx).await?,
        queues: queues::all(tx).await?,
        ledger: accounts::ledger(tx, None).await?,
        seals: accounts::seals(tx, None).await?,
        tally: accounts::tally(tx, None).await?,
        quarantine: quarantine::totals(tx, None).await?,
        ..Accounts::default()
    }))
}
