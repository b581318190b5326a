//! The pipeline of a history: servers, a database, workers and frontends.
//!
//! Servers, database, links and clocks are simulated; workers and frontends run the code of the services.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{task::JoinHandle, time::Instant};
use vote_core::{
    Clock, Polls, Queue, Store, WorkerId,
    admission::{Admission, AdmissionOptions},
    conformance::layout,
    writer::Writer,
};
use vote_service::Shutdown;
use vote_worker::{Health, Options, Parts, Source, Witness, WorkerError};

use crate::{
    database::{Client, Database},
    history::{Files, Kind},
    network::Link,
    process::{Process, State, true_time},
    random::Random,
    server::{Connection, Server},
};

/// Number of frontends. Each has a server of its own.
pub(crate) const FRONTENDS: usize = 2;
/// Number of servers. The last one has no frontend and starts empty.
pub(crate) const SERVERS: usize = FRONTENDS + 1;
/// Number of workers.
pub(crate) const WORKERS: usize = 2;
/// Number of lanes of a worker.
const LANES: usize = 2;
/// Maximum number of votes that wait in a frontend's memory.
const CAPACITY: usize = 10_000;

/// A worker process and its links.
pub(crate) struct Worker {
    pub(crate) process: Arc<Process>,
    pub(crate) store_link: Arc<Link>,
    /// Its links to all servers, in their order.
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
    /// The file that it was started with.
    pub(crate) polls: Polls,
    pub(crate) admission: Admission,
}

/// The pipeline.
pub(crate) struct World {
    pub(crate) start: Instant,
    pub(crate) kind: Kind,
    pub(crate) files: Files,
    pub(crate) servers: Vec<Arc<Server>>,
    pub(crate) database: Arc<Database>,
    /// The witness: a standby that lags at least as much as the one that a failover promotes.
    pub(crate) standby: Arc<Database>,
    /// The connection of the results service to the database.
    pub(crate) results: Client,
    workers: Mutex<Vec<Worker>>,
    frontends: Mutex<Vec<Frontend>>,
    /// Services that get the newest file when they are started again; the others get the first one.
    updated: Mutex<BTreeSet<Service>>,
    /// Whether the newest file is the corrected one.
    corrected: AtomicBool,
    network: Random,
    ids: Random,
}

