//! Tests of the merge: its algebra, and a comparison with a naive model.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use proptest::prelude::*;
use vote_core::{
    Keep, OptionSlug, Partition, Partitions, PollSlug, Position, QueueId, Timestamp, Vote, VoterKey,
    count::{
        Ballot, Batch, Checkpoint, CommitPlan, Delivery, QuarantineReason, QuarantinedFrame,
        QuarantinedVotes, ReasonCode, RegisteredPoll, ReplayOutcome, Replayed, StoredReason, merge,
    },
    frame,
    poll::{ResultsFrom, Voters},
    queue::{Entry, Read},
};

const OPTIONS: [&str; 3] = ["cats", "dogs", "none"];

fn option(n: u8) -> OptionSlug {
    OPTIONS[usize::from(n) % 3].parse().unwrap()
}

fn poll() -> PollSlug {
    "pets".parse().unwrap()
}

fn registered(keep: Keep) -> RegisteredPoll {
    RegisteredPoll {
        slug: poll(),
        options: OPTIONS.iter().map(|o| o.parse().unwrap()).collect(),
        keep,
        voters: Voters::Cookie,
        results: ResultsFrom::Live,
        closes_at: None,
        reschedules: Vec::new(),
        closed_at: None,
        final_at: None,
        withdrawal: None,
        undone_withdrawal: None,
        earlier: Vec::new(),
    }
}

prop_compose! {
    /// Ballots with few times and options, so that ties are common.
    fn ballot(voters: u8)(voter in 0..voters, o in 0_u8..3, at in 0_i64..4) -> Ballot {
        Ballot { voter: VoterKey([voter; 16]), option: option(o), cast_at: Timestamp::MIN.saturating_add(at) }
    }
}

fn keep() -> impl Strategy<Value = Keep> {
    prop_oneof![Just(Keep::First), Just(Keep::Last)]
}

/// Returns the effective ballot of each voter, found by sorting all ballots.
fn naive(keep: Keep, ballots: &[Ballot]) -> HashMap<VoterKey, Ballot> {
    let mut sorted = ballots.to_vec();
    sorted.sort_by_key(|b| (b.cast_at, b.option));
    if keep == Keep::First {
        sorted.reverse();
    }
    sorted.into_iter().map(|b| (b.voter, b)).collect()
}

