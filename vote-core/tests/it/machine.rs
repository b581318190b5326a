//! Any interleaving of votes, deliveries, commits whose answer got lost, lanes that were frozen and woken, trims and
//! queues that were cut gives the tally of the set of accepted votes, and books that add up at every step.

use std::collections::{BTreeMap, HashMap};

use proptest::{collection::vec, prelude::*};
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};
use tokio::runtime::{Builder, Runtime};
use vote_core::{
    Keep, Lane, Partition, Poll, Polls, Position, Queue, QueueId, Store, StoreReader, Timestamp, Vote,
    VoterKey, audit,
    conformance::{self, frames, layout, poll},
    dedup::{Batch, Delivery},
    queue::MemoryQueue,
    store::{
        Acquired, Ballot, Checkpoint, CommitPlan, Lookup, MemoryStore, QueueRecord, QueueState,
        RegisteredPoll, StoreError,
    },
};

/// What a lane reads at a time, and from which queue first.
#[derive(Debug, Clone)]
struct Read {
    partition: u16,
    limit: usize,
    first: usize,
}

#[derive(Debug, Clone)]
enum Step {
    /// A flush of votes to one queue.
    Append(usize, Vec<(u64, u8, i64)>),
    /// A lane reads, plans and commits. What it knew is forgotten after it, as when the answer to a commit got lost.
    Commit(Read),
    /// Two lanes know the same: one was frozen before its commit, and wakes after that of the other.
    Wake(Read, Read),
    /// The answer to a commit got lost, and the lane sends it again.
    Again(Read),
    Trim(usize, u16),
    /// The queue lost data, is given another identity, and what is left of it is read once more.
    Cut(usize),
}

#[derive(Debug, Clone)]
struct Model {
    keep: Keep,
    queues: usize,
    /// Every vote that was acknowledged.
    accepted: Vec<Vote>,
}

/// Few partitions and few voters, so that votes meet.
const PARTITIONS: [u16; 3] = [0, 5, 11];

fn votes(of: &[(u64, u8, i64)]) -> Vec<Vote> {
    let in_them =
        |voter: &u64| PARTITIONS.contains(&layout().partitions.of(conformance::vote(*voter, 0, 0).voter).0);
    let voters: Vec<u64> = (0..200).filter(in_them).collect();
    of.iter()
        .map(|(voter, option, at)| conformance::vote(voters[*voter as usize % 12], *option, *at))
        .collect()
}

fn read() -> impl Strategy<Value = Read> {
    (0..PARTITIONS.len(), 1..5_usize, 0..4_usize).prop_map(|(partition, limit, first)| Read {
        partition: PARTITIONS[partition],
        limit,
        first,
    })
}

struct Machine;

impl ReferenceStateMachine for Machine {
    type State = Model;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Model> {
        (prop_oneof![Just(Keep::First), Just(Keep::Last)], 1..4_usize)
            .prop_map(|(keep, queues)| Model { keep, queues, accepted: Vec::new() })
            .boxed()
    }

    fn transitions(model: &Model) -> BoxedStrategy<Step> {
        let queue = 0..model.queues;
        prop_oneof![
            5 => (queue.clone(), vec((0..12_u64, 0..2_u8, 0..6_i64), 1..6))
                .prop_map(|(queue, votes)| Step::Append(queue, votes)),
            4 => read().prop_map(Step::Commit),
            1 => (read(), read()).prop_map(|(a, b)| Step::Wake(Read { partition: b.partition, ..a }, b)),
            1 => read().prop_map(Step::Again),
            1 => (queue.clone(), 0..PARTITIONS.len()).prop_map(|(queue, p)| Step::Trim(queue, PARTITIONS[p])),
            1 => queue.prop_map(Step::Cut),
        ]
        .boxed()
    }

    fn apply(mut model: Model, step: &Step) -> Model {
        if let Step::Append(_, of) = step {
            model.accepted.extend(votes(of));
        }
        model
    }
}

/// Real parts, in memory.
struct System {
    runtime: Runtime,
    store: MemoryStore,
    queues: Vec<(QueueId, MemoryQueue)>,
    registered: RegisteredPoll,
}

