//! The pipeline: Redis servers with a database for each queue, a Postgres, and workers in this process.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    runtime::Runtime,
    task::{JoinHandle, JoinSet},
    time::{Instant, MissedTickBehavior, interval},
};
use vote_core::{
    Partitions, Pepper, Polls, Queue, QueueId, Store, SystemClock, WorkerId,
    count::Accounts,
    queue::{Layout, RedisQueue},
    store::PostgresStore,
};
use vote_service::Shutdown;
use vote_testkit::{Postgres, Redis};
use vote_worker::{Health, Options, Parts, Source, WorkerError};

use crate::{
    args::Size,
    count::{CountedQueue, CountedStore, Counts},
    cpu::{self, Cpu},
    statements,
    voters::{self, Electorate, append},
};

/// Prefix of the keys, and name of the schema.
const NAME: &str = "vote";
/// Maximum number of queues in one Redis: the client knows the numbers of databases up to 255.
const DATABASES: u32 = 250;
/// Number of queues to which votes are appended at a time.
const APPENDERS: usize = 32;

/// A running pipeline.
pub(crate) struct World {
    pub(crate) size: Size,
    pub(crate) redis: Vec<Redis>,
    /// Maximum number of queues in one Redis.
    databases: u32,
    pub(crate) postgres: Postgres,
    /// Address of the database.
    pub(crate) database: String,
    /// Each queue, over a connection of the voters.
    pub(crate) queues: Vec<(QueueId, Arc<dyn Queue>)>,
    pub(crate) electorate: Electorate,
    /// The store, over connections of its own.
    pub(crate) store: Arc<dyn Store>,
    /// What the workers called.
    pub(crate) counts: Arc<Counts>,
    polls: Polls,
    layout: Layout,
    runtime: Option<Runtime>,
    shutdown: Shutdown,
    workers: Vec<JoinHandle<Result<(), WorkerError>>>,
}

impl World {
    /// Starts the servers, and creates the queues and the tables.
    pub(crate) async fn start(size: Size) -> Self {
        Self::start_with(size, DATABASES).await
    }

    /// Starts the servers, with this number of queues in each Redis, and creates the queues and the tables.
    pub(crate) async fn start_with(size: Size, databases: u32) -> Self {
        // More than 10,000 connections, the default, since each worker has one to each queue.
        let number = databases.to_string();
        // Without rewrites of the log: those of hundreds of queues would compete for the same cores at the same time.
        let settings =
            [("databases", number.as_str()), ("maxclients", "19000"), ("auto-aof-rewrite-percentage", "0")];
        let servers = size.queues.div_ceil(databases);
        let redis = (0..servers).map(|_| Redis::start_with(&settings)).collect();
        let postgres = Postgres::start_with(&statements::SETTINGS);
        let database = postgres.database();
        let partitions = Partitions::new(size.partitions).unwrap();
        let polls = voters::polls(size.polls);
        let fingerprint = Pepper::new(vec![1; 32]).unwrap().fingerprint();
        let store = PostgresStore::connect(&database, NAME).unwrap();
        store.migrate().await.unwrap();
        let mut world = Self {
            size,
            redis,
            databases,
            postgres,
            database,
            queues: Vec::new(),
            electorate: Electorate::new(&polls, partitions),
            store: Arc::new(store),
            counts: Arc::default(),
            polls,
            layout: Layout { partitions, fingerprint },
            runtime: Some(cpu::runtime(cpu::WORKERS, 2)),
            shutdown: Shutdown::new(),
            workers: Vec::new(),
        };
        let connected: Vec<Arc<dyn Queue>> =
            (0..size.queues).map(|n| Arc::new(world.connect(n)) as Arc<dyn Queue>).collect();
        // All at once, since each waits for a tenth of a second until it is connected.
        let create = |queue: &Arc<dyn Queue>| {
            let (queue, layout) = (Arc::clone(queue), world.layout);
            tokio::spawn(async move { queue.create(layout, None).await.unwrap() })
        };
        let created: Vec<_> = connected.iter().map(create).collect();
        for (queue, id) in connected.into_iter().zip(created) {
            world.queues.push((id.await.unwrap(), queue));
        }
        world
    }

    /// Returns the address of a queue.
    pub(crate) fn url(&self, queue: u32) -> String {
        let server = &self.redis[(queue / self.databases) as usize];
        format!("{}/{}", server.url(), queue % self.databases)
    }

    fn connect(&self, queue: u32) -> RedisQueue {
        RedisQueue::connect(&self.url(queue), NAME).unwrap()
    }