proptest! {
    #[test]
    fn merging_is_commutative(keep in keep(), a in ballot(1), b in ballot(1)) {
        prop_assert_eq!(merge(keep, a, b), merge(keep, b, a));
    }

    #[test]
    fn merging_is_associative(keep in keep(), a in ballot(1), b in ballot(1), c in ballot(1)) {
        prop_assert_eq!(merge(keep, merge(keep, a, b), c), merge(keep, a, merge(keep, b, c)));
    }

    #[test]
    fn merging_is_idempotent(keep in keep(), a in ballot(1), b in ballot(1)) {
        prop_assert_eq!(merge(keep, a, a), a);
        let both = merge(keep, a, b);
        prop_assert_eq!(merge(keep, both, b), both);
    }

    #[test]
    fn merging_in_any_order_gives_what_a_naive_model_gives(
        keep in keep(),
        ballots in proptest::collection::vec(ballot(3), 1..20).prop_shuffle(),
    ) {
        let mut merged: HashMap<VoterKey, Ballot> = HashMap::new();
        for b in &ballots {
            merged.entry(b.voter).and_modify(|a| *a = merge(keep, *a, *b)).or_insert(*b);
        }
        prop_assert_eq!(merged, naive(keep, &ballots));
    }

    /// Votes are split into frames, frames into batches, and some batches are delivered twice. The plans, applied one
    /// after the other, give what the naive model gives for the set of votes, and every vote is accounted for.
    #[test]
    fn plans_give_what_a_naive_model_gives(
        keep in keep(),
        ballots in proptest::collection::vec(ballot(12), 1..60),
        frame_size in 1_usize..6,
        batch_size in 1_usize..5,
        repeated in proptest::collection::vec(any::<bool>(), 60),
    ) {
        let entries: Vec<Entry> = ballots.chunks(frame_size).enumerate().map(|(i, b)| entry(i, b)).collect();
        let mut store = Model::default();
        for (i, batch) in entries.chunks(batch_size).enumerate() {
            store.deliver(keep, QueueId([1; 16]), batch);
            if repeated[i] {
                // As if the same votes were cast through another queue, too.
                store.deliver(keep, QueueId([2; 16]), batch);
            }
        }
        let expected = naive(keep, &ballots);
        prop_assert_eq!(&store.rows, &expected);
        for o in 0..3 {
            let count = expected.values().filter(|b| b.option == option(o)).count() as i64;
            prop_assert_eq!(store.tally.get(&option(o)).copied().unwrap_or(0), count);
        }
        prop_assert_eq!(store.new_voters, expected.len() as u64);
        prop_assert_eq!(store.new_voters + store.superseded, store.delivered);
    }

    /// The first vote of a voter without an effective ballot is a new voter of its queue, and any other is superseded, in
    /// the order of delivery.
    #[test]
    fn the_ledger_attributes_each_vote_to_its_queue(
        keep in keep(),
        read in proptest::collection::vec(proptest::collection::vec(ballot(6), 1..8), 1..5),
        effective in proptest::collection::vec(proptest::option::of(ballot(1)), 6),
    ) {
        let queue = |n: usize| QueueId([n as u8 + 1; 16]);
        let known = |(n, ballot): (usize, &Option<Ballot>)| {
            ballot.map(|ballot| Ballot { voter: VoterKey([n as u8; 16]), ..ballot })
        };
        let effective: Vec<Ballot> = effective.iter().enumerate().filter_map(known).collect();
        let delivery = |(n, ballots): (usize, &Vec<Ballot>)| {
            let read = Read { entries: vec![entry(n, ballots)], at_end: false, ..Read::default() };
            Delivery::new(queue(n), &Checkpoint::default(), read)
        };
        let deliveries = read.iter().enumerate().map(delivery).collect();
        let batch = Batch::decode(Partition(0), one(), &[registered(keep)], deliveries, Vec::new());
        let mut voted: HashSet<VoterKey> = effective.iter().map(|ballot| ballot.voter).collect();
        let plan = batch.plan(0, &BTreeMap::from([(poll(), effective)]));
        let counts = |(n, ballots): (usize, &Vec<Ballot>)| {
            let new_voters = ballots.iter().filter(|ballot| voted.insert(ballot.voter)).count();
            (queue(n), (new_voters as u64, (ballots.len() - new_voters) as u64))
        };
        let expected: BTreeMap<_, _> = read.iter().enumerate().map(counts).collect();
        let ledger: BTreeMap<_, _> =
            plan.ledger.iter().map(|entry| (entry.queue, (entry.new_voters, entry.superseded))).collect();
        prop_assert_eq!(ledger, expected);
    }
}

/// Returns the entry of a frame with these ballots.
fn entry(number: usize, ballots: &[Ballot]) -> Entry {
    let votes: Vec<Vote> = ballots
        .iter()
        .map(|b| Vote { poll: poll(), voter: b.voter, option: b.option, cast_at: b.cast_at })
        .collect();
    Entry {
        position: Position::from_bytes(&(number as u64 + 1).to_be_bytes()).unwrap(),
        poll: poll().to_string(),
        votes: votes.len() as u64,
        frame: frame::encode(poll(), Partition(0), &votes).unwrap().into(),
    }
}

fn one() -> Partitions {
    Partitions::new(1).unwrap()
}

/// Model of a store: applies plans and checks what a real store checks.
#[derive(Default)]
struct Model {
    rows: HashMap<VoterKey, Ballot>,
    tally: BTreeMap<OptionSlug, i64>,
    delivered: u64,
    new_voters: u64,
    superseded: u64,
}