impl System {
    /// The boxes and what is left of others, each with its queue.
    async fn logs(&self) -> Vec<(QueueId, &MemoryQueue)> {
        let mut logs = Vec::new();
        for (id, queue) in &self.queues {
            logs.push((*id, queue));
            let status = queue.status().await.unwrap().unwrap();
            logs.extend(status.remains.iter().map(|remains| (remains.id, queue)));
        }
        logs
    }

    async fn plan(&self, lane: &mut dyn Lane, read: &Read, acquired: &Acquired) -> CommitPlan {
        let mut deliveries = Vec::new();
        let mut logs = self.logs().await;
        let first = read.first % logs.len();
        logs.rotate_left(first);
        for (id, queue) in logs {
            let from: Checkpoint = acquired.checkpoints.get(&id).cloned().unwrap_or_default();
            let found = queue.read(id, Partition(read.partition), from.position, read.limit).await.unwrap();
            let delivery = Delivery::new(id, &from, found);
            if delivery.checkpoint != from {
                deliveries.push(delivery);
            }
        }
        let registered = std::slice::from_ref(&self.registered);
        let partition = Partition(read.partition);
        let batch = Batch::decode(partition, layout().partitions, registered, deliveries, Vec::new());
        assert_eq!(batch.quarantine(), []);
        let mut standing = BTreeMap::new();
        for (poll, voters) in batch.voters() {
            let found = lane.lookup(partition, poll, &voters, Lookup::Filtered).await.unwrap();
            standing.insert(poll, found);
        }
        batch.plan(acquired.version, &standing)
    }

    async fn run(&mut self, step: Step) {
        let mut lane = self.store.open_lane().await.unwrap();
        match step {
            Step::Append(queue, of) => {
                let (id, queue) = &self.queues[queue];
                queue.append(*id, &frames(&votes(&of))).await.unwrap();
            }
            Step::Commit(read) => {
                self.commit(&mut *lane, &read).await;
            }
            Step::Wake(frozen, read) => {
                let known = lane.acquire(Partition(frozen.partition)).await.unwrap().unwrap();
                let late = self.plan(&mut *lane, &frozen, &known).await;
                self.commit(&mut *lane, &read).await;
                assert_stale(lane.commit(&late).await);
            }
            Step::Again(read) => {
                let plan = self.commit(&mut *lane, &read).await;
                assert_stale(lane.commit(&plan).await);
            }
            Step::Trim(queue, partition) => {
                let (id, queue) = &self.queues[queue];
                let committed = self.store.position(*id, Partition(partition)).await.unwrap();
                queue.trim(*id, Partition(partition), committed).await.unwrap();
            }
            Step::Cut(queue) => {
                let (id, queue) = &mut self.queues[queue];
                let cut = QueueRecord { state: QueueState::Cut, ..record(*id) };
                self.store.report(&[cut]).await.unwrap();
                *id = queue.create(layout(), Some(*id)).await.unwrap();
                conformance::activate(queue, *id, &[conformance::poll()]).await.unwrap();
                let start = vec![Position::START; usize::from(layout().partitions.count())];
                let mut records = vec![record(*id)];
                for remains in queue.status().await.unwrap().unwrap().remains {
                    let unread = queue.unread(remains.id, &start, 1).await.unwrap();
                    records.push(QueueRecord {
                        remains_of: Some(remains.of),
                        ends: unread.iter().map(|unread| unread.end).collect(),
                        ..record(remains.id)
                    });
                }
                self.store.report(&records).await.unwrap();
            }
        }
    }

    async fn commit(&self, lane: &mut dyn Lane, read: &Read) -> CommitPlan {
        let acquired = lane.acquire(Partition(read.partition)).await.unwrap().unwrap();
        let plan = self.plan(lane, read, &acquired).await;
        lane.commit(&plan).await.unwrap();
        plan
    }

    /// Reads and trims everything that is left.
    async fn drain(&self) {
        let mut lane = self.store.open_lane().await.unwrap();
        for partition in PARTITIONS {
            let read = Read { partition, limit: 1000, first: 0 };
            self.commit(&mut *lane, &read).await;
            for (id, queue) in self.logs().await {
                let committed = self.store.position(id, Partition(partition)).await.unwrap();
                queue.trim(id, Partition(partition), committed).await.unwrap();
            }
        }
    }
}

