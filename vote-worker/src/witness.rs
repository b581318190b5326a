//! Witnesses: standbys of the store that are asked which commits they have.
//!
//! A commit that only the primary has is lost when the store fails over to a standby. So queues keep the entries that a
//! witness does not show as committed yet, and workers read them again after the failover.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use vote_core::{Partition, Position, QueueId, StoreReader};
use vote_service::Shutdown;

use crate::{ownership::Ownership, tasks::Tasks};

/// Pause after an answer before a witness is asked again.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// Time that an answer may take.
const ANSWERS_WITHIN: Duration = Duration::from_secs(3);
/// How long an answer allows trimming. A standby that was away may come back as an older copy, so an earlier answer
/// does not tell what it has then. Longer than a slow answer plus the pause before it.
const FRESH_FOR: Duration = Duration::from_secs(6);

/// A standby that the store may fail over to.
#[derive(Debug, Clone)]
pub struct Witness {
    /// Address without the password, for log and metrics.
    pub name: String,
    /// Read access to the standby. A server whose commits can be read before they are on its disk is no witness.
    pub store: Arc<dyn StoreReader>,
}

/// Last answer of a witness.
#[derive(Debug)]
struct Shown {
    at: Instant,
    positions: BTreeMap<(QueueId, Partition), Position>,
}

impl Shown {
    fn is_fresh(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) < FRESH_FOR
    }
}

/// Last answers of all witnesses. Clones share them. By default there are no witnesses.
#[derive(Debug, Clone, Default)]
pub(crate) struct Witnesses {
    shown: Arc<[watch::Receiver<Option<Shown>>]>,
}

impl Witnesses {
    /// Starts a task for each witness that asks it until shutdown, about the partitions that this worker owns.
    pub(crate) fn ask(
        witnesses: Vec<Witness>,
        ownership: &Ownership,
        tasks: &Tasks,
        shutdown: &Shutdown,
    ) -> Self {
        let start = |witness: Witness| {
            let (send, receive) = watch::channel(None);
            let task = format!("the task that asks the witness {}", witness.name);
            tasks.spawn(task, ask(witness, ownership.clone(), send, shutdown.clone()));
            receive
        };
        Self { shown: witnesses.into_iter().map(start).collect() }
    }

    /// Returns how far a partition of a queue may be trimmed that is committed up to `position`: no further than every
    /// witness shows. `None` while a witness does not answer.
    pub(crate) fn allow(
        &self,
        queue: QueueId,
        partition: Partition,
        position: Position,
        now: Instant,
    ) -> Option<Position> {
        self.shown.iter().try_fold(position, |allowed, shown| {
            let shown = shown.borrow();
            let shown = shown.as_ref().filter(|shown| shown.is_fresh(now))?;
            let position = shown.positions.get(&(queue, partition)).copied().unwrap_or_default();
            Some(allowed.min(position))
        })
    }
}

async fn ask(
    witness: Witness,
    ownership: Ownership,
    shown: watch::Sender<Option<Shown>>,
    shutdown: Shutdown,
) {
    let Witness { name, store } = witness;
    let mut was_up = None;
    while !shutdown.is_requested() {
        let problem = match timeout(ANSWERS_WITHIN, store.positions_in(&ownership.partitions())).await {
            Ok(Ok(positions)) => {
                shown.send_replace(Some(Shown { at: Instant::now(), positions }));
                String::new()
            }
            Ok(Err(e)) => e.to_string(),
            Err(_) => format!("no answer within {} s", ANSWERS_WITHIN.as_secs()),
        };
        let is_up = shown.borrow().as_ref().is_some_and(|shown| shown.is_fresh(Instant::now()));
        crate::metrics::witness_up(&name, is_up);
        if was_up.replace(is_up) != Some(is_up) {
            if is_up {
                tracing::info!("the witness {name} answers: queues are trimmed as far as it shows");
            } else {
                tracing::warn!(
                    "the witness {name} does not answer, so nothing is trimmed and queues fill up; bring it back, or \
                     take it out of VOTE_STORE_WITNESS if it is gone for good: {problem}"
                );
            }
        }
        tokio::select! {
            () = sleep(ASK_EVERY) => {}
            () = shutdown.requested() => {}
        }
    }
}

#[cfg(test)]
impl Witnesses {
    /// Creates witnesses, each of which shows this position of a queue's partition, or none.
    pub(crate) fn showing(queue: QueueId, partition: Partition, positions: &[Option<Position>]) -> Self {
        let shown = |position: &Option<Position>| {
            let positions = position.map(|position| ((queue, partition), position)).into_iter().collect();
            watch::channel(Some(Shown { at: Instant::now(), positions })).1
        };
        Self { shown: positions.iter().map(shown).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUEUE: QueueId = QueueId([1; 16]);
    const PARTITION: Partition = Partition(0);

    fn at(n: u8) -> Position {
        Position::from_bytes(&[n]).unwrap()
    }

    fn allowed(witnesses: &Witnesses, position: u8, after: Duration) -> Option<Position> {
        witnesses.allow(QUEUE, PARTITION, at(position), Instant::now() + after)
    }

    #[test]
    fn without_witnesses_all_committed_entries_may_be_trimmed() {
        assert_eq!(allowed(&Witnesses::default(), 7, Duration::ZERO), Some(at(7)));
    }

    #[test]
    fn the_witness_that_shows_the_least_decides() {
        let witnesses = Witnesses::showing(QUEUE, PARTITION, &[Some(at(5)), Some(at(3)), Some(at(9))]);
        assert_eq!(allowed(&witnesses, 7, Duration::ZERO), Some(at(3)));
    }

    #[test]
    fn a_witness_that_is_ahead_allows_no_trimming_beyond_the_committed_position() {
        let witnesses = Witnesses::showing(QUEUE, PARTITION, &[Some(at(9))]);
        assert_eq!(allowed(&witnesses, 7, Duration::ZERO), Some(at(7)));
    }

    #[test]
    fn a_queue_that_a_witness_does_not_know_may_not_be_trimmed() {
        let witnesses = Witnesses::showing(QUEUE, PARTITION, &[Some(at(9)), None]);
        assert_eq!(allowed(&witnesses, 7, Duration::ZERO), Some(Position::START));
    }

    #[test]
    fn an_old_answer_allows_no_trimming() {
        let witnesses = Witnesses::showing(QUEUE, PARTITION, &[Some(at(9))]);
        assert_eq!(allowed(&witnesses, 7, FRESH_FOR), None);
    }
}
