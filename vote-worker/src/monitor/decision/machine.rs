//! State machine test: whatever happens to the servers at an address, a queue is declared diverged if it must be, before
//! it is read further, and never if it kept everything.

use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};
use vote_core::{Position, count::QueueRecord};

use super::{
    tests::{ADDRESS, BOTH, look_at},
    *,
};

/// What a claim of the monitor on its queue results in.
#[derive(Debug, Clone, Copy)]
enum Claimed {
    Granted,
    Here,
    Unclear,
    Copy,
}

#[derive(Debug, Clone)]
enum Step {
    /// The queue appends entries to a partition.
    Append(usize, u16),
    /// Lanes commit everything that the queue has.
    Commit,
    /// The server restarts with everything it had.
    Restart,
    /// The server loses all but the first so many entries of each partition, and restarts or not.
    RollBack { keep: usize, restarts: bool },
    /// The server restarts with another queue: one that was seen before, or a new one.
    Swap(usize),
    /// Another worker, or an operator, records that the queue has ended.
    End(QueueState),
    /// Another worker reports a queue, which it sees.
    SeenElsewhere(usize),
    /// A lane reports a divergence of the queue that is here, or of an older one.
    Lane { here: bool },
    /// Time passes, in milliseconds.
    Wait(u64),
    /// The monitor looks at the queue. A replacement of the queue may fail.
    Look { claim: Claimed, fails: bool },
}

/// A queue. Each entry is one vote.
#[derive(Debug, Clone, Default)]
struct Log {
    /// Numbers of the entries of each partition, which only grow.
    entries: [Vec<u16>; 2],
    /// Last committed entry of each partition; 0 if none is.
    committed: [u16; 2],
    active: bool,
    record: Option<QueueRecord>,
    /// Whether it lost entries, was copied, or was found diverged by a lane.
    is_damaged: bool,
}

impl Log {
    fn counts(&self) -> [u64; 2] {
        self.entries.each_ref().map(|entries| entries.len() as u64)
    }

    fn last(&self) -> [u16; 2] {
        self.entries.each_ref().map(|entries| entries.last().copied().unwrap_or_default())
    }

    fn is_ended(&self) -> bool {
        self.record.as_ref().is_some_and(|record| record.state.is_ended())
    }

    /// Returns whether the queue lacks the entry at a position.
    fn lacks(&self, partition: usize, end: Position) -> bool {
        !self.entries[partition].iter().any(|entry| position(*entry) == end)
    }

    /// Returns whether the queue has less than its record says.
    fn is_below_its_record(&self) -> bool {
        self.record.as_ref().is_some_and(|record| {
            let is_gone = |(partition, end): (usize, &Position)| {
                *end > position(self.committed[partition]) && self.lacks(partition, *end)
            };
            self.counts().iter().sum::<u64>() < record.votes_accepted()
                || record.ends.iter().enumerate().any(is_gone)
        })
    }
}

/// The servers at one address, the store, and what the monitor has seen.
#[derive(Debug, Clone)]
struct World {
    logs: Vec<Log>,
    /// The log that is at the address.
    here: usize,
    server: u32,
    entries: u16,
    now: Duration,
    /// The log seen last, its server and its counts.
    seen: Option<(usize, u32, [u64; 2])>,
    reported_at: Option<Duration>,
    /// Logs that are to be replaced if they are here at the next look.
    doomed: BTreeSet<usize>,
    /// Logs that are not here although they are recorded: their last report, and since when that is the last.
    missing: BTreeMap<usize, (Timestamp, Duration)>,
    /// The last look and its expected outcome.
    look: Option<Look>,
}

/// What the monitor is told at a look, and what must follow.
#[derive(Debug, Clone)]
struct Look {
    world: Box<World>,
    expected: Outcome,
    vanished: Vec<QueueId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Replaced,
    Refused,
    Activated,
    Read { reported: bool },
}

