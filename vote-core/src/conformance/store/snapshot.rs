//! Clauses about snapshots: accounts and ballots as of one moment.

use super::*;
use crate::count::{QuarantinedVotes, TallyRow};

pub(super) async fn accounts_are_of_one_moment(harness: &dyn StoreHarness) {
    let (store, mut session, votes) = committed(harness).await;
    let before = accounts(&*store).await;
    let mut snapshot = store.snapshot().await.expect("a snapshot");
    // On some stores the moment of a transaction is that of its first statement.
    assert_eq!(snapshot.accounts(false).await.expect("the accounts").versions, before.versions);
    let more = vote(voters().nth(3).expect("a voter"), 0, 6);
    let version = acquire(&mut *session).await.version;
    session.commit(&inserts(version, 2, &[more])).await.expect("a commit");
    store.report(&[record(1, QueueState::Active)]).await.expect("a report");
    let seen = snapshot.accounts(true).await.expect("the accounts");
    assert_eq!(seen, Accounts { taken_at: seen.taken_at, ..before });
    assert_eq!(snapshot.accounts(true).await.expect("the accounts"), seen, "its time does not change either");
    let ballots = snapshot.ballots(poll(), None, 100).await.expect("ballots");
    assert_eq!(ballots.len(), votes.len(), "the ballots are as of the same moment");
    let now = accounts(&*store).await;
    assert_eq!(now.rows.expect("counted rows").values().sum::<u64>(), 4, "a new snapshot has the new ballot");
}

pub(super) async fn accounts_hold_everything(harness: &dyn StoreHarness) {
    let (store, mut session, _votes) = committed(harness).await;
    store.report(&[record(102, QueueState::Active)]).await.expect("a report");
    let mut plan = inserts(acquire(&mut *session).await.version, 4, &[]);
    for position in [3, 4] {
        plan.quarantine.push(QuarantinedFrame {
            queue: queue_id(1),
            position: at(position),
            poll: "no slug".to_owned(),
            accounted: 5,
            quarantined: QuarantinedVotes::All,
            reason: damaged(),
            frame: Bytes::new(),
        });
    }
    plan.ledger = vec![LedgerEntry { poll: "no slug".to_owned(), quarantined: 10, ..ledger_entry(10, 0, 0) }];
    session.commit(&plan).await.expect("a commit");
    let accounts = accounts(&*store).await;
    assert_eq!(accounts.polls, [registered_poll()]);
    assert_eq!(accounts.queues, [record(102, QueueState::Active)]);
    assert_eq!(accounts.versions[&PARTITION], 2);
    assert_eq!(accounts.positions, BTreeMap::from([((queue_id(1), PARTITION), at(4))]));
    let by_poll: BTreeMap<_, _> =
        accounts.ledger.iter().map(|row| (row.entry.poll.as_str(), &row.entry)).collect();
    assert_eq!(by_poll["pets"], &ledger_entry(3, 3, 0));
    assert_eq!((by_poll["no slug"].accepted, by_poll["no slug"].quarantined), (10, 10));
    let row = |option, votes| TallyRow { poll: poll(), option, partition: PARTITION, votes };
    assert_eq!(accounts.tally, [row(cats(), 2), row(dogs(), 1)]);
    assert_eq!(accounts.rows, Some(BTreeMap::from([((poll(), cats()), 2), ((poll(), dogs()), 1)])));
    let [total] = &*accounts.quarantine else { panic!("one total: {:?}", accounts.quarantine) };
    assert_eq!((total.queue, total.partition, &*total.poll), (queue_id(1), PARTITION, "no slug"));
    assert_eq!((total.votes, total.pending), (10, 2));
    assert_eq!(store.position(queue_id(1), PARTITION).await.expect("a position"), at(4));
}

pub(super) async fn ballots_come_in_the_order_of_their_voters(harness: &dyn StoreHarness) {
    let store = prepared(harness).await;
    let mut session = store.open_session().await.expect("a session");
    let mut expected = Vec::new();
    for partition in [9, 0, 3] {
        let of_partition =
            |voter: &u64| layout().partitions.of(vote(*voter, 0, 0).voter) == Partition(partition);
        let votes: Vec<_> = (0..).filter(of_partition).take(5).map(|voter| vote(voter, 0, 7)).collect();
        let acquired = session.acquire(Partition(partition)).await.expect("an answer").expect("it is free");
        let plan = CommitPlan { partition: Partition(partition), ..inserts(acquired.version, 1, &votes) };
        session.commit(&plan).await.expect("a commit");
        expected.extend(votes.iter().map(ballot));
    }
    expected.sort_by_key(|ballot| ballot.voter);
    let mut snapshot = store.snapshot().await.expect("a snapshot");
    let mut found: Vec<Ballot> = Vec::new();
    loop {
        let after = found.last().map(|ballot| ballot.voter);
        let page = snapshot.ballots(poll(), after, 4).await.expect("ballots");
        if page.is_empty() {
            break;
        }
        assert!(page.len() <= 4 && found.len() < 100, "the last page is empty");
        found.extend(page);
    }
    assert_eq!(found, expected);
    let nowhere = "nowhere".parse().expect("a slug");
    assert_eq!(snapshot.ballots(nowhere, None, 4).await.expect("an answer"), []);
}
