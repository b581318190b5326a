//! Clauses about withdrawn polls, whose names get another definition.

use super::*;
use crate::{PollOption, count::EarlierDefinition, queue::Counters};

/// Returns the suite's poll with one more option.
fn corrected() -> Poll {
    let mut poll = pets(Keep::First);
    poll.options.push(PollOption { slug: "birds".parse().expect("a slug"), label: "Birds".to_owned() });
    poll
}

/// Withdraws the suite's poll; returns when that was.
async fn withdraw(store: &dyn Store) -> Timestamp {
    let withdrawn = store.withdraw_poll(poll(), "a typo").await.expect("an answer").expect("the poll");
    withdrawn.withdrawal.expect("it is withdrawn").at
}

/// Returns the suite's poll as it is in the catalog.
async fn known(store: &dyn Store) -> RegisteredPoll {
    let polls = store.catalog(None).await.expect("a catalog").polls;
    polls.iter().find(|known| known.slug == poll()).cloned().expect("the poll")
}

/// Returns a report of a queue without votes.
fn queue(n: i64, state: QueueState) -> QueueRecord {
    QueueRecord { id: queue_id(n as u8), accepted: Counters::new(), ..record(n, state) }
}

pub(super) async fn a_poll_with_votes_is_not_withdrawn(harness: &dyn StoreHarness) {
    let store = prepared(harness).await;
    let nowhere = store.withdraw_poll("nowhere".parse().expect("a slug"), "a typo").await;
    assert_eq!(nowhere.expect("an answer"), None, "there is no such poll");
    let votes = Counters::from([(poll().to_string(), 1)]);
    store.report(&[QueueRecord { accepted: votes, ..queue(1, QueueState::Active) }]).await.expect("a report");
    let result = store.withdraw_poll(poll(), "a typo").await;
    assert!(matches!(result, Err(StoreError::Conflict(_))), "a queue reported a vote: {result:?}");
    let store = prepared(harness).await;
    store.close_poll(poll()).await.expect("an answer");
    let result = store.withdraw_poll(poll(), "a typo").await;
    assert!(matches!(result, Err(StoreError::Conflict(_))), "it is closed: {result:?}");
    assert_eq!(known(&*store).await.withdrawal, None);
}

pub(super) async fn a_withdrawn_poll_is_replaced_once_every_queue_dropped_it(harness: &dyn StoreHarness) {
    let store = prepared(harness).await;
    let before = known(&*store).await;
    let queues = [queue(1, QueueState::Active), queue(2, QueueState::Retired)];
    store.report(&queues).await.expect("a report");
    let at = withdraw(&*store).await;
    assert_eq!(withdraw(&*store).await, at, "the first time is kept");
    let closed = store.close_poll(poll()).await.expect("an answer").expect("the poll");
    assert_eq!(closed.closed_at, None, "a withdrawn poll is not closed");
    store.record_dropped(queue_id(1), poll(), at).await.expect("a record");
    assert_eq!(
        store.catalog(None).await.expect("a catalog").dropped.as_ref(),
        &[(queue_id(1), poll())].into()
    );
    let again = store.register_poll(&pets(Keep::First)).await.expect("an answer");
    assert!(again.withdrawal.is_some(), "the same definition stays withdrawn");
    let registered = store.register_poll(&corrected()).await.expect("an answer");
    assert_eq!(registered.digest(), corrected().digest());
    assert_eq!((registered.withdrawal.clone(), registered.closed_at), (None, None));
    let EarlierDefinition { digest, withdrawal } = &registered.earlier[0];
    assert_eq!((*digest, withdrawal.at, withdrawal.reason.as_str()), (before.digest(), at, "a typo"));
    let store = harness.reopen(store).await;
    assert_eq!(known(&*store).await, registered);
    assert_eq!(store.polls().await.expect("polls").len(), 1, "an earlier definition is not a poll");
    assert_eq!(tally(&*store).await.len(), 3);
    let back = store.register_poll(&pets(Keep::First)).await.expect("an answer");
    assert_eq!(back, registered, "an earlier definition changes nothing");
    withdraw(&*store).await;
    let back = store.register_poll(&pets(Keep::First)).await.expect("an answer");
    assert_eq!(back.digest(), registered.digest(), "an earlier definition is never registered again");
}

