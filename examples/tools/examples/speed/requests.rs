//! Sends requests over many keep-alive connections, for as little CPU as possible.

use std::{
    cell::RefCell,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::LocalSet,
    time::sleep,
};
use vote_tools::Pace;

/// Time before a measurement in which connections are opened and caches filled.
const WARM_UP: Duration = Duration::from_millis(700);

/// Requests to one server, and what its answers must begin with.
#[derive(Debug, Clone)]
pub(crate) struct Requests {
    pub(crate) address: SocketAddr,
    /// Complete requests, which the connections send in turn.
    pub(crate) requests: Rc<[Bytes]>,
    pub(crate) connections: usize,
    /// Status of every answer.
    pub(crate) status: u16,
    /// Requests per second over all connections; without a rate, each connection sends as soon as it has an answer.
    pub(crate) rate: Option<f64>,
}

/// What was measured while requests were sent.
#[derive(Debug)]
pub(crate) struct Sent<T> {
    /// Times from a request to its answer, sorted.
    times: Vec<Duration>,
    /// By how much what was measured has grown.
    pub(crate) grown: T,
}

impl<T> Sent<T> {
    pub(crate) fn answers(&self) -> f64 {
        self.times.len() as f64
    }

    /// Returns the time within which a share of the answers came, in milliseconds.
    pub(crate) fn ms(&self, share: f64) -> f64 {
        self.times[((self.times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3
    }
}

impl Requests {
    /// Sends requests for `seconds`, after a warm-up, and measures by how much `read` grows meanwhile.
    pub(crate) async fn send<const N: usize>(
        &self,
        seconds: Duration,
        read: impl Fn() -> [f64; N],
    ) -> Sent<[f64; N]> {
        let times = Rc::new(RefCell::new(Vec::new()));
        let (tasks, pace) = (LocalSet::new(), Rc::new(Pace::new(self.rate)));
        for n in 0..self.connections {
            let (requests, times, pace) = (self.clone(), Rc::clone(&times), Rc::clone(&pace));
            tasks.spawn_local(async move { requests.repeat(n, &pace, &times).await });
        }
        tasks
            .run_until(async {
                sleep(WARM_UP).await;
                times.take();
                let mut grown = read();
                sleep(seconds).await;
                let mut times = times.take();
                times.sort_unstable();
                for (grown, after) in grown.iter_mut().zip(read()) {
                    *grown = after - *grown;
                }
                Sent { times, grown }
            })
            .await
    }

    /// Sends one request and returns the answer, as it was received.
    pub(crate) async fn once(&self) -> Vec<u8> {
        self.open().await.received
    }

    /// Opens a connection, and sends one request over it.
    pub(crate) async fn open(&self) -> Connection {
        let mut connection = self.connect().await;
        connection.ask(&self.requests[0]).await;
        connection
    }

    async fn repeat(&self, first: usize, pace: &Pace, times: &RefCell<Vec<Duration>>) {
        let mut connection = self.connect().await;
        for turn in 0.. {
            pace.turn().await;
            let began = Instant::now();
            let request = &self.requests[(first + turn * self.connections) % self.requests.len()];
            let status = connection.ask(request).await;
            assert_eq!(status, self.status, "{}", String::from_utf8_lossy(&connection.received));
            times.borrow_mut().push(began.elapsed());
        }
    }

    async fn connect(&self) -> Connection {
        let began = Instant::now();
        loop {
            match TcpStream::connect(self.address).await {
                Ok(stream) => {
                    stream.set_nodelay(true).unwrap();
                    return Connection { stream, received: Vec::with_capacity(8192) };
                }
                Err(e) => assert!(began.elapsed() < Duration::from_secs(10), "{}: {e}", self.address),
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A keep-alive connection.
pub(crate) struct Connection {
    stream: TcpStream,
    /// The last answer.
    received: Vec<u8>,
}

impl Connection {
    /// Sends a request, and returns the status of its answer once that is complete.
    async fn ask(&mut self, request: &[u8]) -> u16 {
        self.stream.write_all(request).await.unwrap();
        self.received.clear();
        let mut length = None;
        while length.is_none_or(|length| self.received.len() < length) {
            let read = self.stream.read_buf(&mut self.received).await.unwrap();
            assert_ne!(
                read,
                0,
                "the server closed a connection: {}",
                String::from_utf8_lossy(&self.received)
            );
            length = length.or_else(|| answer_length(&self.received));
        }
        std::str::from_utf8(&self.received[9..12]).unwrap().parse().unwrap()
    }
}

/// Returns the length of an answer; `None` until its head is complete.
fn answer_length(received: &[u8]) -> Option<usize> {
    let head = received.windows(4).position(|window| window == b"\r\n\r\n")?;
    let text = std::str::from_utf8(&received[..head]).unwrap();
    let length = text.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().unwrap())
    });
    Some(head + 4 + length.expect("the answer has a content-length"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_as_long_as_its_head_says() {
        let answer = b"HTTP/1.1 202 Accepted\r\nContent-Length: 3\r\n\r\nabc";
        assert_eq!(answer_length(answer), Some(answer.len()));
        assert_eq!(answer_length(&answer[..answer.len() - 5]), None);
    }
}
