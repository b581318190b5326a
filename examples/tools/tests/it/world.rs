//! The pipeline that the tests use: frontends with a Redis each, workers, a Postgres and the results service, all of
//! them real processes.

use std::{
    net::SocketAddr,
    process::{Command, Output},
    time::{Duration, Instant},
};

use serde_json::Value;
use vote_testkit::{Postgres, Redis, Response, Service, free_port, http, http_get};

/// Secret for the pepper, the cookies and the receipts.
pub(crate) const SECRET: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// A running pipeline.
pub(crate) struct World {
    pub(crate) redis: Vec<Redis>,
    pub(crate) frontends: Vec<Process>,
    pub(crate) results: Process,
    store: String,
    queues: String,
    /// The file of polls; `None` for the example poll.
    polls: Option<Polls>,
    partitions: &'static str,
}

/// Parts of a pipeline. The default is one frontend, a database on the shared Postgres, the example poll and 16
/// partitions.
#[derive(Default)]
pub(crate) struct Setup<'a> {
    pub(crate) redis: Vec<Redis>,
    pub(crate) store: Option<String>,
    pub(crate) polls: Option<&'a str>,
    pub(crate) partitions: Option<&'static str>,
}

/// A file of polls in a temporary folder, which is removed when this is dropped.
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

/// A running frontend, worker or results service.
pub(crate) struct Process {
    pub(crate) service: Service,
    /// Public address; unused for a worker.
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
    // Later values override earlier ones.
    all.extend(environment);
    let service = Service::start(&Service::binary(name), &[], &all);
    Process { service, public, admin }
}

impl Process {
    /// Waits until `/readyz` answers 200.
    #[track_caller]
    pub(crate) fn wait_until_ready(&self) {
        eventually("the service is ready", Duration::from_secs(30), || {
            http(self.admin, "GET", "/readyz", &[], b"").is_ok_and(|answer| answer.status == 200)
        });
    }

    /// Returns the status and the text of `/readyz`; status 0 without an answer.
    pub(crate) fn readiness(&self) -> (u16, String) {
        http(self.admin, "GET", "/readyz", &[], b"").map_or((0, String::new()), |r| (r.status, r.text()))
    }

    pub(crate) fn get(&self, path: &str) -> Response {
        http_get(self.public, path)
    }

    /// Returns the sum of a metric over its labels.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let Ok(answer) = http(self.admin, "GET", "/metrics", &[], b"") else { return 0.0 };
        let text = answer.text();
        let lines = text.lines().filter(|line| line.starts_with(name) && !line.starts_with('#'));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    }
}

/// Waits until a condition holds, and returns how long that took. Panics if it does not hold in time.
#[track_caller]
pub(crate) fn eventually(what: &str, within: Duration, mut is_so: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < within, "timed out after {within:?} waiting until: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
    start.elapsed()
}

impl World {
    /// Starts a pipeline with this number of frontends and without workers.
    pub(crate) fn start(frontends: usize) -> Self {
        let redis: Vec<_> = (0..frontends).map(|_| Redis::start()).collect();
        let store = Postgres::shared().database();
        Self::on(redis, store)
    }

    /// Starts a pipeline on these queues and this store, without workers.
    pub(crate) fn on(redis: Vec<Redis>, store: String) -> Self {
        Self::of(Setup { redis, store: Some(store), ..Setup::default() })
    }

    /// Starts a pipeline with this number of frontends and these polls, without workers.
    pub(crate) fn with_polls(frontends: usize, polls: &str) -> Self {
        let redis = (0..frontends).map(|_| Redis::start()).collect();
        Self::of(Setup { redis, polls: Some(polls), ..Setup::default() })
    }

    /// Starts a pipeline of these parts, without workers.
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

    /// Starts a frontend with this queue.
    pub(crate) fn frontend(&self, queue: &str) -> Process {
        self.frontend_of(queue, &[])
    }

    /// Starts a frontend with this queue and more environment variables.
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

    /// Starts a results service with more environment variables.
    pub(crate) fn results_of(&self, more: &[(&str, &str)]) -> Process {
        let mut environment = results_environment(&self.store).to_vec();
        environment.extend(more);
        start_with("vote-results", &environment, self.polls.as_ref())
    }

    /// Starts a worker with this number of lanes.
    pub(crate) fn worker(&self, lanes: &str) -> Process {
        self.worker_of(&self.queues, lanes, &[])
    }

    /// Starts a worker that reads this queue in addition to those of the pipeline.
    pub(crate) fn worker_reading(&self, queue: &str) -> Process {
        self.worker_of(&format!("{},{queue}", self.queues), "2", &[])
    }

    /// Starts a worker that reads only this queue.
    pub(crate) fn worker_reading_only(&self, queue: &str) -> Process {
        self.worker_of(queue, "1", &[])
    }

    /// Starts a worker with these queues, this number of lanes, and more environment variables.
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

    /// Replaces the file of polls, which services read when they start.
    pub(crate) fn set_polls(&self, polls: &str) {
        std::fs::write(self.polls.as_ref().expect("the pipeline has a file of polls").path(), polls).unwrap();
    }

