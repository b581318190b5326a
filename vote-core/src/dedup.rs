//! Which of a voter's votes stands, and what a batch of votes changes. Pure: no I/O, no clock.
//!
//! The outcome is a function of the set of accepted votes. [`stands`] is commutative, associative and idempotent, so
//! the order of delivery, duplicates and replays can't change it. This is the only place that decides.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet, HashMap},
};

use crate::{
    Keep, OptionSlug, Partition, Partitions, PollSlug, Position, QueueId, Vote, VoterKey,
    queue::{Counters, Entry},
    store::{
        Ballot, Checkpoint, CommitPlan, LedgerEntry, PollPlan, QuarantinedFrame, QuarantinedVotes,
        RegisteredPoll, ReplayOutcome, Replayed, Undecodable,
    },
};

/// Which of two ballots of one voter stands: with [`Keep::First`] the earlier, with [`Keep::Last`] the later, by
/// `(cast_at, option)`.
#[must_use]
pub fn stands(keep: Keep, a: Ballot, b: Ballot) -> Ballot {
    debug_assert_eq!(a.voter, b.voter, "only ballots of one voter compete");
    let a_first = (a.cast_at, a.option).cmp(&(b.cast_at, b.option));
    match (keep, a_first) {
        (Keep::First, Ordering::Less | Ordering::Equal)
        | (Keep::Last, Ordering::Greater | Ordering::Equal) => a,
        (Keep::First, Ordering::Greater) | (Keep::Last, Ordering::Less) => b,
    }
}

/// What was read from one queue, after one position, of one partition.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// From where.
    pub queue: QueueId,
    /// In the order of the log.
    pub entries: Vec<Entry>,
    /// Where and with what count the reading starts next.
    pub checkpoint: Checkpoint,
}

impl Delivery {
    /// Nothing new from a queue that was read up to there. A [batch](Batch) that replays frames of a queue needs a
    /// delivery of it, be it this one.
    #[must_use]
    pub const fn nothing_new(queue: QueueId, at: Checkpoint) -> Self {
        Self { queue, entries: Vec::new(), checkpoint: at }
    }

    /// What a read found, as seen from the checkpoint it started from. Where the read reached the end of the log, the
    /// queue's own count is taken over; elsewhere what was read is added to the count before.
    #[must_use]
    pub fn new(queue: QueueId, from: &Checkpoint, read: crate::queue::Read) -> Self {
        let position = read.entries.last().map_or(from.position, |entry| entry.position);
        let accepted = read.accepted.unwrap_or_else(|| {
            let mut accepted = from.accepted.clone();
            for entry in &read.entries {
                *accepted.entry(entry.poll.clone()).or_default() += entry.votes;
            }
            accepted
        });
        Self { queue, entries: read.entries, checkpoint: Checkpoint { position, accepted } }
    }

    /// The votes accounted for in the entries.
    #[must_use]
    pub fn votes(&self) -> u64 {
        self.entries.iter().map(|entry| entry.votes).sum()
    }

    /// Takes what was read next, from where this ended, along.
    pub fn extend(&mut self, next: Self) {
        self.entries.extend(next.entries);
        self.checkpoint = next.checkpoint;
    }
}

/// Whether a queue's count fell below what it was before, which an append-only log can't do by itself: it lost or
/// rolled back data.
#[must_use]
pub fn went_back(before: &Counters, now: &Counters) -> bool {
    before.iter().any(|(poll, count)| now.get(poll).copied().unwrap_or_default() < *count)
}

/// What was read for one partition, decoded: ballots by poll, and votes that have to be quarantined.
#[derive(Debug)]
pub struct Batch {
    partition: Partition,
    polls: BTreeMap<PollSlug, PollBatch>,
    ledger: BTreeMap<(QueueId, String), LedgerEntry>,
    positions: BTreeMap<QueueId, Position>,
    quarantine: Vec<QuarantinedFrame>,
    replayed: Vec<Replayed>,
}

#[derive(Debug)]
struct PollBatch {
    keep: Keep,
    ballots: Vec<(QueueId, Ballot)>,
}

impl Batch {
    /// Decodes what was delivered, and tries quarantined votes again.
    ///
    /// A frame is quarantined whole if it does not decode, if its poll is not registered, or if the count of its poll is
    /// final. Of any other frame the votes for options that the poll has are counted, and only the others are
    /// quarantined: they came from other voters, who can do nothing about them. Votes that are tried again and still
    /// can't be counted stay quarantined, with the new reason.
    #[must_use]
    pub fn decode(
        partition: Partition,
        partitions: Partitions,
        polls: &[RegisteredPoll],
        deliveries: Vec<Delivery>,
        replays: Vec<QuarantinedFrame>,
    ) -> Self {
        let mut batch = Self {
            partition,
            polls: BTreeMap::new(),
            ledger: BTreeMap::new(),
            positions: BTreeMap::new(),
            quarantine: Vec::new(),
            replayed: Vec::new(),
        };
        for delivery in deliveries {
            let queue = delivery.queue;
            for (poll, accepted) in delivery.checkpoint.accepted {
                batch.account(queue, &poll).accepted = accepted;
            }
            batch.positions.insert(queue, delivery.checkpoint.position);
            for entry in delivery.entries {
                batch.take(queue, partitions, polls, entry);
            }
        }
        for frame in replays {
            batch.replay(partitions, polls, frame);
        }
        batch
    }

