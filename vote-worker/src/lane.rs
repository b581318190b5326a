//! A lane: reads all queues for the partitions it owns, and commits batch after batch.
//!
//! ```text
//! own (fair share) → read → decode → look up → plan → commit → trim
//! ```
//!
//! Reads run alongside the lane, one for each queue and partition at a time, so that a slow queue does not delay the
//! others. Everything else in a lane is sequential. Any error of the store ends the session; the next session starts
//! from what is committed, so nothing here has to be undone.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
    time::Instant,
};
use vote_core::{Partition, PollSlug, QueueId, Session, Store, queue::Layout, store::StoreError};
use vote_service::Shutdown;

use crate::{
    duty::Duty,
    health::{self, Health},
    monitor::QueueView,
    owned::OwnedPartition,
    ownership::Ownership,
    places::{self, Places},
    presence::Presence,
    rebalance,
    registry::Registry,
    schedule::{self, BATCH_VOTES, Next},
    source::Queues,
    tasks::Tasks,
    timeout::with_timeout,
    trim::Trimmer,
    witness::Witnesses,
};

mod after_read;
mod commit;
mod complete;
mod reads;

use reads::{MAX_READS, ReadDone};

/// Interval at which a lane adjusts its share of the partitions, which also shows that its session works.
const TEND_EVERY: Duration = Duration::from_secs(1);
/// Interval at which a lane that has nothing to commit checks the queues for new entries.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Minimum time between two looks at what monitors have seen: each costs a little for every queue.
const NOTE_EVERY: Duration = Duration::from_millis(5);
/// Interval at which a lane checks which partitions may be complete for a closed poll.
const COMPLETE_EVERY: Duration = Duration::from_secs(1);
/// Interval at which a lane looks for frames whose quarantined votes are to be tried again.
const REPLAY_EVERY: Duration = Duration::from_secs(3);
/// Pauses after an error of the store: the first and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// What all lanes of a worker share.
#[derive(Debug, Clone)]
pub(crate) struct LaneParts {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) layout: Layout,
    pub(crate) registry: Registry,
    pub(crate) presence: Presence,
    pub(crate) ownership: Ownership,
    pub(crate) tasks: Tasks,
    pub(crate) queues: watch::Receiver<Arc<Queues>>,
    pub(crate) trim_delay: Duration,
    pub(crate) witnesses: Witnesses,
    pub(crate) health: Health,
}

