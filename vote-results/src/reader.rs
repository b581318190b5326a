//! What the public figures are made of, read from the store: the summary each time, the balances as often as they are
//! cheap.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use vote_core::{
    QueueId, StoreReader,
    count::{Balances, QueueState, Summary},
    store::StoreError,
};

/// The balances are read again once this many times as long has passed as the last read took. So at most a twentieth of
/// one core of the store is spent on them for each results service.
const PAUSE: u32 = 20;

/// Reader of a store, which keeps the last balances.
#[derive(Debug)]
pub(crate) struct Reader {
    store: Arc<dyn StoreReader>,
    last: Mutex<Option<Last>>,
}

/// The last balances.
#[derive(Debug)]
struct Last {
    balances: Arc<Balances>,
    states: Vec<(QueueId, QueueState)>,
    due_at: Instant,
}

impl Reader {
    pub(crate) fn new(store: Arc<dyn StoreReader>) -> Self {
        Self { store, last: Mutex::default() }
    }

    /// Reads the summary, and the balances unless the last ones will do. What is read is of one moment.
    pub(crate) async fn read(&self) -> Result<(Summary, Arc<Balances>), StoreError> {
        let mut snapshot = self.store.snapshot().await?;
        let summary = snapshot.summary().await?;
        let states: Vec<_> = summary.queues.iter().map(|queue| (queue.id, queue.state)).collect();
        if let Some(balances) = self.last(&states) {
            return Ok((summary, balances));
        }
        let started = Instant::now();
        let balances = Arc::new(snapshot.balances().await?);
        let due_at = Instant::now() + pause(started.elapsed());
        let last = Last { balances: Arc::clone(&balances), states, due_at };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(last);
        Ok((summary, balances))
    }

    /// Returns the last balances, unless they are due again. They are at once if the state of a queue has changed: a
    /// retired queue is in them, and the polls that they name decide whether the reason of a state is public.
    fn last(&self, states: &[(QueueId, QueueState)]) -> Option<Arc<Balances>> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let last = last.as_ref().filter(|last| last.states == states && Instant::now() < last.due_at)?;
        Some(Arc::clone(&last.balances))
    }
}

/// Returns the pause after a read of the balances: whole seconds, so that balances which take less than 50 ms are read
/// each time.
fn pause(took: Duration) -> Duration {
    Duration::from_secs((took * PAUSE).as_secs())
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use vote_core::{
        PollSlug, Store, Timestamp, VoterKey,
        conformance::{layout, queue_id},
        count::{Accounts, Ballot, QueueRecord},
        store::{MemoryStore, Snapshot, StoreReaderLayer},
    };

    use super::*;

    /// A store whose balances take this long.
    #[derive(Debug)]
    struct Slow(MemoryStore, Duration);

    #[async_trait]
    impl StoreReaderLayer for Slow {
        type Inner = MemoryStore;

        async fn inner(&self) -> Result<&MemoryStore, StoreError> {
            Ok(&self.0)
        }

        async fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
            Ok(Box::new(SlowSnapshot(self.0.snapshot().await?, self.1)))
        }
    }

    #[derive(Debug)]
    struct SlowSnapshot(Box<dyn Snapshot>, Duration);

    #[async_trait]
    impl Snapshot for SlowSnapshot {
        async fn accounts(&mut self, recount: bool) -> Result<Accounts, StoreError> {
            self.0.accounts(recount).await
        }

        async fn balances(&mut self) -> Result<Balances, StoreError> {
            tokio::time::sleep(self.1).await;
            self.0.balances().await
        }

        async fn ballots(
            &mut self,
            poll: PollSlug,
            after: Option<VoterKey>,
            limit: usize,
        ) -> Result<Vec<Ballot>, StoreError> {
            self.0.ballots(poll, after, limit).await
        }
    }

    /// Returns how many of ten reads, one a second, read the balances.
    async fn reads(took: Duration, mut each: impl AsyncFnMut(&MemoryStore, u8)) -> usize {
        let store = MemoryStore::new();
        store.prepare(layout()).await.unwrap();
        let reader = Reader::new(Arc::new(Slow(store.clone(), took)));
        let mut balances: Vec<Arc<Balances>> = Vec::new();
        for n in 0..10 {
            each(&store, n).await;
            let started = Instant::now();
            balances.push(reader.read().await.unwrap().1);
            tokio::time::sleep_until(started + Duration::from_secs(1)).await;
        }
        balances.dedup_by(|a, b| Arc::ptr_eq(a, b));
        balances.len()
    }

    #[tokio::test(start_paused = true)]
    async fn cheap_balances_are_read_each_time() {
        assert_eq!(reads(Duration::from_millis(49), async |_, _| ()).await, 10);
    }

    #[tokio::test(start_paused = true)]
    async fn costly_balances_are_read_less_often() {
        // Read at 0, 5 and 10 s minus the time that the pause begins later.
        assert_eq!(reads(Duration::from_millis(200), async |_, _| ()).await, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn balances_are_read_again_if_a_queue_changes_its_state() {
        let report = async |store: &MemoryStore, n: u8| {
            store.report(&[QueueRecord::new(queue_id(n), String::new(), Timestamp::MIN)]).await.unwrap();
        };
        assert_eq!(reads(Duration::from_millis(200), report).await, 10);
    }
}