fn id(log: usize) -> QueueId {
    QueueId([log as u8 + 1; 16])
}

fn position(entry: u16) -> Position {
    if entry == 0 { Position::START } else { Position::from_bytes(&entry.to_be_bytes()).unwrap() }
}

impl World {
    fn log(&mut self) -> &mut Log {
        &mut self.logs[self.here]
    }

    fn time(&self) -> Timestamp {
        Timestamp::MIN.saturating_add(self.now.as_micros() as i64)
    }

    fn status(&self) -> QueueStatus {
        let log = &self.logs[self.here];
        let status = tests::status(id(self.here), &self.server.to_string(), log.counts());
        QueueStatus { active: log.active, ..status }
    }

    fn catalog(&self) -> Catalog {
        tests::catalog(self.logs.iter().filter_map(|log| log.record.clone()))
    }

    /// Returns the record of a log as a worker would report it now.
    fn report(&mut self, number: usize) {
        let (seen_at, log) = (self.time(), &mut self.logs[number]);
        let record = tests::record(id(number), log.counts().iter().sum(), log.last().map(position).to_vec());
        let state = log.record.as_ref().map_or(QueueState::Active, |record| record.state);
        log.record = Some(QueueRecord { seen_at, state, ..record });
    }

    fn end(&mut self, number: usize, state: QueueState) {
        if self.logs[number].record.is_none() {
            self.report(number);
        }
        if let Some(record) = &mut self.logs[number].record {
            record.state = record.state.max(state);
        }
    }

    /// Returns which logs vanish, if a report is due.
    fn vanished(&mut self) -> Vec<usize> {
        let is_missing =
            |(n, log): &(usize, &Log)| *n != self.here && log.record.is_some() && !log.is_ended();
        let missing: BTreeMap<usize, Timestamp> = self
            .logs
            .iter()
            .enumerate()
            .filter(is_missing)
            .filter_map(|(n, log)| Some((n, log.record.as_ref()?.seen_at)))
            .collect();
        let since = |n: usize, seen_at: Timestamp| match self.missing.get(&n) {
            Some((before, since)) if *before == seen_at => *since,
            _ => self.now,
        };
        self.missing = missing.into_iter().map(|(n, seen_at)| (n, (seen_at, since(n, seen_at)))).collect();
        let gone = self.missing.iter().filter(|(_, (_, since))| self.now - *since >= VANISHED_AFTER);
        gone.map(|(n, _)| *n).collect()
    }

    /// Lets the monitor look: expects an outcome, and applies what follows from it.
    fn look(&mut self, claim: Claimed, fails: bool) {
        let before = Box::new(Self { look: None, ..self.clone() });
        let (here, log) = (self.here, &self.logs[self.here]);
        let counts = log.counts();
        let known = self.seen.filter(|(seen, server, _)| (*seen, *server) == (here, self.server));
        let lost = match known {
            Some((_, _, before)) => counts.iter().zip(before).any(|(now, before)| *now < before),
            None => log.is_below_its_record(),
        };
        if known.is_none() {
            self.reported_at = None;
        }
        let due = self.reported_at.is_none_or(|at| self.now - at >= REPORT_EVERY);
        self.doomed.retain(|doomed| *doomed == here);
        let is_diverged = lost || log.is_ended() || !self.doomed.is_empty();
        self.seen = Some((here, self.server, counts));
        let is_inspected = !is_diverged && matches!(claim, Claimed::Granted);
        let vanished = if due && is_inspected { self.vanished() } else { Vec::new() };
        for gone in &vanished {
            self.end(*gone, QueueState::Diverged);
        }
        let expected = match claim {
            _ if is_diverged => self.replace(fails),
            Claimed::Here | Claimed::Unclear => Outcome::Refused,
            Claimed::Copy => {
                self.condemn();
                Outcome::Refused
            }
            Claimed::Granted => self.read(due),
        };
        let vanished = vanished.into_iter().map(id).collect();
        self.look = Some(Look { world: before, expected, vanished });
    }