/// A service that can be updated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Service {
    Worker(usize),
    Frontend(usize),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    /// Starts the pipeline of the history of a seed.
    pub(crate) fn start(seed: u64, kind: Kind, files: Files) -> Self {
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
            files,
            servers,
            database,
            standby,
            results,
            workers: Mutex::default(),
            frontends: Mutex::default(),
            updated: Mutex::default(),
            corrected: AtomicBool::new(false),
            network,
            ids,
        };
        for n in 0..WORKERS {
            let worker = world.worker(n, world.files.first.clone());
            lock(&world.workers).push(worker);
        }
        for n in 0..FRONTENDS {
            let frontend = world.frontend(n, world.files.first.clone());
            lock(&world.frontends).push(frontend);
        }
        world
    }

    /// Returns a new process.
    fn process(&self, name: &str, n: usize) -> Arc<Process> {
        Arc::new(Process::new(format!("{name} {n}"), self.start))
    }

    /// Returns a connection of a process to a server.
    fn connect(&self, server: usize, link: &Arc<Link>, process: &Arc<Process>) -> Arc<dyn Queue> {
        Arc::new(Connection {
            server: Arc::clone(&self.servers[server]),
            link: Arc::clone(link),
            process: Arc::clone(process),
        })
    }

    /// Starts a worker.
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
            id: WorkerId(self.ids.identity()),
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

    /// Starts a frontend.
    fn frontend(&self, n: usize, polls: Polls) -> Frontend {
        let process = self.process("frontend", n);
        let link = Arc::new(Link::new(self.network.clone()));
        let queue = self.connect(n, &link, &process);
        let options = AdmissionOptions {
            layout: layout(),
            polls: Arc::new(polls.clone()),
            allow_volatile: false,
            interval: Duration::from_secs(2),
        };
        let admission = Admission::start(Arc::clone(&queue), options);
        let (writer, _) = Writer::start(queue, admission.clone(), CAPACITY, Arc::new(|_| ()));
        Frontend { process, link, writer, polls, admission }
    }

    /// Returns the true time.
    pub(crate) fn now(&self) -> vote_core::Timestamp {
        true_time(self.start)
    }

    /// Locks the workers.
    pub(crate) fn workers(&self) -> MutexGuard<'_, Vec<Worker>> {
        lock(&self.workers)
    }

    /// Locks the frontends.
    pub(crate) fn frontends(&self) -> MutexGuard<'_, Vec<Frontend>> {
        lock(&self.frontends)
    }

    /// Asks a worker to shut down, as SIGTERM does.
    pub(crate) fn stop_worker(&self, n: usize) {
        self.workers()[n].shutdown.trigger();
    }

    /// Kills a worker if it still runs, and starts it again with the given file.
    pub(crate) fn restart_worker(&self, n: usize, polls: &Polls) {
        self.workers()[n].process.set(State::Dead);
        let worker = self.worker(n, polls.clone());
        self.workers()[n] = worker;
    }

    /// Kills a frontend if it still runs, and starts it again with the given file.
    pub(crate) fn restart_frontend(&self, n: usize, polls: &Polls) {
        self.frontends()[n].process.set(State::Dead);
        let frontend = self.frontend(n, polls.clone());
        self.frontends()[n] = frontend;
    }

    /// Returns the file that a service should be started with.
    pub(crate) fn file_of(&self, service: Service) -> &Polls {
        if lock(&self.updated).contains(&service) { self.newest() } else { &self.files.first }
    }

    /// Returns the newest file.
    fn newest(&self) -> &Polls {
        if self.corrected.load(Ordering::Relaxed) { &self.files.corrected } else { &self.files.full }
    }

    /// Makes the corrected file the newest one, which no service has yet.
    pub(crate) fn correct(&self) {
        self.corrected.store(true, Ordering::Relaxed);
        lock(&self.updated).clear();
    }

    /// Gives a service the newest file the next time that it is started.
    pub(crate) fn update(&self, service: Service) {
        lock(&self.updated).insert(service);
    }

    /// Starts every service again that does not have the newest file.
    pub(crate) fn finish_updates(&self) {
        let services = (0..WORKERS).map(Service::Worker).chain((0..FRONTENDS).map(Service::Frontend));
        for service in services.filter(|_| self.kind.updates) {
            if lock(&self.updated).insert(service) {
                match service {
                    Service::Worker(n) => self.restart_worker(n, self.newest()),
                    Service::Frontend(n) => self.restart_frontend(n, self.newest()),
                }
            }
        }
    }

    /// Keeps images of servers and database, if this kind of history may set them back.
    pub(crate) fn keep_images(&self) {
        if self.kind.loss {
            self.servers.iter().for_each(|server| server.keep_image());
        }
        if self.kind.failover && self.database.is_up() {
            self.database.keep_image();
            self.database.replicate_to(&self.standby);
        }
    }

    /// Returns an error text if a worker ended without being asked to.
    pub(crate) fn ended_by_itself(&self) -> Option<String> {
        let workers = self.workers();
        let ended = workers.iter().find(|worker| {
            worker.task.is_finished() && !worker.shutdown.is_requested() && worker.process.is_running()
        });
        ended.map(|worker| format!("{} ended by itself", worker.process.name))
    }

    /// Whether a worker runs and reaches the store undisturbed.
    pub(crate) fn is_undisturbed(&self, worker: &Worker) -> bool {
        worker.process.is_running()
            && !worker.shutdown.is_requested()
            && worker.store_link.is_clear()
            && self.database.is_up()
    }
}