impl Model {
    fn deliver(&mut self, keep: Keep, queue: QueueId, entries: &[Entry]) {
        let read = Read { entries: entries.to_vec(), at_end: false, ..Read::default() };
        let delivery = Delivery::new(queue, &Checkpoint::default(), read);
        self.delivered += delivery.votes();
        let batch = Batch::decode(Partition(0), one(), &[registered(keep)], vec![delivery], Vec::new());
        assert!(batch.quarantine().is_empty());
        let voters = &batch.voters()[&poll()];
        let effective = voters.iter().filter_map(|voter| self.rows.get(voter).copied()).collect();
        self.apply(&batch.plan(0, &BTreeMap::from([(poll(), effective)])));
    }

    fn apply(&mut self, plan: &CommitPlan) {
        for poll in &plan.polls {
            assert!(poll.inserts.is_sorted_by(|a, b| a.voter < b.voter), "not sorted by distinct voters");
            for new in &poll.inserts {
                assert_eq!(self.rows.insert(new.voter, *new), None, "an insert of a voter that has a row");
            }
            for (old, new) in &poll.replacements {
                assert_eq!(
                    self.rows.insert(old.voter, *new),
                    Some(*old),
                    "a replacement of a ballot that is not effective"
                );
            }
            for (option, n) in &poll.tally {
                *self.tally.entry(*option).or_default() += n;
            }
        }
        self.new_voters += plan.ledger.iter().map(|e| e.new_voters).sum::<u64>();
        self.superseded += plan.ledger.iter().map(|e| e.superseded).sum::<u64>();
    }
}

/// Returns the plan for an entry, and the reason for which the entry is quarantined.
fn quarantined(entry: Entry) -> (CommitPlan, StoredReason) {
    let read = Read { entries: vec![entry], at_end: false, ..Read::default() };
    let delivery = Delivery::new(QueueId([1; 16]), &Checkpoint::default(), read);
    let batch = Batch::decode(Partition(0), one(), &[registered(Keep::First)], vec![delivery], Vec::new());
    let plan = batch.plan(7, &BTreeMap::new());
    let reason = plan.quarantine[0].reason.clone();
    (plan, reason)
}

fn some_ballots() -> Vec<Ballot> {
    (0..3).map(|n| Ballot { voter: VoterKey([n; 16]), option: option(n), cast_at: Timestamp::MIN }).collect()
}

#[test]
fn a_frame_that_does_not_decode_is_quarantined_whole_and_accounted_for() {
    let good = entry(0, &some_ballots());
    let damaged = Entry { frame: Bytes::from_static(b"junk"), ..good.clone() };
    let miscounted = Entry { votes: 4, ..good.clone() };
    let renamed = Entry { poll: "cars".to_owned(), ..good.clone() };
    let no_poll = Entry { poll: "\u{1F480}".to_owned(), ..good.clone() };
    for (entry, code, why) in [
        (damaged, ReasonCode::MalformedFrame, "frame: invalid size of 4 bytes"),
        (miscounted, ReasonCode::WrongVoteCount, "3 votes in the frame, but 4"),
        (renamed, ReasonCode::DamagedFrame, "checksum differs"),
        (no_poll, ReasonCode::InvalidPollName, "is not a slug"),
    ] {
        let (plan, reason) = quarantined(entry.clone());
        assert_eq!(reason.code, code, "{reason}");
        assert!(reason.text.contains(why), "{reason}");
        assert_eq!((plan.quarantine[0].votes(), &plan.quarantine[0].frame), (entry.votes, &entry.frame));
        assert_eq!(plan.quarantine[0].quarantined, QuarantinedVotes::All);
        assert!(plan.polls.iter().all(|p| p.inserts.is_empty()));
        assert_eq!((plan.ledger[0].quarantined, plan.ledger[0].accepted), (entry.votes as i64, entry.votes));
        assert_eq!(plan.positions, [(QueueId([1; 16]), entry.position)], "the position advances");
    }
}

