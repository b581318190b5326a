//! Costs of requests to a frontend: the service itself, on a thread of its own, with a Redis.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Uri};
use http_body_util::Full;
use tokio::{runtime::Runtime, task::JoinSet, time::Instant};
use vote_core::{Partitions, Pepper, Polls, Queue, Secret, SystemClock, queue::RedisQueue};
use vote_frontend::{Site, cookie::CookieKeys};
use vote_service::{Connections, Guards, Limits, Shutdown};
use vote_testkit::Redis;
use vote_tools::{Cookies, FrontendClient, Link, Outcome, Pace};
use vote_worker::commands::capacity::{Costs, Unit};

use super::queue::open;
use crate::{
    count::{CountedQueue, Counts},
    cpu, voters,
};

/// Time limit of a request.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Connections to one frontend.
const CONNECTIONS: usize = 64;
/// Duration of one loop.
const LOOP: Duration = Duration::from_secs(6);

/// A frontend in this process, and who votes at it.
pub(crate) struct Frontend {
    address: SocketAddr,
    /// What the frontend called its queue for.
    pub(crate) counts: Arc<Counts>,
    shutdown: Shutdown,
}

impl Frontend {
    /// Starts a frontend on a runtime, with the queue at an address.
    pub(crate) async fn start(
        runtime: &Runtime,
        url: &str,
        prefix: &str,
        partitions: Partitions,
        polls: &Polls,
    ) -> Self {
        let (counts, shutdown) = (Arc::new(Counts::default()), Shutdown::new());
        let (url, prefix, polls) = (url.to_owned(), prefix.to_owned(), polls.clone());
        let (counted, stop) = (Arc::clone(&counts), shutdown.clone());
        let (send, receive) = tokio::sync::oneshot::channel();
        runtime.spawn(async move {
            let inner: Arc<dyn Queue> = Arc::new(RedisQueue::connect(&url, &prefix).unwrap());
            let secret = |byte| Secret::new(vec![byte; 32]).unwrap();
            let site = Site {
                polls: Arc::new(polls),
                pepper: Pepper::new(vec![1; 32]).unwrap(),
                cookie_keys: CookieKeys::new(&[secret(2)], false).unwrap(),
                receipt_key: secret(3).into(),
                results_url: None,
                clock: Arc::new(SystemClock),
            };
            let parts = vote_frontend::Parts {
                queue: Arc::new(CountedQueue { inner, counts: counted }),
                site,
                health: vote_frontend::Health::of(1),
            };
            let options = vote_frontend::Options {
                partitions,
                allow_volatile: false,
                limits: Limits::default(),
                connections: Connections::new(10_000),
                guards: Guards::default(),
            };
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            send.send(listener.local_addr().unwrap()).unwrap();
            vote_frontend::run(listener, parts, options, stop).await.unwrap();
        });
        Self { address: receive.await.unwrap(), counts, shutdown }
    }

    fn link(&self) -> Link {
        let host = HeaderValue::from_str(&self.address.to_string()).unwrap();
        Link::new(host, vec![self.address], TIMEOUT)
    }