pub(super) async fn a_withdrawn_poll_waits_for_every_queue(harness: &dyn StoreHarness) {
    let store = prepared(harness).await;
    store.report(&[queue(1, QueueState::Active), queue(2, QueueState::Active)]).await.expect("a report");
    let at = withdraw(&*store).await;
    for n in [1, 2] {
        let found = store.register_poll(&corrected()).await.expect("an answer");
        assert!(found.withdrawal.is_some(), "queue {n} may still accept votes for it");
        let another = at.saturating_add(-1);
        store.record_dropped(queue_id(n), poll(), another).await.expect("a record of an earlier withdrawal");
        let found = store.register_poll(&corrected()).await.expect("an answer");
        assert!(found.withdrawal.is_some(), "queue {n} dropped it for another withdrawal");
        store.record_dropped(queue_id(n), poll(), at).await.expect("a record");
    }
    let registered = store.register_poll(&corrected()).await.expect("an answer");
    assert_eq!(registered.digest(), corrected().digest());
}

pub(super) async fn a_plan_by_a_replaced_definition_changes_nothing(harness: &dyn StoreHarness) {
    let store = prepared(harness).await;
    let mut session = store.open_session().await.expect("a session");
    let before = acquire(&mut *session).await;
    withdraw(&*store).await;
    let found = store.register_poll(&corrected()).await.expect("an answer");
    assert_eq!(
        found.digest(),
        corrected().digest(),
        "no queue could have votes for the withdrawn definition"
    );
    let votes = [vote(voters().next().expect("a voter"), 0, 1)];
    let empty = everything(&*store, &votes).await;
    let result = session.commit(&inserts(before.version, 1, &votes)).await;
    assert!(matches!(result, Err(StoreError::StaleVersion(_))), "{result:?}");
    assert_eq!(everything(&*store, &votes).await, empty);
    drop(session);
    let mut session = store.open_session().await.expect("a session");
    let after = acquire(&mut *session).await;
    session.commit(&inserts(after.version, 1, &votes)).await.expect("a plan by the new definition fits");
}

pub(super) async fn a_withdrawal_can_be_undone(harness: &dyn StoreHarness) {
    let store = prepared(harness).await;
    let before = known(&*store).await;
    let at = withdraw(&*store).await;
    store.undo_withdrawal(poll(), at.saturating_add(-1)).await.expect("an answer");
    assert!(known(&*store).await.withdrawal.is_some(), "the call was about another withdrawal");
    store.undo_withdrawal(poll(), at).await.expect("an answer");
    let kept = RegisteredPoll { undone_withdrawal: None, ..known(&*store).await };
    assert_eq!(kept, before);
    let found = store.register_poll(&corrected()).await.expect("an answer");
    assert_eq!(found.digest(), before.digest(), "its definition is kept");
}

pub(super) async fn an_undone_withdrawal_is_remembered(harness: &dyn StoreHarness) {
    let store = prepared(harness).await;
    assert_eq!(known(&*store).await.undone_withdrawal, None);
    let first = withdraw(&*store).await;
    store.undo_withdrawal(poll(), first).await.expect("an answer");
    let store = harness.reopen(store).await;
    assert_eq!(known(&*store).await.undone_withdrawal, Some(first));
    let second = withdraw(&*store).await;
    assert!(second > first, "the time tells withdrawals apart: {second}, after {first}");
    assert_eq!(known(&*store).await.undone_withdrawal, Some(first), "the second one is not undone");
    store.undo_withdrawal(poll(), second).await.expect("an answer");
    store.undo_withdrawal(poll(), first).await.expect("an answer");
    assert_eq!(known(&*store).await.undone_withdrawal, Some(second), "the latest one counts");
    withdraw(&*store).await;
    let replaced = store.register_poll(&corrected()).await.expect("an answer");
    assert_eq!((replaced.digest(), replaced.undone_withdrawal), (corrected().digest(), None));
}
