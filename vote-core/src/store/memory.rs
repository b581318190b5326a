//! A store in memory, for tests and examples: everything is lost with the process.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;

use super::{
    Acquired, Catalog, Lookup, MAX_CLOCK_DIFFERENCE, Session, Snapshot, Store, StoreError, StoreReader,
    WORKER_LIVES_FOR, WorkerId, WorkerRecord, withdrawal,
};
use crate::{
    Clock, DurabilityProblem, OptionSlug, Partition, Poll, PollSlug, Position, QueueId, SystemClock,
    Timestamp, VoterKey,
    count::{
        Accounts, Ballot, Checkpoint, CommitPlan, Decision, FUTURE, LedgerEntry, LedgerRow, PollPlan,
        QuarantineKey, QuarantineRow, QuarantineState, QuarantineTotal, QuarantinedFrame, QueueRecord,
        QueueState, RegisteredPoll, ReplayOutcome, Reschedule, SealRecord, TallyRow, UNKNOWN_AGE, Withdrawal,
        audit, audit::Finding, was_within,
    },
    queue::Layout,
};

/// A store in memory, lost with the process. Clones share the same content.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    data: Arc<Mutex<Data>>,
    clock: Arc<dyn Clock>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::with_clock(Arc::new(SystemClock))
    }
}

/// Copy of what a [`MemoryStore`] held at a moment, to [restore](MemoryStore::restore).
#[derive(Debug, Clone)]
pub struct MemoryStoreImage(Data);

#[derive(Debug, Default, Clone)]
struct Data {
    layout: Option<Layout>,
    polls: Vec<RegisteredPoll>,
    partitions: BTreeMap<Partition, PartitionData>,
    queues: BTreeMap<QueueId, QueueRecord>,
    seals: BTreeMap<(QueueId, PollSlug), SealRecord>,
    revision: u64,
    completions: BTreeMap<(PollSlug, Partition), u64>,
    given_up: BTreeSet<(QueueId, PollSlug, Timestamp)>,
    workers: BTreeMap<WorkerId, (WorkerRecord, Timestamp)>,
    /// Number of sessions ever opened, and the number of the latest one.
    sessions: u64,
}

#[derive(Debug, Default, Clone)]
struct PartitionData {
    owner: Option<u64>,
    rows: Rows,
}

/// Everything that a commit moves.
#[derive(Debug, Default, Clone)]
struct Rows {
    version: u64,
    votes: BTreeMap<(PollSlug, VoterKey), Ballot>,
    tally: BTreeMap<(PollSlug, OptionSlug), i64>,
    positions: BTreeMap<QueueId, Position>,
    ledger: BTreeMap<(QueueId, String), LedgerEntry>,
    quarantine: BTreeMap<(QueueId, Position), QuarantineRow>,
}

