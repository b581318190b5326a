//! Counts per second, without votes or at a steady rate.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::time::Instant;
use vote_tools::command::rounded;

use crate::{args::Steady, statements, world::World};

/// Number of kinds of statements in the report.
const MOST: usize = 20;

pub(crate) async fn run(args: &Steady) -> Value {
    let mut world = World::start(args.size).await;
    world.start_workers(Duration::ZERO);
    let activated = world.activated().await;
    eprintln!("scale: all {} queues are active after {activated:.1?}", args.size.queues);
    let voters = Arc::new(AtomicU64::new(0));
    if !args.no_first_votes {
        world.cast_first_votes(&voters).await;
    }
    let casting = world.cast_steadily(&voters, 0..args.size.polls as usize, args.rate, args.flush);
    tokio::time::sleep(Duration::from_secs(args.settle)).await;

    let wal = statements::reset(&world.postgres, &world.database);
    world.counts.take();
    let cast_before = voters.load(std::sync::atomic::Ordering::Relaxed);
    let (start, before) = (Instant::now(), world.cpu());
    tokio::time::sleep(Duration::from_secs(args.seconds)).await;
    let (seconds, counts) = (start.elapsed().as_secs_f64(), world.counts.take());
    let cpu = (world.cpu() - before).per(seconds);
    let cast = voters.load(std::sync::atomic::Ordering::Relaxed) - cast_before;
    let statements = statements::count(&world.postgres, &world.database, &wal);
    drop(casting);

    let per_second = |n: u64| rounded(n as f64 / seconds);
    let calls: BTreeMap<&str, f64> = counts.iter().map(|(name, n)| (name.as_str(), per_second(*n))).collect();
    eprintln!("\ncalls per second, of {} worker(s)", args.size.workers);
    calls.iter().for_each(|(name, n)| eprintln!("{n:12.2}  {name}"));
    eprintln!("\nstatements and rows per second");
    eprintln!("{:12.2} {:12.2}  all", per_second(statements.calls()), per_second(statements.rows()));
    for statement in statements.all.iter().take(MOST) {
        eprintln!(
            "{:12.2} {:12.2}  {}",
            per_second(statement.calls),
            per_second(statement.rows),
            statement.text
        );
    }
    eprintln!("\ncores: {cpu:.3?}; WAL {:.0} bytes/s", statements.wal / seconds);
    let texts = statements.all.iter().take(MOST).map(|statement| {
        json!({"per_second": per_second(statement.calls), "rows_per_second": per_second(statement.rows), "text": statement.text})
    });
    json!({
        "mode": "steady",
        "queues": args.size.queues, "workers": args.size.workers, "partitions": args.size.partitions,
        "polls": args.size.polls, "lanes": args.size.lanes, "seconds": rounded(seconds),
        "activated_after": rounded(activated.as_secs_f64()),
        "votes_per_second": per_second(cast),
        "calls_per_second": calls,
        "statements_per_second": per_second(statements.calls()),
        "rows_per_second": per_second(statements.rows()),
        "statements": texts.collect::<Vec<_>>(),
        "wal_bytes_per_second": (statements.wal / seconds).round(),
        "cores": cpu,
    })
}