/// Runs a lane until shutdown. Opens a new session whenever the store fails.
pub(crate) async fn run(number: usize, parts: LaneParts, shutdown: Shutdown) {
    let name = format!("lane {number}");
    crate::metrics::owned(number, 0);
    let mut pause = BACKOFF.0;
    let mut unfiltered = BTreeSet::new();
    while !shutdown.is_requested() {
        let started = Instant::now();
        let result = match parts.store.open_session().await {
            Ok(session) => {
                parts.health.set(&name, Ok(()));
                parts.presence.lane_opened(number);
                let mut lane = Lane::new(number, session, parts.clone(), std::mem::take(&mut unfiltered));
                let result = lane.run(&shutdown).await;
                unfiltered = lane.unfiltered;
                result
            }
            Err(e) => Err(e),
        };
        crate::metrics::owned(number, 0);
        parts.ownership.set(number, []);
        crate::metrics::trim_waits(number, Duration::ZERO);
        let Err(e) = result else { return };
        crate::metrics::store_error();
        // If another lane committed first, or the plan did not fit the store, the connection has not failed.
        if !matches!(e, StoreError::StaleVersion(_) | StoreError::Conflict(_)) {
            parts.presence.lane_failed(number);
        }
        if parts.health.set(&name, Err(e.to_string())) {
            match e {
                StoreError::Conflict(_) => {
                    tracing::error!(lane = number, "the batch was not committed and is planned again: {e}")
                }
                StoreError::StaleVersion(_) => {
                    tracing::info!(lane = number, "another lane committed first, continuing from there: {e}")
                }
                _ => tracing::warn!(lane = number, "the store failed, opening a new session: {e}"),
            }
        }
        if started.elapsed() > BACKOFF.1 {
            pause = BACKOFF.0;
        }
        tokio::select! {
            () = shutdown.requested() => {}
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(BACKOFF.1);
    }
}

/// A lane with its session.
struct Lane {
    number: usize,
    session: Box<dyn Session>,
    parts: LaneParts,
    owned: BTreeMap<Partition, OwnedPartition>,
    epoch: u64,
    places: Places,
    reads: JoinSet<ReadDone>,
    /// A permit for each read that may be under way.
    read_permits: Arc<Semaphore>,
    /// Number of reads that were started, by which another partition comes first each time.
    started: usize,
    /// Queues that are not read, and until when.
    paused: BTreeMap<String, Instant>,
    /// Partitions whose last commit conflicted with the store: the next look-up must not be filtered.
    unfiltered: BTreeSet<Partition>,
    trimmer: Trimmer,
    /// Partitions that are recorded as complete for a poll, each with the revision of the queues.
    completed: BTreeMap<(PollSlug, Partition), u64>,
    /// When each closed poll was first seen sealed in every queue.
    sealed_at: BTreeMap<PollSlug, Instant>,
    /// Number of times that partitions were checked, by which others come first each time.
    round: usize,
    /// Queues that diverged: nothing more is counted under these identities.
    diverged: BTreeSet<QueueId>,
    /// Number of votes up to which batches may grow, as the time of the commits allows.
    batch_limit: u64,
}

impl Lane {
    fn new(
        number: usize,
        session: Box<dyn Session>,
        parts: LaneParts,
        unfiltered: BTreeSet<Partition>,
    ) -> Self {
        let trimmer = Trimmer::new(parts.trim_delay, parts.witnesses.clone());
        Self {
            number,
            session,
            parts,
            owned: BTreeMap::new(),
            epoch: 0,
            places: Places::default(),
            reads: JoinSet::new(),
            read_permits: Arc::new(Semaphore::new(MAX_READS)),
            started: 0,
            paused: BTreeMap::new(),
            unfiltered,
            trimmer,
            completed: BTreeMap::new(),
            sealed_at: BTreeMap::new(),
            round: 0,
            diverged: BTreeSet::new(),
            batch_limit: BATCH_VOTES,
        }
    }

    /// Works until shutdown, or until the store fails.
    async fn run(&mut self, shutdown: &Shutdown) -> Result<(), StoreError> {
        let mut tend_at = Instant::now();
        let (mut replay_at, mut complete_at, mut note_at) = (tend_at, tend_at, tend_at);
        loop {
            if shutdown.is_requested() {
                // What was read and not committed is read again by the next owner of the partition.
                return Ok(());
            }
            if Instant::now() >= tend_at {
                self.tend().await?;
                tend_at = Instant::now() + TEND_EVERY;
            }
            if Instant::now() >= note_at {
                self.note_changes();
                note_at = Instant::now() + NOTE_EVERY;
            }
            if !self.parts.health.is_well(health::STORE) {
                // The store may lose commits, so nothing is committed.
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
                self.complete_partitions().await?;
                complete_at = Instant::now() + COMPLETE_EVERY;
            }
            while let Some(done) = self.reads.try_join_next() {
                self.process_read(done).await?;
            }
            self.start_reads();
            self.trimmer.run_due(&self.places, &self.parts.tasks);
            let waiting = self.owned.values().filter_map(OwnedPartition::waiting);
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
                Some(done) = self.reads.join_next() => self.process_read(done).await?,
                () = tokio::time::sleep_until(wake) => {}
                () = shutdown.requested() => {}
            }
        }
    }

    /// Adjusts the owned partitions to the lane's share.
    async fn tend(&mut self) -> Result<(), StoreError> {
        let duty = self.parts.presence.duty(self.number);
        let most = duty.share(self.parts.layout.partitions);
        let votes =
            self.owned.values().map(|owned| (owned.partition, owned.waiting().map_or(0, |w| w.votes)));
        for partition in rebalance::surplus(duty, most, votes) {
            self.release(partition).await?;
        }
        // Called even if no partition is missing: it shows that the session works.
        let free = with_timeout(self.session.unowned()).await?;
        self.parts.presence.lane_works(self.number);
        let owned = self.owned.len();
        // Each lane starts at another one, so that they do not all try the same partitions.
        for partition in rebalance::candidates(duty, free, self.number * 7 + self.epoch as usize) {
            if self.owned.len() >= most {
                break;
            }
            if let Some(acquired) = self.session.acquire(partition).await? {
                self.epoch += 1;
                // The previous owner may not have trimmed up to here.
                for (queue, checkpoint) in &acquired.checkpoints {
                    self.trimmer.committed(*queue, partition, checkpoint.position);
                }
                let mut owned = OwnedPartition::new(partition, self.epoch, acquired);
                self.places.views().for_each(|view| note(&mut owned, view, &self.diverged));
                self.owned.insert(partition, owned);
            }
        }
        if self.owned.len() > owned {
            // After the versions were read: a poll that was final before is known to be final when a batch is decoded.
            self.parts.registry.refresh().await?;
        }
        self.epoch += 1;
        if let Duty::Share { lanes } | Duty::Turn { lanes, .. } = duty {
            crate::metrics::live_lanes(lanes);
        }
        crate::metrics::owned(self.number, self.owned.len());
        self.parts.ownership.set(self.number, self.owned.keys().copied());
        crate::metrics::trim_waits(self.number, self.trimmer.waits(Instant::now()));
        Ok(())
    }

    async fn release(&mut self, partition: Partition) -> Result<(), StoreError> {
        self.owned.remove(&partition);
        self.session.release(partition).await
    }

    /// Takes over what the monitors have seen of queues.
    fn note_changes(&mut self) {
        let queues = Arc::clone(&self.parts.queues.borrow());
        for (number, before) in self.places.update(&queues) {
            let view = self.places.view(number);
            for owned in self.owned.values_mut() {
                if !places::is_unchanged(&before, view, owned.partition) {
                    note(owned, view, &self.diverged);
                }
            }
        }
    }
}

/// Records in a partition what the queues at a place are known to hold.
fn note(owned: &mut OwnedPartition, view: &QueueView, diverged: &BTreeSet<QueueId>) {
    for (queue, held) in places::held(view, owned.partition).filter(|(queue, _)| !diverged.contains(queue)) {
        owned.note(queue, held);
    }
}
