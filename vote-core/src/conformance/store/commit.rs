//! Clauses about commits: what they store, and which are refused.

use super::*;
use crate::count::QuarantinedVotes;

pub(super) async fn a_commit_stores_the_ballots(harness: &dyn StoreHarness) {
    let (store, _session, votes) = committed(harness).await;
    for vote in &votes {
        let found = store.ballot(poll(), vote.voter).await.expect("an answer");
        assert_eq!(found, Some(ballot(vote)));
    }
    let missing = store.ballot(poll(), VoterKey([0xff; 16])).await.expect("an answer");
    assert_eq!(missing, None, "this voter has no ballot");
}

pub(super) async fn a_commit_updates_the_tally(harness: &dyn StoreHarness) {
    let (store, _session, _votes) = committed(harness).await;
    assert_eq!(tally(&*store).await, [(cats(), 2), (dogs(), 1)]);
}

pub(super) async fn a_commit_updates_the_ledger(harness: &dyn StoreHarness) {
    let (store, _session, _votes) = committed(harness).await;
    let ledger = ledger(&*store).await;
    assert_eq!(ledger.len(), 1);
    assert_eq!((ledger[0].partition, &ledger[0].entry), (PARTITION, &ledger_entry(3, 3, 0)));
}

pub(super) async fn a_commit_updates_the_positions(harness: &dyn StoreHarness) {
    let (store, mut session, _votes) = committed(harness).await;
    assert_eq!(store.position(queue_id(1), PARTITION).await.expect("a position"), at(1));
    assert_eq!(store.position(queue_id(1), Partition(1)).await.expect("a position"), Position::START);
    let checkpoints = acquire(&mut *session).await.checkpoints;
    assert_eq!(checkpoints.len(), 1);
    assert_eq!(checkpoints[&queue_id(1)].position, at(1));
    assert_eq!(checkpoints[&queue_id(1)].accepted, BTreeMap::from([(poll().to_string(), 3)]));
}

pub(super) async fn positions_are_found_by_queue_and_by_partition(harness: &dyn StoreHarness) {
    let (store, mut session, _votes) = committed(harness).await;
    let other = Partition(1);
    let acquired = session.acquire(other).await.expect("an answer").expect("a free partition");
    let mut plan = CommitPlan { partition: other, ..inserts(acquired.version, 1, &[]) };
    plan.positions = vec![(queue_id(1), at(2)), (queue_id(2), at(3))];
    plan.ledger.clear();
    session.commit(&plan).await.expect("a commit");
    let [one, two, three] =
        [((queue_id(1), PARTITION), at(1)), ((queue_id(1), other), at(2)), ((queue_id(2), other), at(3))];
    let of_queues = async |queues: &[QueueId]| store.positions(queues).await.expect("positions");
    assert_eq!(of_queues(&[queue_id(1), queue_id(2)]).await, BTreeMap::from([one, two, three]));
    assert_eq!(of_queues(&[queue_id(1), queue_id(9)]).await, BTreeMap::from([one, two]));
    let in_partitions = async |of: &[Partition]| store.positions_in(of).await.expect("positions");
    assert_eq!(in_partitions(&[PARTITION, other]).await, BTreeMap::from([one, two, three]));
    assert_eq!(in_partitions(&[other]).await, BTreeMap::from([two, three]));
}

pub(super) async fn a_commit_stores_quarantined_frames(harness: &dyn StoreHarness) {
    let store = prepared(harness).await;
    let mut session = store.open_session().await.expect("a session");
    let mut plan = inserts(acquire(&mut *session).await.version, 1, &[]);
    plan.quarantine.push(QuarantinedFrame {
        queue: queue_id(1),
        position: at(1),
        poll: "no slug".to_owned(),
        accounted: 4,
        quarantined: QuarantinedVotes::All,
        reason: damaged(),
        frame: Bytes::from_static(b"\xff\x00"),
    });
    session.commit(&plan).await.expect("a commit");
    let row = |position| store.quarantined(queue_id(1), PARTITION, at(position));
    assert_eq!(row(1).await.expect("an answer").expect("a quarantined frame").frame.reason, damaged());
    assert_eq!(row(2).await.expect("an answer"), None);
}

pub(super) async fn a_stale_version_changes_nothing(harness: &dyn StoreHarness) {
    let (store, mut session, _) = committed(harness).await;
    let version = acquire(&mut *session).await.version;
    let late: Vec<_> = voters().skip(3).take(2).map(|voter| vote(voter, 0, 6)).collect();
    // From another queue, so that only the version shows that the plan is stale.
    let mut plan = inserts(version - 1, 1, &late);
    plan.positions = vec![(queue_id(2), at(1))];
    plan.ledger[0].queue = queue_id(2);
    let before = everything(&*store, &late).await;
    let result = session.commit(&plan).await;
    assert!(matches!(result, Err(StoreError::StaleVersion(PARTITION))), "{result:?}");
    drop(session);
    assert_eq!(everything(&*store, &late).await, before);
}

