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
    /// The file of polls, if not the example.
    polls: Option<Polls>,
}

/// A file of polls, and the folder that it is in.
struct Polls {
    folder: tempfile::TempDir,
}

impl Polls {
    fn path(&self) -> String {
        self.folder.path().join("polls.toml").display().to_string()
    }
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

fn start_with(name: &str, environment: &[(&str, &str)], polls: Option<&Polls>) -> Process {
    let polls = polls.map(Polls::path);
    let polls = polls.as_ref().map(|path| ("VOTE_POLLS", path.as_str()));
    let (public, admin) = (address(), address());
    let (listen, admin_listen) = (public.to_string(), admin.to_string());
    let mut all = vec![("VOTE_ADMIN_LISTEN", admin_listen.as_str())];
    if name != "vote-worker" {
        all.push(("VOTE_LISTEN", &listen));
    }
    all.extend(environment);
    all.extend(polls);
    let service = Service::start(&Service::binary(name), &[], &all);
    Process { service, public, admin }
}

impl Process {
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
        Self::build(redis, store, None)
    }

    /// A pipeline with so many frontends and these polls, and no worker yet.
    pub(crate) fn with_polls(frontends: usize, polls: &str) -> Self {
        let file = Polls { folder: tempfile::tempdir().unwrap() };
        std::fs::write(file.path(), polls).unwrap();
        let redis: Vec<_> = (0..frontends).map(|_| Redis::start()).collect();
        Self::build(redis, Postgres::shared().database(), Some(file))
    }

    fn build(redis: Vec<Redis>, store: String, polls: Option<Polls>) -> Self {
        let queues = redis.iter().map(Redis::url).collect::<Vec<_>>().join(",");
        let results = start_with(
            "vote-results",
            &[("VOTE_STORE", store.as_str()), ("VOTE_RECEIPT_KEY", SECRET)],
            polls.as_ref(),
        );
        let mut world = Self { redis, frontends: Vec::new(), results, store, queues, polls };
        world.frontends = world.redis.iter().map(|redis| world.frontend(&redis.socket_url())).collect();
        world
    }

    /// Another frontend, with this queue.
    pub(crate) fn frontend(&self, queue: &str) -> Process {
        let environment = [
            ("VOTE_QUEUE", queue),
            ("VOTE_PEPPER", SECRET),
            ("VOTE_COOKIE_KEYS", SECRET),
            ("VOTE_RECEIPT_KEY", SECRET),
            ("VOTE_THREADS", "1"),
        ];
        start_with("vote-frontend", &environment, self.polls.as_ref())
    }

    /// A worker with this many lanes.
    pub(crate) fn worker(&self, lanes: &str) -> Process {
        self.worker_of(&self.queues, lanes, &[])
    }

    /// A worker that reads also this queue.
    pub(crate) fn worker_reading(&self, queue: &str) -> Process {
        self.worker_of(&format!("{},{queue}", self.queues), "2", &[])
    }

    /// A worker that reads this queue and no other.
    pub(crate) fn worker_reading_only(&self, queue: &str) -> Process {
        self.worker_of(queue, "1", &[])
    }

    pub(crate) fn worker_of(&self, queues: &str, lanes: &str, more: &[(&str, &str)]) -> Process {
        let mut environment = vec![
            ("VOTE_STORE", self.store.as_str()),
            ("VOTE_QUEUES", queues),
            ("VOTE_PEPPER", SECRET),
            ("VOTE_LANES", lanes),
            ("VOTE_MIGRATE", "true"),
        ];
        environment.extend(more);
        start_with("vote-worker", &environment, self.polls.as_ref())
    }

    /// Replaces the file of polls; services read it when they start.
    pub(crate) fn set_polls(&self, polls: &str) {
        std::fs::write(self.polls.as_ref().expect("it has a file of polls").path(), polls).unwrap();
    }

    /// Starts the frontends anew, each on its own queue.
    pub(crate) fn restart_frontends(&mut self) {
        self.frontends.clear();
        self.frontends = self.redis.iter().map(|redis| self.frontend(&redis.socket_url())).collect();
    }

    /// Runs a command of a service on the store.
    pub(crate) fn command(&self, name: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new(Service::binary(name));
        command.args(arguments).env_clear().env("VOTE_STORE", &self.store).output().unwrap()
    }

    /// The same, where it must succeed; what it printed.
    #[track_caller]
    pub(crate) fn must(&self, name: &str, arguments: &[&str]) -> String {
        let output = self.command(name, arguments);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{name} {arguments:?}: {out}{err}");
        out.into_owned()
    }

    /// The exit code of an audit, and what it found.
    #[track_caller]
    pub(crate) fn audit(&self) -> (i32, Value) {
        let output = self.command("vote-results", &["audit", "--json"]);
        let json = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| {
            panic!("{e}: {}", String::from_utf8_lossy(&output.stderr));
        });
        (output.status.code().unwrap_or(-1), json)
    }

    /// Waits until the audit holds, with everything drained.
    #[track_caller]
    pub(crate) fn assert_audit_holds(&self) -> Value {
        let mut found = (0, Value::Null);
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            found = self.audit();
            if found.0 != 2 {
                break;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        assert_eq!(found.0, 0, "{:#}", found.1);
        found.1
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