    /// Has the log that is here replaced, since it was copied, or since a lane found that it diverged.
    fn condemn(&mut self) {
        self.doomed.insert(self.here);
        self.log().is_damaged = true;
    }

    fn replace(&mut self, fails: bool) -> Outcome {
        if fails {
            self.doomed.insert(self.here);
        } else {
            self.doomed.clear();
            self.end(self.here, QueueState::Diverged);
            self.here = self.logs.len();
            self.logs.push(Log::default());
        }
        Outcome::Replaced
    }

    fn read(&mut self, due: bool) -> Outcome {
        let active = std::mem::replace(&mut self.log().active, true);
        if due || !active {
            self.report(self.here);
            self.reported_at = Some(self.now);
        }
        if active { Outcome::Read { reported: due } } else { Outcome::Activated }
    }
}

struct Machine;

impl ReferenceStateMachine for Machine {
    type State = World;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<World> {
        let world = World {
            logs: vec![Log::default()],
            here: 0,
            server: 0,
            entries: 0,
            now: Duration::ZERO,
            seen: None,
            reported_at: None,
            doomed: BTreeSet::new(),
            missing: BTreeMap::new(),
            look: None,
        };
        Just(world).boxed()
    }

    fn transitions(_: &World) -> BoxedStrategy<Step> {
        let claim = prop_oneof![
            20 => Just(Claimed::Granted),
            1 => Just(Claimed::Here),
            1 => Just(Claimed::Unclear),
            1 => Just(Claimed::Copy),
        ];
        prop_oneof![
            12 => (claim, prop::bool::weighted(0.2)).prop_map(|(claim, fails)| Step::Look { claim, fails }),
            6 => (0..2_usize, 1..4_u16).prop_map(|(partition, entries)| Step::Append(partition, entries)),
            4 => prop_oneof![Just(100), Just(1000), Just(2000), Just(10_000)].prop_map(Step::Wait),
            2 => Just(Step::Commit),
            2 => Just(Step::Restart),
            2 => (0..6_usize, any::<bool>()).prop_map(|(keep, restarts)| Step::RollBack { keep, restarts }),
            1 => any::<usize>().prop_map(Step::Swap),
            1 => prop_oneof![Just(QueueState::Diverged), Just(QueueState::Retired)].prop_map(Step::End),
            1 => any::<usize>().prop_map(Step::SeenElsewhere),
            1 => any::<bool>().prop_map(|here| Step::Lane { here }),
        ]
        .boxed()
    }

    fn apply(mut world: World, step: &Step) -> World {
        let here = world.here;
        match *step {
            Step::Append(partition, entries) => {
                let new = world.entries + 1..=world.entries + entries;
                world.entries += entries;
                world.log().entries[partition].extend(new);
            }
            Step::Commit => {
                let last = world.log().last();
                let committed = world.log().committed;
                world.log().committed = [0, 1].map(|partition| committed[partition].max(last[partition]));
            }
            Step::Restart => world.server += 1,
            Step::RollBack { keep, restarts } => {
                let before = world.log().counts();
                world.log().entries.iter_mut().for_each(|entries| entries.truncate(keep));
                world.log().is_damaged |= world.log().counts() != before;
                world.server += u32::from(restarts);
            }
            Step::Swap(to) => {
                world.server += 1;
                world.here = to % (world.logs.len() + 1);
                if world.here == world.logs.len() {
                    world.logs.push(Log::default());
                }
            }
            Step::End(state) => world.end(here, state),
            Step::SeenElsewhere(number) => {
                let number = number % world.logs.len();
                if number != here && world.logs[number].record.is_some() {
                    world.report(number);
                }
            }
            Step::Lane { here: true } => world.condemn(),
            // It is about another queue, and changes nothing here.
            Step::Lane { here: false } => {}
            Step::Wait(ms) => world.now += Duration::from_millis(ms),
            Step::Look { claim, fails } => world.look(claim, fails),
        }
        world
    }
}