pub(super) async fn a_session_that_lost_its_partition_changes_nothing(harness: &dyn StoreHarness) {
    let store = prepared(harness).await;
    let (mut one, mut two) =
        (store.open_session().await.expect("a session"), store.open_session().await.expect("a session"));
    let old = acquire(&mut *one).await;
    one.release(PARTITION).await.expect("a release");
    let new = acquire(&mut *two).await;
    let votes: Vec<_> = voters().take(2).map(|voter| vote(voter, 0, 6)).collect();
    two.commit(&inserts(new.version, 1, &votes[..1])).await.expect("the owner commits");
    let before = everything(&*store, &votes).await;
    let result = one.commit(&inserts(old.version, 2, &votes[1..])).await;
    assert!(matches!(result, Err(StoreError::StaleVersion(PARTITION))), "{result:?}");
    assert_eq!(everything(&*store, &votes).await, before);
}

pub(super) async fn a_second_insert_of_a_voter_changes_nothing(harness: &dyn StoreHarness) {
    let (store, mut session, votes) = committed(harness).await;
    let version = acquire(&mut *session).await.version;
    // One voter that has a ballot already, among others that have none.
    let mut second: Vec<_> = voters().skip(3).take(4).map(|voter| vote(voter, 0, 7)).collect();
    second.push(Vote { option: dogs(), ..votes[0] });
    let before = everything(&*store, &second).await;
    let result = session.commit(&inserts(version, 2, &second)).await;
    assert!(matches!(result, Err(StoreError::Conflict(_))), "{result:?}");
    drop(session);
    assert_eq!(everything(&*store, &second).await, before);
}

/// Returns a plan that replaces one ballot.
fn replacement(version: u64, old: &Vote, new: &Vote) -> CommitPlan {
    let mut plan = inserts(version, 2, &[]);
    plan.polls[0].replacements = vec![(ballot(old), ballot(new))];
    plan.polls[0].tally = BTreeMap::from([(old.option, -1), (new.option, 1)]);
    plan.ledger = vec![ledger_entry(4, 0, 1)];
    plan
}

pub(super) async fn a_replacement_of_another_ballot_changes_nothing(harness: &dyn StoreHarness) {
    let (store, mut session, votes) = committed(harness).await;
    let version = acquire(&mut *session).await.version;
    let other = Vote { cast_at: votes[0].cast_at.saturating_add(1), ..votes[0] };
    let before = everything(&*store, &votes).await;
    let result = session.commit(&replacement(version, &other, &Vote { option: dogs(), ..votes[0] })).await;
    assert!(matches!(result, Err(StoreError::Conflict(_))), "{result:?}");
    drop(session);
    assert_eq!(everything(&*store, &votes).await, before);
}

pub(super) async fn a_replacement_updates_ballot_and_tally(harness: &dyn StoreHarness) {
    let (store, mut session, votes) = committed(harness).await;
    let version = acquire(&mut *session).await.version;
    let new = Vote { option: dogs(), cast_at: votes[0].cast_at.saturating_add(1), ..votes[0] };
    session.commit(&replacement(version, &votes[0], &new)).await.expect("a commit");
    assert_eq!(store.ballot(poll(), new.voter).await.expect("an answer"), Some(ballot(&new)));
    assert_eq!(tally(&*store).await, [(cats(), 1), (dogs(), 2)]);
}

pub(super) async fn the_accepted_count_is_replaced_and_the_others_are_added(harness: &dyn StoreHarness) {
    let (store, mut session, votes) = committed(harness).await;
    let version = acquire(&mut *session).await.version;
    let new = Vote { option: dogs(), ..votes[0] };
    session.commit(&replacement(version, &votes[0], &new)).await.expect("a commit");
    let ledger = ledger(&*store).await;
    assert_eq!(ledger.len(), 1);
    assert_eq!(ledger[0].entry, ledger_entry(4, 3, 1));
}

pub(super) async fn a_commit_leaves_other_entries_of_the_ledger(harness: &dyn StoreHarness) {
    let store = prepared(harness).await;
    let mut session = store.open_session().await.expect("a session");
    let version = acquire(&mut *session).await.version;
    let entry = |queue, poll: &str, accepted| {
        let (queue, poll) = (queue_id(queue), poll.to_owned());
        LedgerEntry { queue, poll, quarantined: accepted as i64, ..ledger_entry(accepted, 0, 0) }
    };
    let mut plan = inserts(version, 1, &[]);
    // Among them the name of no poll: queues may hold any.
    plan.ledger = vec![entry(1, "cars", 3), entry(1, "No poll", 5), entry(2, "cars", 7)];
    plan.positions.push((queue_id(2), at(1)));
    session.commit(&plan).await.expect("a commit");
    let mut plan = inserts(version + 1, 2, &[]);
    plan.ledger = vec![LedgerEntry { quarantined: 1, ..entry(1, "cars", 4) }, entry(1, "pets", 1)];
    session.commit(&plan).await.expect("a commit");
    let mut ledger: Vec<_> = ledger(&*store).await.into_iter().map(|row| row.entry).collect();
    ledger.sort_by(|a, b| (a.queue, &a.poll).cmp(&(b.queue, &b.poll)));
    let expected = [entry(1, "No poll", 5), entry(1, "cars", 4), entry(1, "pets", 1), entry(2, "cars", 7)];
    assert_eq!(ledger, expected);
    let checkpoints = acquire(&mut *session).await.checkpoints;
    let names = ["No poll", "cars", "pets"].map(str::to_owned);
    assert_eq!(checkpoints[&queue_id(1)].accepted, names.into_iter().zip([5, 4, 1]).collect());
    let accepted = BTreeMap::from([("cars".to_owned(), 7)]);
    assert_eq!(checkpoints[&queue_id(2)], Checkpoint { position: at(1), accepted });
}
