//! Books and ballots of one moment.

use super::*;
use crate::store::{QuarantinedVotes, TallyRow};

pub(super) async fn books_are_of_one_moment(harness: &dyn StoreHarness) {
    let (store, mut lane, votes) = committed(harness).await;
    let before = books(&*store).await;
    let mut snapshot = store.snapshot().await.expect("a snapshot");
    // On some stores a transaction sees what was committed until its first statement.
    assert_eq!(snapshot.books(false).await.expect("the books").versions, before.versions);
    let more = vote(voters().nth(3).expect("a voter"), 0, 6);
    let version = acquire(&mut *lane).await.version;
    lane.commit(&inserts(version, 2, &[more])).await.expect("a commit");
    store.report(&[record(1, QueueState::Active)]).await.expect("a report");
    let seen = snapshot.books(true).await.expect("the books");
    assert_eq!(seen, Books { taken_at: seen.taken_at, ..before });
    assert_eq!(snapshot.books(true).await.expect("the books"), seen, "its time is one moment, too");
    let ballots = snapshot.ballots(poll(), None, 100).await.expect("ballots");
    assert_eq!(ballots.len(), votes.len(), "the ballots are of the same moment");
    let now = books(&*store).await;
    assert_eq!(now.rows.expect("counted").values().sum::<u64>(), 4, "another snapshot sees the rest");
}

pub(super) async fn books_hold_everything(harness: &dyn StoreHarness) {
    let (store, mut lane, _votes) = committed(harness).await;
    store.report(&[record(102, QueueState::Active)]).await.expect("a report");
    let mut plan = inserts(acquire(&mut *lane).await.version, 4, &[]);
    for position in [3, 4] {
        plan.quarantine.push(QuarantinedFrame {
            queue: queue_id(1),
            position: at(position),
            poll: "no slug".to_owned(),
            accounted: 5,
            quarantined: QuarantinedVotes::All,
            reason: "damaged".to_owned(),
            awaits_poll: false,
            frame: Bytes::new(),
        });
    }
    plan.ledger = vec![LedgerEntry { poll: "no slug".to_owned(), quarantined: 10, ..ledger_entry(10, 0, 0) }];
    lane.commit(&plan).await.expect("a commit");
    let books = books(&*store).await;
    assert_eq!(books.polls, [registered_poll()]);
    assert_eq!(books.queues, [record(102, QueueState::Active)]);
    assert_eq!(books.versions[&PARTITION], 2);
    assert_eq!(books.positions, BTreeMap::from([((queue_id(1), PARTITION), at(4))]));
    let by_poll: BTreeMap<_, _> =
        books.ledger.iter().map(|row| (row.entry.poll.as_str(), &row.entry)).collect();
    assert_eq!(by_poll["pets"], &ledger_entry(3, 3, 0));
    assert_eq!((by_poll["no slug"].accepted, by_poll["no slug"].quarantined), (10, 10));
    let row = |option, votes| TallyRow { poll: poll(), option, partition: PARTITION, votes };
    assert_eq!(books.tally, [row(cats(), 2), row(dogs(), 1)]);
    assert_eq!(books.rows, Some(BTreeMap::from([((poll(), cats()), 2), ((poll(), dogs()), 1)])));
    let [total] = &*books.quarantine else { panic!("one total: {:?}", books.quarantine) };
    assert_eq!((total.queue, total.partition, &*total.poll), (queue_id(1), PARTITION, "no slug"));
    assert_eq!((total.votes, total.pending), (10, 2));
    assert_eq!(store.positions(queue_id(1)).await.expect("positions"), BTreeMap::from([(PARTITION, at(4))]));
}

pub(super) async fn ballots_come_in_the_order_of_their_voters(harness: &dyn StoreHarness) {
    let store = prepared(harness).await;
    let mut lane = store.open_lane().await.expect("a lane");
    let mut expected = Vec::new();
    for partition in [9, 0, 3] {
        let of_partition =
            |voter: &u64| layout().partitions.of(vote(*voter, 0, 0).voter) == Partition(partition);
        let votes: Vec<_> = (0..).filter(of_partition).take(5).map(|voter| vote(voter, 0, 7)).collect();
        let acquired = lane.acquire(Partition(partition)).await.expect("an answer").expect("it is free");
        let plan = CommitPlan { partition: Partition(partition), ..inserts(acquired.version, 1, &votes) };
        lane.commit(&plan).await.expect("a commit");
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
        assert!(page.len() <= 4 && found.len() < 100, "pages have an end");
        found.extend(page);
    }
    assert_eq!(found, expected);
    let nowhere = "nowhere".parse().expect("a slug");
    assert_eq!(snapshot.ballots(nowhere, None, 4).await.expect("an answer"), []);
}
