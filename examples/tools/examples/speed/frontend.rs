//! A frontend as a process of its own, on a Redis with an open queue, and requests to it.

use std::{fmt::Write as _, net::SocketAddr, path::Path, rc::Rc};

use bytes::Bytes;
use http::HeaderValue;
use vote_core::{
    Partitions, Pepper, Polls, Queue, Secret,
    count::RegisteredPoll,
    queue::{Layout, PollRecord, RedisQueue},
};
use vote_frontend::{cookie::CookieKeys, identity::Identity};
use vote_testkit::{Redis, Service, free_port};

use crate::requests::Requests;

/// Number of voters, each with a cookie. Their votes are in all partitions.
const VOTERS: usize = 16_384;
/// Keep-alive connections.
const CONNECTIONS: usize = 256;

/// A frontend with one thread that accepts votes.
pub(crate) struct Frontend {
    service: Service,
    address: SocketAddr,
    cookie_keys: CookieKeys,
}

impl Frontend {
    /// Starts the frontend in this file on a Redis whose queue is open, or is opened by a worker.
    pub(crate) fn start(program: &Path, redis: &Redis) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let admin = format!("127.0.0.1:{}", free_port());
        let service = Service::start(
            program,
            &[],
            &[
                ("VOTE_QUEUE", &redis.socket_url()),
                ("VOTE_LISTEN", &address.to_string()),
                ("VOTE_ADMIN_LISTEN", &admin),
                ("VOTE_THREADS", "1"),
                ("VOTE_MAX_CONNECTIONS", "60000"),
                ("VOTE_PEPPER", &pepper()),
                ("VOTE_COOKIE_KEYS", &hex::encode(COOKIE_KEY)),
                ("VOTE_RECEIPT_KEY", &hex::encode([3; 32])),
            ],
        );
        service.wait_http_ok(&format!("http://{admin}/readyz"));
        let secret = Secret::new(COOKIE_KEY.to_vec()).unwrap();
        Self { service, address, cookie_keys: CookieKeys::new(&[secret], false).unwrap() }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.service.pid()
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Returns requests that vote, as JSON with a cookie.
    pub(crate) fn votes(&self) -> Requests {
        let votes = (0..VOTERS).map(|n| {
            let cookie = self.cookie_keys.set(&Identity::random().unwrap()).unwrap();
            vote(["cats", "dogs"][n % 2], Some(&cookie))
        });
        self.requests(votes.collect(), 202)
    }

    /// Returns requests that vote without a cookie, so that they are refused.
    pub(crate) fn refusals(&self) -> Requests {
        self.requests([refusal()].into(), 401)
    }

    /// Returns requests for the page of a poll from a voter without a cookie, who gets one.
    pub(crate) fn pages(&self) -> Requests {
        let page = format!("GET /polls/pets HTTP/1.1\r\n{}\r\n", headers("text/html,*/*;q=0.8"));
        self.requests([Bytes::from(page)].into(), 200)
    }

    fn requests(&self, requests: Rc<[Bytes]>, status: u16) -> Requests {
        Requests { address: self.address, requests, connections: CONNECTIONS, status, rate: None }
    }
}

const PEPPER: [u8; 32] = [1; 32];
const COOKIE_KEY: [u8; 32] = [2; 32];

/// Returns the pepper as services read it.
pub(crate) fn pepper() -> String {
    hex::encode(PEPPER)
}

/// Creates the queue and activates it, as a worker does.
pub(crate) async fn open_queue(redis: &Redis) {
    let queue = RedisQueue::connect(&redis.url(), "vote").unwrap();
    let fingerprint = Pepper::new(PEPPER.to_vec()).unwrap().fingerprint();
    let layout = Layout { partitions: Partitions::default(), fingerprint };
    let id = queue.create(layout, None).await.unwrap();
    let records: Vec<_> =
        Polls::example().iter().map(|poll| PollRecord::from(&RegisteredPoll::from(poll))).collect();
    queue.record_polls(id, &records).await.unwrap();
    queue.activate(id).await.unwrap();
}

/// Returns the headers that a browser's script or a program sends.
fn headers(accept: &str) -> String {
    format!(
        "Host: vote.example\r\nUser-Agent: speed/1.0\r\nAccept: {accept}\r\nAccept-Encoding: gzip, deflate, br\r\n"
    )
}

/// Returns a request that votes without a cookie.
pub(crate) fn refusal() -> Bytes {
    vote("cats", None)
}

fn vote(option: &str, cookie: Option<&HeaderValue>) -> Bytes {
    let body = format!("{{\"option\": \"{option}\"}}");
    let mut text = format!(
        "POST /polls/pets/votes HTTP/1.1\r\n{}Content-Type: application/json\r\nContent-Length: {}\r\n",
        headers("application/json"),
        body.len()
    );
    if let Some(cookie) = cookie {
        let pair = cookie.to_str().unwrap().split(';').next().unwrap();
        write!(text, "Cookie: {pair}\r\n").unwrap();
    }
    Bytes::from(format!("{text}\r\n{body}"))
}