/// The decisions, in the order in which the monitor asks for them.
struct Decisions {
    memory: Memory,
    start: Instant,
}

impl Decisions {
    fn look(&mut self, look: &Look, claim: Claimed, fails: bool) -> Outcome {
        let (world, memory) = (&look.world, &mut self.memory);
        let (status, catalog, now) = (world.status(), world.catalog(), self.start + world.now);
        let is_new = memory.is_new(status.id, &status.server);
        if is_new {
            memory.start_check();
            let log = &world.logs[world.here];
            let known = log.record.as_ref();
            let lost = match known.map(|known| compare_with_report(&status, known)) {
                Some(LastReport::Contradicts(evidence)) => Some(evidence),
                Some(LastReport::Agrees { ends }) => ends.into_iter().find_map(|(partition, end)| {
                    let n = usize::from(partition.0);
                    log.lacks(n, end).then(|| evidence_if_gone(partition, end, position(log.committed[n])))?
                }),
                None => None,
            };
            memory.end_check(status.id, status.server.clone(), lost);
        }
        memory.observe_look(&look_at(&status), &BOTH, &catalog);
        if memory.divergence(status.id).is_some() {
            if !fails {
                memory.record_replacement();
            }
            return Outcome::Replaced;
        }
        let other = "redis://two".to_owned();
        let claimed = match claim {
            Claimed::Granted => Ok(()),
            Claimed::Here => Err(ClaimError::Here(other)),
            Claimed::Unclear => Err(ClaimError::Unclear(other)),
            Claimed::Copy => Err(ClaimError::Copy(other)),
        };
        if memory.apply_claim(status.id, claimed, now).is_err() {
            return Outcome::Refused;
        }
        let inspection = memory.inspection(Role::Reporter, catalog.version, false, now);
        if !(inspection.is_due || inspection.report) {
            assert!(look.vanished.is_empty());
            return Outcome::Read { reported: false };
        }
        let place = Place { address: ADDRESS, fixed: true };
        assert_eq!(memory.observe(&status, inspection.report, place, &catalog, now), look.vanished);
        assert_eq!(memory.divergence(status.id), None, "a look shows as much as an inspection");
        let step = next_step(&status, inspection, is_new);
        memory.record_inspection(&status, catalog.version, now);
        let reports = matches!(step, NextStep::Activate | NextStep::Keep { report: true, .. });
        if reports {
            memory.record_report(now);
        }
        match step {
            NextStep::Activate => Outcome::Activated,
            _ => Outcome::Read { reported: reports },
        }
    }
}

impl StateMachineTest for Decisions {
    type SystemUnderTest = Self;
    type Reference = Machine;

    fn init_test(_: &World) -> Self {
        Self { memory: Memory::default(), start: Instant::now() }
    }

    fn apply(mut decisions: Self, world: &World, step: Step) -> Self {
        match step {
            Step::Lane { here } => {
                let queue = if here { id(world.here) } else { QueueId([0; 16]) };
                decisions.memory.record_divergence(queue, Evidence::Read("a lane said so".to_owned()));
            }
            Step::Look { claim, fails } => {
                let look = world.look.as_ref().unwrap();
                let outcome = decisions.look(look, claim, fails);
                let log = &look.world.logs[look.world.here];
                assert!(
                    log.is_damaged || log.is_ended() || outcome != Outcome::Replaced,
                    "a queue that kept everything, and that is on record as active, was declared diverged"
                );
                assert_eq!(outcome, look.expected);
            }
            _ => {}
        }
        decisions
    }
}

prop_state_machine! {
    #![proptest_config(ProptestConfig { cases: 1000, max_shrink_iters: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_queue_is_declared_diverged_if_it_must_be_and_only_then(sequential 1..80 => Decisions);
}
