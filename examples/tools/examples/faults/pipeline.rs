//! The whole pipeline as real processes, with a proxy on every connection between them.
//!
//! ```text
//! casters ─ frontend 0 ─ proxy ─ Redis 0 ─┬─ proxies ─ worker 0 ─ proxy ─┐
//!         └ frontend 1 ─ proxy ─ Redis 1 ─┴─ proxies ─ worker 1 ─ proxy ─┴─ Postgres ─ results, audit
//! ```

mod services;

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use tokio::runtime::Handle;
use vote_testkit::Service;

use self::services::Setup;
use crate::{
    args::Args,
    clocks::Clock,
    electorate::{File, Times},
    fsyncs,
    journal::now,
    postgres::Postgres,
    process::{Process, save},
    proxy::{Mode, Protocol, Proxy},
    redis::Redis,
    variant::Variant,
};

/// How long the services may take to become ready.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// The running pipeline.
#[derive(Debug)]
pub(crate) struct Pipeline {
    // The fields are dropped in this order, so that clients end before their servers.
    pub(crate) results: Process,
    pub(crate) frontends: Vec<Process>,
    pub(crate) workers: Vec<Process>,
    pub(crate) redis: Vec<Redis>,
    pub(crate) postgres: Postgres,
    /// Public addresses of the frontends.
    pub(crate) public: Vec<SocketAddr>,
    admin: Vec<SocketAddr>,
    /// Proxies from each frontend to its Redis.
    pub(crate) from_frontends: Vec<Proxy>,
    /// Proxies from each worker to each Redis.
    pub(crate) from_workers: Vec<Vec<Proxy>>,
    /// Proxies from each worker to Postgres.
    pub(crate) to_store: Vec<Proxy>,
    /// Program that runs the audit.
    pub(crate) results_program: PathBuf,
    /// Environment in which the audit runs.
    pub(crate) results_environment: Vec<(String, String)>,
    /// Periods in which a frontend had a file that defines a poll differently.
    pub(crate) differing: Vec<Differing>,
    pub(crate) clocks: Clocks,
    everysec: bool,
    folder: PathBuf,
    logs: PathBuf,
}

/// Clocks of the processes that have one of their own.
#[derive(Debug)]
pub(crate) struct Clocks {
    pub(crate) frontends: [Clock; 2],
    pub(crate) workers: [Clock; 2],
    pub(crate) results: Clock,
    pub(crate) postgres: Clock,
}

impl Clocks {
    fn new() -> Self {
        let two = || [Clock::new(), Clock::new()];
        Self { frontends: two(), workers: two(), results: Clock::new(), postgres: Clock::new() }
    }
}

/// Period in which a frontend had a file that defines a poll differently, in microseconds since 1970.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Differing {
    /// Index of the frontend.
    pub(crate) frontend: usize,
    /// Times between which the period starts.
    pub(crate) starts: (i64, i64),
    /// Times between which the period ends; `None` while it lasts.
    pub(crate) ends: Option<(i64, i64)>,
}

/// Variable that names the file of polls.
const POLLS: &str = "VOTE_POLLS";

fn file(folder: &Path, which: File) -> PathBuf {
    folder.join(match which {
        File::Right => "polls.toml",
        File::Yesterday => "polls-of-yesterday.toml",
        File::Otherwise => "other-polls.toml",
    })
}