    /// Starts the workers, each with connections of its own.
    pub(crate) fn start_workers(&mut self, commit_delay: Duration) {
        let runtime = self.runtime.as_ref().unwrap();
        let _inside = runtime.enter();
        for _ in 0..self.size.workers {
            let counts = || Arc::clone(&self.counts);
            let queue = |n| {
                let inner: Arc<dyn Queue> = Arc::new(self.connect(n));
                Source::Queue(Arc::new(CountedQueue { inner, counts: counts() }))
            };
            let inner: Arc<dyn Store> = Arc::new(PostgresStore::connect(&self.database, NAME).unwrap());
            let parts = Parts {
                store: Arc::new(CountedStore { inner, counts: counts(), commit_delay }),
                witnesses: Vec::new(),
                id: WorkerId::random().unwrap(),
                sources: (0..self.size.queues).map(queue).collect(),
                polls: self.polls.clone(),
                clock: Arc::new(SystemClock),
                health: Health::default(),
            };
            let options = Options {
                lanes: self.size.lanes as usize,
                partitions: Some(self.layout.partitions),
                fingerprint: self.layout.fingerprint,
                trim_delay: Duration::ZERO,
                close_grace: Duration::from_secs(5),
                allow_volatile: false,
            };
            self.workers.push(runtime.spawn(vote_worker::run(parts, options, self.shutdown.child())));
        }
    }

    /// Waits until all queues are active, and returns how long that took.
    pub(crate) async fn activated(&self) -> Duration {
        let start = Instant::now();
        let mut logged = start;
        for (n, (_, queue)) in self.queues.iter().enumerate() {
            while !queue.status().await.is_ok_and(|status| status.is_some_and(|status| status.active)) {
                tokio::time::sleep(Duration::from_millis(100)).await;
                if logged.elapsed() > Duration::from_secs(10) {
                    logged = Instant::now();
                    eprintln!(
                        "scale: {n} of {} queues are active after {:?}",
                        self.queues.len(),
                        start.elapsed()
                    );
                }
            }
        }
        start.elapsed()
    }

    /// Ends the workers, and waits until they have ended.
    pub(crate) async fn stop_workers(&mut self) {
        self.shutdown.trigger();
        for worker in self.workers.drain(..) {
            worker.await.unwrap().unwrap();
        }
        self.shutdown = Shutdown::new();
    }

    /// Casts one vote in each queue, partition and poll, so that all counters exist.
    pub(crate) async fn cast_first_votes(&self, voters: &AtomicU64) {
        self.on_each_queue(|_, id, queue| {
            let mut votes = Vec::new();
            for poll in 0..self.electorate.polls.len() {
                for partition in self.electorate.partitions.iter() {
                    let voter = voters.fetch_add(1, Ordering::Relaxed);
                    votes.push(self.electorate.vote_in(poll, partition, voter));
                }
            }
            let frames = self.electorate.frames(&votes);
            async move {
                for frames in frames.chunks(1000) {
                    append(&*queue, id, frames).await;
                }
            }
        })
        .await;
    }

    /// Runs a task for each queue, some at a time.
    pub(crate) async fn on_each_queue<F: Future<Output = ()> + Send + 'static>(
        &self,
        task: impl Fn(usize, QueueId, Arc<dyn Queue>) -> F,
    ) {
        let mut running = JoinSet::new();
        for (n, (id, queue)) in self.queues.iter().enumerate() {
            if running.len() >= APPENDERS {
                running.join_next().await.unwrap().unwrap();
            }
            running.spawn(task(n, *id, Arc::clone(queue)));
        }
        running.join_all().await;
    }

    /// Casts votes of new voters at a rate, in turn over all queues and the polls given, until dropped. Each append has
    /// `flush` votes.
    pub(crate) fn cast_steadily(
        &self,
        voters: &Arc<AtomicU64>,
        polls: std::ops::Range<usize>,
        rate: f64,
        flush: Option<usize>,
    ) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        if rate <= 0.0 {
            return tasks;
        }
        let of_each = rate / self.queues.len() as f64;
        let flush = flush.unwrap_or((of_each / 10.0) as usize).max(1);
        let period = Duration::from_secs_f64(flush as f64 / of_each);
        for (n, (id, queue)) in self.queues.iter().enumerate() {
            let (id, queue, voters) = (*id, Arc::clone(queue), Arc::clone(voters));
            let (electorate, polls) = (self.electorate.clone(), polls.clone());
            // Spread over the period, since frontends do not flush in step.
            let wait = period.mul_f64(n as f64 / self.queues.len() as f64);
            tasks.spawn(async move {
                tokio::time::sleep(wait).await;
                let mut ticks = interval(period);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
                loop {
                    ticks.tick().await;
                    let first = voters.fetch_add(flush as u64, Ordering::Relaxed);
                    let vote = |voter: u64| {
                        let poll = polls.start + voter as usize % polls.len();
                        electorate.vote(poll, voter, voter as usize % 2)
                    };
                    let votes: Vec<_> = (first..first + flush as u64).map(vote).collect();
                    append(&*queue, id, &electorate.frames(&votes)).await;
                }
            });
        }
        tasks
    }

    pub(crate) fn cpu(&self) -> Cpu {
        let redis: Vec<u32> = self.redis.iter().map(Redis::pid).collect();
        Cpu::now(&redis, self.postgres.pid())
    }

    pub(crate) async fn accounts(&self) -> Accounts {
        self.store.snapshot().await.unwrap().accounts(false).await.unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Workers end with it, in the background: a runtime can't wait for another one.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
