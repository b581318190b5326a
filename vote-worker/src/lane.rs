//! A lane: reads all queues for the partitions it owns, and commits batch after batch.
//!
//! ```text
//! own (fair share) → read → decode → look up → plan → commit → trim
//! ```
//!
//! Reads run beside the lane, one for each queue and partition at a time, so that a slow queue delays no other.
//! Everything else of a lane follows one after the other. Any error of the store ends the store's lane; the next one
//! starts from what is committed, so nothing here has to be undone.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::watch, task::JoinSet, time::Instant};
use tracing::Instrument;
use vote_core::{
    Lane as StoreLane, Partition, PollSlug, Position, Queue, QueueId, Store, TRACES,
    dedup::{Batch, Delivery},
    queue::{Layout, QueueError, Read},
    store::{Checkpoint, Lookup, QuarantinedFrame, RegisteredPoll, StoreError},
};
use vote_service::Shutdown;

use crate::{
    duty::Duty,
    health::{self, Health},
    monitor::View,
    partition::{Owned, Taken},
    presence::Presence,
    registry::Registry,
    schedule::{self, Next},
    source::Queues,
    tasks::Tasks,
    trim::Trimmer,
    witness::Witnesses,
};

/// How often a lane sees to its fair share, which is also its sign of life.
const TEND_EVERY: Duration = Duration::from_secs(1);
/// How often a lane that has nothing to commit looks whether queues have something new.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A queue whose read failed is left alone for this long.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(500);
/// How often it is looked at which partitions may be complete for a closed poll.
const COMPLETE_EVERY: Duration = Duration::from_secs(1);
/// How many partitions are asked each time that do not look complete from here: a queue that is gone may have been read
/// to its seal by another lane.
const COMPLETE_BLINDLY: usize = 4;
/// How often frames are looked for whose quarantined votes are to be tried again, and how many at a time.
const REPLAY_EVERY: Duration = Duration::from_secs(3);
const MAX_REPLAYS: usize = 64;
/// Pauses after the store failed: the first, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// What all lanes of a worker share.
#[derive(Debug, Clone)]
pub(crate) struct LaneParts {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) layout: Layout,
    pub(crate) registry: Registry,
    pub(crate) presence: Presence,
    pub(crate) tasks: Tasks,
    pub(crate) queues: watch::Receiver<Arc<Queues>>,
    pub(crate) trim_delay: Duration,
    pub(crate) witnesses: Witnesses,
    pub(crate) health: Health,
}

