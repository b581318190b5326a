//! Finality: how long a closed poll takes to be final while another one is busy.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use vote_tools::command::rounded;

use crate::{args::Finality, voters::append, world::World};

pub(crate) async fn run(args: &Finality) -> Value {
    let size = crate::args::Size { polls: args.size.polls.max(2), ..args.size };
    let mut world = World::start(size).await;
    world.start_workers(Duration::ZERO);
    let activated = world.activated().await;
    eprintln!("scale: all {} queues are active after {activated:.1?}", size.queues);
    let voters = Arc::new(AtomicU64::new(0));
    let of_each = args.votes.div_ceil(u64::from(size.queues));
    world
        .on_each_queue(|_, id, queue| {
            let electorate = world.electorate.clone();
            let first = voters.fetch_add(of_each, Ordering::Relaxed);
            async move {
                let votes: Vec<_> =
                    (first..first + of_each).map(|voter| electorate.vote(0, voter, 0)).collect();
                for votes in votes.chunks(100) {
                    append(&*queue, id, &electorate.frames(votes)).await;
                }
            }
        })
        .await;
    let casting = world.cast_steadily(&voters, 1..size.polls as usize, args.rate, None);
    sleep(Duration::from_secs(5)).await;

    let closing = world.electorate.polls[0].0;
    let cast_before = voters.load(Ordering::Relaxed);
    let start = Instant::now();
    world.store.close_poll(closing).await.unwrap();
    let limit = Duration::from_secs(args.within * 6);
    let mut is_final = false;
    while !is_final && start.elapsed() < limit {
        sleep(Duration::from_millis(50)).await;
        let polls = world.store.polls().await.unwrap();
        is_final = polls.iter().any(|poll| poll.slug == closing && poll.final_at.is_some());
    }
    let seconds = start.elapsed();
    let rate = (voters.load(Ordering::Relaxed) - cast_before) as f64 / seconds.as_secs_f64();
    drop(casting);
    let counted = world.accounts().await.tally_of(closing).iter().map(|(_, votes)| votes).sum::<u64>();
    let exact = counted == of_each * u64::from(size.queues);
    let holds = is_final && exact && seconds <= Duration::from_secs(args.within);
    eprintln!("scale: final: {is_final} after {seconds:.2?} at {rate:.0} votes/s, {counted} votes counted");
    json!({
        "mode": "finality", "holds": holds, "final": is_final, "seconds": rounded(seconds.as_secs_f64()),
        "queues": size.queues, "workers": size.workers, "partitions": size.partitions, "polls": size.polls,
        "votes_per_second": rounded(rate), "exact": exact,
    })
}