fn record(id: QueueId) -> QueueRecord {
    QueueRecord::new(id, "memory:".to_owned(), Timestamp::MIN)
}

fn assert_stale(result: Result<(), StoreError>) {
    assert!(matches!(result, Err(StoreError::StaleVersion(_))), "{result:?}");
}

/// Which ballot stands for each voter, found by sorting.
fn outcome(model: &Model) -> HashMap<VoterKey, Ballot> {
    let mut ballots: Vec<Ballot> = model.accepted.iter().map(conformance::ballot).collect();
    ballots.sort_by_key(|ballot| (ballot.cast_at, ballot.option));
    if model.keep == Keep::First {
        ballots.reverse();
    }
    // The last one put in stays.
    ballots.into_iter().map(|ballot| (ballot.voter, ballot)).collect()
}

impl StateMachineTest for System {
    type SystemUnderTest = Self;
    type Reference = Machine;

    fn init_test(model: &Model) -> Self {
        let runtime = Builder::new_current_thread().build().unwrap();
        let store = MemoryStore::new();
        let poll = Poll { keep: model.keep, ..Polls::example().get("pets").unwrap().clone() };
        let (queues, registered) = runtime.block_on(async {
            store.prepare(layout()).await.unwrap();
            let registered = store.register_poll(&poll).await.unwrap();
            let mut queues = Vec::new();
            for _ in 0..model.queues {
                let queue = MemoryQueue::new();
                let id = queue.create(layout(), None).await.unwrap();
                store.report(&[record(id)]).await.unwrap();
                conformance::activate(&queue, id, &[conformance::poll()]).await.unwrap();
                queues.push((id, queue));
            }
            (queues, registered)
        });
        Self { runtime, store, queues, registered }
    }

    fn apply(mut system: Self, _: &Model, step: Step) -> Self {
        let runtime = std::mem::replace(&mut system.runtime, Builder::new_current_thread().build().unwrap());
        runtime.block_on(system.run(step));
        system
    }

    fn check_invariants(system: &Self, _: &Model) {
        system.runtime.block_on(async {
            let books = system.store.snapshot().await.unwrap().books(true).await.unwrap();
            let problems = audit::audit(&books, None).problems;
            let other: Vec<_> = problems.iter().filter(|problem| !problem.contains("is cut")).collect();
            assert_eq!(other, Vec::<&String>::new());
        });
    }

    fn teardown(system: Self, model: Model) {
        let expected = outcome(&model);
        system.runtime.block_on(async {
            system.drain().await;
            for (_, queue) in &system.queues {
                assert_eq!(
                    queue.status().await.unwrap().unwrap().remains,
                    [],
                    "all of it was read and trimmed"
                );
            }
            let mut snapshot = system.store.snapshot().await.unwrap();
            let ballots = snapshot.ballots(poll(), None, usize::MAX).await.unwrap();
            let found: HashMap<_, _> = ballots.iter().map(|ballot| (ballot.voter, *ballot)).collect();
            assert_eq!(found, expected);
            let tally = system.store.tally(poll()).await.unwrap();
            for (option, votes) in tally {
                let count = expected.values().filter(|ballot| ballot.option == option).count() as u64;
                assert_eq!(votes, count, "{option}");
            }
            // What remains brought is beside the law: without it every accepted vote is in the books once, unless it
            // was in a queue when that was cut.
            let books = snapshot.books(true).await.unwrap();
            let cut = books.queues.iter().any(|queue| queue.state == QueueState::Cut);
            let booked: u64 = books.ledger.iter().map(|row| row.entry.accepted).sum();
            assert!(cut || booked == model.accepted.len() as u64, "{booked} of {}", model.accepted.len());
        });
    }
}

prop_state_machine! {
    #![proptest_config(ProptestConfig { cases: 256, max_shrink_iters: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_interleaving_gives_the_tally_of_the_set_of_votes(sequential 1..60 => System);
}