/// Runs a lane until shutdown, opening it again whenever the store fails.
pub(crate) async fn run(number: usize, parts: LaneParts, shutdown: Shutdown) {
    let name = format!("lane {number}");
    crate::metrics::owned(number, 0);
    let mut pause = BACKOFF.0;
    let mut distrusted = BTreeSet::new();
    while !shutdown.is_requested() {
        let started = Instant::now();
        let result = match parts.store.open_lane().await {
            Ok(lane) => {
                parts.health.set(&name, Ok(()));
                parts.presence.lane_opened(number);
                let mut lane = Lane::new(number, lane, parts.clone(), std::mem::take(&mut distrusted));
                let result = lane.run(&shutdown).await;
                distrusted = lane.distrusted;
                result
            }
            Err(e) => Err(e),
        };
        crate::metrics::owned(number, 0);
        crate::metrics::trim_waits(number, Duration::ZERO);
        let Err(e) = result else { return };
        crate::metrics::store_error();
        // What another lane committed first is no fault of this one.
        if !matches!(e, StoreError::StaleVersion(_) | StoreError::Conflict(_)) {
            parts.presence.lane_failed(number);
        }
        if parts.health.set(&name, Err(e.to_string())) {
            match e {
                StoreError::Conflict(_) => tracing::error!(lane = number, "{e}: the batch is planned again"),
                StoreError::StaleVersion(_) => {
                    tracing::info!(lane = number, "{e}: starting again from there")
                }
                _ => tracing::warn!(lane = number, "the store failed, trying again: {e}"),
            }
        }
        pause = if started.elapsed() > BACKOFF.1 { BACKOFF.0 } else { (pause * 2).min(BACKOFF.1) };
        tokio::select! {
            () = shutdown.requested() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// A read that ended.
struct ReadDone {
    partition: Partition,
    epoch: u64,
    key: String,
    queue: QueueId,
    from: Checkpoint,
    result: Result<Read, QueueError>,
}

struct Lane {
    number: usize,
    store: Box<dyn StoreLane>,
    parts: LaneParts,
    owned: BTreeMap<Partition, Owned>,
    epoch: u64,
    reads: JoinSet<ReadDone>,
    /// Queues left alone until then.
    paused: BTreeMap<String, Instant>,
    /// Partitions whose last plan met something unexpected, to be looked up exhaustively.
    distrusted: BTreeSet<Partition>,
    trimmer: Trimmer,
    /// Partitions recorded as complete for a poll, up to which revision.
    completed: BTreeMap<(PollSlug, Partition), u64>,
    /// When each closed poll was first seen to be sealed in every queue.
    sealed_at: BTreeMap<PollSlug, Instant>,
    /// Where the partitions begin that are asked blindly next.
    blind: usize,
    /// Boxes that lost data: nothing more is booked under these identities.
    cut: BTreeSet<QueueId>,
}

impl Lane {
    fn new(
        number: usize,
        store: Box<dyn StoreLane>,
        parts: LaneParts,
        distrusted: BTreeSet<Partition>,
    ) -> Self {
        let trimmer = Trimmer::new(parts.trim_delay, parts.witnesses.clone());
        Self {
            number,
            store,
            parts,
            owned: BTreeMap::new(),
            epoch: 0,
            reads: JoinSet::new(),
            paused: BTreeMap::new(),
            distrusted,
            trimmer,
            completed: BTreeMap::new(),
            sealed_at: BTreeMap::new(),
            blind: 0,
            cut: BTreeSet::new(),
        }
    }

    async fn run(&mut self, shutdown: &Shutdown) -> Result<(), StoreError> {
        let mut tend_at = Instant::now();
        let (mut replay_at, mut complete_at) = (Instant::now(), Instant::now());
        loop {
            if shutdown.is_requested() {
                // What was read and not committed is read again by whoever owns the partition next.
                return Ok(());
            }
            if Instant::now() >= tend_at {
                self.tend().await?;
                tend_at = Instant::now() + TEND_EVERY;
            }
            if !self.parts.health.is_well(health::STORE) {
                // It may lose what is committed.
                tokio::select! {
                    () = tokio::time::sleep(LOOK_EVERY) => {}
                    () = shutdown.requested() => {}
                }
                continue;
            }
            if Instant::now() >= replay_at {
                self.replay().await?;
                replay_at = Instant::now() + REPLAY_EVERY;
            }
            if Instant::now() >= complete_at {
                self.complete_polls().await?;
                complete_at = Instant::now() + COMPLETE_EVERY;
            }
            while let Some(done) = self.reads.try_join_next() {
                self.take(done).await?;
            }
            self.start_reads();
            self.trimmer.run_due(&self.parts.queues.borrow(), &self.parts.tasks);
            let waiting = self.owned.values().filter_map(Owned::waiting);
            let wake = match schedule::next(waiting, Instant::now()) {
                Next::Commit(partition) => {
                    self.commit(partition, Vec::new()).await?;
                    continue;
                }
                Next::WaitUntil(at) => at.min(tend_at),
                Next::Idle => tend_at,
            };
            let wake = wake.min(Instant::now() + LOOK_EVERY);
            tokio::select! {
                Some(done) = self.reads.join_next() => self.take(done).await?,
                () = tokio::time::sleep_until(wake) => {}
                () = shutdown.requested() => {}
            }
        }
    }

    /// Sees to the fair share of partitions.
    async fn tend(&mut self) -> Result<(), StoreError> {
        let partitions = self.parts.layout.partitions;
        let duty = self.parts.presence.duty(self.number);
        let share = duty.share(partitions);
        let not_ours: Vec<Partition> =
            self.owned.keys().copied().filter(|partition| !duty.covers(*partition)).collect();
        for partition in not_ours {
            self.give_up(partition).await?;
        }
        while self.owned.len() > share {
            // The one with the least read ahead: that is read again by its next owner.
            let least = self.owned.values().min_by_key(|owned| owned.waiting().map_or(0, |w| w.votes));
            let Some(partition) = least.map(|owned| owned.partition) else { break };
            self.give_up(partition).await?;
        }
        // Asked for in any case: it is the lane's sign of life.
        let mut free = self.store.unowned().await?;
        self.parts.presence.lane_works(self.number);
        free.retain(|partition| duty.covers(*partition));
        // Each starts elsewhere, so that lanes do not all try the same ones.
        let start = (self.number * 7 + self.epoch as usize) % free.len().max(1);
        let owned = self.owned.len();
        for partition in free.iter().cycle().skip(start).take(free.len()) {
            if self.owned.len() >= share {
                break;
            }
            if let Some(acquired) = self.store.acquire(*partition).await? {
                self.epoch += 1;
                // Its last owner may not have come to it.
                for (queue, checkpoint) in &acquired.checkpoints {
                    self.trimmer.committed(*queue, *partition, checkpoint.position);
                }
                self.owned.insert(*partition, Owned::new(*partition, self.epoch, acquired));
            }
        }
        if self.owned.len() > owned {
            // After the versions: a poll that became final before is known to be so when the next batch is decoded.
            self.parts.registry.refresh().await?;
        }
        self.epoch += 1;
        if let Duty::Share { lanes } | Duty::Turn { lanes, .. } = duty {
            crate::metrics::live_lanes(lanes);
        }
        crate::metrics::owned(self.number, self.owned.len());
        crate::metrics::trim_waits(self.number, self.trimmer.waits(Instant::now()));
        Ok(())
    }

    async fn give_up(&mut self, partition: Partition) -> Result<(), StoreError> {
        self.owned.remove(&partition);
        self.store.release(partition).await
    }

    /// Records partitions as complete for closed polls, where they are. Whether one is, the store decides: what is known
    /// here only tells which ones are worth the question.
    async fn complete_polls(&mut self) -> Result<(), StoreError> {
        let catalog = self.parts.registry.catalog();
        let undecided = |poll: &&RegisteredPoll| poll.closed_at.is_some() && poll.final_at.is_none();
        for poll in catalog.polls.iter().filter(undecided).map(|poll| poll.slug) {
            if !catalog.is_sealed_everywhere(poll) {
                self.sealed_at.remove(&poll);
                continue;
            }
            let sealed_at = *self.sealed_at.entry(poll).or_insert_with(Instant::now);
            let is_open =
                |partition: &Partition| self.completed.get(&(poll, *partition)) != Some(&catalog.revision);
            let open: Vec<Partition> = self.owned.keys().copied().filter(is_open).collect();
            let looks_complete = |partition: &Partition| {
                self.owned.get(partition).is_some_and(|owned| owned.holds_all_since(sealed_at))
            };
            let (likely, unlikely): (Vec<_>, Vec<_>) = open.into_iter().partition(looks_complete);
            let blindly = unlikely.iter().cycle().skip(self.blind % unlikely.len().max(1));
            let blindly: Vec<_> = blindly.take(COMPLETE_BLINDLY.min(unlikely.len())).copied().collect();
            self.blind = self.blind.wrapping_add(COMPLETE_BLINDLY);
            for partition in likely.into_iter().chain(blindly) {
                self.complete(poll, partition, catalog.revision).await?;
            }
        }
        Ok(())
    }

    async fn complete(
        &mut self,
        poll: PollSlug,
        partition: Partition,
        revision: u64,
    ) -> Result<(), StoreError> {
        let Some(owned) = self.owned.get_mut(&partition) else { return Ok(()) };
        let obstacles = self.store.complete(partition, owned.version, poll).await?;
        match obstacles.first() {
            None => {
                owned.version += 1;
                self.completed.insert((poll, partition), revision);
            }
            Some(obstacle) => tracing::debug!(%poll, %partition, "not complete: {obstacle}"),
        }
        Ok(())
    }

    fn start_reads(&mut self) {
        let queues = Arc::clone(&self.parts.queues.borrow());
        // What is on record is of one moment: whoever reads a queue that is in it knows the state of the polls, too.
        let catalog = self.parts.registry.catalog();
        let now = Instant::now();
        for (key, monitored) in queues.iter() {
            if self.paused.get(key).is_some_and(|until| *until > now) {
                continue;
            }
            let View::Open { id, accepted, remains } = monitored.view() else { continue };
            for owned in self.owned.values_mut() {
                let partition = owned.partition;
                let mut logs = vec![(id, accepted.get(&partition).copied().unwrap_or_default())];
                for remains in remains.iter() {
                    // They have no count, but an end.
                    let end = remains.ends.get(usize::from(partition.0)).copied().unwrap_or_default();
                    let unread = owned.committed_to(remains.id).position < end;
                    logs.push((remains.id, if unread { u64::MAX } else { 0 }));
                }
                for (log, count) in logs
                    .into_iter()
                    .filter(|(log, _)| !self.cut.contains(log) && catalog.queues.contains_key(log))
                {
                    let Some((from, limit)) = owned.start_read(log, queues.len(), count, now) else {
                        continue;
                    };
                    let (queue, key, epoch) = (Arc::clone(&monitored.queue), key.clone(), owned.epoch);
                    self.reads.spawn(async move {
                        let result = queue.read(log, partition, from.position, limit).await;
                        ReadDone { partition, epoch, key, queue: log, from, result }
                    });
                }
            }
        }
    }

    async fn take(&mut self, done: Result<ReadDone, tokio::task::JoinError>) -> Result<(), StoreError> {
        // A read that panicked stays noted as running, and its queue would not be read again: so the lane starts over.
        let ended =
            |e| StoreError::Unavailable(format!("a read ended by itself, which is a bug: {e}").into());
        let ReadDone { partition, epoch, key, queue, from, result } = done.map_err(ended)?;
        let Some(owned) = self.owned.get_mut(&partition).filter(|owned| owned.epoch == epoch) else {
            return Ok(());
        };
        owned.end_read(queue);
        if self.cut.contains(&queue) {
            return Ok(());
        }
        let reason = match result {
            Ok(read) => match owned.take(queue, &from, read, Instant::now()) {
                Taken::Fine => return Ok(()),
                Taken::Drained => {
                    // An earlier trim may have failed, and remains stay until they are trimmed to their end.
                    if is_remains(&self.parts.queues.borrow(), queue) {
                        self.trimmer.committed(queue, partition, from.position);
                    }
                    return Ok(());
                }
                Taken::Contradicts(how) => how,
            },
            Err(e @ QueueError::Cut(_)) => format!("partition {partition}: {e}"),
            Err(e) => {
                tracing::debug!(%partition, "a queue was not read: {e}");
                self.paused.insert(key, Instant::now() + PAUSE_AFTER_ERROR);
                return Ok(());
            }
        };
        let version = owned.version;
        // If another lane has committed and trimmed meanwhile, it is this one that is behind, and not the queue.
        match self.store.acquire(partition).await? {
            Some(acquired) if acquired.version == version => self.cut(queue, &key, reason),
            _ => return Err(StoreError::StaleVersion(partition)),
        }
        Ok(())
    }

    fn cut(&mut self, queue: QueueId, key: &str, reason: String) {
        self.cut.insert(queue);
        for owned in self.owned.values_mut() {
            owned.forget(queue);
        }
        if let Some(monitored) = self.parts.queues.borrow().get(key) {
            monitored.is_cut(queue, reason);
        }
    }

    /// Tries quarantined votes again, where somebody decided so or their poll is known by now.
    async fn replay(&mut self) -> Result<(), StoreError> {
        let partitions: Vec<Partition> = self.owned.keys().copied().collect();
        for partition in partitions {
            let replays = self.store.replays(partition, MAX_REPLAYS).await?;
            if !replays.is_empty() {
                tracing::info!(%partition, frames = replays.len(), "quarantined votes of frames are tried again");
                self.commit(partition, replays).await?;
            }
        }
        Ok(())
    }

    #[tracing::instrument(target = TRACES, level = "trace", name = "batch", skip_all, fields(%partition, votes))]
    async fn commit(
        &mut self,
        partition: Partition,
        replays: Vec<QuarantinedFrame>,
    ) -> Result<(), StoreError> {
        let Some(owned) = self.owned.get_mut(&partition) else { return Ok(()) };
        let started = Instant::now();
        let version = owned.version;
        let mut deliveries = owned.deliveries();
        let of_replays: BTreeSet<QueueId> = replays.iter().map(|frame| frame.queue).collect();
        for queue in of_replays {
            if !deliveries.iter().any(|delivery| delivery.queue == queue) {
                deliveries.push(Delivery::nothing_new(queue, owned.committed_to(queue)));
            }
        }
        let checkpoints: Vec<_> =
            deliveries.iter().map(|delivery| (delivery.queue, delivery.checkpoint.clone())).collect();
        let votes: u64 = deliveries.iter().map(Delivery::votes).sum();
        tracing::Span::current().record("votes", votes as i64);
        let catalog = self.parts.registry.catalog_for(&deliveries, &replays).await?;
        let batch =
            Batch::decode(partition, self.parts.layout.partitions, &catalog.polls, deliveries, replays);
        log_quarantined(partition, &batch);
        let lookup = if self.distrusted.contains(&partition) { Lookup::Exhaustive } else { Lookup::Filtered };
        let mut standing = BTreeMap::new();
        for (poll, voters) in batch.voters() {
            standing.insert(poll, self.store.lookup(partition, poll, &voters, lookup).await?);
        }
        let plan = batch.plan(version, &standing);
        let span = tracing::trace_span!(target: TRACES, "commit");
        if let Err(e) = self.store.commit(&plan).instrument(span).await {
            if matches!(e, StoreError::Conflict(_)) {
                self.distrusted.insert(partition);
            }
            return Err(e);
        }
        self.distrusted.remove(&partition);
        self.parts.presence.lane_works(self.number);
        crate::metrics::committed(&plan, votes, started.elapsed());
        if let Some(owned) = self.owned.get_mut(&partition) {
            owned.committed(checkpoints.iter().cloned());
        }
        for (queue, checkpoint) in checkpoints {
            self.trimmer.committed(queue, partition, checkpoint.position);
        }
        Ok(())
    }
}

/// Logs which votes of a batch can't be counted, a line for each reason.
fn log_quarantined(partition: Partition, batch: &Batch) {
    let mut by_reason: BTreeMap<&str, (usize, u64)> = BTreeMap::new();
    for frame in batch.quarantine() {
        let (frames, votes) = by_reason.entry(&frame.reason).or_default();
        (*frames, *votes) = (*frames + 1, *votes + frame.votes());
    }
    for (reason, (frames, votes)) in by_reason {
        tracing::error!(%partition, frames, votes, "votes can't be counted and are quarantined: {reason}");
    }
}

/// The queue that has a box, or remains, now.
pub(crate) fn by_id(queues: &Queues, id: QueueId) -> Option<Arc<dyn Queue>> {
    queues.values().find_map(|monitored| match monitored.view() {
        View::Open { id: open, remains, .. }
            if open == id || remains.iter().any(|remains| remains.id == id) =>
        {
            Some(Arc::clone(&monitored.queue))
        }
        _ => None,
    })
}

fn is_remains(queues: &Queues, id: QueueId) -> bool {
    queues.values().any(|monitored| match monitored.view() {
        View::Open { remains, .. } => remains.iter().any(|remains| remains.id == id),
        View::Shut => false,
    })
}

/// A place up to which a partition of a queue may be trimmed.
pub(crate) type Trim = (QueueId, Partition, Position);