/// Returns three ballots, the second of them for an option that is not registered.
fn one_for_birds() -> Vec<Ballot> {
    let mut ballots = some_ballots();
    ballots[1].option = "birds".parse().unwrap();
    ballots
}

fn no_birds() -> StoredReason {
    let text = "poll pets has no option birds".to_owned();
    StoredReason { code: ReasonCode::UnknownOption, text }
}

#[test]
fn a_vote_for_an_option_that_is_not_registered_is_quarantined_and_the_others_are_counted() {
    let whole = entry(0, &one_for_birds());
    let (plan, reason) = quarantined(whole.clone());
    assert_eq!(reason, no_birds());
    let [frame] = &plan.quarantine[..] else { panic!("{:?}", plan.quarantine) };
    assert_eq!(frame.quarantined, QuarantinedVotes::At(vec![1]));
    assert_eq!((frame.votes(), frame.accounted, &frame.frame), (1, 3, &whole.frame), "its bytes are kept");
    assert!(!frame.reason.awaits_poll(), "the options of a poll never change");
    let counted: Vec<_> = plan.polls[0].inserts.iter().map(|ballot| ballot.voter.0[0]).collect();
    assert_eq!(counted, [0, 2]);
    let ledger = &plan.ledger[0];
    assert_eq!((ledger.accepted, ledger.new_voters, ledger.quarantined), (3, 2, 1));
    assert_eq!(ledger.unaccounted(false), 0);
}

#[test]
fn a_frame_without_a_vote_that_can_be_counted_changes_no_poll() {
    let ballots = some_ballots().into_iter().map(|b| Ballot { option: "birds".parse().unwrap(), ..b });
    let (plan, _) = quarantined(entry(0, &ballots.collect::<Vec<_>>()));
    assert_eq!(plan.quarantine[0].quarantined, QuarantinedVotes::At(vec![0, 1, 2]));
    assert_eq!((plan.polls, plan.ledger[0].quarantined), (Vec::new(), 3));
}

#[test]
fn frames_of_unknown_and_of_final_polls_are_quarantined_whole() {
    let decode = |polls: &[RegisteredPoll]| {
        let read = Read { entries: vec![entry(0, &one_for_birds())], at_end: false, ..Read::default() };
        let delivery = Delivery::new(QueueId([1; 16]), &Checkpoint::default(), read);
        let batch = Batch::decode(Partition(0), one(), polls, vec![delivery], Vec::new());
        batch.plan(0, &BTreeMap::new()).quarantine.remove(0)
    };
    let unknown = decode(&[]);
    assert_eq!(
        (unknown.quarantined, unknown.reason.code),
        (QuarantinedVotes::All, ReasonCode::PollNotRegistered)
    );
    let late = decode(&[RegisteredPoll { final_at: Some(Timestamp::MIN), ..registered(Keep::First) }]);
    assert_eq!((late.quarantined, late.reason.code), (QuarantinedVotes::All, ReasonCode::PollFinal));
    assert!(late.reason.text.contains("was final"), "{}", late.reason);
}

/// Returns the plan of a replay in which these votes of a frame are quarantined.
fn replay_of(quarantined: QuarantinedVotes) -> CommitPlan {
    let Entry { position, poll, votes, frame } = entry(0, &one_for_birds());
    let queue = QueueId([1; 16]);
    let reason = QuarantineReason::PollNotRegistered { poll: self::poll() }.into();
    let frame = QuarantinedFrame { queue, position, poll, accounted: votes, quarantined, reason, frame };
    let nothing = Delivery::nothing_new(queue, Checkpoint::default());
    let batch = Batch::decode(Partition(0), one(), &[registered(Keep::First)], vec![nothing], vec![frame]);
    batch.plan(0, &BTreeMap::new())
}

