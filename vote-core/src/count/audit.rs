//! Audit: whether every accepted vote is accounted for, and whether a poll's count is complete.
//!
//! Pure: it compares the [`Accounts`] of one moment, so its verdict is the same under full load as at rest.
//!
//! For every queue and poll, in every snapshot of a store:
//!
//! ```text
//! accepted = new voters + superseded + quarantined
//! Σ new voters, including those of replaced queues = Σ tally = rows of votes
//! ```
//!
//! Votes that were accepted and not read yet are not part of these invariants. Workers count them from the entries in
//! the queue, never as a difference: a lost vote would hide in a difference forever.

use std::collections::BTreeSet;

use crate::{
    PollSlug, QueueId,
    count::{Accounts, QueueRecord, QueueState},
};

mod finality;
mod finding;
mod found;
mod poll;
mod residual;
mod view;

pub use finality::{obstacles, obstacles_in};
pub use finding::Finding;
pub use found::{Audit, Figures, PollAudit, PollStage, QueueAudit, Verdict};
pub use residual::{Residual, residuals};

use finality::all_obstacles;
use poll::Poll;
use view::{Rows, View};

/// Time without a report after which a queue counts as not heard from.
///
/// Workers report every 2 s, so the number of queued votes in an audit may be that old or older.
pub const NOT_HEARD_FROM_AFTER: std::time::Duration = std::time::Duration::from_secs(10);

/// Audits a store, or one poll of it, as of the time of the accounts by the store's clock.
#[must_use]
pub fn audit(accounts: &Accounts, only: Option<PollSlug>) -> Audit {
    let view = View::new(accounts);
    let rows = Rows::by_poll(accounts, only.as_ref().map(PollSlug::as_str));
    let (mut problems, mut outstanding, mut polls) = (Vec::new(), Vec::new(), Vec::new());
    let nothing = Rows::default();
    for name in view::names(&view, &rows, only) {
        let poll = Poll::new(&view, &name, rows.get(name.as_str()).unwrap_or(&nothing));
        poll.check(&mut problems);
        let figures = poll.figures();
        match (figures.state, name.parse()) {
            (PollStage::Closed, Ok(slug)) => outstanding.extend(all_obstacles(&poll, slug)),
            _ => outstanding.extend(poll.quarantine_pending()),
        }
        polls.push(figures);
    }
    check_queues(&view, only, &mut problems, &mut outstanding);
    // A problem of a queue is listed once, however many polls it affects.
    let mut listed = BTreeSet::new();
    problems.retain(|finding| listed.insert(finding.clone()));
    // What keeps a closed poll from being final may be listed as a problem already.
    outstanding.retain(|finding| listed.insert(finding.clone()));
    let verdict = match (problems.is_empty(), outstanding.is_empty()) {
        (false, _) => Verdict::Broken,
        (true, false) => Verdict::NotDrained,
        (true, true) => Verdict::Holds,
    };
    Audit { taken_at: accounts.taken_at, verdict, problems, outstanding, polls }
}

/// Returns the queues, including replaced queues, from which votes may still come and that no worker reported for
/// [`NOT_HEARD_FROM_AFTER`].
#[must_use]
pub fn not_heard_from(accounts: &Accounts) -> Vec<QueueId> {
    let view = View::new(accounts);
    let is_missed = |queue: &&QueueRecord| {
        let is_done = queue.original_id.is_some() && accounts.is_read_to_the_end(queue);
        !queue.state.is_ended() && view.is_late(queue) && !is_done && view.may_yield_votes(queue, None)
    };
    accounts.queues.iter().filter(is_missed).map(|queue| queue.id).collect()
}

/// Adds what may still come from queues to `outstanding`, and diverged queues to `problems`.
fn check_queues(
    view: &View<'_>,
    only: Option<PollSlug>,
    problems: &mut Vec<Finding>,
    outstanding: &mut Vec<Finding>,
) {
    for queue in &view.accounts.queues {
        if queue.state == QueueState::Retired || !view.may_yield_votes(queue, only) {
            continue;
        }
        let (id, address) = (queue.id, || queue.address.clone());
        let queued = queue.queued.values().sum();
        let late = view.is_late(queue);
        let drained = view.accounts.is_read_to_the_end(queue);
        match queue.original_id {
            None if queue.state == QueueState::Diverged => problems.push(Finding::diverged(queue)),
            Some(_) if drained => {}
            _ if late => outstanding.push(Finding::NotHeardFrom {
                queue: id,
                address: address(),
                seen_at: queue.seen_at,
                accepted: queue.votes_accepted(),
                queued,
            }),
            Some(original_id) => {
                outstanding.push(Finding::BeingReread { queue: id, original_id, address: address() });
            }
            None if !drained => outstanding.push(Finding::Queued {
                queue: id,
                address: address(),
                votes: queued,
                complete: queue.queued_complete,
            }),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests;
