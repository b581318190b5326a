//! Fairness: with a backlog everywhere, each queue and partition is read.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use vote_core::{Partition, QueueId};
use vote_tools::command::rounded;

use crate::{args::Fairness, voters::append, world::World};

/// Entries in one append.
const FLUSH: usize = 500;

pub(crate) async fn run(args: &Fairness) -> Value {
    let mut world = World::start(args.size).await;
    world.start_workers(Duration::ZERO);
    world.activated().await;
    world.stop_workers().await;
    let backlog = args.backlog;
    let all = fill(&world, backlog).await;
    eprintln!("scale: a backlog of {all} entries, {backlog} in each queue and partition");

    world.start_workers(Duration::from_millis(args.commit_delay));
    while world.accounts().await.ledger.is_empty() {
        sleep(Duration::from_millis(100)).await;
    }
    let start = Instant::now();
    let (committed, seconds) = loop {
        sleep(Duration::from_secs(1)).await;
        let accounts = world.accounts().await;
        let mut committed: BTreeMap<(QueueId, Partition), u64> = BTreeMap::new();
        for row in &accounts.ledger {
            *committed.entry((row.entry.queue, row.partition)).or_default() += row.entry.accepted;
        }
        let sum: u64 = committed.values().sum();
        eprintln!("scale: {sum} votes are committed after {:.1?}", start.elapsed());
        // Once most is read, the fast ones have nothing left to advance by.
        if start.elapsed() >= Duration::from_secs(args.seconds) || sum > all / 2 {
            break (committed, start.elapsed());
        }
    };
    let pairs = world.queues.len() as u64 * u64::from(args.size.partitions);
    let mean = committed.values().sum::<u64>() as f64 / pairs as f64;
    let slowest = if committed.len() as u64 == pairs { committed.values().min().copied() } else { None };
    let slowest = slowest.unwrap_or(0);
    let never = pairs - committed.len() as u64;
    let holds = slowest as f64 >= mean / 2.0;
    eprintln!("scale: mean {mean:.1}, slowest {slowest}, {never} of {pairs} not read at all");
    print_progress(&committed);
    json!({
        "mode": "fairness", "holds": holds,
        "queues": args.size.queues, "workers": args.size.workers, "partitions": args.size.partitions,
        "backlog": backlog, "seconds": rounded(seconds.as_secs_f64()), "mean": rounded(mean), "slowest": slowest,
        "ratio": rounded(slowest as f64 / mean), "not_read": never, "pairs": pairs,
    })
}

/// Prints how far each partition was read, and how far its slowest and its fastest queue.
fn print_progress(committed: &BTreeMap<(QueueId, Partition), u64>) {
    let mut of_partitions: BTreeMap<Partition, Vec<u64>> = BTreeMap::new();
    for ((_, partition), votes) in committed {
        of_partitions.entry(*partition).or_default().push(*votes);
    }
    for (partition, votes) in &of_partitions {
        let (fewest, most) = (votes.iter().min().unwrap(), votes.iter().max().unwrap());
        let (queues, sum) = (votes.len(), votes.iter().sum::<u64>());
        eprintln!("scale: partition {partition}: {sum} votes of {queues} queues, {fewest} to {most} of each");
    }
}

/// Appends entries of one vote each to each queue and partition; returns their number.
async fn fill(world: &World, backlog: u64) -> u64 {
    let voters = AtomicU64::new(0);
    world
        .on_each_queue(|_, id, queue| {
            let electorate = world.electorate.clone();
            let partitions = u64::from(electorate.partitions.count());
            let first = voters.fetch_add(backlog * partitions, Ordering::Relaxed);
            async move {
                let partitions: Vec<Partition> = electorate.partitions.iter().collect();
                let vote = |n: u64| {
                    let poll = n as usize % electorate.polls.len();
                    let partition = partitions[n as usize % partitions.len()];
                    // One frame for each vote: an entry.
                    electorate.frames(&[electorate.vote_in(poll, partition, first + n)])
                };
                let entries: Vec<_> = (0..backlog * partitions.len() as u64).flat_map(vote).collect();
                for frames in entries.chunks(FLUSH) {
                    append(&*queue, id, frames).await;
                }
            }
        })
        .await;
    voters.into_inner()
}
