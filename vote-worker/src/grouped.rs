//! Calls to the store that serve several monitors at once: those that have a request at about the same time share one
//! statement.
//!
//! With a thousand queues, each of which is reported every 2 s, one statement for each report would keep the few
//! connections of a worker busy, and would have Postgres wait for its disk 500 times a second.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until},
};
use vote_core::store::StoreError;

/// Time between the starts of two calls for each queue that is watched: with a few queues, no request waits.
const INTERVAL_OF_A_QUEUE: Duration = Duration::from_micros(200);
/// Longest such time.
const LONGEST_INTERVAL: Duration = Duration::from_millis(200);
/// Maximum number of requests that one call serves, so that it is answered in time.
const MOST: usize = 500;

/// Returns the shortest time between the starts of two calls of a worker that watches so many queues.
pub(crate) fn interval(watched: usize) -> Duration {
    (INTERVAL_OF_A_QUEUE * u32::try_from(watched).unwrap_or(u32::MAX)).min(LONGEST_INTERVAL)
}

/// A call to the store that serves several requests.
pub(crate) trait Call: Send + Sync {
    type Request: Send;
    type Answer: Send;

    /// Returns one answer for each request, in their order. An error is that of all requests.
    fn ask(
        &self,
        requests: Vec<Self::Request>,
    ) -> impl Future<Output = Result<Vec<Self::Answer>, StoreError>> + Send;
}

/// A request that waits for the next call.
type Waiting<C> = (<C as Call>::Request, oneshot::Sender<Result<<C as Call>::Answer, String>>);

/// Requests that share calls.
pub(crate) struct Grouped<C: Call> {
    call: C,
    waiting: Mutex<Vec<Waiting<C>>>,
    /// Held by the caller that asks the store for all. The time is that before which no call starts.
    turn: tokio::sync::Mutex<Option<Instant>>,
    /// Number of queues that are watched.
    watched: Arc<AtomicUsize>,
}

impl<C: Call + fmt::Debug> fmt::Debug for Grouped<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grouped").field("call", &self.call).finish_non_exhaustive()
    }
}

impl<C: Call> Grouped<C> {
    /// Creates a group for the monitors of so many queues.
    pub(crate) fn new(call: C, watched: Arc<AtomicUsize>) -> Self {
        Self { call, waiting: Mutex::default(), turn: tokio::sync::Mutex::default(), watched }
    }

    /// Returns the answer to a request, which is that of a call that begins after this one.
    pub(crate) async fn answer(&self, request: C::Request) -> Result<C::Answer, StoreError> {
        let (send, mut answer) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push((request, send));
        let answer = loop {
            tokio::select! {
                biased;
                answer = &mut answer => break answer,
                mut turn = self.turn.lock() => self.ask(&mut turn).await,
            }
        };
        let answer = answer.map_err(|_| "the caller that asked for several queues was cancelled".to_owned());
        answer.and_then(|answer| answer).map_err(|reason| StoreError::Unavailable(reason.into()))
    }

    /// Answers the requests that have arrived when the next call is due.
    async fn ask(&self, not_before: &mut Option<Instant>) {
        if let Some(at) = *not_before {
            sleep_until(at).await;
        }
        *not_before = Some(Instant::now() + interval(self.watched.load(Ordering::Relaxed)));
        let (requests, answers): (Vec<_>, Vec<_>) = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            let most = waiting.len().min(MOST);
            waiting.drain(..most).unzip()
        };
        if requests.is_empty() {
            return;
        }
        // A caller that was cancelled needs no answer.
        match self.call.ask(requests).await {
            Ok(found) => {
                answers.into_iter().zip(found).for_each(|(send, answer)| drop(send.send(Ok(answer))))
            }
            Err(e) => {
                let reason = match e {
                    // Each answer says so itself.
                    StoreError::Unavailable(reason) => reason.to_string(),
                    other => other.to_string(),
                };
                answers.into_iter().for_each(|send| drop(send.send(Err(reason.clone()))));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    /// Doubles numbers, counts calls, and fails every second one.
    #[derive(Debug, Default)]
    struct Doubling {
        calls: AtomicU64,
        largest: AtomicUsize,
    }

    impl Call for Doubling {
        type Request = u32;
        type Answer = u32;

        async fn ask(&self, numbers: Vec<u32>) -> Result<Vec<u32>, StoreError> {
            tokio::time::sleep(Duration::from_millis(1)).await;
            self.largest.fetch_max(numbers.len(), Ordering::Relaxed);
            if self.calls.fetch_add(1, Ordering::Relaxed) % 2 == 1 {
                return Err(StoreError::Unavailable("down".into()));
            }
            Ok(numbers.into_iter().map(|n| 2 * n).collect())
        }
    }

    fn request(grouped: &Arc<Grouped<Doubling>>, n: u32) -> tokio::task::JoinHandle<Result<u32, StoreError>> {
        let grouped = Arc::clone(grouped);
        tokio::spawn(async move { grouped.answer(n).await })
    }

    fn watching(queues: usize) -> Arc<Grouped<Doubling>> {
        Arc::new(Grouped::new(Doubling::default(), Arc::new(AtomicUsize::new(queues))))
    }

    #[tokio::test(start_paused = true)]
    async fn requests_at_the_same_time_share_a_call() {
        let grouped = watching(1000);
        let ask = |n| request(&grouped, n);
        ask(0).await.unwrap().unwrap();
        let failed: Vec<_> = (0..3).map(ask).collect();
        for failed in failed {
            let error = failed.await.unwrap().unwrap_err().to_string();
            assert_eq!(error, StoreError::Unavailable("down".into()).to_string(), "the error is that of all");
        }
        let asked: Vec<_> = (0..100).map(ask).collect();
        for (asked, n) in asked.into_iter().zip(0..) {
            assert_eq!(asked.await.unwrap().unwrap(), 2 * n, "each gets its own answer");
        }
        assert_eq!(grouped.call.calls.load(Ordering::Relaxed), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_request_does_not_wait_and_the_next_ones_wait_by_the_number_of_queues() {
        for (queues, wait) in [(1, 1), (1000, 200), (100_000, 200)] {
            let grouped = watching(queues);
            let start = Instant::now();
            request(&grouped, 1).await.unwrap().unwrap();
            assert_eq!(start.elapsed(), Duration::from_millis(1), "{queues} queues");
            // It fails.
            request(&grouped, 2).await.unwrap().unwrap_err();
            assert_eq!(start.elapsed(), Duration::from_millis(1 + wait), "{queues} queues");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_serves_a_bounded_number_of_requests() {
        let grouped = watching(1000);
        request(&grouped, 0).await.unwrap().unwrap();
        let asked: Vec<_> = (0..MOST as u32 + 1).map(|n| request(&grouped, n)).collect();
        let mut failed = 0;
        for asked in asked {
            failed += usize::from(asked.await.unwrap().is_err());
        }
        assert_eq!(
            (failed, grouped.call.largest.load(Ordering::Relaxed)),
            (MOST, MOST),
            "the last one has its own"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_caller_takes_no_other_with_it() {
        let grouped = watching(1000);
        request(&grouped, 0).await.unwrap().unwrap();
        grouped.call.calls.fetch_add(1, Ordering::Relaxed);
        let first = request(&grouped, 1);
        tokio::time::sleep(Duration::from_millis(50)).await;
        let second = request(&grouped, 2);
        tokio::time::sleep(Duration::from_millis(50)).await;
        first.abort();
        assert_eq!(second.await.unwrap().unwrap(), 4);
    }
}
