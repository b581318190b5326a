//! What votes at a moderate rate cost a Redis, compared with another build of the services.

use std::{path::Path, time::Duration};

use serde_json::Value;
use vote_testkit::{Postgres, Redis, Service, free_port};
use vote_tools::cpu::process_seconds;

use crate::{
    args::Queue,
    compare::{Bar, Costs, Ratio, report},
    frontend::{self, Frontend},
    requests::Requests,
};

const OURS: &str = "this build";
const BASE: &str = "the other build";

/// A frontend, its Redis and a worker.
struct Side {
    redis: Redis,
    _worker: Service,
    _frontend: Frontend,
    votes: Requests,
    costs: Costs,
}

impl Side {
    fn start(name: &'static str, folder: &Path, postgres: &Postgres, rate: f64) -> Self {
        let redis = Redis::start_with(&[("auto-aof-rewrite-percentage", "0")]);
        let (store, admin) = (postgres.database(), format!("127.0.0.1:{}", free_port()));
        let pepper = frontend::pepper();
        let worker = Service::start(
            &folder.join("vote-worker"),
            &[],
            &[
                ("VOTE_QUEUES", &redis.url()),
                ("VOTE_STORE", &store),
                ("VOTE_MIGRATE", "true"),
                ("VOTE_ADMIN_LISTEN", &admin),
                ("VOTE_PEPPER", &pepper),
            ],
        );
        worker.wait_http_ok(&format!("http://{admin}/readyz"));
        let frontend = Frontend::start(&folder.join("vote-frontend"), &redis);
        let votes = Requests { rate: Some(rate), ..frontend.votes() };
        Self { redis, _worker: worker, _frontend: frontend, votes, costs: Costs { name, ..Costs::default() } }
    }
}

/// Measures the CPU time of a Redis.
pub(crate) async fn run(Queue { rounds, rate, base }: &Queue) -> Value {
    let postgres = Postgres::start_with(&[("max_wal_size", "4GB"), ("shared_buffers", "512MB")]);
    let ours = Service::binary("vote-worker");
    let ours = ours.parent().unwrap();
    let mut sides =
        [(OURS, ours), (BASE, base)].map(|(name, folder)| Side::start(name, folder, &postgres, *rate));
    let seconds = Duration::from_secs(rounds.seconds);
    for round in 1..=rounds.rounds {
        for side in &mut sides {
            let sent = side.votes.send(seconds, || [process_seconds(side.redis.pid())]).await;
            let cost = sent.grown[0] * 1e6 / sent.answers();
            eprintln!(
                "speed: round {round}: {}: {cost:.1} µs, {:.0} votes/s, p50 {:.1} ms, p99 {:.1} ms",
                side.costs.name,
                sent.answers() / seconds.as_secs_f64(),
                sent.ms(0.5),
                sent.ms(0.99)
            );
            side.costs.of_rounds.push(cost);
        }
    }
    let [ours, base] = sides.map(|side| side.costs);
    let names = ("Redis, a vote at a moderate rate", "the other build");
    let ratio = Ratio::new(names, Bar::AtMost(0.4), &ours, &base);
    report("CPU of Redis for a vote, µs", &[ours, base], &[ratio])
}
