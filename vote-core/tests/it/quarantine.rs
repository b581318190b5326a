//! Property test of the quarantine: of frames with votes that can't be counted, or not before their poll is registered,
//! every vote that can be counted is counted once, and only the other votes stay quarantined.

use std::collections::{BTreeMap, HashMap};

use proptest::{collection::vec, prelude::*};
use tokio::runtime::Builder;
use vote_core::{
    Keep, Partition, Poll, PollSlug, Polls, Position, Queue, QueueId, Store, StoreReader, Timestamp, Vote,
    VoterKey,
    conformance::{self, activate, frames, layout},
    count::{
        Ballot, Batch, Decision, Delivery, QuarantineState, QuarantinedFrame, QueueRecord, audit, merge,
    },
    queue::{Appended, Frame, MemoryQueue},
    store::{Lookup, MemoryStore},
};

#[derive(Debug, Clone)]
enum Step {
    /// A flush of votes (voter, option, time) to one queue, for a poll that is registered from the start, or for the
    /// other one, `cars`. No poll has the third option.
    Append { queue: usize, cars: bool, damaged: bool, votes: Vec<(u64, u8, i64)> },
    /// A lane reads up to `limit` frames of each queue, and commits.
    Commit { partition: Partition, limit: usize },
    /// A lane replays up to `limit` of the frames that are to be replayed.
    Replay { partition: Partition, limit: usize },
    /// An operator decides that all frames are to be replayed.
    Decide,
    /// The other poll is registered.
    Register,
}

/// Few partitions and few voters, so that many votes have the same voter.
const PARTITIONS: [Partition; 2] = [Partition(0), Partition(7)];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let partition = || (0..PARTITIONS.len()).prop_map(|n| PARTITIONS[n]);
    let votes = vec((0..8_u64, 0..3_u8, 0..4_i64), 1..8);
    let step = prop_oneof![
        5 => (0..2_usize, any::<bool>(), prop::bool::weighted(0.1), votes)
            .prop_map(|(queue, cars, damaged, votes)| Step::Append { queue, cars, damaged, votes }),
        4 => (partition(), 1..4_usize).prop_map(|(partition, limit)| Step::Commit { partition, limit }),
        2 => (partition(), 1..4_usize).prop_map(|(partition, limit)| Step::Replay { partition, limit }),
        1 => Just(Step::Decide),
        1 => Just(Step::Register),
    ];
    vec(step, 1..40)
}

fn pets() -> Poll {
    Polls::example().get("pets").unwrap().clone()
}

fn cars() -> Poll {
    Poll { slug: "cars".parse().unwrap(), keep: Keep::Last, ..pets() }
}

fn votes(poll: PollSlug, of: &[(u64, u8, i64)]) -> Vec<Vote> {
    let in_partitions =
        |voter: &u64| PARTITIONS.contains(&layout().partitions.of(conformance::vote(*voter, 0, 0).voter));
    let voters: Vec<u64> = (0..).filter(in_partitions).take(8).collect();
    let vote = |(voter, option, at): &(u64, u8, i64)| {
        let vote = conformance::vote(voters[*voter as usize], *option, *at);
        let option = if *option == 2 { "birds".parse().unwrap() } else { vote.option };
        Vote { poll, option, ..vote }
    };
    of.iter().map(vote).collect()
}

/// An acknowledged vote, where it was stored, and whether it can be counted.
struct Accepted {
    vote: Vote,
    queue: QueueId,
    partition: Partition,
    position: Position,
    is_valid: bool,
}

struct World {
    store: MemoryStore,
    queues: Vec<(QueueId, MemoryQueue)>,
    accepted: Vec<Accepted>,
}

impl World {
    async fn new() -> Self {
        let store = MemoryStore::new();
        store.prepare(layout()).await.unwrap();
        store.register_poll(&pets()).await.unwrap();
        let mut queues = Vec::new();
        for _ in 0..2 {
            let queue = MemoryQueue::new();
            let id = queue.create(layout(), None).await.unwrap();
            let record = QueueRecord::new(id, "memory:".to_owned(), Timestamp::MIN);
            store.report(&[record]).await.unwrap();
            activate(&queue, id, &[pets().slug, cars().slug]).await.unwrap();
            queues.push((id, queue));
        }
        Self { store, queues, accepted: Vec::new() }
    }

    async fn run(&mut self, step: &Step) {
        match step {
            Step::Append { queue, cars: of_cars, damaged, votes: of } => {
                let poll = if *of_cars { cars().slug } else { pets().slug };
                self.append(*queue, *damaged, &votes(poll, of)).await;
            }
            Step::Commit { partition, limit } => self.commit(*partition, *limit, Vec::new()).await,
            Step::Replay { partition, limit } => self.replay(*partition, *limit).await,
            Step::Decide => self.decide().await,
            Step::Register => drop(self.store.register_poll(&cars()).await.unwrap()),
        }
    }

