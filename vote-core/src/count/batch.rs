//! Batches: what was read for a partition, decoded, and the plan of its commit. Pure: no I/O, no clock.
//!
//! The outcome is a function of the set of accepted votes. [`merge`](fn@super::merge) is commutative, associative and
//! idempotent, so the order of delivery, duplicates and replays cannot change it. No other code decides which of two
//! votes is effective.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Ballot, Checkpoint, CommitPlan, LedgerEntry, QuarantineReason, QuarantinedFrame, QuarantinedVotes,
    RegisteredPoll, ReplayOutcome, Replayed, Undecodable,
    plan::{Cast, PollBatch, plan_poll},
};
use crate::{
    OptionSlug, Partition, Partitions, PollSlug, Position, QueueId, VoterKey,
    frame::{self, Decoded},
    queue::{Counters, Entry},
};

/// Entries that were read from one partition of one queue, after one position.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The queue.
    pub queue: QueueId,
    /// The entries, in the order of the log.
    pub entries: Vec<Entry>,
    /// Position and counts from which the next read continues.
    pub checkpoint: Checkpoint,
    /// Polls whose counts changed by something else than the entries, which shows that votes were lost.
    unexplained: Vec<String>,
}

impl Delivery {
    /// Creates an empty delivery of a queue that was read up to `at`.
    ///
    /// A [batch](Batch) that replays a queue's frames must contain a delivery for that queue, even an empty one.
    #[must_use]
    pub const fn nothing_new(queue: QueueId, at: Checkpoint) -> Self {
        Self { queue, entries: Vec::new(), checkpoint: at, unexplained: Vec::new() }
    }

    /// Creates a delivery from a read that started at the checkpoint `from`.
    ///
    /// If the read reached the end of the log, the counts of the new checkpoint are the queue's own. Otherwise they are
    /// those of `from` plus the votes read.
    #[must_use]
    pub fn new(queue: QueueId, from: &Checkpoint, read: crate::queue::Read) -> Self {
        let position = read.entries.last().map_or(from.position, |entry| entry.position);
        let (accepted, unexplained) = match read.accepted {
            Some(accepted) => {
                let unexplained = unexplained(&from.accepted, &read.entries, &accepted);
                (accepted, unexplained)
            }
            None => {
                let mut accepted = from.accepted.clone();
                for entry in &read.entries {
                    match accepted.get_mut(&entry.poll) {
                        Some(votes) => *votes += entry.votes,
                        None => drop(accepted.insert(entry.poll.clone(), entry.votes)),
                    }
                }
                (accepted, Vec::new())
            }
        };
        Self { queue, entries: read.entries, checkpoint: Checkpoint { position, accepted }, unexplained }
    }

    /// Returns the number of votes in the entries, as the queue accounted for them.
    #[must_use]
    pub fn votes(&self) -> u64 {
        self.entries.iter().map(|entry| entry.votes).sum()
    }

    /// Appends the delivery of the next read, which must start where this one ends.
    pub fn extend(&mut self, next: Self) {
        self.entries.extend(next.entries);
        self.checkpoint = next.checkpoint;
        self.unexplained.extend(next.unexplained);
    }
}

/// Returns the polls whose counts differ although the entries do not explain it. A poll that is missing counts no votes.
fn unexplained(before: &Counters, entries: &[Entry], after: &Counters) -> Vec<String> {
    let mut read: BTreeMap<&str, u64> = BTreeMap::new();
    for entry in entries {
        *read.entry(&entry.poll).or_default() += entry.votes;
    }
    let count = |of: &Counters, poll: &str| of.get(poll).copied().unwrap_or_default();
    let differs = |poll: &&String| {
        let read = read.get(poll.as_str()).copied().unwrap_or_default();
        count(before, poll) + read != count(after, poll)
    };
    let gone = before.keys().filter(|poll| !after.contains_key(*poll));
    after.keys().chain(gone).filter(differs).cloned().collect()
}

/// Everything that was read for one partition, decoded: ballots by poll, and votes to quarantine.
#[derive(Debug)]
pub struct Batch {
    partition: Partition,
    /// The queues by their number in this batch.
    queues: Vec<QueueId>,
    polls: BTreeMap<PollSlug, PollBatch>,
    /// Votes that each queue has accepted up to the new positions.
    accepted: BTreeMap<QueueId, Counters>,
    /// Changes of the ledger by queue, sorted by poll.
    ledger: BTreeMap<QueueId, Vec<LedgerEntry>>,
    positions: BTreeMap<QueueId, Position>,
    quarantine: Vec<QuarantinedFrame>,
    replayed: Vec<Replayed>,
}

