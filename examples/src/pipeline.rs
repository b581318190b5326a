//! The three services in one process: frontend, worker and results, each started by the `run` function of its library.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use tokio::net::TcpListener;
use vote_core::{
    Partitions, Pepper, Polls, Queue, QueueAddress, Store, StoreAddress, StoreReader, SystemClock, WorkerId,
    store::StoreError,
};
use vote_frontend::cookie::CookieKeys;
use vote_service::{BoxError, Connections, Guards, Limits, Shutdown};
use vote_worker::{Source, WorkerError};

use crate::secrets::load_or_make;

/// Configuration of a pipeline that runs in one process.
#[derive(Debug)]
pub struct Pipeline {
    /// Address of the queue.
    pub queue: QueueAddress,
    /// Address of the store.
    pub store: StoreAddress,
    /// Folder for the secrets; created if it is missing, so that addresses may name files in it.
    pub data: PathBuf,
    /// Polls to register and to accept votes for.
    pub polls: Polls,
    /// Address on which the frontend listens.
    pub vote_at: SocketAddr,
    /// Address on which the results service listens.
    pub results_at: SocketAddr,
    /// Whether to run with a queue or a store that may lose votes when power fails.
    pub allow_volatile: bool,
}

impl Pipeline {
    /// Runs the three services until shutdown. If one of them ends, the others are shut down as well.
    ///
    /// # Errors
    /// Fails if an address is in use, or if the folder, a secret, the queue or the store can't be opened.
    pub async fn run(self, shutdown: Shutdown) -> Result<(), BoxError> {
        std::fs::create_dir_all(&self.data)
            .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", self.data.display())))?;
        let secret = |name| load_or_make(&self.data.join(name));
        let pepper = Pepper::from(secret("pepper")?);
        let cookie_keys = CookieKeys::new(&[secret("cookie-key")?], false).ok_or("no cookie key")?;
        let receipt_key = vote_service::ReceiptKey::from(secret("receipt-key")?);

        let (vote_listener, results_listener) = (bind(self.vote_at).await?, bind(self.results_at).await?);
        let (vote_url, results_url) = (url(&vote_listener)?, url(&results_listener)?);
        let queue = self.queue.open("vote").await?;
        self.store.migrate("vote").await?;
        let store = self.store.open("vote").await?;
        let polls = Arc::new(self.polls);

        let frontend = vote_frontend::run(
            vote_listener,
            vote_frontend::Parts {
                queue: Arc::clone(&queue),
                site: vote_frontend::Site {
                    polls: Arc::clone(&polls),
                    pepper: pepper.clone(),
                    cookie_keys,
                    receipt_key: receipt_key.clone(),
                    results_url: Some(results_url.clone()),
                    clock: Arc::new(SystemClock),
                },
                health: vote_frontend::Health::of(1),
            },
            frontend_options(self.allow_volatile),
            shutdown.clone(),
        );
        let worker =
            worker(queue, Arc::clone(&store), &polls, &pepper, self.allow_volatile, shutdown.clone());
        let results = vote_results::run(
            results_listener,
            vote_results::Parts {
                store: store as Arc<dyn StoreReader>,
                polls: Arc::clone(&polls),
                receipt_key,
                clock: Arc::new(SystemClock),
                frontend_url: Some(vote_url.clone()),
                health: vote_results::Health::default(),
            },
            vote_results::Options::default(),
            shutdown.clone(),
        );
        println!(
            "Vote at     {vote_url}\nResults at  {results_url}\nData in     {}\nStop with   Ctrl-C",
            self.data.display()
        );
        let frontend = ending(&shutdown, async { frontend.await.map_err(BoxError::from) });
        let worker = ending(&shutdown, async { worker.await.map_err(BoxError::from) });
        let results = ending(&shutdown, async { results.await.map_err(BoxError::from) });
        tokio::try_join!(frontend, worker, results)?;
        Ok(())
    }
}

/// Runs a service, and triggers the shutdown of the others when it ends.
async fn ending(
    shutdown: &Shutdown,
    service: impl Future<Output = Result<(), BoxError>>,
) -> Result<(), BoxError> {
    let result = service.await;
    shutdown.trigger();
    result
}

async fn worker(
    queue: Arc<dyn Queue>,
    store: Arc<dyn Store>,
    polls: &Polls,
    pepper: &Pepper,
    allow_volatile: bool,
    shutdown: Shutdown,
) -> Result<(), WorkerError> {
    let parts = vote_worker::Parts {
        store,
        witnesses: Vec::new(),
        id: WorkerId::random().map_err(|e| StoreError::Unavailable(Box::new(e)))?,
        sources: vec![Source::Queue(queue)],
        polls: polls.clone(),
        clock: Arc::new(SystemClock),
        health: vote_worker::Health::default(),
    };
    let options = vote_worker::Options {
        lanes: 1,
        partitions: None,
        fingerprint: pepper.fingerprint(),
        trim_delay: Duration::ZERO,
        close_grace: Duration::from_secs(5),
        allow_volatile,
    };
    vote_worker::run(parts, options, shutdown).await
}

fn frontend_options(allow_volatile: bool) -> vote_frontend::Options {
    vote_frontend::Options {
        partitions: Partitions::default(),
        allow_volatile,
        limits: Limits::default(),
        connections: Connections::new(10_000),
        guards: Guards::default(),
    }
}

async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = vote_service::listen::listen(address, false)?;
    TcpListener::from_std(listener)
}

fn url(listener: &TcpListener) -> io::Result<String> {
    Ok(format!("http://{}", listener.local_addr()?))
}
