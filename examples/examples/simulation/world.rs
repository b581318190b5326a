//! The pipeline of a history: servers, a database, workers and frontends, all of them simulated but for the code under
//! test, which is the code of the services.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{task::JoinHandle, time::Instant};
use vote_core::{
    Clock, Polls, Queue, Store,
    conformance::layout,
    intake::{Intake, IntakeOptions},
    writer::Writer,
};
use vote_service::Shutdown;
use vote_worker::{Health, Options, Parts, Source, Witness, WorkerError};

use crate::{
    database::{Client, Database},
    history::Kind,
    network::Link,
    process::{Process, State, true_time},
    random::Random,
    server::{Connection, Server},
};

/// Servers with a frontend each. The one after them starts empty and has none.
pub(crate) const FRONTENDS: usize = 2;
pub(crate) const SERVERS: usize = FRONTENDS + 1;
pub(crate) const WORKERS: usize = 2;
const LANES: usize = 2;
/// Votes that a frontend holds waiting.
const CAPACITY: usize = 10_000;

/// A worker process and its links.
pub(crate) struct Worker {
    pub(crate) process: Arc<Process>,
    pub(crate) store_link: Arc<Link>,
    pub(crate) queue_links: Vec<Arc<Link>>,
    pub(crate) started: Instant,
    shutdown: Shutdown,
    task: JoinHandle<Result<(), WorkerError>>,
}

/// A frontend process and its link.
pub(crate) struct Frontend {
    pub(crate) process: Arc<Process>,
    pub(crate) link: Arc<Link>,
    pub(crate) writer: Writer,
}

/// The pipeline.
pub(crate) struct World {
    pub(crate) start: Instant,
    pub(crate) kind: Kind,
    pub(crate) polls: Polls,
    pub(crate) servers: Vec<Arc<Server>>,
    pub(crate) database: Arc<Database>,
    /// A copy that lags at least as much as the one that takes the database's place.
    pub(crate) standby: Arc<Database>,
    pub(crate) results: Client,
    workers: Mutex<Vec<Worker>>,
    frontends: Mutex<Vec<Frontend>>,
    network: Random,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    /// The pipeline of the history with this seed.
    pub(crate) fn start(seed: u64, kind: Kind, polls: Polls) -> Self {
        let start = Instant::now();
        let (ids, network) = (Random::of(seed, "ids"), Random::of(seed, "network"));
        let process = |name: &str| Arc::new(Process::new(name.to_owned(), start));
        let database = Arc::new(Database::new(process("database")));
        let standby = Arc::new(Database::new(process("standby")));
        let results = Client {
            database: Arc::clone(&database),
            link: Arc::new(Link::new(network.clone())),
            process: process("results"),
            random: network.clone(),
        };
        let servers = (0..SERVERS).map(|n| Arc::new(Server::new(format!("server {n}"), &ids))).collect();
        let world = Self {
            start,
            kind,
            polls,
            servers,
            database,
            standby,
            results,
            workers: Mutex::default(),
            frontends: Mutex::default(),
            network,
        };
        for n in 0..WORKERS {
            let worker = world.worker(n, world.polls.clone());
            lock(&world.workers).push(worker);
        }
        for n in 0..FRONTENDS {
            let frontend = world.frontend(n);
            lock(&world.frontends).push(frontend);
        }
        world
    }

    fn process(&self, name: &str, n: usize) -> Arc<Process> {
        Arc::new(Process::new(format!("{name} {n}"), self.start))
    }

    fn connect(&self, server: usize, link: &Arc<Link>, process: &Arc<Process>) -> Arc<dyn Queue> {
        Arc::new(Connection {
            server: Arc::clone(&self.servers[server]),
            link: Arc::clone(link),
            process: Arc::clone(process),
        })
    }

    fn worker(&self, n: usize, polls: Polls) -> Worker {
        let process = self.process("worker", n);
        let store_link = Arc::new(Link::new(self.network.clone()));
        let queue_links: Vec<_> = (0..SERVERS).map(|_| Arc::new(Link::new(self.network.clone()))).collect();
        let client = |database: &Arc<Database>| Client {
            database: Arc::clone(database),
            link: Arc::clone(&store_link),
            process: Arc::clone(&process),
            random: self.network.clone(),
        };
        let store: Arc<dyn Store> = Arc::new(client(&self.database));
        let witness = || Witness { name: "standby".to_owned(), store: Arc::new(client(&self.standby)) };
        let source = |(n, link)| Source::Queue(self.connect(n, link, &process));
        let parts = Parts {
            store,
            witnesses: self.kind.witness.then(witness).into_iter().collect(),
            sources: queue_links.iter().enumerate().map(source).collect(),
            polls,
            clock: Arc::clone(&process) as Arc<dyn Clock>,
            health: Health::default(),
        };
        let options = Options {
            lanes: LANES,
            partitions: None,
            fingerprint: layout().fingerprint,
            trim_delay: self.kind.trim_delay(),
            close_grace: Duration::from_secs(1),
            allow_volatile: false,
        };
        let shutdown = Shutdown::new();
        let task = tokio::spawn(vote_worker::run(parts, options, shutdown.clone()));
        let started = Instant::now();
        Worker { process, store_link, queue_links, started, shutdown, task }
    }

    fn frontend(&self, n: usize) -> Frontend {
        let process = self.process("frontend", n);
        let link = Arc::new(Link::new(self.network.clone()));
        let queue = self.connect(n, &link, &process);
        let options = IntakeOptions {
            layout: layout(),
            polls: Arc::new(self.polls.clone()),
            allow_volatile: false,
            interval: Duration::from_secs(2),
        };
        let intake = Intake::start(Arc::clone(&queue), options);
        let (writer, _) = Writer::start(queue, intake, CAPACITY, Arc::new(|_| ()));
        Frontend { process, link, writer }
    }

    pub(crate) fn now(&self) -> vote_core::Timestamp {
        true_time(self.start)
    }

    pub(crate) fn workers(&self) -> MutexGuard<'_, Vec<Worker>> {
        lock(&self.workers)
    }

    pub(crate) fn frontends(&self) -> MutexGuard<'_, Vec<Frontend>> {
        lock(&self.frontends)
    }

    /// Ends a worker as SIGTERM does.
    pub(crate) fn stop_worker(&self, n: usize) {
        self.workers()[n].shutdown.trigger();
    }

    /// Starts a worker in the place of one that ended.
    pub(crate) fn restart_worker(&self, n: usize, polls: Polls) {
        self.workers()[n].process.set(State::Dead);
        let worker = self.worker(n, polls);
        self.workers()[n] = worker;
    }

    /// Starts a frontend in the place of one that ended.
    pub(crate) fn restart_frontend(&self, n: usize) {
        self.frontends()[n].process.set(State::Dead);
        let frontend = self.frontend(n);
        self.frontends()[n] = frontend;
    }

    /// A worker whose tasks ended though nobody asked for it.
    pub(crate) fn ended_by_itself(&self) -> Option<String> {
        let workers = self.workers();
        let ended = workers.iter().find(|worker| {
            worker.task.is_finished() && !worker.shutdown.is_requested() && worker.process.is_running()
        });
        ended.map(|worker| format!("{} ended by itself", worker.process.name))
    }

    /// Whether a worker does its work undisturbed.
    pub(crate) fn is_undisturbed(&self, worker: &Worker) -> bool {
        worker.process.is_running()
            && !worker.shutdown.is_requested()
            && worker.store_link.is_clear()
            && self.database.is_up()
    }
}
