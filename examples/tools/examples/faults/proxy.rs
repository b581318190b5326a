//! A TCP proxy between a client and a server that drops or delays replies after the command was sent.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

use crate::commits::Commits;

/// One in this many replies is cut, so that connections live long enough to send commands.
const CUT_EVERY: u64 = 3;

/// What a proxy does with replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Forwards them.
    Pass,
    /// Cuts some connections instead of forwarding a reply, or after a part of it.
    Cut,
    /// Cuts a connection instead of forwarding the confirmation of a COMMIT.
    CutCommits,
    /// Holds them back, and forwards them when the mode changes.
    Stall,
    /// Cuts all connections and refuses new ones.
    Part,
}

/// Protocol that a proxy forwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Redis,
    Postgres,
}

/// A running proxy, which ends with the runtime.
#[derive(Debug, Clone)]
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    upstream: Mutex<SocketAddr>,
    protocol: Protocol,
    mode: watch::Sender<Mode>,
    replies: AtomicU64,
    cut: AtomicU64,
    stalled: AtomicU64,
}

impl Proxy {
    /// Starts a proxy on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// Fails if no port can be opened.
    pub(crate) async fn start(upstream: SocketAddr, protocol: Protocol) -> io::Result<Self> {
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            upstream: Mutex::new(upstream),
            protocol,
            mode: watch::Sender::new(Mode::Pass),
            replies: AtomicU64::new(0),
            cut: AtomicU64::new(0),
            stalled: AtomicU64::new(0),
        });
        let proxy = Self { address, shared: Arc::clone(&shared) };
        tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((client, _)) => drop(tokio::spawn(relay(client, Arc::clone(&shared)))),
                    // Most likely out of file descriptors: wait instead of spinning.
                    Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
                }
            }
        });
        Ok(proxy)
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.shared.mode.send_replace(mode);
    }

    pub(crate) fn mode(&self) -> Mode {
        *self.shared.mode.borrow()
    }

    /// Directs new connections to another server. Existing ones end with the previous server.
    pub(crate) fn lead_to(&self, upstream: SocketAddr) {
        *self.shared.upstream.lock().unwrap_or_else(PoisonError::into_inner) = upstream;
    }

    /// Returns the number of connections that were cut instead of forwarding a reply.
    pub(crate) fn cut(&self) -> u64 {
        self.shared.cut.load(Ordering::Relaxed)
    }

    /// Returns the number of replies that were delayed.
    pub(crate) fn stalled(&self) -> u64 {
        self.shared.stalled.load(Ordering::Relaxed)
    }
}

/// Forwards bytes in both directions until one side closes its connection, and then closes both.
async fn relay(client: TcpStream, shared: Arc<Shared>) {
    let mut mode = shared.mode.subscribe();
    if *mode.borrow() == Mode::Part {
        return;
    }
    let upstream = *shared.upstream.lock().unwrap_or_else(PoisonError::into_inner);
    let Ok(server) = TcpStream::connect(upstream).await else { return };
    if client.set_nodelay(true).and(server.set_nodelay(true)).is_err() {
        return;
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let parted = async {
        // The sender lives as long as `shared`.
        let _ = mode.wait_for(|mode| *mode == Mode::Part).await;
    };
    tokio::select! {
        _ = commands(from_client, to_server) => {}
        _ = replies(from_server, to_client, &shared) => {}
        () = parted => {}
    }
}

async fn commands(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..length]).await?;
    }
}

