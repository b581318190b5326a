//! `/polls/{poll}/events`: live results as server-sent events.
//!
//! All browsers get the same bytes, which the refresher serialized once. Each event is named `results` and carries
//! `results.json` on one line; the first is sent at once. A stream ends with the [refresher](crate::Refresher), which is at
//! shutdown; browsers then reconnect by themselves.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use http::{
    HeaderName, HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE},
};
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, Interval, MissedTickBehavior, interval_at},
};
use vote_service::{Body, BoxError, Problem, body};

use crate::{metrics, state::View};

/// Interval between keep-alive comments on an idle stream. They keep proxies from closing the connection, and let both
/// ends notice that the other is gone.
pub const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Default maximum number of streams.
pub const MAX_STREAMS: usize = 8_000;

/// Range of reconnection delays in milliseconds, so that browsers do not all reconnect at once when all streams end.
const RECONNECT_AFTER: std::ops::Range<u64> = 1_000..6_000;
/// `Retry-After` in seconds, if the maximum number of streams is reached.
const RETRY_AFTER: u32 = 30;

/// The event streams of the process, limited in number.
#[derive(Debug)]
pub(crate) struct Streams {
    free: Arc<Semaphore>,
    opened: AtomicU64,
}

impl Streams {
    pub(crate) fn new(max: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS))), opened: AtomicU64::new(0) }
    }

    /// Opens a stream of the views of a poll. Fails with 503 if the maximum number of streams is open.
    pub(crate) fn open(&self, views: Views) -> Result<Response<Body>, Problem> {
        let permit = Arc::clone(&self.free).try_acquire_owned().map_err(|_| {
            let detail = "No more live updates can be served right now. The page of the poll still works without them.";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too-many-streams", "Too many people are watching", detail)
                .retry_after(RETRY_AFTER)
        })?;
        let number = self.opened.fetch_add(1, Ordering::Relaxed);
        let mut keep_alive = interval_at(Instant::now() + KEEP_ALIVE, KEEP_ALIVE);
        keep_alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let events = Events {
            views,
            sent: None,
            retry: Some(reconnect_after(number)),
            keep_alive,
            _slot: Slot::new(permit),
        };
        let frames = stream::unfold(events, async |mut events| {
            let bytes = events.next().await?;
            Some((Ok::<_, BoxError>(Frame::data(bytes)), events))
        });
        let mut response = head();
        *response.body_mut() = body::stream(StreamBody::new(frames));
        Ok(response)
    }
}

/// Returns the response without its stream, as for HEAD.
pub(crate) fn head() -> Response<Body> {
    let mut response = Response::new(body::empty());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Otherwise nginx holds events back until a buffer is full.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

/// Returns the `retry:` field with the browser's reconnection delay, which differs between consecutive streams.
fn reconnect_after(number: u64) -> Bytes {
    // Multiplying by a prime spreads consecutive streams over the whole range.
    let range = RECONNECT_AFTER.end - RECONNECT_AFTER.start;
    let after = RECONNECT_AFTER.start + number.wrapping_mul(7_919) % range;
    Bytes::from(format!("retry: {after}\n\n"))
}

/// The latest view of a poll, if the store has been read. It changes only with the outcome of the poll, so a change of
/// anything else wakes no stream.
pub(crate) type Views = watch::Receiver<Option<Arc<View>>>;

struct Events {
    views: Views,
    sent: Option<Arc<View>>,
    retry: Option<Bytes>,
    keep_alive: Interval,
    _slot: Slot,
}

impl Events {
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(retry) = self.retry.take() {
            return Some(retry);
        }
        loop {
            let view = self.views.borrow_and_update().clone();
            if let Some(view) =
                view.filter(|view| self.sent.as_ref().is_none_or(|sent| !Arc::ptr_eq(sent, view)))
            {
                self.keep_alive.reset();
                let event = view.event.clone();
                self.sent = Some(view);
                return Some(event);
            }
            tokio::select! {
                changed = self.views.changed() => changed.ok()?,
                _ = self.keep_alive.tick() => return Some(Bytes::from_static(b": still here\n\n")),
            }
        }
    }
}

/// A permit for one open stream, counted in the metric while it exists.
struct Slot {
    _permit: OwnedSemaphorePermit,
}

impl Slot {
    fn new(permit: OwnedSemaphorePermit) -> Self {
        metrics::stream_opened();
        Self { _permit: permit }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        metrics::stream_closed();
    }
}

#[cfg(test)]
mod tests {
    use vote_core::{
        Polls,
        count::{PollSummary, RegisteredPoll},
    };

    use http_body_util::BodyExt;

    use super::*;
    use crate::snapshot::Snapshot;

    type Sender = watch::Sender<Option<Arc<View>>>;

    fn view(cats: u64) -> Option<Arc<View>> {
        let pets = Polls::example().get("pets").unwrap().clone();
        let poll = RegisteredPoll::from(&pets);
        let counted = PollSummary { tally: vec![(poll.options[0], cats)], poll, tally_changed_at: None };
        Some(Arc::new(View::new(Snapshot::new(&pets, Some(&counted)))))
    }

    async fn next(body: &mut Body) -> Option<String> {
        let frame = body.frame().await?.unwrap();
        Some(String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap())
    }

    fn open(streams: &Streams, sender: &Sender) -> Result<Body, Problem> {
        streams.open(sender.subscribe()).map(Response::into_body)
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_event_is_sent_at_once_and_the_next_on_the_next_change() {
        let sender = Sender::new(view(1));
        let mut body = open(&Streams::new(1), &sender).unwrap();
        assert!(next(&mut body).await.unwrap().starts_with("retry: "));
        assert!(next(&mut body).await.unwrap().contains(r#""total":1"#));
        sender.send_replace(view(2));
        assert!(next(&mut body).await.unwrap().contains(r#""total":2"#));
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_stream_sends_keep_alive_comments() {
        let sender = Sender::new(view(1));
        let mut body = open(&Streams::new(1), &sender).unwrap();
        let started = Instant::now();
        for _ in 0..2 {
            next(&mut body).await.unwrap();
        }
        // The same view is published again.
        sender.send_modify(|_| ());
        assert_eq!(next(&mut body).await.unwrap(), ": still here\n\n");
        assert_eq!(started.elapsed(), KEEP_ALIVE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_with_the_refresher() {
        let sender = Sender::new(view(1));
        let mut body = open(&Streams::new(1), &sender).unwrap();
        drop(sender);
        let mut chunks = 0;
        while next(&mut body).await.is_some() {
            chunks += 1;
        }
        assert_eq!(chunks, 2, "the last known view is still sent");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_above_the_maximum_is_refused_until_another_ends() {
        let (streams, sender) = (Streams::new(1), Sender::new(view(1)));
        let first = open(&streams, &sender).unwrap();
        let problem = open(&streams, &sender).map(drop).unwrap_err();
        assert_eq!(
            (problem.status, problem.retry_after),
            (StatusCode::SERVICE_UNAVAILABLE, Some(RETRY_AFTER))
        );
        drop(first);
        assert!(open(&streams, &sender).is_ok());
    }

    #[test]
    fn browsers_reconnect_at_different_times() {
        let times: std::collections::HashSet<_> = (0..100).map(reconnect_after).collect();
        assert_eq!(times.len(), 100);
    }
}
