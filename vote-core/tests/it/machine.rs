//! State machine test: any interleaving of votes, deliveries, commits whose answer got lost, lanes that were frozen and
//! woken, trims, and queues that diverged gives the tally of the set of accepted votes, and accounts that keep the
//! invariants after every step.

use std::collections::{BTreeMap, HashMap};

use proptest::{collection::vec, prelude::*};
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};
use tokio::runtime::{Builder, Runtime};
use vote_core::{
    Keep, Partition, Poll, Polls, Position, Queue, QueueId, Session, Store, StoreReader, Timestamp, Vote,
    VoterKey,
    conformance::{self, frames, layout, poll},
    count::{
        Ballot, Batch, Checkpoint, CommitPlan, Delivery, QueueRecord, QueueState, RegisteredPoll, audit,
    },
    queue::MemoryQueue,
    store::{Acquired, Lookup, MemoryStore, StoreError},
};

/// What a lane reads for one commit.
#[derive(Debug, Clone)]
struct Read {
    partition: u16,
    /// Largest number of entries from each queue.
    limit: usize,
    /// Which queue is read first.
    first: usize,
}

#[derive(Debug, Clone)]
enum Step {
    /// A frontend appends a flush of votes to one queue.
    Append(usize, Vec<(u64, u8, i64)>),
    /// A lane reads, plans and commits, and then forgets what it knew, as after a commit whose answer got lost.
    Commit(Read),
    /// Two lanes plan from the same state: one is frozen before its commit, and wakes after the commit of the other.
    Wake(Read, Read),
    /// The answer to a commit got lost, and the lane commits the same plan again.
    Again(Read),
    /// A worker trims a queue up to the committed position of a partition.
    Trim(usize, u16),
    /// A queue diverges: it is replaced by one with a new identity, and its remaining entries are read once more.
    Diverge(usize),
}

#[derive(Debug, Clone)]
struct Model {
    keep: Keep,
    queues: usize,
    /// Every acknowledged vote.
    accepted: Vec<Vote>,
}

/// Few partitions and few voters, so that many votes have the same voter.
const PARTITIONS: [u16; 3] = [0, 5, 11];

