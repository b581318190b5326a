//! Closes polls when their time is over, and notes their count as final when nothing of it can come any more.
//!
//! ```text
//! closes_at + grace, or by hand → closed → sealed in every queue (by its monitor) → read to the seals → final
//! ```
//!
//! Every worker does it, since each step is done once only by the store.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::Instant;
use vote_core::{
    Clock, PollSlug, Store, Timestamp, audit,
    store::{RegisteredPoll, StoreError},
};
use vote_service::Shutdown;

use crate::{health::Health, registry::Registry};

/// How often the registered polls and queues are read.
const REFRESH_EVERY: Duration = Duration::from_secs(1);
/// How often it is asked whether a closed poll can be final, and how often it is tried again at once where lanes
/// commit so fast that the books move before the decision is noted.
const DECIDE_EVERY: Duration = Duration::from_secs(2);
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(7);
/// How often the store is asked whether it still is durable.
const CHECK_EVERY: Duration = Duration::from_secs(10);

/// What it needs.
#[derive(Debug, Clone)]
pub(crate) struct ClosingParts {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) registry: Registry,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) health: Health,
    /// How long after its `closes_at` a poll is closed: votes on their way get that long.
    pub(crate) grace: Duration,
    /// Commit to a store that may lose commits.
    pub(crate) allow_volatile: bool,
}

/// Looks after polls and store until shutdown.
pub(crate) async fn run(parts: ClosingParts, shutdown: Shutdown) {
    let mut decided_at: Option<Instant> = None;
    let mut checked_at = Instant::now();
    let mut told: BTreeMap<PollSlug, Vec<String>> = BTreeMap::new();
    while !shutdown.is_requested() {
        let decide = decided_at.is_none_or(|at| at.elapsed() >= DECIDE_EVERY);
        if decide {
            decided_at = Some(Instant::now());
        }
        // What fails is tried again, and said by the lanes, which need the store as well.
        if let Err(e) = look(&parts, decide, &mut told).await {
            tracing::debug!("polls can't be looked after now: {e}");
        }
        if checked_at.elapsed() >= CHECK_EVERY {
            checked_at = Instant::now();
            check_store(&parts).await;
        }
        tokio::select! {
            () = shutdown.requested() => {}
            () = tokio::time::sleep(REFRESH_EVERY) => {}
        }
    }
}

async fn look(
    parts: &ClosingParts,
    decide: bool,
    told: &mut BTreeMap<PollSlug, Vec<String>>,
) -> Result<(), StoreError> {
    parts.registry.refresh().await?;
    let now = parts.clock.now();
    for poll in parts.registry.polls().iter() {
        if is_over(poll, now, parts.grace) {
            parts.store.close_poll(poll.slug, now).await?;
            tracing::info!(poll = %poll.slug, "the poll is closed: its queues are sealed, and what is in them is counted");
        }
        if decide && poll.closed_at.is_some() && poll.final_at.is_none() {
            let obstacles = match finish(parts, poll.slug).await {
                Ok(obstacles) => obstacles,
                // Tried again soon, and the other polls now.
                Err(e) => vec![e.to_string()],
            };
            if obstacles.is_empty() {
                tracing::info!(poll = %poll.slug, "the poll is final");
            } else if told.get(&poll.slug) != Some(&obstacles) {
                for obstacle in obstacles.iter().take(5) {
                    tracing::info!(poll = %poll.slug, "the poll is not final yet: {obstacle}");
                }
            }
            told.insert(poll.slug, obstacles);
        }
    }
    Ok(())
}

/// Whether a poll is to be closed now.
fn is_over(poll: &RegisteredPoll, now: Timestamp, grace: Duration) -> bool {
    let grace = i64::try_from(grace.as_micros()).unwrap_or(i64::MAX);
    poll.closed_at.is_none() && poll.closes_at.is_some_and(|at| at.saturating_add(grace) <= now)
}

/// Notes that a poll is final, or says what keeps it from being so.
async fn finish(parts: &ClosingParts, poll: PollSlug) -> Result<Vec<String>, StoreError> {
    let mut tries = 0;
    loop {
        let books = parts.store.snapshot().await?.books(false).await?;
        let obstacles = audit::obstacles(&books, poll);
        if !obstacles.is_empty() {
            return Ok(obstacles);
        }
        tries += 1;
        match parts.store.finish_poll(poll, &books.versions, parts.clock.now()).await {
            // A lane committed meanwhile, most likely for another poll: the books are read anew.
            Err(StoreError::StaleVersion(_)) if tries < TRIES => {
                // Commits come in bursts; a later moment may fall between two.
                tokio::time::sleep(PAUSE * (tries % 7)).await;
            }
            other => return other.map(|()| Vec::new()),
        }
    }
}

/// A store that is not durable any more is not committed to.
async fn check_store(parts: &ClosingParts) {
    if parts.allow_volatile {
        return;
    }
    let Ok(problems) = parts.store.check().await else { return };
    let state = if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) };
    let news = parts.health.set(crate::health::STORE, state.clone());
    match state {
        Err(problem) if news => tracing::error!("nothing is committed any more: {problem}"),
        Ok(()) if news => tracing::info!("the store is durable again"),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use vote_core::Polls;

    use super::*;

    fn poll(closes_at: i64) -> RegisteredPoll {
        let closes_at = Some(Timestamp::MIN.saturating_add(closes_at * 1_000_000));
        let poll = Polls::example().get("pets").unwrap().clone();
        RegisteredPoll { closes_at, ..RegisteredPoll::from(&poll) }
    }

    #[test]
    fn a_poll_is_closed_when_its_grace_is_over_and_once() {
        let at = |seconds: i64| Timestamp::MIN.saturating_add(seconds * 1_000_000);
        let grace = Duration::from_secs(5);
        assert!(!is_over(&poll(10), at(10), grace), "votes may still be on their way");
        assert!(is_over(&poll(10), at(15), grace));
        let closed = RegisteredPoll { closed_at: Some(at(15)), ..poll(10) };
        assert!(!is_over(&closed, at(20), grace));
        let open = RegisteredPoll { closes_at: None, ..poll(10) };
        assert!(!is_over(&open, Timestamp::MAX, grace), "without a closing time it is closed by hand");
    }
}