    /// Starts voters on some connections, who vote again and again, each in turn over the polls, until dropped. Each
    /// has asked for a cookie first.
    pub(crate) async fn vote(
        &self,
        connections: usize,
        polls: &Polls,
        pace: &Arc<Pace>,
        acked: &Arc<AtomicU64>,
    ) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        let paths: Vec<Uri> =
            polls.iter().map(|poll| format!("/polls/{}/votes", poll.slug).parse().unwrap()).collect();
        for n in 0..connections {
            let (mut client, pace, acked) =
                (FrontendClient::new(self.link()), Arc::clone(pace), Arc::clone(acked));
            let paths = paths.clone();
            let body = Bytes::from_static(b"{\"option\":\"cats\"}");
            // Votes of many voters, so that they are in all partitions.
            let mut voters: Vec<Cookies> = Vec::new();
            while voters.len() < 32 {
                let mut cookies = Cookies::default();
                let asked = client.vote(&paths[0], &mut cookies, body.clone()).await;
                if asked.is_ok_and(|answer| answer.sets_cookie) {
                    voters.push(cookies);
                } else {
                    // The queue is not open yet.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
            tasks.spawn(async move {
                let mut turn = n;
                loop {
                    turn += 1;
                    pace.turn().await;
                    let cookies = &mut voters[turn % 32];
                    let answer = client.vote(&paths[turn / 32 % paths.len()], cookies, body.clone()).await;
                    match answer {
                        Ok(answer) if answer.outcome == Outcome::Acknowledged => {
                            acked.fetch_add(1, Ordering::Relaxed);
                        }
                        // A flush that the disk delayed too long; the votes of such a moment are not counted.
                        _ => tokio::time::sleep(Duration::from_millis(100)).await,
                    }
                }
            });
        }
        tasks
    }

    /// Requests pages for a while; returns their number and the bytes of each.
    async fn pages(&self, seconds: Duration) -> (u64, usize) {
        let (mut tasks, start) = (JoinSet::new(), Instant::now());
        for _ in 0..CONNECTIONS {
            let mut link = self.link();
            tasks.spawn(async move {
                let (mut pages, mut bytes) = (0, 0);
                while start.elapsed() < seconds {
                    let mut request = Request::new(Full::new(Bytes::new()));
                    *request.method_mut() = Method::GET;
                    *request.uri_mut() = Uri::from_static("/polls/poll-0");
                    let answer = link.send(request).await.unwrap();
                    assert!(answer.status.is_success(), "{}", answer.status);
                    let head: usize = answer
                        .headers
                        .iter()
                        .map(|(name, value)| name.as_str().len() + value.len() + 4)
                        .sum();
                    bytes = head + link.body().len();
                    pages += 1;
                }
                (pages, bytes)
            });
        }
        let all = tasks.join_all().await;
        (all.iter().map(|(pages, _)| pages).sum(), all[0].1)
    }
}

impl Drop for Frontend {
    fn drop(&mut self) {
        self.shutdown.trigger();
    }
}

pub(super) async fn measure(costs: &mut Costs) {
    let server = Redis::start();
    let polls = voters::polls(1);
    let _open = open(&server.url(), "vote", 64, 1).await;
    let runtime = cpu::runtime(cpu::FRONTENDS, 1);
    let frontend =
        Frontend::start(&runtime, &server.socket_url(), "vote", Partitions::new(64).unwrap(), &polls).await;
    let mut requests = Vec::new();
    for rate in [Some(1000.0), Some(4000.0), None] {
        let (pace, acked) = (Arc::new(Pace::new(rate)), Arc::new(AtomicU64::new(0)));
        let voting = frontend.vote(CONNECTIONS, &polls, &pace, &acked).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        frontend.counts.take();
        let (start, before, redis) =
            (acked.load(Ordering::Relaxed), cpu::threads(cpu::FRONTENDS), super::redis(&server)());
        tokio::time::sleep(LOOP).await;
        let (votes, counts) = ((acked.load(Ordering::Relaxed) - start) as f64, frontend.counts.take());
        let of_vote = |seconds: f64| seconds * 1e6 / votes;
        let cpu = of_vote(cpu::threads(cpu::FRONTENDS) - before);
        let redis = of_vote(super::redis(&server)() - redis);
        drop(voting);
        let (flushes, frames) =
            (counts["queue.append"] as f64 / votes, counts["queue.append frames"] as f64 / votes);
        let of_flushes =
            flushes * costs.flush.client + frames * (costs.frame.client + costs.frame_vote.client);
        eprintln!(
            "scale: a vote at {:.0} votes/s: {cpu:.1} µs, of which {of_flushes:.1} µs for {flushes:.2} flushes and \
             {frames:.2} frames; Redis {redis:.1} µs",
            votes / LOOP.as_secs_f64()
        );
        requests.push((cpu - of_flushes).max(0.0));
    }
    costs.request = Unit { client: requests.iter().sum::<f64>() / requests.len() as f64, server: 0.0 };
    let before = cpu::threads(cpu::FRONTENDS);
    let (pages, bytes) = frontend.pages(LOOP).await;
    costs.page = Unit { client: (cpu::threads(cpu::FRONTENDS) - before) * 1e6 / pages as f64, server: 0.0 };
    costs.page_bytes = bytes as f64;
    eprintln!("scale: a page: {:.1} µs", costs.page.client);
    drop(frontend);
    runtime.shutdown_background();
}
