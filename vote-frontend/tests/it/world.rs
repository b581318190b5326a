//! A frontend with a queue in memory, called without a network.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use tower::ServiceExt;
use vote_core::{
    Clock, Partitions, Pepper, Polls, Position, Queue, QueueId, Secret, Timestamp, Vote,
    admission::{Admission, AdmissionOptions},
    count::RegisteredPoll,
    frame,
    queue::{Layout, MemoryQueue, PollRecord},
    writer::Writer,
};
use vote_frontend::{Frontend, Site, cookie::CookieKeys};
use vote_service::{Body, Guards, layers::guard};

pub(crate) const POLLS: &str = r#"
    [[poll]]
    slug = "pets"
    title = "Cats or dogs?"
    options = [{ slug = "cats", label = "Cats" }, { slug = "dogs", label = "Dogs" }]
    opens_at = 2027-01-01T00:00:00Z
    closes_at = 2027-01-02T00:00:00Z

    [[poll]]
    slug = "cars"
    title = "Which car?"
    options = [{ slug = "red", label = "Red" }, { slug = "blue", label = "Blue" }]
"#;

/// A clock that a test sets, in seconds after the poll opens.
#[derive(Debug, Default)]
pub(crate) struct TestClock(AtomicI64);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        let opens: Timestamp = Timestamp::from_micros(1_798_761_600_000_000).unwrap();
        opens.saturating_add(self.0.load(Ordering::Relaxed) * 1_000_000)
    }
}

pub(crate) struct World {
    pub(crate) queue: Arc<MemoryQueue>,
    pub(crate) id: QueueId,
    pub(crate) clock: Arc<TestClock>,
    app: Frontend,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    /// Returns the cookie that the response sets, as a browser would send it back.
    pub(crate) fn cookie(&self) -> Option<String> {
        let set = self.headers.get(header::SET_COOKIE)?.to_str().unwrap();
        Some(set.split(';').next().unwrap().to_owned())
    }

    pub(crate) fn error(&self) -> String {
        let json: serde_json::Value = serde_json::from_str(&self.body).expect(&self.body);
        assert!(
            json["message"].as_str().is_some_and(|text| text.len() > 10),
            "no message for people: {json}"
        );
        json["error"].as_str().unwrap().to_owned()
    }
}

pub(crate) fn layout() -> Layout {
    Layout { partitions: Partitions::default(), fingerprint: pepper().fingerprint() }
}

/// Records of the polls, as a worker with the same file makes them.
pub(crate) fn records(polls: &Polls) -> Vec<PollRecord> {
    polls.iter().map(|poll| PollRecord::from(&RegisteredPoll::from(poll))).collect()
}

fn pepper() -> Pepper {
    Pepper::new(vec![1; 32]).unwrap()
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with_polls(POLLS).await
    }

    pub(crate) async fn with_polls(polls: &str) -> Self {
        let polls = Polls::from_toml("polls.toml", polls).unwrap();
        Self::with_queue_of(&records(&polls), polls).await
    }

    /// Starts a frontend with a file of polls, and with a queue that has these records.
    pub(crate) async fn with_queue_of(records: &[PollRecord], polls: Polls) -> Self {
        let polls = Arc::new(polls);
        let queue = Arc::new(MemoryQueue::new());
        let id = queue.create(layout(), None).await.unwrap();
        queue.record_polls(id, records).await.unwrap();
        queue.activate(id).await.unwrap();
        let options = AdmissionOptions {
            layout: layout(),
            polls: Arc::clone(&polls),
            allow_volatile: true,
            interval: std::time::Duration::from_millis(100),
        };
        let mut admission = Admission::start(queue.clone(), options);
        admission.opened().await.unwrap();
        let (writer, _) = Writer::start(queue.clone(), admission, 100, Arc::new(|_| ()));
        let clock = Arc::new(TestClock::default());
        let site = Site {
            polls,
            pepper: pepper(),
            cookie_keys: CookieKeys::new(&[Secret::new(vec![2; 32]).unwrap()], false).unwrap(),
            receipt_key: Secret::new(vec![3; 32]).unwrap().into(),
            results_url: Some("http://results.example".to_owned()),
            clock: clock.clone(),
        };
        Self { queue, id, clock, app: Frontend::new(site, writer) }
    }

    pub(crate) fn set_clock(&self, seconds: i64) {
        self.clock.0.store(seconds, Ordering::Relaxed);
    }

    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        let guarded = guard(self.app.clone(), &Guards::default());
        let response: Response<Body> = guarded.oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: head.status, headers: head.headers, body: String::from_utf8(body.to_vec()).unwrap() }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(Full::default()).unwrap()).await
    }

    pub(crate) async fn post(
        &self,
        poll: &str,
        content_type: &str,
        body: &str,
        cookie: Option<&str>,
    ) -> Answer {
        let mut request =
            Request::post(format!("/polls/{poll}/votes")).header(header::CONTENT_TYPE, content_type);
        if let Some(cookie) = cookie {
            request = request.header(header::COOKIE, cookie);
        }
        self.send(request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).unwrap()).await
    }

    pub(crate) async fn json(&self, option: &str, cookie: Option<&str>) -> Answer {
        self.post("pets", "application/json", &format!(r#"{{"option": "{option}"}}"#), cookie).await
    }

    /// Returns a new cookie, as the page of a poll sets it.
    pub(crate) async fn cookie(&self) -> String {
        self.get("/polls/pets").await.cookie().unwrap()
    }

    /// Returns all stored votes, ordered by time.
    pub(crate) async fn votes(&self) -> Vec<Vote> {
        let mut votes = Vec::new();
        for partition in layout().partitions.iter() {
            let read = self.queue.read(self.id, partition, Position::START, 1000).await.unwrap();
            for entry in read.entries {
                let poll = entry.poll.parse().unwrap();
                votes.extend(
                    frame::decode(poll, partition, layout().partitions, entry.votes, &entry.frame).unwrap(),
                );
            }
        }
        votes.sort_by_key(|vote| vote.cast_at);
        votes
    }
}