    fn take(&mut self, queue: QueueId, partitions: Partitions, polls: &[RegisteredPoll], entry: Entry) {
        let Entry { position, poll, votes, frame } = entry;
        // Quarantined until it turns out what of it can be counted.
        let mut frame = QuarantinedFrame {
            queue,
            position,
            poll,
            accounted: votes,
            quarantined: QuarantinedVotes::All,
            reason: String::new(),
            awaits_poll: false,
            frame,
        };
        let unfit = self.count_what_can_be(partitions, polls, &frame);
        let Some(Unfit { votes, reason, awaits_poll }) = unfit else { return };
        (frame.quarantined, frame.reason, frame.awaits_poll) = (votes, reason, awaits_poll);
        self.account(queue, &frame.poll).quarantined += signed(frame.votes());
        self.quarantine.push(frame);
    }

    fn replay(&mut self, partitions: Partitions, polls: &[RegisteredPoll], frame: QuarantinedFrame) {
        let unfit = self.count_what_can_be(partitions, polls, &frame);
        let stay = unfit.as_ref().map_or(0, |unfit| unfit.votes.count(frame.accounted));
        let counted = signed(frame.votes()) - signed(stay);
        if counted != 0 {
            self.account(frame.queue, &frame.poll).quarantined -= counted;
        }
        let outcome = unfit.map_or(ReplayOutcome::Counted, |Unfit { votes, reason, awaits_poll }| {
            ReplayOutcome::Held { votes, reason, awaits_poll }
        });
        let QuarantinedFrame { queue, position, quarantined: tried, .. } = frame;
        self.replayed.push(Replayed { queue, position, tried, outcome });
    }

    /// Counts those of the quarantined votes of a frame that can be counted; returns the others.
    fn count_what_can_be(
        &mut self,
        partitions: Partitions,
        polls: &[RegisteredPoll],
        frame: &QuarantinedFrame,
    ) -> Option<Unfit> {
        match open(self.partition, partitions, polls, frame) {
            Ok(Opened { poll, ballots, unfit }) => {
                if !ballots.is_empty() {
                    self.count(frame.queue, poll, ballots);
                }
                unfit
            }
            Err(Unopened { reason, awaits_poll }) => {
                Some(Unfit { votes: frame.quarantined.clone(), reason, awaits_poll })
            }
        }
    }

    fn count(&mut self, queue: QueueId, poll: &RegisteredPoll, ballots: Vec<Ballot>) {
        let batch =
            self.polls.entry(poll.slug).or_insert_with(|| PollBatch { keep: poll.keep, ballots: Vec::new() });
        batch.ballots.extend(ballots.into_iter().map(|ballot| (queue, ballot)));
    }

    fn account(&mut self, queue: QueueId, poll: &str) -> &mut LedgerEntry {
        self.ledger.entry((queue, poll.to_owned())).or_insert_with(|| LedgerEntry {
            queue,
            poll: poll.to_owned(),
            accepted: 0,
            new_voters: 0,
            superseded: 0,
            quarantined: 0,
        })
    }

    /// What is quarantined, frames that were tried again not among it.
    #[must_use]
    pub fn quarantine(&self) -> &[QuarantinedFrame] {
        &self.quarantine
    }

    /// The voters whose standing ballots [`plan`](Self::plan) needs: by poll, sorted, each once.
    #[must_use]
    pub fn voters(&self) -> BTreeMap<PollSlug, Vec<VoterKey>> {
        let keys = |batch: &PollBatch| {
            let mut keys: Vec<_> = batch.ballots.iter().map(|(_, ballot)| ballot.voter).collect();
            keys.sort_unstable();
            keys.dedup();
            keys
        };
        self.polls.iter().map(|(poll, batch)| (*poll, keys(batch))).collect()
    }

    /// What to commit, given the ballots that stand now for the [voters](Self::voters).
    #[must_use]
    pub fn plan(mut self, version: u64, standing: &BTreeMap<PollSlug, Vec<Ballot>>) -> CommitPlan {
        let mut polls = Vec::new();
        for (poll, batch) in std::mem::take(&mut self.polls) {
            let standing = standing.get(&poll).map(Vec::as_slice).unwrap_or_default();
            let (plan, counts) = plan_poll(poll, &batch, standing);
            for (queue, (new_voters, superseded)) in counts {
                let entry = self.account(queue, poll.as_str());
                entry.new_voters += new_voters;
                entry.superseded += superseded;
            }
            polls.push(plan);
        }
        CommitPlan {
            partition: self.partition,
            version,
            polls,
            ledger: self.ledger.into_values().collect(),
            positions: self.positions.into_iter().collect(),
            quarantine: self.quarantine,
            replayed: self.replayed,
        }
    }
}

