//! Benchmark of audits in memory: the check whether a poll can be final, and the audit of all polls, of accounts that
//! hold, by the numbers of queues, partitions and polls. Reads no store.
//!
//! `cargo bench -p vote-core --bench audit`
#![allow(clippy::unwrap_used, missing_docs)] // A benchmark fails by panicking.

use std::{hint::black_box, time::Instant};

use vote_core::{
    Keep, Partition, PollSlug, Position, QueueId, Timestamp,
    count::{
        Accounts, LedgerEntry, LedgerRow, QueueRecord, RegisteredPoll, SealRecord, TallyRow, audit,
        audit::Verdict,
    },
    poll::{ResultsFrom, Voters},
    queue::Seal,
};

const ROUNDS: usize = 5;

fn main() {
    for (queues, partitions, polls) in
        [(1_000, 16, 1), (1_000, 64, 1), (1_000, 256, 1), (4_000, 64, 1), (1_000, 64, 10)]
    {
        let accounts = accounts(queues, partitions, polls);
        let finality = median(|| assert_eq!(audit::obstacles(black_box(&accounts), poll(0)), []));
        let audit = median(|| assert_eq!(audit::audit(black_box(&accounts), None).verdict, Verdict::Holds));
        println!(
            r#"{{"queues": {queues}, "partitions": {partitions}, "polls": {polls}, "finality_ms": {finality:.1}, "audit_ms": {audit:.1}}}"#
        );
    }
}

/// Returns the median of the milliseconds that some calls take.
fn median(call: impl Fn()) -> f64 {
    let mut times: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            call();
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[ROUNDS / 2]
}

fn poll(n: u16) -> PollSlug {
    format!("poll-{n}").parse().unwrap()
}

/// Returns accounts of closed polls, of each of which every partition of every queue is sealed and read.
fn accounts(queues: u32, partitions: u16, polls: u16) -> Accounts {
    let now = Timestamp::MIN.saturating_add(1_000_000_000);
    let (read, option) = (Position::from_bytes(&[5]).unwrap(), "cats".parse().unwrap());
    let places = || (0..partitions).map(Partition);
    let mut accounts = Accounts {
        taken_at: now,
        versions: places().map(|partition| (partition, 1)).collect(),
        rows: None,
        ..Accounts::default()
    };
    for poll in (0..polls).map(poll) {
        accounts.polls.push(RegisteredPoll {
            slug: poll,
            options: vec![option],
            keep: Keep::First,
            voters: Voters::Cookie,
            results: ResultsFrom::Live,
            closes_at: None,
            reschedules: Vec::new(),
            closed_at: Some(now),
            final_at: None,
            withdrawal: None,
            undone_withdrawal: None,
            earlier: Vec::new(),
        });
        let votes = i64::from(queues);
        accounts.tally.extend(places().map(|partition| TallyRow { poll, option, partition, votes }));
    }
    for n in 0..queues {
        // Identities are random, so that neighbours in one table are not neighbours in another one.
        let id = QueueId(u128::from(n).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835).to_be_bytes());
        let address = format!("redis://10.0.{}.{}:6379", n / 256, n % 256);
        accounts.queues.push(QueueRecord {
            ends: vec![read; usize::from(partitions)],
            ..QueueRecord::new(id, address, now)
        });
        accounts.positions.extend(places().map(|partition| ((id, partition), read)));
        for poll in (0..polls).map(poll) {
            let ends = vec![read; usize::from(partitions)];
            let seal = Seal { accepted: vec![1; ends.len()], ends };
            accounts.seals.push(SealRecord { queue: id, poll, seal });
            accounts.ledger.extend(places().map(|partition| {
                let (poll, accepted, new_voters) = (poll.to_string(), 1, 1);
                let entry =
                    LedgerEntry { queue: id, poll, accepted, new_voters, superseded: 0, quarantined: 0 };
                LedgerRow { partition, entry }
            }));
        }
    }
    accounts.queues.sort_by_key(|queue| queue.id);
    accounts
}
