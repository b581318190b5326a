//! Requests to a frontend, compared with servers that do less.

use std::{path::Path, rc::Rc, time::Duration};

use bytes::Bytes;
use serde_json::Value;
use vote_testkit::{Redis, Service};
use vote_tools::cpu::{process_seconds, tree_seconds};

use crate::{
    args::Front,
    compare::{Bar, Costs, Ratio, report},
    frontend::{Frontend, open_queue},
    requests::Requests,
    yardsticks::Yardstick,
};

/// Names of the sides.
const VOTE: &str = "frontend: vote";
const REFUSAL: &str = "frontend: refusal";
const PAGE: &str = "frontend: page";
const BARE: &str = "hyper: 202";
const BARE_REFUSAL: &str = "hyper: refusal";
const BARE_PAGE: &str = "hyper: page";
const NGINX: &str = "nginx: 202";
const WEBDIS: &str = "webdis: XADD";
const BASE: &str = "base: vote";
const BASE_REFUSAL: &str = "base: refusal";
const BASE_PAGE: &str = "base: page";

/// One side: requests, and the process that answers them.
struct Side {
    name: &'static str,
    requests: Requests,
    pid: u32,
    costs: Costs,
}

/// Measures the CPU time of requests.
pub(crate) async fn run(Front { rounds, only, base }: &Front) -> Value {
    // A rewrite of the log in the background would take CPU from the measured processes.
    let redis = Redis::start_with(&[("auto-aof-rewrite-percentage", "0")]);
    let frontend = on_open_queue(&Service::binary("vote-frontend"), &redis).await;
    let (votes, refusals, pages) = (frontend.votes(), frontend.refusals(), frontend.pages());
    let bare = Yardstick::bare(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n");
    let bare_refusal = Yardstick::bare(&refusals.once().await);
    let bare_page = Yardstick::bare(&pages.once().await);
    let (nginx, webdis) = (Yardstick::nginx(), Yardstick::webdis(&redis));
    let to = |yardstick: &Yardstick, requests: &Requests| {
        (Requests { address: yardstick.address, ..requests.clone() }, yardstick.pid())
    };
    let xadd = Requests { requests: xadds(), status: 200, ..votes.clone() };
    let mut sides = vec![
        (VOTE, (votes.clone(), frontend.pid())),
        (BARE, to(&bare, &votes)),
        (NGINX, to(&nginx, &votes)),
        (WEBDIS, to(&webdis, &xadd)),
        (REFUSAL, (refusals.clone(), frontend.pid())),
        (BARE_REFUSAL, to(&bare_refusal, &refusals)),
        (PAGE, (pages.clone(), frontend.pid())),
        (BARE_PAGE, to(&bare_page, &pages)),
    ];
    let base_redis = base.as_ref().map(|_| Redis::start_with(&[("auto-aof-rewrite-percentage", "0")]));
    let base = match base.as_ref().zip(base_redis.as_ref()) {
        Some((program, redis)) => Some(on_open_queue(program, redis).await),
        None => None,
    };
    if let Some(base) = &base {
        sides.push((BASE, (base.votes(), base.pid())));
        sides.push((BASE_REFUSAL, (base.refusals(), base.pid())));
        sides.push((BASE_PAGE, (base.pages(), base.pid())));
    }
    let mut sides: Vec<Side> = sides
        .into_iter()
        .filter(|(name, _)| only.is_empty() || only.iter().any(|only| name.starts_with(only)))
        .map(|(name, (requests, pid))| Side {
            name,
            requests,
            pid,
            costs: Costs { name, ..Costs::default() },
        })
        .collect();
    for round in 1..=rounds.rounds {
        for side in &mut sides {
            measure(side, round, Duration::from_secs(rounds.seconds), &redis).await;
        }
    }
    conclude(&sides)
}

async fn on_open_queue(program: &Path, redis: &Redis) -> Frontend {
    open_queue(redis).await;
    Frontend::start(program, redis)
}

async fn measure(side: &mut Side, round: u32, seconds: Duration, redis: &Redis) {
    let sent = side.requests.send(seconds, || [tree_seconds(side.pid), process_seconds(redis.pid())]).await;
    let [cpu, of_redis] = sent.grown.map(|seconds| seconds * 1e6 / sent.answers());
    eprintln!(
        "speed: round {round}: {}: {cpu:.2} µs, {:.0} requests/s; Redis {of_redis:.1} µs",
        side.name,
        sent.answers() / seconds.as_secs_f64()
    );
    side.costs.of_rounds.push(cpu);
}

fn conclude(sides: &[Side]) -> Value {
    let costs = |name| sides.iter().find(|side| side.name == name).map(|side| &side.costs);
    let wanted = [
        (("durable vote", "bare hyper, 202"), Bar::AtLeast(0.50), BARE, VOTE),
        (("durable vote", "nginx, return 202"), Bar::AtLeast(0.43), NGINX, VOTE),
        (("durable vote", "webdis, XADD"), Bar::AtLeast(1.3), WEBDIS, VOTE),
        (("refusal without a cookie", "bare hyper, same bytes"), Bar::AtLeast(0.6), BARE_REFUSAL, REFUSAL),
        (("page of a poll", "bare hyper, same bytes"), Bar::AtLeast(0.6), BARE_PAGE, PAGE),
        (("durable vote", "base"), Bar::AtLeast(1.0), BASE, VOTE),
        (("refusal without a cookie", "base"), Bar::AtLeast(1.0), BASE_REFUSAL, REFUSAL),
        (("page of a poll", "base"), Bar::AtLeast(1.0), BASE_PAGE, PAGE),
    ];
    let ratios: Vec<Ratio> = wanted
        .into_iter()
        .filter_map(|(names, bar, yardstick, ours)| {
            Some(Ratio::new(names, bar, costs(yardstick)?, costs(ours)?))
        })
        .collect();
    let all: Vec<Costs> = sides.iter().map(|side| side.costs.clone()).collect();
    report("CPU of a request, µs", &all, &ratios)
}

/// Returns requests that append an entry as long as that of a vote.
fn xadds() -> Rc<[Bytes]> {
    let entry = "0123456789abcdef".repeat(4);
    let body = format!("XADD/votes/*/frame/{entry}");
    let length = body.len();
    [Bytes::from(format!("POST / HTTP/1.1\r\nHost: vote.example\r\nContent-Length: {length}\r\n\r\n{body}"))]
        .into()
}