impl MemoryStore {
    /// Returns an empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns an empty store with a given clock in place of the system's.
    #[must_use]
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self { data: Arc::default(), clock }
    }

    /// Returns a copy of everything committed, as a backup or a standby of a server has it.
    #[must_use]
    pub fn image(&self) -> MemoryStoreImage {
        MemoryStoreImage(self.lock().clone())
    }

    /// Replaces everything committed by a copy, as a server does that starts from a backup: what was committed after
    /// the copy was taken is lost. No session owns a partition then.
    pub fn restore(&self, image: &MemoryStoreImage) {
        let mut data = self.lock();
        let sessions = data.sessions;
        *data = Data { sessions, ..image.0.clone() };
        data.partitions.values_mut().for_each(|partition| partition.owner = None);
    }

    /// Frees all partitions, as a server does that loses its locks. Sessions that owned one do not notice.
    pub fn lose_locks(&self) {
        self.lock().partitions.values_mut().for_each(|partition| partition.owner = None);
    }

    /// Returns the partitions that no session owns.
    #[must_use]
    pub fn unowned(&self) -> Vec<Partition> {
        let data = self.lock();
        let unowned = data.partitions.iter().filter(|(_, partition)| partition.owner.is_none());
        unowned.map(|(partition, _)| *partition).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Data> {
        // A commit checks everything before it changes anything, so no panic leaves half of one.
        self.data.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the time of the store's clock.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Makes a poll not final, for a store with a fault.
    #[cfg(feature = "conformance")]
    pub(crate) fn reopen(&self, poll: PollSlug) {
        if let Some(poll) = self.lock().poll(poll) {
            poll.final_at = None;
        }
    }

    /// Records every partition as complete for a poll, for a store with a fault.
    #[cfg(feature = "conformance")]
    pub(crate) fn complete_all(&self, poll: PollSlug) {
        let mut data = self.lock();
        let (revision, partitions): (u64, Vec<_>) =
            (data.revision, data.partitions.keys().copied().collect());
        data.completions.extend(partitions.into_iter().map(|partition| ((poll, partition), revision)));
    }

    /// Sets when a poll was closed, for a store with a fault.
    #[cfg(feature = "conformance")]
    pub(crate) fn set_closed(&self, poll: PollSlug, at: Option<Timestamp>) {
        if let Some(poll) = self.lock().poll(poll) {
            poll.closed_at = at;
        }
    }

    /// Sets the closing time of a poll, for a store with a fault.
    #[cfg(feature = "conformance")]
    pub(crate) fn set_closes_at(&self, poll: PollSlug, at: Option<Timestamp>) {
        if let Some(poll) = self.lock().poll(poll) {
            poll.closes_at = at;
        }
    }

    /// Removes a recorded seal, for a store with a fault.
    #[cfg(feature = "conformance")]
    pub(crate) fn forget_seal(&self, seal: &SealRecord) {
        self.lock().seals.remove(&(seal.queue, seal.poll));
    }

    /// Makes a poll final, for a store with a fault.
    #[cfg(feature = "conformance")]
    pub(crate) fn set_final(&self, poll: PollSlug, at: Timestamp) {
        if let Some(poll) = self.lock().poll(poll) {
            poll.final_at = Some(at);
        }
    }
}

impl Data {
    fn partition(&mut self, partition: Partition) -> Result<&mut PartitionData, StoreError> {
        self.partitions.get_mut(&partition).ok_or(StoreError::UnknownPartition(partition))
    }

    fn poll(&mut self, slug: PollSlug) -> Option<&mut RegisteredPoll> {
        self.polls.iter_mut().find(|poll| poll.slug == slug)
    }

    /// Returns the queue and the poll of a record of giving up, if it is about the poll's current withdrawal.
    fn still_given_up(&self, given_up: &(QueueId, PollSlug, Timestamp)) -> Option<(QueueId, PollSlug)> {
        let (queue, slug, at) = *given_up;
        let poll = self.polls.iter().find(|poll| poll.slug == slug)?;
        poll.withdrawal.as_ref().filter(|withdrawal| withdrawal.at == at).map(|_| (queue, slug))
    }

    /// Returns whether votes for a poll were read or reported.
    fn has_votes(&self, poll: PollSlug) -> bool {
        let name = poll.as_str();
        let reported = |queue: &QueueRecord| queue.accepted.get(name).is_some_and(|n| *n > 0);
        self.queues.values().any(reported)
            || self.rows().any(|(_, rows)| rows.ledger.keys().any(|(_, of)| of == name))
    }

    /// Returns whether every queue has given up a withdrawn poll.
    fn is_given_up(&self, poll: &RegisteredPoll) -> bool {
        let Some(at) = poll.withdrawal.as_ref().map(|withdrawal| withdrawal.at) else { return false };
        if self.has_votes(poll.slug) {
            return false;
        }
        let counts = |queue: &QueueRecord| queue.state != QueueState::Retired && queue.original_id.is_none();
        let mut queues = self.queues.values().filter(|queue| counts(queue));
        queues.all(|queue| self.given_up.contains(&(queue.id, poll.slug, at)))
    }

    fn rows(&self) -> impl Iterator<Item = (Partition, &Rows)> {
        self.partitions.iter().map(|(partition, data)| (*partition, &data.rows))
    }

    fn quarantine(&self) -> impl Iterator<Item = &QuarantineRow> {
        self.rows().flat_map(|(_, rows)| rows.quarantine.values())
    }

    fn accounts(&self, now: Timestamp, recount: bool) -> Accounts {
        let count = || {
            let mut rows = BTreeMap::new();
            for ((poll, _), ballot) in self.rows().flat_map(|(_, rows)| &rows.votes) {
                *rows.entry((*poll, ballot.option)).or_default() += 1;
            }
            rows
        };
        let mut quarantine: BTreeMap<_, QuarantineTotal> = BTreeMap::new();
        for row in self.quarantine().filter(|row| row.state != QuarantineState::Counted) {
            let (queue, partition, poll) = (row.frame.queue, row.partition, row.frame.poll.clone());
            let total = quarantine
                .entry((queue, partition, poll.clone()))
                .or_insert_with(|| QuarantineTotal { queue, partition, poll, votes: 0, pending: 0 });
            total.votes += row.frame.votes();
            total.pending += u64::from(row.state.is_pending());
        }
        let tally = |(partition, rows): (Partition, &Rows)| {
            let row = move |((poll, option), votes): (&(PollSlug, OptionSlug), &i64)| TallyRow {
                poll: *poll,
                option: *option,
                partition,
                votes: *votes,
            };
            rows.tally.iter().filter(|(_, votes)| **votes != 0).map(row).collect::<Vec<_>>()
        };
        let ledger = |(partition, rows): (Partition, &Rows)| {
            let row = move |entry: &LedgerEntry| LedgerRow { partition, entry: entry.clone() };
            rows.ledger.values().map(row).collect::<Vec<_>>()
        };
        Accounts {
            taken_at: now,
            revision: self.revision,
            completions: self.completions.clone(),
            polls: self.polls.clone(),
            versions: self.rows().map(|(partition, rows)| (partition, rows.version)).collect(),
            queues: self.queues.values().cloned().collect(),
            positions: self.positions(),
            ledger: self.rows().flat_map(ledger).collect(),
            seals: self.seals.values().cloned().collect(),
            tally: self.rows().flat_map(tally).collect(),
            rows: recount.then(count),
            quarantine: quarantine.into_values().collect(),
        }
    }

    fn positions(&self) -> BTreeMap<(QueueId, Partition), Position> {
        self.rows()
            .flat_map(|(partition, rows)| {
                rows.positions.iter().map(move |(queue, position)| ((*queue, partition), *position))
            })
            .collect()
    }
}

/// Fails if a poll of a plan is not registered, or lacks an option.
fn check_names(polls: &[RegisteredPoll], plan: &PollPlan) -> Result<(), StoreError> {
    let poll = polls.iter().find(|poll| poll.slug == plan.poll);
    let poll = poll.ok_or_else(|| super::not_registered(plan.poll))?;
    let replaced = plan.replacements.iter().flat_map(|(old, new)| [old, new]);
    let ballots = plan.inserts.iter().chain(replaced).map(|ballot| ballot.option);
    let unknown = ballots.chain(plan.tally.keys().copied()).find(|option| !poll.options.contains(option));
    unknown.map_or(Ok(()), |option| Err(super::no_option(option)))
}

impl Rows {
    /// Finds everything that could be wrong, before [`apply`](Self::apply) changes anything.
    fn check(&self, plan: &CommitPlan) -> Result<(), StoreError> {
        for poll in &plan.polls {
            let mut last = None;
            for ballot in &poll.inserts {
                if self.votes.contains_key(&(poll.poll, ballot.voter)) || last == Some(ballot.voter) {
                    return Err(StoreError::Conflict(format!(
                        "{} has an effective ballot in {} already",
                        ballot.voter, poll.poll
                    )));
                }
                last = Some(ballot.voter);
            }
            for (old, _) in &poll.replacements {
                if self.votes.get(&(poll.poll, old.voter)) != Some(old) {
                    return Err(StoreError::Conflict(format!(
                        "{} has another effective ballot in {}",
                        old.voter, poll.poll
                    )));
                }
            }
        }
        for frame in &plan.quarantine {
            if self.quarantine.contains_key(&(frame.queue, frame.position)) {
                return Err(StoreError::Conflict(format!(
                    "votes of the frame at {} are quarantined already",
                    frame.position
                )));
            }
        }
        for replayed in &plan.replayed {
            let row = self.quarantine.get(&(replayed.queue, replayed.position));
            let as_planned =
                |row: &QuarantineRow| row.state.is_pending() && row.frame.quarantined == replayed.tried;
            if !row.is_some_and(as_planned) {
                return Err(StoreError::Conflict(format!(
                    "the quarantined votes of the frame at {} are not those that were replayed",
                    replayed.position
                )));
            }
        }
        Ok(())
    }

    fn apply(&mut self, plan: &CommitPlan, now: Timestamp) {
        self.version += 1;
        for poll in &plan.polls {
            let effective = poll.inserts.iter().chain(poll.replacements.iter().map(|(_, new)| new));
            self.votes.extend(effective.map(|ballot| ((poll.poll, ballot.voter), *ballot)));
            for (option, n) in &poll.tally {
                *self.tally.entry((poll.poll, *option)).or_default() += n;
            }
        }
        self.positions.extend(plan.positions.iter().copied());
        for entry in &plan.ledger {
            let row = self.ledger.entry((entry.queue, entry.poll.clone())).or_insert_with(|| LedgerEntry {
                new_voters: 0,
                superseded: 0,
                quarantined: 0,
                ..entry.clone()
            });
            row.accepted = entry.accepted;
            row.new_voters += entry.new_voters;
            row.superseded += entry.superseded;
            row.quarantined += entry.quarantined;
        }
        for frame in &plan.quarantine {
            let row = QuarantineRow {
                partition: plan.partition,
                frame: frame.clone(),
                state: QuarantineState::Quarantined,
                rejection: None,
                quarantined_at: now,
            };
            self.quarantine.insert((frame.queue, frame.position), row);
        }
        for replayed in &plan.replayed {
            let Some(row) = self.quarantine.get_mut(&(replayed.queue, replayed.position)) else { continue };
            row.state = match &replayed.outcome {
                ReplayOutcome::Counted => QuarantineState::Counted,
                ReplayOutcome::Quarantined { votes, reason } => {
                    row.frame.quarantined.clone_from(votes);
                    row.frame.reason.clone_from(reason);
                    QuarantineState::Quarantined
                }
            };
        }
    }

    fn checkpoints(&self) -> BTreeMap<QueueId, Checkpoint> {
        let mut checkpoints: BTreeMap<QueueId, Checkpoint> = self
            .positions
            .iter()
            .map(|(queue, position)| (*queue, Checkpoint { position: *position, ..Checkpoint::default() }))
            .collect();
        for ((queue, poll), entry) in &self.ledger {
            checkpoints.entry(*queue).or_default().accepted.insert(poll.clone(), entry.accepted);
        }
        checkpoints
    }
}

#[async_trait]
impl StoreReader for MemoryStore {
    async fn layout(&self) -> Result<Option<Layout>, StoreError> {
        Ok(self.lock().layout)
    }

    async fn polls(&self) -> Result<Vec<RegisteredPoll>, StoreError> {
        Ok(self.lock().polls.clone())
    }

    async fn ballot(&self, poll: PollSlug, voter: VoterKey) -> Result<Option<Ballot>, StoreError> {
        Ok(self.lock().partitions.values().find_map(|p| p.rows.votes.get(&(poll, voter)).copied()))
    }

    async fn position(&self, queue: QueueId, partition: Partition) -> Result<Position, StoreError> {
        let data = self.lock();
        Ok(data
            .partitions
            .get(&partition)
            .and_then(|p| p.rows.positions.get(&queue).copied())
            .unwrap_or_default())
    }

    async fn quarantined(
        &self,
        queue: QueueId,
        partition: Partition,
        position: Position,
    ) -> Result<Option<QuarantineRow>, StoreError> {
        let data = self.lock();
        let row = data.partitions.get(&partition).and_then(|p| p.rows.quarantine.get(&(queue, position)));
        Ok(row.filter(|row| row.state != QuarantineState::Counted).cloned())
    }

    async fn positions(&self, queue: QueueId) -> Result<BTreeMap<Partition, Position>, StoreError> {
        let data = self.lock();
        Ok(data
            .rows()
            .filter_map(|(partition, rows)| Some((partition, *rows.positions.get(&queue)?)))
            .collect())
    }

    async fn all_positions(&self) -> Result<BTreeMap<(QueueId, Partition), Position>, StoreError> {
        Ok(self.lock().positions())
    }

    async fn queues(&self) -> Result<Vec<QueueRecord>, StoreError> {
        Ok(self.lock().queues.values().cloned().collect())
    }

    async fn quarantine(
        &self,
        after: Option<QuarantineKey>,
        limit: usize,
    ) -> Result<Vec<QuarantineRow>, StoreError> {
        let mut rows: Vec<_> = self.lock().quarantine().cloned().collect();
        rows.sort_unstable_by_key(QuarantineRow::key);
        Ok(rows.into_iter().filter(|row| Some(row.key()) > after).take(limit).collect())
    }

    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        Ok(Box::new(MemorySnapshot { taken_at: self.now(), data: self.lock().clone() }))
    }
}

