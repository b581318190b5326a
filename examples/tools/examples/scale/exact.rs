//! Exactness: votes, double votes among them, in many queues, and the result that follows from them.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use vote_core::{
    OptionSlug, PollSlug, Vote,
    count::audit::{Verdict, audit},
};
use vote_tools::command::rounded;

use crate::{
    args::Exact,
    voters::{Electorate, append},
    world::World,
};

/// One voter in this many votes twice.
const DOUBLE_EACH: u64 = 20;
/// Maximum number of findings that are printed if the audit does not hold.
const FINDINGS: usize = 10;

/// Who votes where.
#[derive(Debug, Clone, Copy)]
struct Plan {
    queues: u64,
    polls: u64,
    voters: u64,
    /// The first ones vote a second time.
    doubles: u64,
}

impl Plan {
    fn new(args: &Exact) -> Self {
        let voters = (args.votes * DOUBLE_EACH).div_ceil(DOUBLE_EACH + 1);
        let (queues, polls) = (u64::from(args.size.queues), u64::from(args.size.polls));
        Self { queues, polls, voters, doubles: args.votes - voters }
    }

    fn poll(self, voter: u64) -> usize {
        (voter / self.queues % self.polls) as usize
    }

    /// Returns the option of a voter's first vote, which is the effective one.
    fn option(voter: u64) -> usize {
        usize::from(voter.is_multiple_of(3))
    }

    /// Returns the first votes of a queue.
    fn first(self, queue: u64, electorate: &Electorate) -> impl Iterator<Item = Vote> {
        let voters = (queue..self.voters).step_by(self.queues as usize);
        voters.map(move |voter| electorate.vote(self.poll(voter), voter, Self::option(voter)))
    }

    /// Returns the second votes of a queue, each for the other option and of a voter who first voted at the queue
    /// before it.
    fn second(self, queue: u64, electorate: &Electorate) -> impl Iterator<Item = Vote> {
        let voters = ((queue + self.queues - 1) % self.queues..self.doubles).step_by(self.queues as usize);
        voters.map(move |voter| electorate.vote(self.poll(voter), voter, 1 - Self::option(voter)))
    }

    fn expected(self, electorate: &Electorate) -> BTreeMap<PollSlug, [u64; 2]> {
        let mut expected: BTreeMap<PollSlug, [u64; 2]> = BTreeMap::new();
        for voter in 0..self.voters {
            expected.entry(electorate.polls[self.poll(voter)].0).or_default()[Self::option(voter)] += 1;
        }
        expected
    }
}

pub(crate) async fn run(args: &Exact) -> Value {
    let mut world = World::start(args.size).await;
    let plan = Plan::new(args);
    let (start, before) = (Instant::now(), world.cpu());
    world.start_workers(Duration::ZERO);
    let activated = world.activated().await;
    eprintln!("scale: all {} queues are active after {activated:.1?}", args.size.queues);
    // A voter's second vote is cast after the first was acknowledged.
    cast(&world, args.flush, move |queue, electorate| plan.first(queue, electorate).collect()).await;
    cast(&world, args.flush, move |queue, electorate| plan.second(queue, electorate).collect()).await;
    let cast = start.elapsed();
    eprintln!("scale: all {} votes are cast after {cast:.1?}", args.votes);

    let expected = plan.expected(&world.electorate);
    let within = Duration::from_secs(args.within);
    let (verdict, exact) = loop {
        let accounts = world.accounts().await;
        let tally = |(poll, votes): (&PollSlug, &[u64; 2])| {
            let counted: Vec<(OptionSlug, u64)> = accounts.tally_of(*poll);
            counted.iter().map(|(_, votes)| *votes).eq(votes.iter().copied())
        };
        let exact = expected.iter().all(tally);
        let accepted: u64 = accounts.ledger.iter().map(|row| row.entry.accepted).sum();
        let verdict =
            if accepted < args.votes { Verdict::NotDrained } else { audit(&accounts, None).verdict };
        if verdict != Verdict::NotDrained || start.elapsed() > within {
            if verdict != Verdict::Holds {
                let found = audit(&accounts, None);
                let findings = found.problems.iter().chain(&found.outstanding);
                findings.take(FINDINGS).for_each(|finding| eprintln!("scale: {finding}"));
            }
            break (verdict, exact);
        }
        eprintln!("scale: {accepted} votes are counted after {:.1?}", start.elapsed());
        sleep(Duration::from_secs(1)).await;
    };
    let (seconds, cpu) = (start.elapsed(), world.cpu() - before);
    let holds = exact && verdict == Verdict::Holds && seconds <= within;
    eprintln!("scale: exact: {exact}; the audit: {verdict}; {seconds:.1?} from the start of the workers");
    eprintln!("CPU in seconds: {cpu:.2?}");
    json!({
        "mode": "exact", "holds": holds,
        "queues": args.size.queues, "workers": args.size.workers, "partitions": args.size.partitions,
        "polls": args.size.polls, "votes": args.votes, "voters": plan.voters, "double_votes": plan.doubles,
        "activated_after": rounded(activated.as_secs_f64()), "cast_after": rounded(cast.as_secs_f64()),
        "seconds": rounded(seconds.as_secs_f64()),
        "exact": exact, "audit": verdict, "cpu_seconds": cpu, "calls": world.counts.take(),
    })
}

/// Casts votes in all queues, `flush` in one append.
async fn cast(
    world: &World,
    flush: usize,
    votes: impl Fn(u64, &Electorate) -> Vec<Vote> + Send + Sync + Copy + 'static,
) {
    world
        .on_each_queue(|n, id, queue| {
            let electorate = world.electorate.clone();
            async move {
                let votes = votes(n as u64, &electorate);
                for votes in votes.chunks(flush) {
                    append(&*queue, id, &electorate.frames(votes)).await;
                }
            }
        })
        .await;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use vote_core::{Partitions, VoterKey};

    use super::*;
    use crate::{args::Size, voters};

    #[test]
    fn every_voter_votes_once_and_some_twice_at_another_queue() {
        let size = Size { queues: 7, workers: 1, partitions: 16, polls: 3, lanes: 1 };
        let plan = Plan::new(&Exact { size, votes: 2100, flush: 10, within: 1 });
        let electorate = Electorate::new(&voters::polls(3), Partitions::default());
        let keys = |queue: u64, second: bool| -> BTreeSet<VoterKey> {
            let votes: Vec<Vote> = if second {
                plan.second(queue, &electorate).collect()
            } else {
                plan.first(queue, &electorate).collect()
            };
            votes.into_iter().map(|vote| vote.voter).collect()
        };
        let sum = |second| (0..7).map(|queue| keys(queue, second).len()).sum::<usize>();
        assert_eq!((sum(false), sum(true)), (2000, 100));
        for queue in 0..7 {
            assert!(keys(queue, true).is_subset(&keys((queue + 6) % 7, false)), "queue {queue}");
        }
        let total: u64 = plan.expected(&electorate).values().flatten().sum();
        assert_eq!(total, 2000);
    }
}