impl Batch {
    /// Decodes deliveries, and replays quarantined votes.
    ///
    /// - A whole frame is quarantined if it does not decode, if its poll is not registered, or if the count of its poll
    ///   is final.
    /// - Of any other frame, the votes for options that the poll has are counted, and only the others are quarantined,
    ///   so that no voter is affected by the votes of others in the same frame.
    /// - Replayed votes that still cannot be counted stay quarantined, with the new reason.
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
            queues: Vec::with_capacity(deliveries.len()),
            polls: BTreeMap::new(),
            accepted: BTreeMap::new(),
            ledger: BTreeMap::new(),
            positions: BTreeMap::new(),
            quarantine: Vec::new(),
            replayed: Vec::new(),
        };
        for delivery in deliveries {
            let queue = delivery.queue;
            batch.queues.push(queue);
            let Checkpoint { position, accepted } = delivery.checkpoint;
            batch.accepted.insert(queue, accepted);
            batch.positions.insert(queue, position);
            for poll in &delivery.unexplained {
                batch.account(queue, poll);
            }
            for entry in delivery.entries {
                batch.add_entry(queue, partitions, polls, entry);
            }
        }
        for frame in replays {
            batch.replay(partitions, polls, frame);
        }
        batch.polls.values_mut().for_each(PollBatch::sort);
        batch
    }

    fn add_entry(&mut self, queue: QueueId, partitions: Partitions, polls: &[RegisteredPoll], entry: Entry) {
        let Entry { position, poll, votes, frame } = entry;
        self.account(queue, &poll);
        let tried =
            Tried { queue, poll: &poll, accounted: votes, votes: &QuarantinedVotes::All, frame: &frame };
        let unfit = self.count_valid(partitions, polls, &tried);
        let Some(Unfit { votes: quarantined, reason }) = unfit else { return };
        let frame = QuarantinedFrame {
            queue,
            position,
            poll,
            accounted: votes,
            quarantined,
            reason: reason.into(),
            frame,
        };
        self.account(queue, &frame.poll).quarantined += signed(frame.votes());
        self.quarantine.push(frame);
    }

    fn replay(&mut self, partitions: Partitions, polls: &[RegisteredPoll], frame: QuarantinedFrame) {
        let tried = Tried {
            queue: frame.queue,
            poll: &frame.poll,
            accounted: frame.accounted,
            votes: &frame.quarantined,
            frame: &frame.frame,
        };
        let unfit = self.count_valid(partitions, polls, &tried);
        let stay = unfit.as_ref().map_or(0, |unfit| unfit.votes.count(frame.accounted));
        let counted = signed(frame.votes()) - signed(stay);
        if counted != 0 {
            self.account(frame.queue, &frame.poll).quarantined -= counted;
        }
        let outcome = unfit.map_or(ReplayOutcome::Counted, |Unfit { votes, reason }| {
            ReplayOutcome::Quarantined { votes, reason: reason.into() }
        });
        let QuarantinedFrame { queue, position, quarantined: tried, .. } = frame;
        self.replayed.push(Replayed { queue, position, tried, outcome });
    }

    /// Counts those of the votes that can be counted, and returns the others.
    fn count_valid(
        &mut self,
        partitions: Partitions,
        polls: &[RegisteredPoll],
        tried: &Tried<'_>,
    ) -> Option<Unfit> {
        let (poll, Decoded { options, votes }) = match open(self.partition, partitions, polls, tried) {
            Ok(opened) => opened,
            Err(reason) => return Some(Unfit { votes: tried.votes.clone(), reason }),
        };
        let numbers: Vec<Option<u8>> = options.iter().map(|option| number(poll, *option)).collect();
        let queue = self.number(tried.queue);
        let mut casts = Vec::with_capacity(votes.len());
        let (mut indices, mut unknown) = (Vec::new(), BTreeSet::new());
        for (index, vote) in (0..).zip(votes) {
            if !tried.votes.contains(index) {
                continue;
            }
            match numbers[usize::from(vote.option)] {
                Some(option) => {
                    casts.push(Cast { voter: vote.voter, cast_at: vote.cast_at, queue, option });
                }
                None => {
                    unknown.insert(options[usize::from(vote.option)]);
                    indices.push(index);
                }
            }
        }
        if !casts.is_empty() {
            self.polls.entry(poll.slug).or_insert_with(|| PollBatch::new(poll)).extend(&casts);
        }
        (!indices.is_empty()).then(|| Unfit::unknown_options(poll, unknown, indices))
    }

    /// Returns the number of a queue in this batch: at once for the queue whose delivery is decoded.
    fn number(&mut self, queue: QueueId) -> u32 {
        let place = self.queues.iter().rposition(|known| *known == queue).unwrap_or_else(|| {
            self.queues.push(queue);
            self.queues.len() - 1
        });
        place as u32
    }

    /// Returns the changes of an entry of the ledger, which are part of the plan from then on. The plan sets its accepted
    /// votes.
    fn account(&mut self, queue: QueueId, poll: &str) -> &mut LedgerEntry {
        let entries = self.ledger.entry(queue).or_default();
        let place = entries.binary_search_by(|entry| entry.poll.as_str().cmp(poll)).unwrap_or_else(|place| {
            let entry = LedgerEntry {
                queue,
                poll: poll.to_owned(),
                accepted: 0,
                new_voters: 0,
                superseded: 0,
                quarantined: 0,
            };
            entries.insert(place, entry);
            place
        });
        &mut entries[place]
    }

    /// Returns the newly quarantined frames, without those that were replayed.
    #[must_use]
    pub fn quarantine(&self) -> &[QuarantinedFrame] {
        &self.quarantine
    }

    /// Returns the voters whose effective ballots [`plan`](Self::plan) needs: by poll, sorted, without duplicates.
    #[must_use]
    pub fn voters(&self) -> BTreeMap<PollSlug, Vec<VoterKey>> {
        self.polls.iter().map(|(poll, batch)| (*poll, batch.voters())).collect()
    }

    /// Plans the commit, given the effective ballots in the store of the [voters](Self::voters).
    #[must_use]
    pub fn plan(mut self, version: u64, effective: &BTreeMap<PollSlug, Vec<Ballot>>) -> CommitPlan {
        let mut polls = Vec::new();
        for (poll, batch) in std::mem::take(&mut self.polls) {
            let effective = effective.get(&poll).map(Vec::as_slice).unwrap_or_default();
            let (plan, counts) = plan_poll(poll, &batch, self.queues.len(), effective);
            for (number, counts) in counts.into_iter().enumerate() {
                if counts.new_voters + counts.superseded > 0 {
                    let entry = self.account(self.queues[number], poll.as_str());
                    entry.new_voters += counts.new_voters;
                    entry.superseded += counts.superseded;
                }
            }
            polls.push(plan);
        }
        for entry in self.ledger.values_mut().flatten() {
            let of_queue = self.accepted.get(&entry.queue);
            entry.accepted = of_queue.and_then(|of| of.get(&entry.poll)).copied().unwrap_or_default();
        }
        CommitPlan {
            partition: self.partition,
            version,
            polls,
            ledger: self.ledger.into_values().flatten().collect(),
            positions: self.positions.into_iter().collect(),
            quarantine: self.quarantine,
            replayed: self.replayed,
        }
    }
}