/// A copy of the store's content.
#[derive(Debug)]
struct MemorySnapshot {
    taken_at: Timestamp,
    data: Data,
}

#[async_trait]
impl Snapshot for MemorySnapshot {
    async fn accounts(&mut self, recount: bool) -> Result<Accounts, StoreError> {
        Ok(self.data.accounts(self.taken_at, recount))
    }

    async fn ballots(
        &mut self,
        poll: PollSlug,
        after: Option<VoterKey>,
        limit: usize,
    ) -> Result<Vec<Ballot>, StoreError> {
        // A partition is a range of keys, so partition after partition is in the order of the keys.
        let of_poll = self.data.rows().flat_map(|(_, rows)| &rows.votes).filter(|((p, _), _)| *p == poll);
        let rest = of_poll.filter(|((_, voter), _)| Some(*voter) > after);
        Ok(rest.map(|(_, ballot)| *ballot).take(limit).collect())
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn prepare(&self, layout: Layout) -> Result<(), StoreError> {
        let mut data = self.lock();
        let recorded = *data.layout.get_or_insert(layout);
        for partition in recorded.partitions.iter() {
            data.partitions.entry(partition).or_default();
        }
        super::same_layout(recorded, layout)
    }

    async fn register_poll(&self, poll: &Poll) -> Result<RegisteredPoll, StoreError> {
        let mut data = self.lock();
        let mut registered = RegisteredPoll::from(poll);
        if let Some(found) = data.polls.iter().find(|known| known.slug == poll.slug) {
            if !found.makes_way_for(poll) || !data.is_given_up(found) {
                return Ok(found.clone());
            }
            registered.earlier = found.earlier.iter().cloned().chain(found.as_earlier()).collect();
            data.polls.retain(|known| known.slug != poll.slug);
            data.partitions.values_mut().for_each(|partition| partition.rows.version += 1);
        }
        data.polls.push(registered.clone());
        Ok(registered)
    }

    async fn catalog(&self) -> Result<Catalog, StoreError> {
        let taken_at = self.now();
        let data = self.lock();
        let not_final = |poll: &PollSlug| {
            data.polls.iter().any(|p| p.slug == *poll && p.closed_at.is_some() && p.final_at.is_none())
        };
        let alive = data.workers.values().filter(|(_, at)| was_within(*at, taken_at, WORKER_LIVES_FOR));
        Ok(Catalog {
            taken_at,
            revision: data.revision,
            queues: data.queues.clone(),
            polls: data.polls.clone(),
            given_up: data.given_up.iter().filter_map(|given_up| data.still_given_up(given_up)).collect(),
            sealed: data.seals.keys().filter(|(_, poll)| not_final(poll)).copied().collect(),
            workers: alive.map(|(worker, _)| (worker.id, worker.clone())).collect(),
        })
    }

    async fn close_poll(&self, poll: PollSlug) -> Result<Option<RegisteredPoll>, StoreError> {
        let now = self.now();
        Ok(self.lock().poll(poll).map(|poll| {
            if poll.withdrawal.is_none() {
                poll.closed_at.get_or_insert(now);
            }
            poll.clone()
        }))
    }

    async fn close_due_polls(&self, grace: Duration, now: Timestamp) -> Result<Vec<PollSlug>, StoreError> {
        let ours = self.now();
        if ours.as_micros().abs_diff(now.as_micros()) > MAX_CLOCK_DIFFERENCE.as_micros() as u64 {
            return Ok(Vec::new());
        }
        let grace = i64::try_from(grace.as_micros()).unwrap_or(i64::MAX);
        let mut closed = Vec::new();
        let is_open = |poll: &&mut RegisteredPoll| poll.closed_at.is_none() && poll.withdrawal.is_none();
        for poll in self.lock().polls.iter_mut().filter(is_open) {
            if poll.closes_at.is_some_and(|at| at.saturating_add(grace) <= ours) {
                poll.closed_at = Some(ours);
                closed.push(poll.slug);
            }
        }
        Ok(closed)
    }

    async fn reschedule_poll(
        &self,
        poll: PollSlug,
        closes_at: Option<Timestamp>,
        reason: &str,
    ) -> Result<Option<RegisteredPoll>, StoreError> {
        let at = self.now();
        let mut data = self.lock();
        let Some(poll) = data.poll(poll) else { return Ok(None) };
        if poll.closed_at.is_some() {
            return Err(super::is_closed(poll.slug));
        }
        let reason = reason.to_owned();
        poll.reschedules.push(Reschedule { at, from: poll.closes_at, to: closes_at, reason });
        poll.closes_at = closes_at;
        Ok(Some(poll.clone()))
    }

    async fn withdraw_poll(
        &self,
        poll: PollSlug,
        reason: &str,
    ) -> Result<Option<RegisteredPoll>, StoreError> {
        let at = self.now();
        let mut data = self.lock();
        let has_votes = data.has_votes(poll);
        let Some(found) = data.poll(poll) else { return Ok(None) };
        if found.withdrawal.is_none() {
            if found.closed_at.is_some() || has_votes {
                return Err(withdrawal::refused(found));
            }
            found.withdrawal = Some(Withdrawal { at, reason: reason.to_owned() });
        }
        Ok(Some(found.clone()))
    }

    async fn keep_poll(&self, poll: PollSlug, withdrawn_at: Timestamp) -> Result<(), StoreError> {
        if let Some(found) = self.lock().poll(poll) {
            found.withdrawal.take_if(|withdrawal| withdrawal.at == withdrawn_at);
        }
        Ok(())
    }

    async fn note_given_up(
        &self,
        queue: QueueId,
        poll: PollSlug,
        withdrawn_at: Timestamp,
    ) -> Result<(), StoreError> {
        self.lock().given_up.insert((queue, poll, withdrawn_at));
        Ok(())
    }

    async fn note_seal(&self, seal: &SealRecord) -> Result<SealRecord, StoreError> {
        let mut data = self.lock();
        let key = (seal.queue, seal.poll);
        let merged = match data.seals.get(&key) {
            None => seal.clone(),
            Some(before) => {
                let merged = before.clone().merged(seal);
                data.revision += u64::from(merged.seal.accepted != before.seal.accepted);
                merged
            }
        };
        data.seals.insert(key, merged.clone());
        Ok(merged)
    }

    async fn finish_poll(&self, poll: PollSlug) -> Result<bool, StoreError> {
        let now = self.now();
        let mut data = self.lock();
        let covered = data
            .partitions
            .keys()
            .all(|partition| data.completions.get(&(poll, *partition)) == Some(&data.revision));
        Ok(data.poll(poll).is_some_and(|poll| {
            if covered && poll.closed_at.is_some() {
                poll.final_at.get_or_insert(now);
            }
            poll.final_at.is_some()
        }))
    }

    async fn report(&self, queues: &[QueueRecord]) -> Result<(), StoreError> {
        let now = self.now();
        let mut data = self.lock();
        for record in queues {
            let (merged, is_news) = match data.queues.remove(&record.id) {
                None => (record.clone(), true),
                Some(before) => {
                    let state = before.state;
                    let merged = before.merged(record.clone(), now);
                    let is_news = merged.state > state;
                    (merged, is_news)
                }
            };
            data.revision += u64::from(is_news);
            data.queues.insert(record.id, merged);
        }
        Ok(())
    }

    async fn beat(&self, worker: &WorkerRecord) -> Result<(), StoreError> {
        let now = self.now();
        let limit = now.saturating_add(FUTURE.as_micros() as i64);
        let long_ago = now.saturating_add(-(UNKNOWN_AGE.as_micros() as i64));
        let mut data = self.lock();
        // A worker in the future shows that the clock was set back, so the age of no report is known.
        let was_set_back = data.workers.values().any(|(_, seen_at)| *seen_at > limit);
        data.workers.retain(|_, (_, seen_at)| *seen_at <= limit);
        data.workers.insert(worker.id, (worker.clone(), now));
        for queue in data.queues.values_mut().filter(|queue| was_set_back || queue.seen_at > limit) {
            queue.seen_at = queue.seen_at.min(long_ago);
        }
        Ok(())
    }

    async fn retire(&self, queue: QueueId, reason: &str) -> Result<bool, StoreError> {
        let mut data = self.lock();
        let Some(record) = data.queues.get_mut(&queue) else { return Ok(false) };
        if record.state != QueueState::Retired {
            record.state = QueueState::Retired;
            record.reason = QueueRecord::retirement_reason(&record.reason, reason);
        }
        Ok(true)
    }

    async fn decide(&self, frames: &[QuarantineKey], decision: &Decision) -> Result<u64, StoreError> {
        let mut data = self.lock();
        let mut decided = 0;
        for key in frames {
            let rows = data.partitions.get_mut(&key.partition).map(|data| &mut data.rows.quarantine);
            let row = rows.and_then(|rows| rows.get_mut(&(key.queue, key.position)));
            let Some(row) = row.filter(|row| row.state.is_pending()) else { continue };
            match decision {
                Decision::Replay => row.state = QuarantineState::Replay,
                Decision::Reject(reason) => {
                    row.state = QuarantineState::Rejected;
                    row.rejection = Some(reason.clone());
                }
            }
            decided += 1;
        }
        Ok(decided)
    }

    async fn durability_problems(&self) -> Result<Vec<DurabilityProblem>, StoreError> {
        Ok(vec![DurabilityProblem::InMemory { what: "store", instead: "SQLite or Postgres" }])
    }

    async fn open_session(&self) -> Result<Box<dyn Session>, StoreError> {
        let mut data = self.lock();
        data.layout.ok_or_else(|| super::not_prepared("the store in memory"))?;
        data.sessions += 1;
        Ok(Box::new(MemorySession { store: self.clone(), number: data.sessions }))
    }
}

#[derive(Debug)]
struct MemorySession {
    store: MemoryStore,
    number: u64,
}

impl Drop for MemorySession {
    fn drop(&mut self) {
        let mut data = self.store.lock();
        for partition in data.partitions.values_mut().filter(|p| p.owner == Some(self.number)) {
            partition.owner = None;
        }
    }
}

#[async_trait]
impl Session for MemorySession {
    async fn unowned(&mut self) -> Result<Vec<Partition>, StoreError> {
        Ok(self.store.unowned())
    }

