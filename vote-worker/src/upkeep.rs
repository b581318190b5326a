//! Work of a worker alongside its lanes: it refreshes the catalog, sends heartbeats, compares its clock with the store's,
//! closes polls that are due, and makes them final when every partition is complete.
//!
//! ```text
//! closes_at + grace, or by hand → closed → sealed in every queue (by its monitor)
//!     → every partition complete (by the lane that owns it) → final
//! ```
//!
//! Every worker does this; the store makes sure that each step takes effect only once.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};
use vote_core::{
    Clock, DurabilityProblem, PollSlug, Store,
    count::audit::{self, Finding},
    store::{MAX_CLOCK_DIFFERENCE, StoreError},
};
use vote_service::Shutdown;

use crate::{
    health::{self, Health},
    presence::Presence,
    problem_log::ProblemLog,
    registry::Registry,
    source::Queues,
    timeout::with_timeout,
};

/// Interval at which the catalog is refreshed, and at which polls are closed.
const REFRESH_EVERY: Duration = Duration::from_secs(1);
/// Time from the closing of a poll to the first log message on what keeps it from being final, and between two of them.
const EXPLAIN_EVERY: Duration = Duration::from_secs(10);
/// Interval at which the store is asked whether it is still durable.
const CHECK_EVERY: Duration = Duration::from_secs(10);
/// Difference between this clock and the store's above which a warning is logged.
const WARN_AT: Duration = Duration::from_secs(2);

/// The upkeep of a worker.
#[derive(Debug, Clone)]
pub(crate) struct Upkeep {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) registry: Registry,
    pub(crate) presence: Presence,
    pub(crate) queues: watch::Receiver<Arc<Queues>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) health: Health,
    /// Time from a poll's `closes_at` until it is closed, for votes that are on their way.
    pub(crate) grace: Duration,
    /// Whether to commit to a store that may lose commits.
    pub(crate) allow_volatile: bool,
}

impl Upkeep {
    /// Works until shutdown. Heartbeats don't wait for the polls: finding out whether one is final may take long.
    pub(crate) async fn run(self, shutdown: Shutdown) {
        tokio::join!(self.live(&shutdown), self.close_and_finalize_polls(&shutdown));
        self.presence.leave().await;
    }

    /// Refreshes the catalog and sends heartbeats.
    async fn live(&self, shutdown: &Shutdown) {
        let (mut checked_at, mut warned) = (Instant::now(), false);
        let mut problems = ProblemLog::default();
        while !shutdown.is_requested() {
            // A failure is retried, and the lanes log it, since they need the store as well.
            let beat = async {
                self.registry.refresh().await?;
                self.presence.heartbeat(&self.queues).await
            };
            if let Err(e) = beat.await {
                tracing::debug!("can't refresh the catalog or send a heartbeat now, trying again: {e}");
            }
            self.compare_clocks(&mut warned);
            if checked_at.elapsed() >= CHECK_EVERY {
                checked_at = Instant::now();
                let checked = self.check_store().await;
                problems.log("the store", "check whether the store is durable", checked);
            }
            tokio::select! {
                () = shutdown.requested() => {}
                () = tokio::time::sleep(REFRESH_EVERY) => {}
            }
        }
    }

    /// Closes polls that are due, and makes closed polls final.
    async fn close_and_finalize_polls(&self, shutdown: &Shutdown) {
        let mut explained: BTreeMap<PollSlug, (Instant, Vec<Finding>)> = BTreeMap::new();
        let mut problems = ProblemLog::default();
        while !shutdown.is_requested() {
            // A store that may lose commits may also lose that a poll was closed or final, which must never be undone.
            if self.health.is_well(health::STORE) {
                let closed = self.try_close_polls(&mut explained).await;
                problems.log("the store", "close polls and make them final", closed);
            }
            tokio::select! {
                () = shutdown.requested() => {}
                () = tokio::time::sleep(REFRESH_EVERY) => {}
            }
        }
    }