    /// Restarts the frontends, each with its own queue.
    pub(crate) fn restart_frontends(&mut self) {
        self.frontends.clear();
        self.frontends = self.redis.iter().map(|redis| self.frontend(&redis.socket_url())).collect();
    }

    /// Runs a command of a service on the store.
    pub(crate) fn command(&self, name: &str, arguments: &[&str]) -> Output {
        self.command_with(name, arguments, &[])
    }

    /// Runs a command of a service on the store, with more environment variables.
    pub(crate) fn command_with(&self, name: &str, arguments: &[&str], more: &[(&str, &str)]) -> Output {
        let mut command = Command::new(Service::binary(name));
        command.args(arguments).env_clear().env("VOTE_STORE", &self.store);
        command.envs(more.iter().copied()).output().unwrap()
    }

    /// Runs a command of a service, which must succeed, and returns what it printed.
    #[track_caller]
    pub(crate) fn must(&self, name: &str, arguments: &[&str]) -> String {
        let output = self.command(name, arguments);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{name} {arguments:?}: {out}{err}");
        out.into_owned()
    }

    /// Runs the audit, and returns its exit code and its JSON output.
    #[track_caller]
    pub(crate) fn audit(&self) -> (i32, Value) {
        self.audit_with(&[])
    }

    /// Runs the audit with more environment variables, such as those of another clock.
    #[track_caller]
    pub(crate) fn audit_with(&self, more: &[(&str, &str)]) -> (i32, Value) {
        let output = self.command_with("vote-results", &["audit", "--json"], more);
        let json = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| {
            panic!("{e}: {}", String::from_utf8_lossy(&output.stderr));
        });
        (output.status.code().unwrap_or(-1), json)
    }

    /// Waits until everything is drained, and returns the audit, which must hold.
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

    /// Waits until the frontends and the results service are ready.
    pub(crate) fn wait_until_ready(&self) {
        self.frontends.iter().for_each(Process::wait_until_ready);
        self.results.wait_until_ready();
    }

    /// Starts the load generator with all frontends and the poll "pets".
    pub(crate) fn load(&self, more: &[&str]) -> Load {
        self.load_at(&self.frontends.iter().collect::<Vec<_>>(), "pets", more)
    }

    /// Starts the load generator with these frontends and this poll.
    pub(crate) fn load_at(&self, frontends: &[&Process], poll: &str, more: &[&str]) -> Load {
        let targets: Vec<SocketAddr> = frontends.iter().map(|frontend| frontend.public).collect();
        load(&targets, self.results.public, poll, more)
    }

    /// Runs SQL on the store, and returns its output.
    pub(crate) fn psql(&self, sql: &str) -> String {
        Postgres::shared().psql(&self.store, sql).trim().to_owned()
    }

    /// Returns the number of votes counted for the poll "pets".
    pub(crate) fn total(&self) -> u64 {
        self.results_json("pets")["total"].as_u64().unwrap_or_default()
    }

    /// Returns the results of a poll from the results service; null if it does not answer.
    pub(crate) fn results_json(&self, poll: &str) -> Value {
        let path = format!("/polls/{poll}/results.json");
        let answer = http(self.results.public, "GET", &path, &[], b"");
        answer.ok().and_then(|answer| serde_json::from_slice(&answer.body).ok()).unwrap_or_default()
    }

    /// Asserts the conservation invariant, and that the rows, the new voters and the tally are the same number.
    #[track_caller]
    pub(crate) fn assert_conserved(&self) {
        let broken =
            self.psql("SELECT * FROM vote.ledger WHERE accepted <> new_voters + superseded + quarantined");
        assert_eq!(broken, "", "ledger rows that violate the conservation invariant");
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

/// A running load generator, which is killed when dropped, so that a test that fails early does not leave it running.
pub(crate) struct Load(Option<std::process::Child>);

impl Load {
    pub(crate) fn wait_with_output(mut self) -> std::io::Result<Output> {
        self.0.take().expect("only this method takes it").wait_with_output()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            // An error only means that it has ended by itself.
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

/// Returns the report of the load generator or of the fault injection, which is the last line of its output.
#[track_caller]
pub(crate) fn report(output: &Output) -> Value {
    let stdout = String::from_utf8_lossy(&output.stdout);
    let last = stdout.lines().last().unwrap_or_default();
    serde_json::from_str(last)
        .unwrap_or_else(|e| panic!("{e}: {stdout}\n{}", String::from_utf8_lossy(&output.stderr)))
}

/// Asserts that a report is exact, and returns it.
#[track_caller]
pub(crate) fn assert_exact(output: &Output) -> Value {
    let report = report(output);
    assert!(output.status.success() && report["exact"] == true, "{report}");
    report
}

/// Casts a vote in the poll "pets" with a voter's cookie, and returns the answer.
pub(crate) fn vote(frontend: SocketAddr, option: &str, cookie: &str) -> Response {
    vote_in(frontend, "pets", option, cookie).unwrap()
}

/// Casts a vote in another poll, and returns the answer or why there is none.
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

/// Returns the cookie of a new voter.
pub(crate) fn cookie(frontend: SocketAddr) -> String {
    let page = http_get(frontend, "/polls/pets");
    page.header("set-cookie").unwrap().split(';').next().unwrap().to_owned()
}