    async fn acquire(&mut self, partition: Partition) -> Result<Option<Acquired>, StoreError> {
        let mut data = self.store.lock();
        let data = data.partition(partition)?;
        if *data.owner.get_or_insert(self.number) != self.number {
            return Ok(None);
        }
        Ok(Some(Acquired { version: data.rows.version, checkpoints: data.rows.checkpoints() }))
    }

    async fn release(&mut self, partition: Partition) -> Result<(), StoreError> {
        let mut data = self.store.lock();
        let data = data.partition(partition)?;
        if data.owner == Some(self.number) {
            data.owner = None;
        }
        Ok(())
    }

    async fn lookup(
        &mut self,
        partition: Partition,
        poll: PollSlug,
        voters: &[VoterKey],
        _lookup: Lookup,
    ) -> Result<Vec<Ballot>, StoreError> {
        let mut data = self.store.lock();
        let rows = &data.partition(partition)?.rows;
        Ok(voters.iter().filter_map(|voter| rows.votes.get(&(poll, *voter)).copied()).collect())
    }

    async fn replays(
        &mut self,
        partition: Partition,
        limit: usize,
    ) -> Result<Vec<QuarantinedFrame>, StoreError> {
        let mut data = self.store.lock();
        let polls: Vec<String> = data
            .polls
            .iter()
            .filter(|poll| poll.final_at.is_none())
            .map(|poll| poll.slug.to_string())
            .collect();
        let rows = data.partition(partition)?.rows.quarantine.values();
        let again = |row: &&QuarantineRow| match row.state {
            QuarantineState::Replay => true,
            QuarantineState::Quarantined => row.frame.reason.awaits_poll() && polls.contains(&row.frame.poll),
            QuarantineState::Counted | QuarantineState::Rejected => false,
        };
        Ok(rows.filter(again).take(limit).map(|row| row.frame.clone()).collect())
    }