    async fn try_close_polls(
        &self,
        explained: &mut BTreeMap<PollSlug, (Instant, Vec<Finding>)>,
    ) -> Result<(), StoreError> {
        for poll in with_timeout(self.store.close_due_polls(self.grace, self.clock.now())).await? {
            tracing::info!(%poll, "the poll is closed: workers seal the queues and count the remaining votes");
        }
        let catalog = self.registry.catalog();
        for poll in catalog.polls.iter().filter(|poll| poll.closed_at.is_some() && poll.final_at.is_none()) {
            // Before, no partition can be complete, and asking would lock a row that every report needs.
            if catalog.is_sealed_everywhere(poll.slug) && self.store.finalize_poll(poll.slug).await? {
                tracing::info!(poll = %poll.slug, "the poll is final");
                explained.remove(&poll.slug);
                continue;
            }
            let (explained_at, before) = explained.entry(poll.slug).or_insert((Instant::now(), Vec::new()));
            // One worker is enough: it reads the accounts of all queues.
            if explained_at.elapsed() >= EXPLAIN_EVERY && self.presence.is_first() {
                *before = self.explain(poll.slug, before).await?;
                *explained_at = Instant::now();
            }
        }
        Ok(())
    }

    /// Logs what keeps a poll from being final, if that has changed, and returns it.
    async fn explain(&self, poll: PollSlug, before: &[Finding]) -> Result<Vec<Finding>, StoreError> {
        let accounts = self.store.snapshot().await?.accounts(false).await?;
        let obstacles = audit::obstacles(&accounts, poll);
        if obstacles != before {
            for obstacle in obstacles.iter().take(5) {
                tracing::info!(%poll, "the poll is not final yet: {obstacle}");
            }
        }
        Ok(obstacles)
    }

    /// Compares the clocks. A poll closes by time only if the clocks of worker and store agree, so a difference is
    /// published and logged.
    fn compare_clocks(&self, warned: &mut bool) {
        let Some(ahead) = self.registry.clock_is_ahead_by() else { return };
        crate::metrics::clock_difference(ahead);
        let (seconds, differs_by) = (ahead as f64 / 1e6, Duration::from_micros(ahead.unsigned_abs()));
        let set_health = |state| self.health.set(health::CLOCK, state);
        if differs_by > MAX_CLOCK_DIFFERENCE {
            let text = format!(
                "this worker's clock differs from the store's by {seconds:.0} s, so this worker closes no poll by \
                 time: set the wrong clock right; until then, `vote-worker polls close` works"
            );
            // The exact figure changes all the time, so a new text alone is not worth a log message.
            if self.health.is_well(health::CLOCK) {
                tracing::error!("{text}");
            }
            set_health(Err(text));
        } else if set_health(Ok(())) {
            tracing::info!("this worker's clock agrees with the store's again");
        } else if differs_by > WARN_AT && !*warned {
            tracing::warn!(
                "this worker's clock differs from the store's by {seconds:.1} s; synchronize them, beyond {} s this \
                 worker closes no poll by time",
                MAX_CLOCK_DIFFERENCE.as_secs()
            );
        }
        *warned = differs_by > WARN_AT;
    }

    /// Checks whether the store is still durable. While it is not, lanes commit no votes, and no poll is closed or final.
    async fn check_store(&self) -> Result<(), StoreError> {
        if self.allow_volatile {
            return Ok(());
        }
        let problems = with_timeout(self.store.durability_problems()).await?;
        let state = if problems.is_empty() { Ok(()) } else { Err(DurabilityProblem::joined(&problems)) };
        let changed = self.health.set(health::STORE, state.clone());
        match state {
            Err(problem) if changed => {
                tracing::error!(
                    "the store may lose commits, so nothing is committed until this is fixed: {problem}"
                );
            }
            Ok(()) if changed => tracing::info!("the store is durable again, committing"),
            _ => {}
        }
        Ok(())
    }
}