async fn replies(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, shared: &Shared) -> io::Result<()> {
    let mut mode = shared.mode.subscribe();
    let mut commits = Commits::default();
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        let reply = &buffer[..length];
        // Parsed in every mode: where a message begins is known only from all bytes before it.
        let commit = match shared.protocol {
            Protocol::Postgres => commits.find(reply),
            Protocol::Redis => None,
        };
        let now = *mode.borrow();
        match (now, commit) {
            (Mode::Cut, _) => {
                let count = shared.replies.fetch_add(1, Ordering::Relaxed);
                if count.is_multiple_of(CUT_EVERY) {
                    shared.cut.fetch_add(1, Ordering::Relaxed);
                    if count.is_multiple_of(2 * CUT_EVERY) {
                        to.write_all(&reply[..length / 2]).await?;
                    }
                    return Ok(());
                }
            }
            (Mode::CutCommits, Some(at)) => {
                shared.cut.fetch_add(1, Ordering::Relaxed);
                return to.write_all(&reply[..at]).await;
            }
            (Mode::Stall, _) => {
                shared.stalled.fetch_add(1, Ordering::Relaxed);
                // The sender lives as long as `shared`.
                let _ = mode.wait_for(|mode| *mode != Mode::Stall).await;
            }
            _ => {}
        }
        to.write_all(reply).await?;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    /// Starts a server that echoes each message.
    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (from, to) = stream.into_split();
                tokio::spawn(commands(from, to));
            }
        });
        address
    }

    async fn ask(stream: &mut TcpStream, message: &[u8]) -> io::Result<Vec<u8>> {
        stream.write_all(message).await?;
        let mut answer = vec![0; 64];
        let length = stream.read(&mut answer).await?;
        answer.truncate(length);
        Ok(answer)
    }

    #[tokio::test]
    async fn replies_are_forwarded_cut_or_delayed() {
        let proxy = Proxy::start(echo().await, Protocol::Redis).await.unwrap();
        let mut client = TcpStream::connect(proxy.address).await.unwrap();
        assert_eq!(ask(&mut client, b"PING").await.unwrap(), b"PING");

        proxy.set(Mode::Stall);
        let mut asked = Box::pin(ask(&mut client, b"wait"));
        assert!(timeout(Duration::from_millis(100), &mut asked).await.is_err());
        proxy.set(Mode::Pass);
        assert_eq!(asked.await.unwrap(), b"wait");
        assert_eq!(proxy.stalled(), 1);

        proxy.set(Mode::Cut);
        assert_ne!(ask(&mut client, b"cut").await.unwrap_or_default(), b"cut");
        assert_eq!(proxy.cut(), 1);
    }

    #[tokio::test]
    async fn parting_cuts_connections_and_refuses_new_ones() {
        let proxy = Proxy::start(echo().await, Protocol::Redis).await.unwrap();
        let mut before = TcpStream::connect(proxy.address).await.unwrap();
        assert_eq!(ask(&mut before, b"PING").await.unwrap(), b"PING");
        proxy.set(Mode::Part);
        assert_eq!(ask(&mut before, b"PING").await.unwrap_or_default(), b"");
        let mut after = TcpStream::connect(proxy.address).await.unwrap();
        assert_eq!(ask(&mut after, b"PING").await.unwrap_or_default(), b"");
    }

    #[tokio::test]
    async fn new_connections_are_directed_to_another_server() {
        let (one, other) = (echo().await, TcpListener::bind("127.0.0.1:0").await.unwrap());
        let proxy = Proxy::start(one, Protocol::Redis).await.unwrap();
        proxy.lead_to(other.local_addr().unwrap());
        let _client = TcpStream::connect(proxy.address).await.unwrap();
        timeout(Duration::from_secs(5), other.accept()).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn the_confirmation_of_a_commit_is_not_forwarded() {
        let proxy = Proxy::start(echo().await, Protocol::Postgres).await.unwrap();
        proxy.set(Mode::CutCommits);
        let mut client = TcpStream::connect(proxy.address).await.unwrap();
        assert_eq!(ask(&mut client, b"C\0\0\0\x0aBEGIN\0").await.unwrap(), b"C\0\0\0\x0aBEGIN\0");
        assert_eq!(ask(&mut client, b"C\0\0\0\x0bCOMMIT\0Z\0\0\0\x05I").await.unwrap_or_default(), b"");
        assert_eq!(proxy.cut(), 1);
    }
}