/// A count of votes that may go either way. An entry that is accounted as more than this holds is damaged, and is
/// quarantined.
fn signed(votes: u64) -> i64 {
    i64::try_from(votes).unwrap_or(i64::MAX)
}

/// Votes of a frame that can't be counted.
struct Unfit {
    votes: QuarantinedVotes,
    reason: String,
    /// Whether they could be if their poll were registered.
    awaits_poll: bool,
}

/// Why no vote of a frame can be counted.
struct Unopened {
    reason: String,
    awaits_poll: bool,
}

impl From<String> for Unopened {
    fn from(reason: String) -> Self {
        Self { reason, awaits_poll: false }
    }
}

impl From<Undecodable> for Unopened {
    fn from(error: Undecodable) -> Self {
        error.to_string().into()
    }
}

/// The quarantined votes of a frame whose poll is counted.
struct Opened<'a> {
    poll: &'a RegisteredPoll,
    /// Those that can be counted.
    ballots: Vec<Ballot>,
    /// The others.
    unfit: Option<Unfit>,
}

fn open<'a>(
    partition: Partition,
    partitions: Partitions,
    polls: &'a [RegisteredPoll],
    frame: &QuarantinedFrame,
) -> Result<Opened<'a>, Unopened> {
    let slug: PollSlug = frame.poll.parse().map_err(Undecodable::from)?;
    let votes = frame.decode(partition, partitions)?;
    let poll = polls
        .iter()
        .find(|poll| poll.slug == slug)
        .ok_or_else(|| Unopened { reason: format!("poll {slug} is not registered"), awaits_poll: true })?;
    if poll.final_at.is_some() {
        return Err(format!("it came after the count of poll {slug} was final").into());
    }
    if let Some(last) = frame.quarantined.indices().and_then(<[u32]>::last)
        && *last as usize >= votes.len()
    {
        // Counted votes would be taken off a number that they are not part of.
        return Err(format!("vote {last} is quarantined, and the frame has {}", votes.len()).into());
    }
    let tried = (0..).zip(votes).filter(|(index, _)| frame.quarantined.contains(*index));
    Ok(sort(poll, tried))
}

/// How many unknown options a reason names.
const NAMED: usize = 8;

/// Tells votes for options of the poll from others.
fn sort(poll: &RegisteredPoll, votes: impl Iterator<Item = (u32, Vote)>) -> Opened<'_> {
    let (mut ballots, mut indices) = (Vec::new(), Vec::new());
    let mut unknown: BTreeSet<OptionSlug> = BTreeSet::new();
    let mut last_known: Option<OptionSlug> = None;
    for (index, Vote { voter, option, cast_at, .. }) in votes {
        if last_known == Some(option) || poll.options.contains(&option) {
            last_known = Some(option);
            ballots.push(Ballot { voter, option, cast_at });
        } else {
            unknown.insert(option);
            indices.push(index);
        }
    }
    let unfit = (!indices.is_empty()).then(|| {
        // A frame may name thousands.
        let names: Vec<&str> = unknown.iter().map(OptionSlug::as_str).take(NAMED).collect();
        let more = if unknown.len() > NAMED { ", …" } else { "" };
        let reason = format!("poll {} has no option {}{more}", poll.slug, names.join(", "));
        Unfit { votes: QuarantinedVotes::At(indices), reason, awaits_poll: false }
    });
    Opened { poll, ballots, unfit }
}

/// New voters and superseded votes, by queue.
type Counts = BTreeMap<QueueId, (u64, u64)>;

fn plan_poll(poll: PollSlug, batch: &PollBatch, standing: &[Ballot]) -> (PollPlan, Counts) {
    struct Voter {
        stood: Option<Ballot>,
        stands: Ballot,
    }
    let mut voters: HashMap<VoterKey, Voter> = HashMap::with_capacity(batch.ballots.len());
    for ballot in standing {
        voters.insert(ballot.voter, Voter { stood: Some(*ballot), stands: *ballot });
    }
    let mut counts = Counts::new();
    for (queue, ballot) in &batch.ballots {
        let (new_voters, superseded) = counts.entry(*queue).or_default();
        voters
            .entry(ballot.voter)
            .and_modify(|voter| {
                voter.stands = stands(batch.keep, voter.stands, *ballot);
                *superseded += 1;
            })
            .or_insert_with(|| {
                *new_voters += 1;
                Voter { stood: None, stands: *ballot }
            });
    }
    let mut plan = PollPlan { poll, inserts: Vec::new(), replacements: Vec::new(), tally: BTreeMap::new() };
    for voter in voters.into_values() {
        match voter.stood {
            None => plan.inserts.push(voter.stands),
            Some(stood) if stood != voter.stands => plan.replacements.push((stood, voter.stands)),
            Some(_) => continue,
        }
        *plan.tally.entry(voter.stands.option).or_default() += 1;
        if let Some(stood) = voter.stood {
            *plan.tally.entry(stood.option).or_default() -= 1;
        }
    }
    plan.inserts.sort_unstable_by_key(|ballot| ballot.voter);
    plan.replacements.sort_unstable_by_key(|(stood, _)| stood.voter);
    plan.tally.retain(|_, n| *n != 0);
    (plan, counts)
}