/// Converts a number of votes to a signed one, saturating. An entry with a larger number is damaged, and is
/// quarantined.
fn signed(votes: u64) -> i64 {
    i64::try_from(votes).unwrap_or(i64::MAX)
}

/// Votes of a frame that cannot be counted.
struct Unfit {
    votes: QuarantinedVotes,
    reason: QuarantineReason,
}

impl Unfit {
    /// Votes at these indices, for options that the poll does not have.
    fn unknown_options(poll: &RegisteredPoll, options: BTreeSet<OptionSlug>, indices: Vec<u32>) -> Self {
        let has_more = options.len() > QuarantineReason::MAX_NAMED;
        let options = options.into_iter().take(QuarantineReason::MAX_NAMED).collect();
        let reason = QuarantineReason::UnknownOptions { poll: poll.slug, options, has_more };
        Self { votes: QuarantinedVotes::At(indices), reason }
    }
}

/// Votes of a frame that are to be counted if they can: all of them, or those that are quarantined.
struct Tried<'a> {
    queue: QueueId,
    /// Name of the poll under which the queue accounted for the frame.
    poll: &'a str,
    accounted: u64,
    votes: &'a QuarantinedVotes,
    frame: &'a [u8],
}

/// Decodes a frame, and finds its poll, unless no vote of it can be counted.
fn open<'a>(
    partition: Partition,
    partitions: Partitions,
    polls: &'a [RegisteredPoll],
    tried: &Tried<'_>,
) -> Result<(&'a RegisteredPoll, Decoded), QuarantineReason> {
    let slug: PollSlug = tried.poll.parse().map_err(Undecodable::from)?;
    let decoded = frame::decode_numbered(slug, partition, partitions, tried.accounted, tried.frame)
        .map_err(Undecodable::from)?;
    let poll = polls
        .iter()
        .find(|poll| poll.slug == slug)
        .ok_or(QuarantineReason::PollNotRegistered { poll: slug })?;
    if poll.final_at.is_some() {
        return Err(QuarantineReason::PollFinal { poll: slug });
    }
    if let Some(&index) = tried.votes.indices().and_then(<[u32]>::last)
        && index as usize >= decoded.votes.len()
    {
        // Counted votes would be subtracted from a number that does not include them.
        return Err(QuarantineReason::DamagedIndex { index, votes: decoded.votes.len() });
    }
    Ok((poll, decoded))
}

/// Returns the index of an option in those of its poll, of which there are [few](crate::poll::OPTIONS).
fn number(poll: &RegisteredPoll, option: OptionSlug) -> Option<u8> {
    poll.options.iter().position(|known| *known == option).and_then(|place| u8::try_from(place).ok())
}
