//! Frontends with a Redis each, workers, a Postgres, the results service: all of them real processes.

use std::{
    net::SocketAddr,
    process::{Command, Output},
    time::{Duration, Instant},
};

use serde_json::Value;
use vote_testkit::{Postgres, Redis, Response, Service, free_port, http, http_get};

pub(crate) const SECRET: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// A running pipeline.
pub(crate) struct World {
    pub(crate) redis: Vec<Redis>,
    pub(crate) frontends: Vec<Process>,
    pub(crate) results: Process,
    store: String,
    queues: String,
}

/// One of our services.
pub(crate) struct Process {
    pub(crate) service: Service,
    /// Where the public is served; of a worker, nothing.
    pub(crate) public: SocketAddr,
    pub(crate) admin: SocketAddr,
}

fn address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], free_port()))
}

fn start(name: &str, environment: &[(&str, &str)]) -> Process {
    let (public, admin) = (address(), address());
    let (listen, admin_listen) = (public.to_string(), admin.to_string());
    let mut all = vec![("VOTE_ADMIN_LISTEN", admin_listen.as_str())];
    if name != "vote-worker" {
        all.push(("VOTE_LISTEN", &listen));
    }
    all.extend(environment);
    let service = Service::start(&Service::binary(name), &[], &all);
    Process { service, public, admin }
}

impl Process {
    /// Starts a frontend.
    pub(crate) fn frontend(queue: &str) -> Self {
        start(
            "vote-frontend",
            &[
                ("VOTE_QUEUE", queue),
                ("VOTE_PEPPER", SECRET),
                ("VOTE_COOKIE_KEYS", SECRET),
                ("VOTE_RECEIPT_KEY", SECRET),
                ("VOTE_THREADS", "1"),
            ],
        )
    }

    pub(crate) fn worker(store: &str, queues: &str, lanes: &str) -> Self {
        start(
            "vote-worker",
            &[
                ("VOTE_STORE", store),
                ("VOTE_QUEUES", queues),
                ("VOTE_PEPPER", SECRET),
                ("VOTE_LANES", lanes),
                ("VOTE_MIGRATE", "true"),
            ],
        )
    }

    pub(crate) fn results(store: &str) -> Self {
        start("vote-results", &[("VOTE_STORE", store), ("VOTE_RECEIPT_KEY", SECRET)])
    }

    #[track_caller]
    pub(crate) fn wait_until_ready(&self) {
        eventually("it is ready", Duration::from_secs(30), || {
            http(self.admin, "GET", "/readyz", &[], b"").is_ok_and(|answer| answer.status == 200)
        });
    }

    pub(crate) fn get(&self, path: &str) -> Response {
        http_get(self.public, path)
    }

    /// The sum of a metric over its labels.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let Ok(answer) = http(self.admin, "GET", "/metrics", &[], b"") else { return 0.0 };
        let text = answer.text();
        let lines = text.lines().filter(|line| line.starts_with(name) && !line.starts_with('#'));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    }
}

/// Waits until something is so.
#[track_caller]
pub(crate) fn eventually(what: &str, within: Duration, mut is_so: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < within, "not within {within:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
    start.elapsed()
}

impl World {
    /// A pipeline with so many frontends, and no worker yet.
    pub(crate) fn start(frontends: usize) -> Self {
        let redis: Vec<_> = (0..frontends).map(|_| Redis::start()).collect();
        let store = Postgres::shared().database();
        Self::on(redis, store)
    }

    /// The same on this store.
    pub(crate) fn on(redis: Vec<Redis>, store: String) -> Self {
        let frontends = redis.iter().map(|redis| Process::frontend(&redis.socket_url())).collect();
        let queues = redis.iter().map(Redis::url).collect::<Vec<_>>().join(",");
        let results = Process::results(&store);
        Self { redis, frontends, results, store, queues }
    }

    /// A worker with this many lanes.
    pub(crate) fn worker(&self, lanes: &str) -> Process {
        Process::worker(&self.store, &self.queues, lanes)
    }

    /// A worker that reads also this queue.
    pub(crate) fn worker_reading(&self, queue: &str) -> Process {
        Process::worker(&self.store, &format!("{},{queue}", self.queues), "2")
    }

    /// A worker that reads this queue and no other.
    pub(crate) fn worker_reading_only(&self, queue: &str) -> Process {
        Process::worker(&self.store, queue, "1")
    }

    pub(crate) fn store_url(&self) -> String {
        self.store.clone()
    }

    pub(crate) fn wait_until_ready(&self) {
        self.frontends.iter().for_each(Process::wait_until_ready);
        self.results.wait_until_ready();
    }

    /// Starts the load generator.
    pub(crate) fn load(&self, more: &[&str]) -> std::process::Child {
        let mut command = Command::new(Service::example("load"));
        for frontend in &self.frontends {
            command.arg("--target").arg(format!("http://{}", frontend.public));
        }
        command
            .arg("--results")
            .arg(format!("http://{}", self.results.public))
            .args(["--poll", "pets"])
            .args(more);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap()
    }

    pub(crate) fn psql(&self, sql: &str) -> String {
        Postgres::shared().psql(&self.store, sql).trim().to_owned()
    }

    /// Votes counted.
    pub(crate) fn total(&self) -> u64 {
        let answer = self.results.get("/polls/pets/results.json");
        let json: Value = serde_json::from_str(&answer.text()).unwrap_or_default();
        json["total"].as_u64().unwrap_or_default()
    }

    /// The law: every accepted vote is accounted for, and rows, new voters and tally are the same number.
    #[track_caller]
    pub(crate) fn assert_conserved(&self) {
        let broken =
            self.psql("SELECT * FROM vote.ledger WHERE accepted <> new_voters + superseded + quarantined");
        assert_eq!(broken, "", "ledger rows that do not add up");
        let sums = self.psql(
            "SELECT (SELECT sum(new_voters) FROM vote.ledger) = (SELECT count(*) FROM vote.votes)
                AND (SELECT count(*) FROM vote.votes) = (SELECT sum(n) FROM vote.tally)",
        );
        assert_eq!(sums, "t", "new voters, rows and tally are the same number");
    }
}

/// What the load generator found: its last line.
#[track_caller]
pub(crate) fn report(output: &Output) -> Value {
    let stdout = String::from_utf8_lossy(&output.stdout);
    let last = stdout.lines().last().unwrap_or_default();
    serde_json::from_str(last)
        .unwrap_or_else(|e| panic!("{e}: {stdout}\n{}", String::from_utf8_lossy(&output.stderr)))
}

#[track_caller]
pub(crate) fn assert_exact(output: &Output) -> Value {
    let report = report(output);
    assert!(output.status.success() && report["exact"] == true, "{report}");
    report
}

/// Casts a vote as a browser does that was there before; the answer.
pub(crate) fn vote(frontend: SocketAddr, option: &str, cookie: &str) -> Response {
    let body = format!(r#"{{"option": "{option}"}}"#);
    let headers = [("content-type", "application/json"), ("cookie", cookie)];
    http(frontend, "POST", "/polls/pets/votes", &headers, body.as_bytes()).unwrap()
}

/// A new voter's cookie.
pub(crate) fn cookie(frontend: SocketAddr) -> String {
    let page = http_get(frontend, "/polls/pets");
    page.header("set-cookie").unwrap().split(';').next().unwrap().to_owned()
}
