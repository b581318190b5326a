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
    partitions: &'static str,
}

/// What a pipeline is made of; by default one frontend, a database of the shared Postgres, the example poll and the
/// usual number of partitions.
#[derive(Default)]
pub(crate) struct Setup<'a> {
    pub(crate) redis: Vec<Redis>,
    pub(crate) store: Option<String>,
    pub(crate) polls: Option<&'a str>,
    pub(crate) partitions: Option<&'static str>,
}

/// A file of polls, and the folder that it is in.
pub(crate) struct Polls {
    folder: tempfile::TempDir,
}

impl Polls {
    pub(crate) fn new(polls: &str) -> Self {
        let file = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::write(file.path(), polls).unwrap();
        file
    }

    pub(crate) fn path(&self) -> String {
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
    all.extend(polls);
    // Later ones win.
    all.extend(environment);
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

    /// What `/readyz` says; status 0 where it does not answer.
    pub(crate) fn readiness(&self) -> (u16, String) {
        http(self.admin, "GET", "/readyz", &[], b"").map_or((0, String::new()), |r| (r.status, r.text()))
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
        Self::of(Setup { redis, store: Some(store), ..Setup::default() })
    }

    /// A pipeline with so many frontends and these polls, and no worker yet.
    pub(crate) fn with_polls(frontends: usize, polls: &str) -> Self {
        let redis = (0..frontends).map(|_| Redis::start()).collect();
        Self::of(Setup { redis, polls: Some(polls), ..Setup::default() })
    }

    /// A pipeline of these parts, and no worker yet.
    pub(crate) fn of(setup: Setup<'_>) -> Self {
        let redis = if setup.redis.is_empty() { vec![Redis::start()] } else { setup.redis };
        let store = setup.store.unwrap_or_else(|| Postgres::shared().database());
        let polls = setup.polls.map(Polls::new);
        let queues = redis.iter().map(Redis::url).collect::<Vec<_>>().join(",");
        let results = start_with("vote-results", &results_environment(&store), polls.as_ref());
        let partitions = setup.partitions.unwrap_or("16");
        let mut world = Self { redis, frontends: Vec::new(), results, store, queues, polls, partitions };
        world.frontends = world.redis.iter().map(|redis| world.frontend(&redis.socket_url())).collect();
        world
    }

    /// Another frontend, with this queue.
    pub(crate) fn frontend(&self, queue: &str) -> Process {
        self.frontend_of(queue, &[])
    }

    pub(crate) fn frontend_of(&self, queue: &str, more: &[(&str, &str)]) -> Process {
        let mut environment = vec![
            ("VOTE_QUEUE", queue),
            ("VOTE_PEPPER", SECRET),
            ("VOTE_COOKIE_KEYS", SECRET),
            ("VOTE_RECEIPT_KEY", SECRET),
            ("VOTE_THREADS", "1"),
            ("VOTE_PARTITIONS", self.partitions),
        ];
        environment.extend(more);
        start_with("vote-frontend", &environment, self.polls.as_ref())
    }

    /// Another results service.
    pub(crate) fn results_of(&self, more: &[(&str, &str)]) -> Process {
        let mut environment = results_environment(&self.store).to_vec();
        environment.extend(more);
        start_with("vote-results", &environment, self.polls.as_ref())
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
            ("VOTE_PARTITIONS", self.partitions),
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
        self.command_with(name, arguments, &[])
    }

    pub(crate) fn command_with(&self, name: &str, arguments: &[&str], more: &[(&str, &str)]) -> Output {
        let mut command = Command::new(Service::binary(name));
        command.args(arguments).env_clear().env("VOTE_STORE", &self.store);
        command.envs(more.iter().copied()).output().unwrap()
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
        self.audit_with(&[])
    }

    /// The same with more in the environment, such as another clock.
    #[track_caller]
    pub(crate) fn audit_with(&self, more: &[(&str, &str)]) -> (i32, Value) {
        let output = self.command_with("vote-results", &["audit", "--json"], more);
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
    pub(crate) fn load(&self, more: &[&str]) -> Load {
        self.load_at(&self.frontends.iter().collect::<Vec<_>>(), "pets", more)
    }

    /// Starts it with these frontends and this poll.
    pub(crate) fn load_at(&self, frontends: &[&Process], poll: &str, more: &[&str]) -> Load {
        let targets: Vec<SocketAddr> = frontends.iter().map(|frontend| frontend.public).collect();
        load(&targets, self.results.public, poll, more)
    }

    pub(crate) fn psql(&self, sql: &str) -> String {
        Postgres::shared().psql(&self.store, sql).trim().to_owned()
    }

    /// Votes counted.
    pub(crate) fn total(&self) -> u64 {
        self.results_json("pets")["total"].as_u64().unwrap_or_default()
    }

    /// What the results service says of a poll; nothing if it does not answer.
    pub(crate) fn results_json(&self, poll: &str) -> Value {
        let path = format!("/polls/{poll}/results.json");
        let answer = http(self.results.public, "GET", &path, &[], b"");
        answer.ok().and_then(|answer| serde_json::from_slice(&answer.body).ok()).unwrap_or_default()
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

fn results_environment(store: &str) -> [(&str, &str); 2] {
    [("VOTE_STORE", store), ("VOTE_RECEIPT_KEY", SECRET)]
}

/// A running load generator, killed when dropped: a test that fails early must not leave it behind.
pub(crate) struct Load(Option<std::process::Child>);

impl Load {
    pub(crate) fn wait_with_output(mut self) -> std::io::Result<Output> {
        self.0.take().expect("it is taken here only").wait_with_output()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub(crate) fn load(targets: &[SocketAddr], results: SocketAddr, poll: &str, more: &[&str]) -> Load {
    let mut command = Command::new(Service::example("load"));
    for target in targets {
        command.arg("--target").arg(format!("http://{target}"));
    }
    command.arg("--results").arg(format!("http://{results}")).args(["--poll", poll]).args(more);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    Load(Some(command.spawn().unwrap()))
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
    vote_in(frontend, "pets", option, cookie).unwrap()
}

/// The same in another poll, where an answer may fail to come.
pub(crate) fn vote_in(
    frontend: SocketAddr,
    poll: &str,
    option: &str,
    cookie: &str,
) -> std::io::Result<Response> {
    let body = format!(r#"{{"option": "{option}"}}"#);
    let headers = [("content-type", "application/json"), ("cookie", cookie)];
    http(frontend, "POST", &format!("/polls/{poll}/votes"), &headers, body.as_bytes())
}

/// A new voter's cookie.
pub(crate) fn cookie(frontend: SocketAddr) -> String {
    let page = http_get(frontend, "/polls/pets");
    page.header("set-cookie").unwrap().split(';').next().unwrap().to_owned()
}