/// Writes all files of polls. Returns the path of the right one.
fn write_polls(folder: &Path, times: Times) -> Result<String, String> {
    for which in [File::Right, File::Yesterday, File::Otherwise] {
        let path = file(folder, which);
        fs::write(&path, which.text(times)).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(file(folder, File::Right).display().to_string())
}

impl Pipeline {
    /// Starts all processes in `folder`, and waits until the services are ready.
    ///
    /// # Errors
    /// Fails if a process does not start, or if a service does not become ready.
    pub(crate) fn start(
        args: &Args,
        variant: Variant,
        times: Times,
        folder: &Path,
        runtime: &Handle,
    ) -> Result<Self, String> {
        let logs = folder.join("logs");
        fs::create_dir_all(&logs).map_err(|e| format!("{}: {e}", logs.display()))?;
        let polls = write_polls(folder, times)?;
        let library = fsyncs::compile(folder)?;
        let clocks = Clocks::new();
        let postgres = Postgres::start(clocks.postgres.skewed());
        let redis = (0..2)
            .map(|n| Redis::start(&folder.join(format!("redis-{n}")), &library, args.everysec))
            .collect::<Result<Vec<_>, _>>()?;
        let proxy = |upstream, protocol| {
            let started = runtime.block_on(Proxy::start(upstream, protocol));
            started.map_err(|e| format!("can't open a port for a proxy: {e}"))
        };
        let to_redis = || {
            redis.iter().map(|redis| proxy(redis.address(), Protocol::Redis)).collect::<Result<Vec<_>, _>>()
        };
        let (from_frontends, from_workers) = (to_redis()?, vec![to_redis()?, to_redis()?]);
        let to_store =
            (0..2).map(|_| proxy(postgres.address(), Protocol::Postgres)).collect::<Result<Vec<_>, _>>()?;
        let setup = Setup { args, variant, clocks: &clocks, polls, logs: &logs };
        let stores_and_queues = to_store.iter().zip(&from_workers).enumerate();
        let (workers, mut admin): (Vec<_>, Vec<_>) =
            stores_and_queues.map(|(n, (store, queues))| setup.worker(n, store, queues)).unzip();
        let (mut frontends, mut public) = (Vec::new(), Vec::new());
        for (n, queue) in from_frontends.iter().enumerate() {
            let (frontend, listen, own) = setup.frontend(n, queue);
            frontends.push(frontend);
            public.push(listen);
            admin.push(own);
        }
        let results_program = Service::binary("vote-results");
        let mut results_environment = setup.reading(postgres.address());
        let (results, own) = setup.results(&results_program, &results_environment);
        admin.push(own);
        results_environment.push(("VOTE_LOG".to_owned(), "warn".to_owned()));
        let mut pipeline = Self {
            results,
            frontends,
            workers,
            redis,
            postgres,
            public,
            admin,
            from_frontends,
            from_workers,
            to_store,
            results_program,
            results_environment,
            differing: Vec::new(),
            clocks,
            everysec: args.everysec,
            folder: folder.to_owned(),
            logs,
        };
        pipeline.wait_until_ready()?;
        Ok(pipeline)
    }

    fn wait_until_ready(&mut self) -> Result<(), String> {
        let start = Instant::now();
        for admin in self.admin.clone() {
            let ready = || {
                vote_testkit::http(admin, "GET", "/readyz", &[], b"").is_ok_and(|answer| answer.status == 200)
            };
            while !ready() {
                if let Some(exit) = self.supervise().first() {
                    return Err(exit.clone());
                }
                if start.elapsed() > READY_WITHIN {
                    self.save_logs();
                    return Err(format!("not ready within {READY_WITHIN:?}"));
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        Ok(())
    }

    /// Restarts services that ended by themselves, and returns a description of each.
    pub(crate) fn supervise(&mut self) -> Vec<String> {
        self.services_mut().filter_map(Process::supervise).collect()
    }

    /// Restarts a worker with a file of polls.
    pub(crate) fn restart_worker_with(&mut self, worker: usize, which: File) {
        let path = file(&self.folder, which).display().to_string();
        self.workers[worker].restart_with(POLLS, &path);
    }

    /// Restarts a frontend with a file of polls, and records if its definitions differ.
    pub(crate) fn restart_frontend_with(&mut self, frontend: usize, which: File) {
        let path = file(&self.folder, which).display().to_string();
        let before = now();
        self.frontends[frontend].restart_with(POLLS, &path);
        let between = (before, now());
        for open in self.differing.iter_mut().filter(|last| last.frontend == frontend) {
            open.ends.get_or_insert(between);
        }
        if which == File::Otherwise {
            self.differing.push(Differing { frontend, starts: between, ends: None });
        }
    }

    /// Starts a replica of a Redis.
    ///
    /// # Errors
    /// Fails if the replica does not start or does not follow its master.
    pub(crate) fn replica(&self, redis: usize) -> Result<Redis, String> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("replica-{}-of-redis-{redis}", COUNT.fetch_add(1, Ordering::Relaxed));
        self.redis[redis].replica(&self.folder.join(name), self.everysec)
    }

    /// Replaces a Redis by its replica, once the replica has everything.
    ///
    /// # Errors
    /// Fails if the replica does not catch up.
    pub(crate) fn promote(&mut self, redis: usize, replica: Redis) -> Result<(), String> {
        let proxies: Vec<&Proxy> = std::iter::once(&self.from_frontends[redis])
            .chain(self.from_workers.iter().map(|worker| &worker[redis]))
            .collect();
        // No client gets an answer of the master from here on, so that the replica has all that was acknowledged.
        let before: Vec<Mode> = proxies.iter().map(|proxy| proxy.mode()).collect();
        proxies.iter().for_each(|proxy| proxy.set(Mode::Part));
        let handed_over = self.redis[redis].hand_over_to(&replica);
        proxies.iter().for_each(|proxy| proxy.lead_to(replica.address()));
        proxies.iter().zip(before).for_each(|(proxy, mode)| proxy.set(mode));
        save(&self.logs, &format!("redis-{redis}"), &self.redis[redis].log());
        self.redis[redis] = replica;
        handed_over
    }

    fn services_mut(&mut self) -> impl Iterator<Item = &mut Process> {
        self.frontends.iter_mut().chain(&mut self.workers).chain([&mut self.results])
    }

    fn proxies(&self) -> impl Iterator<Item = &Proxy> {
        self.from_frontends.iter().chain(self.from_workers.iter().flatten()).chain(&self.to_store)
    }

    /// Sets all proxies to forward all replies.
    pub(crate) fn pass_all(&self) {
        self.proxies().for_each(|proxy| proxy.set(Mode::Pass));
    }

    /// Returns the number of connections that proxies cut instead of forwarding a reply, and of replies that they
    /// delayed: for Redis, and for Postgres.
    pub(crate) fn interfered(&self) -> [(u64, u64); 2] {
        let sum = |proxies: &mut dyn Iterator<Item = &Proxy>| {
            proxies.fold((0, 0), |(cut, stalled), proxy| (cut + proxy.cut(), stalled + proxy.stalled()))
        };
        let mut redis = self.from_frontends.iter().chain(self.from_workers.iter().flatten());
        [sum(&mut redis), sum(&mut self.to_store.iter())]
    }

    /// Returns the counters of the queues that the ledger has not reached yet. A queue is read before the ledger.
    ///
    /// # Errors
    /// Fails if a Redis does not answer.
    pub(crate) fn backlog(&self) -> Result<Vec<String>, String> {
        let mut backlog = Vec::new();
        for redis in &self.redis {
            let current = redis.cli(&["GET", "vote:id"])?;
            let (queue, number) = current.split_once(' ').ok_or("there is no queue")?;
            let accounted = self.postgres.accounted(queue);
            for key in redis.cli(&["KEYS", &format!("vote:{number}:a:*")])?.lines() {
                let partition = key.rsplit(':').next().unwrap_or_default();
                let accepted = redis.cli(&["HGETALL", key])?;
                let lines: Vec<&str> = accepted.lines().collect();
                for pair in lines.chunks_exact(2) {
                    let place = format!("{partition}:{}", pair[0]);
                    let known = accounted.get(&place).copied().unwrap_or_default();
                    if pair[1].parse() != Ok(known) {
                        backlog
                            .push(format!("queue {queue}, {place}: {} accepted, {known} counted", pair[1]));
                    }
                }
            }
        }
        Ok(backlog)
    }

    /// Deletes the newest entry of the first queue, and returns a description of it.
    ///
    /// # Errors
    /// Fails if the queue has no entries, or if Redis does not answer.
    pub(crate) fn delete_newest_entry(&self) -> Result<String, String> {
        let redis = &self.redis[0];
        let current = redis.cli(&["GET", "vote:id"])?;
        let (_, number) = current.split_once(' ').ok_or("there is no queue")?;
        let mut newest = None;
        for key in redis.cli(&["KEYS", &format!("vote:{number}:p:*")])?.lines() {
            let entry = redis.cli(&["XREVRANGE", key, "+", "-", "COUNT", "1"])?;
            let id = entry.lines().next().unwrap_or_default().to_owned();
            let time = id.split('-').next().and_then(|time| time.parse::<u64>().ok());
            newest = newest.max(Some((time, key.to_owned(), id)));
        }
        let (_, key, id) = newest.ok_or("the queue has no entries")?;
        match redis.cli(&["XDEL", &key, &id])?.as_str() {
            "1" => Ok(format!("{id} from {key}")),
            other => Err(format!("XDEL {key} {id}: {other}")),
        }
    }

    /// Saves the logs of all processes, which are lost when the processes are dropped.
    pub(crate) fn save_logs(&self) {
        for process in self.frontends.iter().chain(&self.workers).chain([&self.results]) {
            process.save_log();
        }
        for (n, redis) in self.redis.iter().enumerate() {
            save(&self.logs, &format!("redis-{n}"), &redis.log());
        }
        save(&self.logs, "postgres", &self.postgres.log());
    }
}
