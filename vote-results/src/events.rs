//! `/polls/{poll}/events`: results as they change, by server-sent events.
//!
//! Every browser gets the same bytes, which the poller wrote once. An event is named `results`, and its data are
//! `results.json` on one line. The first comes at once. A stream ends when the [poller](crate::Poller) does, that is
//! at shutdown; browsers then connect again by themselves.

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
use http_body_util::{BodyExt, StreamBody};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, Interval, MissedTickBehavior, interval_at},
};
use vote_core::PollSlug;
use vote_service::{Body, BoxError, Problem};

use crate::{
    metrics,
    state::{State, View},
};

/// How often a comment is sent when there is nothing to say, so that proxies keep the connection, and that both ends
/// notice when the other is gone.
pub const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How many streams there may be, unless said otherwise.
pub const MAX_STREAMS: usize = 8_000;

/// When all streams end at once, browsers come back over this span, in milliseconds: not all in the same moment.
const COME_BACK: std::ops::Range<u64> = 1_000..6_000;
/// How long who finds no free stream should wait, in seconds.
const RETRY_AFTER: u32 = 30;

/// The streams of a process.
#[derive(Debug)]
pub(crate) struct Streams {
    free: Arc<Semaphore>,
    opened: AtomicU64,
}

impl Streams {
    pub(crate) fn new(max: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS))), opened: AtomicU64::new(0) }
    }

    /// A stream of the results of a poll, or the problem that there are too many.
    pub(crate) fn open(
        &self,
        poll: PollSlug,
        state: watch::Receiver<Arc<State>>,
    ) -> Result<Response<Body>, Problem> {
        let permit = Arc::clone(&self.free).try_acquire_owned().map_err(|_| {
            let detail = "This address shows results as they change to as many people as it can. The page of the poll \
                          still works.";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too-many-streams", "Too many people are watching", detail)
                .retry_after(RETRY_AFTER)
        })?;
        let number = self.opened.fetch_add(1, Ordering::Relaxed);
        let mut keep_alive = interval_at(Instant::now() + KEEP_ALIVE, KEEP_ALIVE);
        keep_alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let events = Events {
            poll,
            state,
            sent: None,
            retry: Some(come_back(number)),
            keep_alive,
            _place: Place::new(permit),
        };
        let frames = stream::unfold(events, async |mut events| {
            let bytes = events.next().await?;
            Some((Ok::<_, BoxError>(Frame::data(bytes)), events))
        });
        let mut response = head();
        *response.body_mut() = StreamBody::new(frames).boxed_unsync();
        Ok(response)
    }
}

/// The response without a stream, as for HEAD.
pub(crate) fn head() -> Response<Body> {
    let mut response = Response::new(vote_service::body::empty());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // nginx would collect events until they fill a buffer.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

/// Says after how many milliseconds the browser should come back: another time for each of many streams in a row.
fn come_back(number: u64) -> Bytes {
    // A prime, so that streams opened one after the other are spread and not next to each other.
    let after = COME_BACK.start + number.wrapping_mul(7_919) % (COME_BACK.end - COME_BACK.start);
    Bytes::from(format!("retry: {after}\n\n"))
}

struct Events {
    poll: PollSlug,
    state: watch::Receiver<Arc<State>>,
    sent: Option<Arc<View>>,
    retry: Option<Bytes>,
    keep_alive: Interval,
    _place: Place,
}

impl Events {
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(retry) = self.retry.take() {
            return Some(retry);
        }
        loop {
            // The state also changes for other reasons; a poll that says the same is the same allocation.
            let view = self.state.borrow_and_update().view(self.poll.as_str()).cloned();
            if let Some(view) =
                view.filter(|view| self.sent.as_ref().is_none_or(|sent| !Arc::ptr_eq(sent, view)))
            {
                self.keep_alive.reset();
                let event = view.event.clone();
                self.sent = Some(view);
                return Some(event);
            }
            tokio::select! {
                changed = self.state.changed() => changed.ok()?,
                _ = self.keep_alive.tick() => return Some(Bytes::from_static(b": still here\n\n")),
            }
        }
    }
}

/// One of the streams, counted while it exists.
struct Place {
    _permit: OwnedSemaphorePermit,
}

impl Place {
    fn new(permit: OwnedSemaphorePermit) -> Self {
        metrics::stream_opened();
        Self { _permit: permit }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        metrics::stream_closed();
    }
}

#[cfg(test)]
mod tests {
    use vote_core::{
        Partition, Polls, Timestamp,
        store::{Books, RegisteredPoll, TallyRow},
    };

    use super::*;
    use crate::{figures::PublicFigures, state::Reading};

    fn state(cats: i64) -> Arc<State> {
        let polls = Polls::example();
        let pets = RegisteredPoll::from(polls.get("pets").unwrap());
        let votes =
            TallyRow { poll: pets.slug, option: pets.options[0], partition: Partition(0), votes: cats };
        let books = Books { polls: vec![pets], tally: vec![votes], ..Books::default() };
        let reading = Reading::new(PublicFigures::new(&polls, &books, Timestamp::MIN), None);
        Arc::new(State { reading: Some(Arc::new(reading)), stale: None })
    }

    async fn next(body: &mut Body) -> Option<String> {
        let frame = body.frame().await?.unwrap();
        Some(String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap())
    }

    fn open(streams: &Streams, sender: &watch::Sender<Arc<State>>) -> Result<Body, Problem> {
        streams.open("pets".parse().unwrap(), sender.subscribe()).map(Response::into_body)
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_event_comes_at_once_and_the_next_with_the_next_change() {
        let sender = watch::Sender::new(state(1));
        let mut body = open(&Streams::new(1), &sender).unwrap();
        assert!(next(&mut body).await.unwrap().starts_with("retry: "));
        assert!(next(&mut body).await.unwrap().contains(r#""total":1"#));
        sender.send_replace(state(2));
        assert!(next(&mut body).await.unwrap().contains(r#""total":2"#));
    }

    #[tokio::test(start_paused = true)]
    async fn when_nothing_changes_a_comment_is_sent() {
        let sender = watch::Sender::new(state(1));
        let mut body = open(&Streams::new(1), &sender).unwrap();
        let started = Instant::now();
        for _ in 0..2 {
            next(&mut body).await.unwrap();
        }
        // Published again, but the poll says the same.
        sender.send_modify(|state| *state = Arc::new(State::clone(state)));
        assert_eq!(next(&mut body).await.unwrap(), ": still here\n\n");
        assert_eq!(started.elapsed(), KEEP_ALIVE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_with_the_poller() {
        let sender = watch::Sender::new(state(1));
        let mut body = open(&Streams::new(1), &sender).unwrap();
        drop(sender);
        let mut chunks = 0;
        while next(&mut body).await.is_some() {
            chunks += 1;
        }
        assert_eq!(chunks, 2, "what was known is still sent");
    }

    #[tokio::test(start_paused = true)]
    async fn one_too_many_is_refused_until_another_ends() {
        let (streams, sender) = (Streams::new(1), watch::Sender::new(state(1)));
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
    fn browsers_come_back_at_different_times() {
        let times: std::collections::HashSet<_> = (0..100).map(come_back).collect();
        assert_eq!(times.len(), 100);
    }
}
