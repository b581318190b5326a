//! Clauses about what a snapshot tells without all accounts.

use super::*;
use crate::{
    Clock, PollSlug, SystemClock,
    count::{Balances, QuarantinedVotes, SealRecord, Summary},
    queue::Seal,
};

/// A poll that is closed.
const CLOSED: &str = "closed";
/// A poll that is final.
const FINAL: &str = "final";
/// A name under which queues accepted votes, although no poll has it.
const UNKNOWN: &str = "no slug";

/// Partitions with votes.
const PARTITIONS: [u16; 2] = [0, 9];

/// Source of numbers that are the same in each run.
struct Numbers(u64);

impl Numbers {
    /// Returns a number less than `end`.
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

fn slug(name: &str) -> PollSlug {
    name.parse().expect("a slug")
}

/// Returns a store with contents that follow from a number: polls in all stages, queues in all states, some of them late,
/// and accounts that do not always balance.
async fn filled(harness: &dyn StoreHarness, number: u64) -> Arc<dyn Store> {
    let (store, mut numbers) = (prepared(harness).await, Numbers(number));
    let mut session = store.open_session().await.expect("a session");
    for name in [CLOSED, FINAL] {
        store.register_poll(&Poll { slug: slug(name), ..pets(Keep::First) }).await.expect("a poll");
        store.close_poll(slug(name)).await.expect("an answer").expect("the poll");
    }
    for partition in layout().partitions.iter() {
        let acquired = session.acquire(partition).await.expect("an answer").expect("a free partition");
        let obstacles = session.complete(partition, acquired.version, slug(FINAL)).await.expect("an answer");
        assert_eq!(obstacles, []);
    }
    assert!(store.finalize_poll(slug(FINAL)).await.expect("an answer"));

    for n in 1..8 {
        store.report(&[queue(&mut numbers, n)]).await.expect("a report");
        if numbers.one_in(4) {
            store.retire(queue_id(n), "a test").await.expect("an answer");
        }
        for poll in [poll(), slug(CLOSED)] {
            if n < 5 && !numbers.one_in(5) {
                store.record_seal(&seal(&mut numbers, n, poll)).await.expect("a record");
            }
        }
    }
    for partition in PARTITIONS.map(Partition) {
        for round in 0..2 {
            let acquired = session.acquire(partition).await.expect("an answer").expect("it is owned");
            let plan = plan(&mut numbers, partition, acquired.version, round);
            session.commit(&plan).await.expect("a commit");
        }
    }
    store
}

/// Returns a report of a queue. Those from number 5 on are replaced ones.
fn queue(numbers: &mut Numbers, n: u8) -> QueueRecord {
    let seconds = if numbers.one_in(2) { 60 } else { 0 };
    let states = [QueueState::Active, QueueState::Active, QueueState::Active, QueueState::Diverged];
    let state = states[numbers.below(4) as usize];
    let mut votes = BTreeMap::from([(poll().to_string(), numbers.below(9)), (FINAL.to_owned(), 3)]);
    if numbers.one_in(4) {
        votes.insert(UNKNOWN.to_owned(), 4);
    }
    let record = QueueRecord::new(queue_id(n), format!("redis://host-{n}"), SystemClock.now());
    QueueRecord {
        original_id: (n > 4).then(|| queue_id(n - 4)),
        seen_at: record.seen_at.saturating_add(-seconds * 1_000_000),
        queued: BTreeMap::from([(poll().to_string(), numbers.below(9))]),
        accepted: if n > 4 { BTreeMap::new() } else { votes },
        ends: if numbers.one_in(3) { Vec::new() } else { ends(numbers) },
        reason: if state == QueueState::Active { String::new() } else { "a test".to_owned() },
        state,
        ..record
    }
}

fn seal(numbers: &mut Numbers, n: u8, poll: PollSlug) -> SealRecord {
    let ends = ends(numbers);
    let accepted = ends.iter().map(|_| numbers.below(9)).collect();
    SealRecord { queue: queue_id(n), poll, seal: Seal { ends, accepted } }
}

/// Returns ends with entries in [`PARTITIONS`] only.
fn ends(numbers: &mut Numbers) -> Vec<Position> {
    let mut ends = vec![Position::START; usize::from(layout().partitions.count())];
    for place in PARTITIONS.map(usize::from) {
        ends[place] = at(numbers.below(2) as u8);
    }
    ends
}

fn plan(numbers: &mut Numbers, partition: Partition, version: u64, round: u8) -> CommitPlan {
    let (mut ledger, mut quarantine) = (Vec::new(), Vec::new());
    for n in 1..8 {
        for name in [poll().as_str(), CLOSED, UNKNOWN] {
            if numbers.one_in(3) {
                continue;
            }
            let (new_voters, superseded) = (numbers.below(5), numbers.below(3));
            let quarantined = if numbers.one_in(3) { numbers.below(3) } else { 0 };
            let sum = new_voters + superseded + quarantined;
            // After two commits the sums of a row agree with its accepted count in some rows only.
            let accepted = if numbers.one_in(3) { numbers.below(20) } else { sum * u64::from(round + 1) };
            let (queue, poll) = (queue_id(n), name.to_owned());
            if quarantined > 0 && !numbers.one_in(4) {
                quarantine.push(QuarantinedFrame {
                    queue,
                    position: at(10 * round + quarantine.len() as u8),
                    poll: poll.clone(),
                    accounted: quarantined,
                    quarantined: QuarantinedVotes::All,
                    reason: damaged(),
                    frame: Bytes::new(),
                });
            }
            let quarantined = quarantined as i64;
            ledger.push(LedgerEntry { queue, poll, accepted, new_voters, superseded, quarantined });
        }
    }
    let mut votes = |poll| PollPlan {
        poll,
        inserts: Vec::new(),
        replacements: Vec::new(),
        tally: BTreeMap::from([(cats(), numbers.below(20) as i64 - 3), (dogs(), 1 - 2 * i64::from(round))]),
    };
    let polls = vec![votes(poll()), votes(slug(CLOSED))];
    let mut position = |n| (!numbers.one_in(4)).then(|| (queue_id(n), at(numbers.below(3) as u8)));
    let positions = (1..8).filter_map(&mut position).collect();
    CommitPlan { partition, version, polls, ledger, positions, quarantine, replayed: Vec::new() }
}

/// Number of stores that are compared.
const STORES: u64 = 8;

pub(super) async fn the_summary_is_that_of_the_accounts(harness: &dyn StoreHarness) {
    // Whether the queue is a replaced one, and whether it is not heard from.
    let mut late_queues = std::collections::BTreeSet::new();
    for number in 0..STORES {
        let store = filled(harness, number).await;
        let mut snapshot = store.snapshot().await.expect("a snapshot");
        let accounts = snapshot.accounts(false).await.expect("the accounts");
        let summary = snapshot.summary().await.expect("the summary");
        assert_eq!(summary, Summary::of(&accounts), "store {number}");
        let late = summary.queues.iter().filter(|queue| queue.is_late(summary.taken_at));
        late_queues.extend(late.map(|queue| (queue.original_id.is_some(), queue.is_not_heard_from)));
    }
    assert_eq!(late_queues.len(), 4, "all cases occur: {late_queues:?}");
}

pub(super) async fn the_balances_are_those_of_the_accounts(harness: &dyn StoreHarness) {
    for number in 0..STORES {
        let store = filled(harness, number).await;
        let mut snapshot = store.snapshot().await.expect("a snapshot");
        let accounts = snapshot.accounts(false).await.expect("the accounts");
        let balances = snapshot.balances().await.expect("the balances");
        assert_eq!(balances, Balances::of(&accounts), "store {number}");
    }
    let store = harness.fresh().await;
    store.prepare(layout()).await.expect("an empty store accepts any layout");
    let balances = store.snapshot().await.expect("a snapshot").balances().await.expect("the balances");
    assert_eq!(balances, Balances::default(), "an empty store");
}

pub(super) async fn a_change_of_the_tally_is_dated(harness: &dyn StoreHarness) {
    let store = prepared(harness).await;
    let changed_at = async || accounts(&*store).await.tally_changed_at.get(&poll()).copied();
    assert_eq!(changed_at().await, None, "no vote was counted yet");
    let mut session = store.open_session().await.expect("a session");
    let mut last = Timestamp::MIN;
    for (n, voter) in (1..4).zip(voters()) {
        let before = accounts(&*store).await.taken_at;
        let version = acquire(&mut *session).await.version;
        session.commit(&inserts(version, n, &[vote(voter, 0, 5)])).await.expect("a commit");
        let at = changed_at().await.expect("a vote was counted");
        assert!(at >= before && at <= accounts(&*store).await.taken_at, "it is the time of the commit");
        assert!(at >= last, "it does not decrease");
        last = at;
    }
    let version = acquire(&mut *session).await.version;
    let plan =
        CommitPlan { polls: Vec::new(), ledger: vec![ledger_entry(4, 0, 1)], ..inserts(version, 4, &[]) };
    session.commit(&plan).await.expect("a commit");
    assert_eq!(changed_at().await, Some(last), "a superseded vote changes no tally");
}