    async fn append(&mut self, queue: usize, damaged: bool, votes: &[Vote]) {
        let (id, queue) = &self.queues[queue];
        let mut frames = frames(votes);
        for Frame { bytes, .. } in frames.iter_mut().filter(|_| damaged) {
            let mut damaged = bytes.to_vec();
            damaged[5] ^= 1;
            *bytes = damaged.into();
        }
        let appended = queue.append(*id, &frames).await.unwrap();
        for (frame, appended) in frames.iter().zip(appended) {
            let Appended::Stored(position) = appended else { panic!("nothing is sealed: {appended:?}") };
            let of_frame = votes.iter().filter(|vote| layout().partitions.of(vote.voter) == frame.partition);
            self.accepted.extend(of_frame.map(|vote| Accepted {
                vote: *vote,
                queue: *id,
                partition: frame.partition,
                position,
                is_valid: !damaged && vote.option.as_str() != "birds",
            }));
        }
    }

    async fn commit(&self, partition: Partition, limit: usize, replays: Vec<QuarantinedFrame>) {
        let mut session = self.store.open_session().await.unwrap();
        let acquired = session.acquire(partition).await.unwrap().unwrap();
        let mut deliveries = Vec::new();
        for (id, queue) in &self.queues {
            let from = acquired.checkpoints.get(id).cloned().unwrap_or_default();
            let read = queue.read(*id, partition, from.position, limit).await.unwrap();
            deliveries.push(Delivery::new(*id, &from, read));
        }
        let polls = self.store.polls().await.unwrap();
        let batch = Batch::decode(partition, layout().partitions, &polls, deliveries, replays);
        let mut effective = BTreeMap::new();
        for (poll, voters) in batch.voters() {
            let found = session.lookup(partition, poll, &voters, Lookup::Filtered).await.unwrap();
            effective.insert(poll, found);
        }
        session.commit(&batch.plan(acquired.version, &effective)).await.unwrap();
    }

    async fn replay(&self, partition: Partition, limit: usize) {
        let mut session = self.store.open_session().await.unwrap();
        let replays = session.replays(partition, limit).await.unwrap();
        drop(session);
        self.commit(partition, 1, replays).await;
    }

    async fn decide(&self) {
        let rows = self.store.quarantine(None, usize::MAX).await.unwrap();
        let keys: Vec<_> = rows.iter().map(vote_core::count::QuarantineRow::key).collect();
        self.store.decide(&keys, &Decision::Replay).await.unwrap();
    }

    /// Checks that every vote that was read is accounted for, and that the accounts agree with the quarantine.
    async fn check(&self) {
        let accounts = self.store.snapshot().await.unwrap().accounts(true).await.unwrap();
        assert_eq!(audit::audit(&accounts, None).problems, []);
        for row in &accounts.ledger {
            assert_eq!(row.entry.unaccounted(false), 0, "{row:?}");
        }
    }

    /// Reads everything, and replays everything that is quarantined.
    async fn drain(&self) {
        self.store.register_poll(&cars()).await.unwrap();
        for partition in PARTITIONS {
            self.commit(partition, 1000, Vec::new()).await;
        }
        self.decide().await;
        for partition in PARTITIONS {
            self.replay(partition, 1000).await;
        }
    }

    /// Checks that exactly the votes that can be counted are counted, and that the others are quarantined.
    async fn check_the_end(&self) {
        let mut expected: HashMap<(PollSlug, VoterKey), Ballot> = HashMap::new();
        for Accepted { vote, .. } in self.accepted.iter().filter(|accepted| accepted.is_valid) {
            let keep = if vote.poll == cars().slug { Keep::Last } else { pets().keep };
            let ballot = conformance::ballot(vote);
            expected
                .entry((vote.poll, vote.voter))
                .and_modify(|effective| *effective = merge(keep, *effective, ballot))
                .or_insert(ballot);
        }
        let mut snapshot = self.store.snapshot().await.unwrap();
        for poll in [pets().slug, cars().slug] {
            let ballots = snapshot.ballots(poll, None, usize::MAX).await.unwrap();
            let found: HashMap<_, _> = ballots.iter().map(|b| ((poll, b.voter), *b)).collect();
            let of_poll = expected.iter().filter(|((of, _), _)| *of == poll);
            assert_eq!(found, of_poll.map(|(key, ballot)| (*key, *ballot)).collect(), "{poll}");
        }
        let accounts = snapshot.accounts(true).await.unwrap();
        let quarantined: u64 = accounts.quarantine.iter().map(|total| total.votes).sum();
        let invalid = self.accepted.iter().filter(|accepted| !accepted.is_valid).count();
        assert_eq!(quarantined, invalid as u64);
        for accepted in &self.accepted {
            let Accepted { queue, partition, position, .. } = *accepted;
            let row = self.store.quarantined(queue, partition, position).await.unwrap();
            let is_quarantined = row.is_some_and(|row| {
                assert_eq!(row.state, QuarantineState::Quarantined);
                row.holds(layout().partitions, &accepted.vote)
            });
            assert_eq!(is_quarantined, !accepted.is_valid, "{:?}", accepted.vote);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_vote_that_can_be_counted_is_counted_once(steps in steps()) {
        Builder::new_current_thread().build().unwrap().block_on(async {
            let mut world = World::new().await;
            for step in &steps {
                world.run(step).await;
                world.check().await;
            }
            world.drain().await;
            world.check().await;
            world.check_the_end().await;
        });
    }
}