#[test]
fn a_replay_keeps_only_votes_in_quarantine_that_can_not_be_counted() {
    let birds = |tried| {
        let outcome = ReplayOutcome::Quarantined { votes: QuarantinedVotes::At(vec![1]), reason: no_birds() };
        let position = entry(0, &some_ballots()).position;
        Replayed { queue: QueueId([1; 16]), position, tried, outcome }
    };
    for (tried, counted) in [
        (QuarantinedVotes::All, vec![0, 2]),
        (QuarantinedVotes::At(vec![1, 2]), vec![2]),
        (QuarantinedVotes::At(vec![1]), vec![]),
    ] {
        let plan = replay_of(tried.clone());
        assert_eq!(plan.replayed, [birds(tried)]);
        let inserts = plan.polls.iter().flat_map(|poll| &poll.inserts);
        assert_eq!(inserts.map(|ballot| ballot.voter.0[0]).collect::<Vec<_>>(), counted);
        let quarantined: i64 = plan.ledger.iter().map(|entry| entry.quarantined).sum();
        assert_eq!(quarantined, -(counted.len() as i64));
    }
    let plan = replay_of(QuarantinedVotes::At(vec![0, 2]));
    assert_eq!(plan.replayed[0].outcome, ReplayOutcome::Counted);
    assert_eq!((plan.ledger[0].new_voters, plan.ledger[0].quarantined), (2, -2));
}

#[test]
fn an_index_that_the_frame_does_not_have_counts_nothing() {
    let plan = replay_of(QuarantinedVotes::At(vec![0, 3]));
    let ReplayOutcome::Quarantined { votes, reason, .. } = &plan.replayed[0].outcome else {
        panic!("{plan:?}")
    };
    assert_eq!(votes, &QuarantinedVotes::At(vec![0, 3]));
    assert_eq!(reason.code, ReasonCode::DamagedIndex);
    assert!(reason.text.contains("vote 3") && plan.polls.is_empty() && plan.ledger.is_empty(), "{plan:?}");
}

#[test]
fn a_frame_holds_its_quarantined_votes_or_every_vote_if_it_does_not_decode() {
    let ballots = one_for_birds();
    let Entry { position, poll: name, votes, frame } = entry(0, &ballots);
    let vote = |n: usize| Vote {
        poll: poll(),
        voter: ballots[n].voter,
        option: ballots[n].option,
        cast_at: ballots[n].cast_at,
    };
    let mut frame = QuarantinedFrame {
        queue: QueueId([1; 16]),
        position,
        poll: name,
        accounted: votes,
        quarantined: QuarantinedVotes::At(vec![1]),
        reason: no_birds(),
        frame,
    };
    let holds = |frame: &QuarantinedFrame| [0, 1, 2].map(|n| frame.holds(Partition(0), one(), &vote(n)));
    assert_eq!(holds(&frame), [false, true, false]);
    let changed = Vote { cast_at: Timestamp::MIN.saturating_add(1), ..vote(1) };
    assert!(!frame.holds(Partition(0), one(), &changed), "another vote of the same voter");
    frame.quarantined = QuarantinedVotes::All;
    assert_eq!(holds(&frame), [true; 3]);
    frame.frame = Bytes::from_static(b"junk");
    assert_eq!(holds(&frame), [true; 3], "its votes are unknown");
}

#[test]
fn at_the_end_of_the_log_the_queues_own_count_is_used() {
    let from = Checkpoint { accepted: [("pets".to_owned(), 10)].into(), ..Checkpoint::default() };
    let entries = vec![entry(0, &some_ballots())];
    let queue = QueueId([1; 16]);
    let middle =
        Delivery::new(queue, &from, Read { entries: entries.clone(), at_end: false, ..Read::default() });
    assert_eq!(middle.checkpoint.accepted["pets"], 13);
    let counted = [("pets".to_owned(), 14)].into();
    let end = Delivery::new(
        queue,
        &from,
        Read { entries, at_end: true, accepted: Some(counted), ..Read::default() },
    );
    assert_eq!(
        end.checkpoint.accepted["pets"], 14,
        "a vote that the queue counted but no longer has shows in the ledger"
    );
}