fn votes(of: &[(u64, u8, i64)]) -> Vec<Vote> {
    let in_partitions =
        |voter: &u64| PARTITIONS.contains(&layout().partitions.of(conformance::vote(*voter, 0, 0).voter).0);
    let voters: Vec<u64> = (0..200).filter(in_partitions).collect();
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
            1 => queue.prop_map(Step::Diverge),
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

/// The real parts, in memory.
struct System {
    runtime: Runtime,
    store: MemoryStore,
    queues: Vec<(QueueId, MemoryQueue)>,
    registered: RegisteredPoll,
}

impl System {
    /// Returns the identities to read, those of queues and of replaced queues, each with its queue.
    async fn logs(&self) -> Vec<(QueueId, &MemoryQueue)> {
        let mut logs = Vec::new();
        for (id, queue) in &self.queues {
            logs.push((*id, queue));
            let status = queue.status().await.unwrap().unwrap();
            logs.extend(status.replaced.iter().map(|replaced| (replaced.id, queue)));
        }
        logs
    }

    async fn plan(&self, session: &mut dyn Session, read: &Read, acquired: &Acquired) -> CommitPlan {
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
        let mut effective = BTreeMap::new();
        for (poll, voters) in batch.voters() {
            let found = session.lookup(partition, poll, &voters, Lookup::Filtered).await.unwrap();
            effective.insert(poll, found);
        }
        batch.plan(acquired.version, &effective)
    }

    async fn run(&mut self, step: Step) {
        let mut session = self.store.open_session().await.unwrap();
        match step {
            Step::Append(queue, of) => {
                let (id, queue) = &self.queues[queue];
                queue.append(*id, &frames(&votes(&of))).await.unwrap();
            }
            Step::Commit(read) => {
                self.commit(&mut *session, &read).await;
            }
            Step::Wake(frozen, read) => {
                let known = session.acquire(Partition(frozen.partition)).await.unwrap().unwrap();
                let late = self.plan(&mut *session, &frozen, &known).await;
                self.commit(&mut *session, &read).await;
                assert_stale(session.commit(&late).await);
            }
            Step::Again(read) => {
                let plan = self.commit(&mut *session, &read).await;
                assert_stale(session.commit(&plan).await);
            }
            Step::Trim(queue, partition) => {
                let (id, queue) = &self.queues[queue];
                let committed = self.store.position(*id, Partition(partition)).await.unwrap();
                queue.trim(*id, Partition(partition), committed).await.unwrap();
            }
            Step::Diverge(queue) => {
                let (id, queue) = &mut self.queues[queue];
                let diverged = QueueRecord { state: QueueState::Diverged, ..record(*id) };
                self.store.report(&[diverged]).await.unwrap();
                *id = queue.create(layout(), Some(*id)).await.unwrap();
                conformance::activate(queue, *id, &[conformance::poll()]).await.unwrap();
                let start = vec![Position::START; usize::from(layout().partitions.count())];
                let mut records = vec![record(*id)];
                for replaced in queue.status().await.unwrap().unwrap().replaced {
                    let backlog = queue.backlog(replaced.id, &start, 1).await.unwrap();
                    records.push(QueueRecord {
                        original_id: Some(replaced.of),
                        ends: backlog.iter().map(|backlog| backlog.end).collect(),
                        ..record(replaced.id)
                    });
                }
                self.store.report(&records).await.unwrap();
            }
        }
    }

    async fn commit(&self, session: &mut dyn Session, read: &Read) -> CommitPlan {
        let acquired = session.acquire(Partition(read.partition)).await.unwrap().unwrap();
        let plan = self.plan(session, read, &acquired).await;
        session.commit(&plan).await.unwrap();
        plan
    }

    /// Reads and trims all remaining entries.
    async fn drain(&self) {
        let mut session = self.store.open_session().await.unwrap();
        for partition in PARTITIONS {
            let read = Read { partition, limit: 1000, first: 0 };
            self.commit(&mut *session, &read).await;
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

/// Returns the effective ballot of each voter, found by sorting.
fn outcome(model: &Model) -> HashMap<VoterKey, Ballot> {
    let mut ballots: Vec<Ballot> = model.accepted.iter().map(conformance::ballot).collect();
    ballots.sort_by_key(|ballot| (ballot.cast_at, ballot.option));
    if model.keep == Keep::First {
        ballots.reverse();
    }
    // Of several ballots of a voter, the last one inserted stays in the map.
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
            let accounts = system.store.snapshot().await.unwrap().accounts(true).await.unwrap();
            let problems = audit::audit(&accounts, None).problems;
            let other: Vec<_> = problems.iter().filter(|problem| problem.code() != "diverged").collect();
            assert_eq!(other, Vec::<&audit::Finding>::new());
        });
    }

    fn teardown(system: Self, model: Model) {
        let expected = outcome(&model);
        system.runtime.block_on(async {
            system.drain().await;
            for (_, queue) in &system.queues {
                assert_eq!(
                    queue.status().await.unwrap().unwrap().replaced,
                    [],
                    "every replaced queue was read and trimmed"
                );
            }
            let mut snapshot = system.store.snapshot().await.unwrap();
            let ballots = snapshot.ballots(poll(), None, usize::MAX).await.unwrap();
            let found: HashMap<_, _> = ballots.iter().map(|ballot| (ballot.voter, *ballot)).collect();
            assert_eq!(found, expected);
            let accounts = snapshot.accounts(true).await.unwrap();
            for (option, votes) in accounts.tally_of(poll()) {
                let count = expected.values().filter(|ballot| ballot.option == option).count() as u64;
                assert_eq!(votes, count, "{option}");
            }
            // What was read from replaced queues is outside the invariant. Without a queue that diverged, every
            // accepted vote is in the ledger exactly once.
            let any_diverged = accounts.queues.iter().any(|queue| queue.state == QueueState::Diverged);
            let counted: u64 = accounts.ledger.iter().map(|row| row.entry.accepted).sum();
            let accepted = model.accepted.len() as u64;
            assert!(any_diverged || counted == accepted, "{counted} of {accepted}");
        });
    }
}

prop_state_machine! {
    #![proptest_config(ProptestConfig { cases: 256, max_shrink_iters: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_interleaving_gives_the_tally_of_the_set_of_votes(sequential 1..60 => System);
}
