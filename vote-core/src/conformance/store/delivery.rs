//! The clause about deliveries: the order, the queues and the batches in which votes arrive do not matter.

use std::collections::HashMap;

use super::*;
use crate::{
    Queue,
    conformance::{activate, frames},
    count::{self, Batch, Delivery},
    queue::MemoryQueue,
};

/// Sends double votes through two queues, reads them in pieces, and acquires the partition again before each piece.
pub(super) async fn any_delivery_gives_the_tally_of_the_set_of_votes(harness: &dyn StoreHarness) {
    for keep in [Keep::First, Keep::Last] {
        let store = harness.fresh().await;
        store.prepare(layout()).await.expect("a layout");
        let registered = store.register_poll(&pets(keep)).await.expect("a poll");
        let votes: Vec<Vote> =
            (0..400_u64).map(|n| vote(n % 90, (n * 7 % 3) as u8, 1 + (n * 37 % 11) as i64)).collect();
        let queues = [filled(&votes[..200]).await, filled(&votes[200..]).await];
        let mut session = store.open_session().await.expect("a session");
        for partition in layout().partitions.iter() {
            drain(&mut *session, partition, &registered, &queues).await;
        }
        let mut effective: HashMap<VoterKey, Ballot> = HashMap::new();
        for vote in &votes {
            let ballot = ballot(vote);
            effective.entry(vote.voter).and_modify(|b| *b = count::merge(keep, *b, ballot)).or_insert(ballot);
        }
        for expected in effective.values() {
            let found = store.ballot(poll(), expected.voter).await.expect("an answer");
            assert_eq!(found, Some(*expected), "{keep:?}");
        }
        let count = |option| effective.values().filter(|ballot| ballot.option == option).count() as u64;
        assert_eq!(tally(&*store).await, [(cats(), count(cats())), (dogs(), count(dogs()))], "{keep:?}");
        let ledger = ledger(&*store).await;
        for row in &ledger {
            assert_eq!(row.entry.unaccounted(false), 0, "{row:?}");
        }
        assert_eq!(ledger.iter().map(|row| row.entry.accepted).sum::<u64>(), votes.len() as u64);
        assert_eq!(ledger.iter().map(|row| row.entry.new_voters).sum::<u64>(), effective.len() as u64);
    }
}

/// Returns a queue in memory with these votes.
async fn filled(votes: &[Vote]) -> (QueueId, MemoryQueue) {
    let queue = MemoryQueue::new();
    let id = queue.create(layout(), None).await.expect("a queue");
    activate(&queue, id, &[poll()]).await.expect("a queue");
    for flush in votes.chunks(16) {
        queue.append(id, &frames(flush)).await.expect("frames");
    }
    (id, queue)
}

/// Reads a partition of the queues to its end in pieces of up to three entries, each with a commit of its own.
async fn drain(
    session: &mut dyn Session,
    partition: Partition,
    registered: &RegisteredPoll,
    queues: &[(QueueId, MemoryQueue)],
) {
    for piece in 0.. {
        // A worker that does not know the outcome of its commit acquires the partition again, too.
        let acquired = session.acquire(partition).await.expect("an answer").expect("a free partition");
        let mut deliveries = Vec::new();
        for (id, queue) in queues {
            let from = acquired.checkpoints.get(id).cloned().unwrap_or_default();
            let read = queue.read(*id, partition, from.position, 1 + piece % 3).await.expect("a read");
            deliveries.push(Delivery::new(*id, &from, read));
        }
        if deliveries.iter().all(|delivery| delivery.entries.is_empty()) {
            return;
        }
        let batch = Batch::decode(
            partition,
            layout().partitions,
            std::slice::from_ref(registered),
            deliveries,
            Vec::new(),
        );
        let mut effective = BTreeMap::new();
        for (poll, voters) in batch.voters() {
            let found = session.lookup(partition, poll, &voters, Lookup::Filtered).await.expect("a lookup");
            effective.insert(poll, found);
        }
        session.commit(&batch.plan(acquired.version, &effective)).await.expect("a commit");
    }
}
