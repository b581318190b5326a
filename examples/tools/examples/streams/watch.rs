//! The process that watches the streams of one results service. It prints a line for each number of votes once every
//! stream has received it: the number, and the time in microseconds since 1970.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{io::AsyncWriteExt, net::TcpStream, sync::Semaphore, task::JoinSet};
use vote_core::{Clock, Polls, SystemClock};

use crate::{error::StreamsError, events::Events};

/// Number of connections that are being opened at once.
const OPENING: usize = 200;

/// Number of streams that have received a number of votes, by this number.
struct Received {
    streams: u32,
    by_total: Mutex<BTreeMap<u64, u32>>,
}

impl Received {
    /// Counts a stream that has received a number of votes, and prints the number if it is the last one.
    fn count(&self, total: u64) -> io::Result<()> {
        let mut by_total = self.by_total.lock().unwrap_or_else(PoisonError::into_inner);
        let streams = by_total.entry(total).or_default();
        *streams += 1;
        if *streams < self.streams {
            return Ok(());
        }
        by_total.remove(&total);
        let mut out = io::stdout().lock();
        writeln!(out, "{total} {}", SystemClock.now().as_micros())?;
        out.flush()
    }
}

/// Watches streams until one ends, or until the process is killed.
pub(crate) async fn watch(target: SocketAddr, streams: u32) -> Result<(), StreamsError> {
    let received = Arc::new(Received { streams, by_total: Mutex::default() });
    let opening = Arc::new(Semaphore::new(OPENING));
    let path = Polls::example().iter().next().map(|poll| format!("/polls/{}/events", poll.slug));
    let path = path.unwrap_or_default();
    let request: Arc<str> = format!("GET {path} HTTP/1.1\r\nHost: {target}\r\n\r\n").into();
    let mut tasks = JoinSet::new();
    for _ in 0..streams {
        let (received, opening, request) =
            (Arc::clone(&received), Arc::clone(&opening), Arc::clone(&request));
        tasks.spawn(async move { follow(target, &request, &received, &opening).await });
    }
    match tasks.join_next().await {
        Some(Ok(Err(e))) => Err(e),
        _ => Err(StreamsError::Ended(target)),
    }
}

/// Opens a stream and follows it until it ends.
async fn follow(
    target: SocketAddr,
    request: &str,
    received: &Received,
    opening: &Semaphore,
) -> Result<(), StreamsError> {
    let place = opening.acquire().await;
    let mut stream = Stream::open(target, request).await?;
    let mut last = stream.next().await?;
    drop(place);
    received.count(last).map_err(StreamsError::Output)?;
    loop {
        let total = stream.next().await?;
        if total != last {
            last = total;
            received.count(total).map_err(StreamsError::Output)?;
        }
    }
}

struct Stream {
    target: SocketAddr,
    connection: TcpStream,
    has_begun: bool,
    events: Events,
}

impl Stream {
    async fn open(target: SocketAddr, request: &str) -> Result<Self, StreamsError> {
        let failed = |error| StreamsError::Open { target, error };
        let mut connection = TcpStream::connect(target).await.map_err(failed)?;
        connection.write_all(request.as_bytes()).await.map_err(failed)?;
        Ok(Self { target, connection, has_begun: false, events: Events::default() })
    }

    /// Returns the number of votes in the next event.
    async fn next(&mut self) -> Result<u64, StreamsError> {
        let target = self.target;
        let failed = |error| StreamsError::Open { target, error };
        loop {
            self.connection.readable().await.map_err(failed)?;
            // Only while something is read: thousands of streams wait.
            let mut buffer = [0; 4096];
            let bytes = match self.connection.try_read(&mut buffer) {
                Ok(0) => return Err(StreamsError::Ended(target)),
                Ok(n) => &buffer[..n],
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => continue,
                Err(e) => return Err(failed(e)),
            };
            if !self.has_begun && !bytes.starts_with(b"HTTP/1.1 200") {
                let answer = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
                return Err(StreamsError::Refused { target, answer });
            }
            self.has_begun = true;
            if let Some(total) = self.events.add(bytes) {
                return Ok(total);
            }
        }
    }
}
