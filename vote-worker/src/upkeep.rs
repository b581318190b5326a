//! What a worker sees to beside its lanes: it reads what is on record, gives a sign of life, compares its clock with the
//! store's, closes polls whose time is over, and makes them final when every partition is complete.
//!
//! ```text
//! closes_at + grace, or by hand → closed → sealed in every queue (by its monitor)
//!     → every partition complete (by the lane that owns it) → final
//! ```
//!
//! Every worker does it, since each step is done once only by the store.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};
use vote_core::{
    Clock, PollSlug, Store, audit,
    store::{MAX_CLOCK_DIFFERENCE, StoreError},
};
use vote_service::Shutdown;

use crate::{
    health::{self, Health},
    presence::Presence,
    registry::Registry,
    source::Queues,
};

/// How often what is on record is read.
const REFRESH_EVERY: Duration = Duration::from_secs(1);
/// How often the log says what keeps a closed poll from being final.
const EXPLAIN_EVERY: Duration = Duration::from_secs(10);
/// How often the store is asked whether it still is durable.
const CHECK_EVERY: Duration = Duration::from_secs(10);
/// A clock that differs from the store's by more than this is worth a warning.
const WARN_AT: Duration = Duration::from_secs(2);

/// What it needs.
#[derive(Debug, Clone)]
pub(crate) struct Upkeep {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) registry: Registry,
    pub(crate) presence: Presence,
    pub(crate) queues: watch::Receiver<Arc<Queues>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) health: Health,
    /// How long after its `closes_at` a poll is closed: votes on their way get that long.
    pub(crate) grace: Duration,
    /// Commit to a store that may lose commits.
    pub(crate) allow_volatile: bool,
}

impl Upkeep {
    /// Works until shutdown.
    pub(crate) async fn run(self, shutdown: Shutdown) {
        let (mut checked_at, mut warned) = (Instant::now(), false);
        let mut explained: BTreeMap<PollSlug, (Instant, Vec<String>)> = BTreeMap::new();
        while !shutdown.is_requested() {
            // What fails is tried again, and said by the lanes, which need the store as well.
            if let Err(e) = self.look(&mut explained).await {
                tracing::debug!("what is on record can't be looked after now: {e}");
            }
            self.compare_clocks(&mut warned);
            if checked_at.elapsed() >= CHECK_EVERY {
                checked_at = Instant::now();
                self.check_store().await;
            }
            tokio::select! {
                () = shutdown.requested() => {}
                () = tokio::time::sleep(REFRESH_EVERY) => {}
            }
        }
        self.presence.leave().await;
    }

    async fn look(
        &self,
        explained: &mut BTreeMap<PollSlug, (Instant, Vec<String>)>,
    ) -> Result<(), StoreError> {
        let catalog = self.registry.refresh().await?;
        self.presence.beat(&self.queues).await?;
        for poll in self.store.close_due_polls(self.grace, self.clock.now()).await? {
            tracing::info!(%poll, "the poll is closed: its queues are sealed, and what is in them is counted");
        }
        for poll in catalog.polls.iter().filter(|poll| poll.closed_at.is_some() && poll.final_at.is_none()) {
            if self.store.finish_poll(poll.slug).await? {
                tracing::info!(poll = %poll.slug, "the poll is final");
                explained.remove(&poll.slug);
            } else if explained.get(&poll.slug).is_none_or(|(at, _)| at.elapsed() >= EXPLAIN_EVERY) {
                let before = explained.get(&poll.slug).map(|(_, obstacles)| obstacles.as_slice());
                let obstacles = self.explain(poll.slug, before.unwrap_or_default()).await?;
                explained.insert(poll.slug, (Instant::now(), obstacles));
            }
        }
        Ok(())
    }

    /// Says in the log what keeps a poll from being final, if that is news.
    async fn explain(&self, poll: PollSlug, before: &[String]) -> Result<Vec<String>, StoreError> {
        let books = self.store.snapshot().await?.books(false).await?;
        let obstacles = audit::obstacles(&books, poll);
        if obstacles != before {
            for obstacle in obstacles.iter().take(5) {
                tracing::info!(%poll, "the poll is not final yet: {obstacle}");
            }
        }
        Ok(obstacles)
    }

    /// A poll closes by time only where the clocks of worker and store agree, so a difference must show.
    fn compare_clocks(&self, warned: &mut bool) {
        let Some(ahead) = self.registry.clock_is_ahead_by() else { return };
        crate::metrics::clock_difference(ahead);
        let (seconds, differs_by) = (ahead as f64 / 1e6, Duration::from_micros(ahead.unsigned_abs()));
        let news = |state| self.health.set(health::CLOCK, state);
        if differs_by > MAX_CLOCK_DIFFERENCE {
            let text = format!(
                "this worker's clock differs from the store's by {seconds:.0} s: no poll is closed by time as long as \
                 one of them is wrong; `vote-worker polls close` works"
            );
            // The exact figure moves all the time, and the same text is no news.
            if self.health.is_well(health::CLOCK) {
                tracing::error!("{text}");
            }
            news(Err(text));
        } else if news(Ok(())) {
            tracing::info!("this worker's clock agrees with the store's");
        } else if differs_by > WARN_AT && !*warned {
            tracing::warn!("this worker's clock differs from the store's by {seconds:.1} s");
        }
        *warned = differs_by > WARN_AT;
    }

    /// A store that is not durable any more is not committed to.
    async fn check_store(&self) {
        if self.allow_volatile {
            return;
        }
        let Ok(problems) = self.store.check().await else { return };
        let state = if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) };
        let news = self.health.set(health::STORE, state.clone());
        match state {
            Err(problem) if news => tracing::error!("nothing is committed any more: {problem}"),
            Ok(()) if news => tracing::info!("the store is durable again"),
            _ => {}
        }
    }
}
