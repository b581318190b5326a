//! A TCP proxy between a client and a server, which loses or delays replies after the command was sent.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
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

/// Of what is cut, every so manieth reply: so that connections live long enough to send commands.
const CUT_EVERY: u64 = 3;

/// What a proxy does with replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Hands them on.
    Pass,
    /// Ends some connections instead of handing a reply on, or after a part of it.
    Cut,
    /// Ends a connection instead of handing on that a COMMIT was done.
    CutCommits,
    /// Keeps them, and hands them on when the mode changes.
    Stall,
    /// Ends all connections and takes no new ones.
    Part,
}

/// What is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Redis,
    Postgres,
}

/// A running proxy; it ends with the runtime.
#[derive(Debug, Clone)]
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    upstream: SocketAddr,
    protocol: Protocol,
    mode: watch::Sender<Mode>,
    replies: AtomicU64,
    cut: AtomicU64,
    stalled: AtomicU64,
}

impl Proxy {
    /// Starts one on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When there is no port.
    pub(crate) async fn start(upstream: SocketAddr, protocol: Protocol) -> io::Result<Self> {
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            upstream,
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
                    // Out of descriptors, most likely: no reason to spin.
                    Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
                }
            }
        });
        Ok(proxy)
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.shared.mode.send_replace(mode);
    }

    /// Connections that ended instead of a reply.
    pub(crate) fn cut(&self) -> u64 {
        self.shared.cut.load(Ordering::Relaxed)
    }

    /// Replies that were held up.
    pub(crate) fn stalled(&self) -> u64 {
        self.shared.stalled.load(Ordering::Relaxed)
    }
}

/// Moves bytes both ways until one side ends, which then ends for the other as well.
async fn relay(client: TcpStream, shared: Arc<Shared>) {
    let mut mode = shared.mode.subscribe();
    if *mode.borrow() == Mode::Part {
        return;
    }
    let Ok(server) = TcpStream::connect(shared.upstream).await else { return };
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
        // Looked at always: where a message begins can be told only by all that came before.
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
                // As above, the sender lives.
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

    /// A server that answers each message with itself.
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
    async fn replies_are_handed_on_cut_or_held_up() {
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
    async fn a_client_that_is_parted_is_cut_off_and_not_let_in() {
        let proxy = Proxy::start(echo().await, Protocol::Redis).await.unwrap();
        let mut before = TcpStream::connect(proxy.address).await.unwrap();
        assert_eq!(ask(&mut before, b"PING").await.unwrap(), b"PING");
        proxy.set(Mode::Part);
        assert_eq!(ask(&mut before, b"PING").await.unwrap_or_default(), b"");
        let mut after = TcpStream::connect(proxy.address).await.unwrap();
        assert_eq!(ask(&mut after, b"PING").await.unwrap_or_default(), b"");
    }

    #[tokio::test]
    async fn the_word_that_a_commit_was_done_is_not_handed_on() {
        let proxy = Proxy::start(echo().await, Protocol::Postgres).await.unwrap();
        proxy.set(Mode::CutCommits);
        let mut client = TcpStream::connect(proxy.address).await.unwrap();
        assert_eq!(ask(&mut client, b"C\0\0\0\x0aBEGIN\0").await.unwrap(), b"C\0\0\0\x0aBEGIN\0");
        assert_eq!(ask(&mut client, b"C\0\0\0\x0bCOMMIT\0Z\0\0\0\x05I").await.unwrap_or_default(), b"");
        assert_eq!(proxy.cut(), 1);
    }
}