    async fn commit(&mut self, plan: &CommitPlan) -> Result<(), StoreError> {
        let now = self.store.now();
        let mut data = self.store.lock();
        let counted: Vec<PollSlug> = plan.polls.iter().map(|poll| poll.poll).collect();
        if data.polls.iter().any(|poll| poll.final_at.is_some() && counted.contains(&poll.slug)) {
            return Err(StoreError::StaleVersion(plan.partition));
        }
        if data.partition(plan.partition)?.rows.version != plan.version {
            return Err(StoreError::StaleVersion(plan.partition));
        }
        plan.polls.iter().try_for_each(|poll| check_names(&data.polls, poll))?;
        let rows = &mut data.partition(plan.partition)?.rows;
        rows.check(plan)?;
        rows.apply(plan, now);
        Ok(())
    }

    async fn complete(
        &mut self,
        partition: Partition,
        version: u64,
        poll: PollSlug,
    ) -> Result<Vec<Finding>, StoreError> {
        let now = self.store.now();
        let mut data = self.store.lock();
        if data.partition(partition)?.rows.version != version {
            return Err(StoreError::StaleVersion(partition));
        }
        let obstacles = audit::obstacles_in(&data.accounts(now, false), poll, partition);
        if obstacles.is_empty() {
            let revision = data.revision;
            data.completions.insert((poll, partition), revision);
            data.partition(partition)?.rows.version += 1;
        }
        Ok(obstacles)
    }
}
