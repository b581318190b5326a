//! Actions of an operator, each like a command of `vote-worker`.

use std::time::Duration;

use vote_core::{
    PollSlug, QueueId, Store, StoreReader,
    count::{
        Accounts, Decision, QuarantineRow, QueueRecord, QueueState, RetirementObstacle, audit,
        retirement_obstacle,
    },
};

use crate::{server::at_once, truth::Truth, world::World};

/// Returns the store's accounts of this moment.
pub(crate) fn accounts(world: &World) -> Result<Accounts, String> {
    let mut snapshot = at_once(world.database.store.snapshot()).map_err(|e| e.to_string())?;
    at_once(snapshot.accounts(true)).map_err(|e| e.to_string())
}

/// Closes a poll, like `polls close`.
pub(crate) fn close(world: &World, truth: &mut Truth, poll: &str) {
    let Ok(poll) = poll.parse::<PollSlug>() else { return };
    if world.database.is_up() && matches!(at_once(world.database.store.close_poll(poll)), Ok(Some(_))) {
        truth.closed_by_hand(poll);
    }
}

/// Moves the closing time of the poll that has one, like `polls reschedule`.
pub(crate) fn reschedule(world: &World, later_by: Duration) {
    let Some(poll) = world.files.full.get("colours") else { return };
    let to = poll.closes_at.map(|at| at.saturating_add(later_by.as_micros() as i64));
    if world.database.is_up() {
        // The store refuses it once the poll is closed.
        drop(at_once(world.database.store.reschedule_poll(poll.slug, to, RESCHEDULED)));
    }
}

/// Withdraws the poll that was added, like `polls withdraw`. If the store accepts that, services are updated from then
/// on to a file with another definition of the poll.
pub(crate) fn withdraw(world: &World) {
    let Ok(poll) = "fruit".parse::<PollSlug>() else { return };
    if world.database.is_up()
        && let Ok(Some(_)) = at_once(world.database.store.withdraw_poll(poll, "a typo"))
    {
        world.correct();
    }
}

/// Reason that the operator gives for a rescheduling.
pub(crate) const RESCHEDULED: &str = "the advertisement was delayed";

/// Retires the queues that are not heard from, and each diverged queue that can be retired.
///
/// Follows the command's advice: what keeps a diverged queue from being retired, because it is gone unread, is retired
/// first.
pub(crate) fn retire(world: &World, accounts: &Accounts) -> Result<(), String> {
    let gone = audit::not_heard_from(accounts);
    let by_id = |id: QueueId| accounts.queues.iter().find(|queue| queue.id == id);
    let can_be_retired = |queue: &&QueueRecord| retirement_obstacle(accounts, queue).is_none();
    let retired = accounts.queues.iter().filter_map(|queue| match queue.state {
        QueueState::Active => gone.contains(&queue.id).then_some(queue),
        QueueState::Diverged => match retirement_obstacle(accounts, queue) {
            Some(RetirementObstacle::Unread { replaced }) => by_id(replaced).filter(can_be_retired),
            Some(_) => None,
            None => Some(queue),
        },
        QueueState::Retired => None,
    });
    for queue in retired {
        let reason = "the simulation lost its data";
        at_once(world.database.store.retire(queue.id, reason)).map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// Retires queues as [`retire`] does, but while faults are active; records that votes in them may be lost by that.
pub(crate) fn retire_lost(world: &World, truth: &mut Truth) {
    let Ok(before) = accounts(world) else { return };
    if world.database.is_up() && retire(world, &before).is_ok() {
        let is_retired = |queue: &&QueueRecord| queue.state == QueueState::Retired;
        let after = accounts(world).map(|accounts| accounts.queues).unwrap_or_default();
        after.iter().filter(is_retired).for_each(|queue| truth.was_retired(queue.id));
    }
}

/// Decides on everything in quarantine, like `quarantine reject` or `quarantine replay`.
///
/// Most of it arrived after its poll was final: votes that were counted before and are read again from a replaced
/// queue, and votes that a queue accepted after it had lost its seal.
pub(crate) fn decide(world: &World, decision: &Decision) {
    let store = &world.database.store;
    let rows = at_once(store.quarantine(None, usize::MAX)).unwrap_or_default();
    let pending: Vec<_> = rows.iter().filter(|row| row.state.is_pending()).map(QuarantineRow::key).collect();
    if world.database.is_up() {
        // A store in memory does not fail.
        drop(at_once(store.decide(&pending, decision)));
    }
}

/// Returns the decision that quarantined votes stay uncounted.
pub(crate) fn reject() -> Decision {
    Decision::Reject("the poll was final".to_owned())
}
