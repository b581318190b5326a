//! Clauses about what a store does not have: polls, options, a layout.

use super::*;

/// Commits a plan that must be refused as a conflict and change nothing.
async fn refused(store: &dyn Store, change: impl FnOnce(&mut CommitPlan)) {
    let mut session = store.open_session().await.expect("a session");
    let version = acquire(&mut *session).await.version;
    let votes = [vote(voters().next().expect("a voter"), 0, 1)];
    let before = everything(store, &votes).await;
    let mut plan = inserts(version, 1, &votes);
    change(&mut plan);
    let result = session.commit(&plan).await;
    assert!(matches!(result, Err(StoreError::Conflict(_))), "{result:?}");
    assert_eq!(everything(store, &votes).await, before);
}

pub(super) async fn a_plan_for_an_unregistered_poll_changes_nothing(harness: &dyn StoreHarness) {
    let store = prepared(harness).await;
    refused(&*store, |plan| plan.polls[0].poll = "nowhere".parse().expect("a slug")).await;
}

pub(super) async fn a_plan_for_an_unknown_option_changes_nothing(harness: &dyn StoreHarness) {
    let store = prepared(harness).await;
    let birds: OptionSlug = "birds".parse().expect("a slug");
    refused(&*store, |plan| plan.polls[0].inserts[0].option = birds).await;
    refused(&*store, |plan| plan.polls[0].tally = [(birds, 1)].into()).await;
}

pub(super) async fn a_lookup_in_an_unregistered_poll_finds_nothing(harness: &dyn StoreHarness) {
    let store = prepared(harness).await;
    let mut session = store.open_session().await.expect("a session");
    acquire(&mut *session).await;
    let voter = [vote(voters().next().expect("a voter"), 0, 1).voter];
    for lookup in [Lookup::Filtered, Lookup::Exhaustive] {
        let found = session.lookup(PARTITION, "nowhere".parse().expect("a slug"), &voter, lookup).await;
        assert_eq!(found.expect("an answer"), []);
    }
}

pub(super) async fn a_session_needs_a_prepared_store(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let result = store.open_session().await;
    assert!(matches!(result, Err(StoreError::NotPrepared { .. })), "{result:?}");
    store.prepare(layout()).await.expect("an empty store accepts any layout");
    store.open_session().await.expect("a session");
}
