//! The whole pipeline, of real processes, with a proxy on every way between them.
//!
//! ```text
//! casters ─ frontend 0 ─ proxy ─ Redis 0 ─┬─ proxies ─ worker 0 ─ proxy ─┐
//!         └ frontend 1 ─ proxy ─ Redis 1 ─┴─ proxies ─ worker 1 ─ proxy ─┴─ Postgres ─ results, audit
//! ```

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tokio::runtime::Handle;
use vote_testkit::{Service, free_port};

use crate::{
    args::Args,
    electorate::{POLLS, SECRET},
    fsyncs,
    postgres::Postgres,
    process::{Process, save},
    proxy::{Mode, Protocol, Proxy},
    redis::Redis,
};

/// How long it may take until votes are taken and counted.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// All that runs.
#[derive(Debug)]
pub(crate) struct Pipeline {
    // In this order they are ended: who asks before who answers.
    pub(crate) results: Process,
    pub(crate) frontends: Vec<Process>,
    pub(crate) workers: Vec<Process>,
    pub(crate) redis: Vec<Redis>,
    pub(crate) postgres: Postgres,
    /// Where voters find the frontends.
    pub(crate) public: Vec<SocketAddr>,
    admin: Vec<SocketAddr>,
    /// From each frontend to its Redis.
    pub(crate) from_frontends: Vec<Proxy>,
    /// From each worker to each Redis.
    pub(crate) from_workers: Vec<Vec<Proxy>>,
    /// From each worker to Postgres.
    pub(crate) to_store: Vec<Proxy>,
    /// What the audit is asked with.
    pub(crate) results_program: PathBuf,
    pub(crate) results_environment: Vec<(String, String)>,
    logs: PathBuf,
}

fn address() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, free_port()).into()
}

fn environment(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

impl Pipeline {
    /// Starts everything in `folder`, and waits until votes are taken.
    ///
    /// # Errors
    /// When something does not start.
    pub(crate) fn start(args: &Args, folder: &Path, runtime: &Handle) -> Result<Self, String> {
        let logs = folder.join("logs");
        let file = |name: &str| folder.join(name);
        fs::create_dir_all(&logs).map_err(|e| format!("{}: {e}", logs.display()))?;
        let polls_file = file("polls.toml");
        fs::write(&polls_file, POLLS).map_err(|e| format!("{}: {e}", polls_file.display()))?;
        let polls = polls_file.display().to_string();
        let library = fsyncs::compile(folder)?;
        let postgres = Postgres::start();
        let redis = (0..2)
            .map(|n| Redis::start(&file(&format!("redis-{n}")), &library, args.everysec))
            .collect::<Result<Vec<_>, _>>()?;
        let proxy = |upstream, protocol| {
            runtime
                .block_on(Proxy::start(upstream, protocol))
                .map_err(|e| format!("no port for a proxy: {e}"))
        };
        let to_redis = || {
            redis.iter().map(|redis| proxy(redis.address(), Protocol::Redis)).collect::<Result<Vec<_>, _>>()
        };
        let (from_frontends, from_workers) = (to_redis()?, vec![to_redis()?, to_redis()?]);
        let to_store =
            (0..2).map(|_| proxy(postgres.address(), Protocol::Postgres)).collect::<Result<Vec<_>, _>>()?;
        let volatile = args.everysec.to_string();
        let (mut admin, mut public, mut workers, mut frontends) = (Vec::new(), Vec::new(), vec![], vec![]);
        let faulty = args.sabotage.and_then(|sabotage| sabotage.of_workers());
        for (n, (store, queues)) in to_store.iter().zip(&from_workers).enumerate() {
            let own = address();
            let queues: Vec<_> = queues.iter().map(|queue| format!("redis://{}", queue.address)).collect();
            let mut environment = environment(&[
                ("VOTE_STORE", &Postgres::url(store.address)),
                ("VOTE_QUEUES", &queues.join(",")),
                ("VOTE_POLLS", &polls),
                ("VOTE_PEPPER", SECRET),
                ("VOTE_LANES", "2"),
                ("VOTE_MIGRATE", "true"),
                ("VOTE_ADMIN_LISTEN", &own.to_string()),
            ]);
            environment.extend(faulty.map(|mode| ("FAULTY_WORKER".to_owned(), mode.to_owned())));
            let program = match faulty {
                Some(_) => Service::example("faulty-worker"),
                None => Service::binary("vote-worker"),
            };
            workers.push(Process::start(&format!("worker-{n}"), program, environment, &logs));
            admin.push(own);
        }
        for (n, queue) in from_frontends.iter().enumerate() {
            let (listen, own) = (address(), address());
            let environment = environment(&[
                ("VOTE_QUEUE", &format!("redis://{}", queue.address)),
                ("VOTE_POLLS", &polls),
                ("VOTE_PEPPER", SECRET),
                ("VOTE_COOKIE_KEYS", SECRET),
                ("VOTE_RECEIPT_KEY", SECRET),
                ("VOTE_THREADS", "1"),
                ("VOTE_ALLOW_VOLATILE_QUEUE", &volatile),
                ("VOTE_LISTEN", &listen.to_string()),
                ("VOTE_ADMIN_LISTEN", &own.to_string()),
            ]);
            let program = Service::binary("vote-frontend");
            frontends.push(Process::start(&format!("frontend-{n}"), program, environment, &logs));
            public.push(listen);
            admin.push(own);
        }
        let own = address();
        let mut results_environment = environment(&[
            ("VOTE_STORE", &Postgres::url(postgres.address())),
            ("VOTE_POLLS", &polls),
            ("VOTE_RECEIPT_KEY", SECRET),
        ]);
        let results_program = Service::binary("vote-results");
        let serving =
            environment(&[("VOTE_LISTEN", &address().to_string()), ("VOTE_ADMIN_LISTEN", &own.to_string())]);
        let all = results_environment.iter().cloned().chain(serving).collect();
        let results = Process::start("results", results_program.clone(), all, &logs);
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

    /// Starts again what ended by itself; says what that was.
    pub(crate) fn supervise(&mut self) -> Vec<String> {
        self.services_mut().filter_map(Process::supervise).collect()
    }

    fn services_mut(&mut self) -> impl Iterator<Item = &mut Process> {
        self.frontends.iter_mut().chain(&mut self.workers).chain([&mut self.results])
    }

    fn proxies(&self) -> impl Iterator<Item = &Proxy> {
        self.from_frontends.iter().chain(self.from_workers.iter().flatten()).chain(&self.to_store)
    }

    /// Lets all replies pass.
    pub(crate) fn pass_all(&self) {
        self.proxies().for_each(|proxy| proxy.set(Mode::Pass));
    }

    /// Connections that proxies ended instead of a reply, and replies that they held up: of Redis, and of Postgres.
    pub(crate) fn interfered(&self) -> [(u64, u64); 2] {
        let sum = |proxies: &mut dyn Iterator<Item = &Proxy>| {
            proxies.fold((0, 0), |(cut, stalled), proxy| (cut + proxy.cut(), stalled + proxy.stalled()))
        };
        let mut redis = self.from_frontends.iter().chain(self.from_workers.iter().flatten());
        [sum(&mut redis), sum(&mut self.to_store.iter())]
    }

    /// What Redis have accepted and the ledger does not know of yet, asked for in this order.
    ///
    /// # Errors
    /// When a Redis does not answer.
    pub(crate) fn unread(&self) -> Result<Vec<String>, String> {
        let mut unread = Vec::new();
        for redis in &self.redis {
            let queue = redis.cli(&["GET", "vote:id"])?;
            let accepted = redis.cli(&["HGETALL", &format!("vote:{queue}:accepted")])?;
            let accounted = self.postgres.accounted(&queue);
            let lines: Vec<&str> = accepted.lines().collect();
            for pair in lines.chunks_exact(2) {
                let known = accounted.get(pair[0]).copied().unwrap_or_default();
                if pair[1].parse() != Ok(known) {
                    unread.push(format!("queue {queue}, {}: {} accepted, {known} read", pair[0], pair[1]));
                }
            }
        }
        Ok(unread)
    }

    /// Deletes the newest entry of a queue; says which.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn delete_newest_entry(&self) -> Result<String, String> {
        let redis = &self.redis[0];
        let queue = redis.cli(&["GET", "vote:id"])?;
        let mut newest = None;
        for key in redis.cli(&["KEYS", &format!("vote:{queue}:p:*")])?.lines() {
            let entry = redis.cli(&["XREVRANGE", key, "+", "-", "COUNT", "1"])?;
            let id = entry.lines().next().unwrap_or_default().to_owned();
            let time = id.split('-').next().and_then(|time| time.parse::<u64>().ok());
            newest = newest.max(Some((time, key.to_owned(), id)));
        }
        let (_, key, id) = newest.ok_or("no queue holds an entry")?;
        match redis.cli(&["XDEL", &key, &id])?.as_str() {
            "1" => Ok(format!("{id} from {key}")),
            other => Err(format!("XDEL {key} {id}: {other}")),
        }
    }

    /// Keeps all logs, which go with their processes.
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
