//! Stand-ins for the tasks of a service: one server that answers every request with 200, on all addresses that begin
//! with 127.

use std::{
    collections::HashSet,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::Duration,
};

use super::Ports;

/// Has a cookie, which is for one client only, although it may be stored otherwise.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\
    Cache-Control: public, max-age=60\r\nSet-Cookie: a=b\r\n\r\nok";

pub(crate) struct Tasks {
    port: u16,
    gone: Arc<Mutex<HashSet<IpAddr>>>,
    ended: Arc<std::sync::atomic::AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Returns the address of a task by its number.
pub(crate) fn address(task: usize) -> Ipv4Addr {
    let part = |n: usize| u8::try_from(n).expect("there are no more than 60,000 tasks");
    Ipv4Addr::new(127, 1, part(task / 250), part(task % 250 + 1))
}

impl Tasks {
    pub(crate) fn start() -> Self {
        use std::sync::atomic::{AtomicBool, Ordering};
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let gone = Arc::new(Mutex::new(HashSet::new()));
        let ended = Arc::new(AtomicBool::new(false));
        let (theirs, is_over) = (Arc::clone(&gone), Arc::clone(&ended));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let Ok(SocketAddr::V4(task)) = stream.local_addr() else { continue };
                // The server also listens on the addresses by which other machines reach this one.
                if task.ip().is_loopback() && !theirs.lock().unwrap().contains(&IpAddr::V4(*task.ip())) {
                    answer(stream);
                }
            }
        });
        Self { port, gone, ended, thread: Some(thread) }
    }

    pub(crate) fn ports(&self) -> Ports {
        Ports { public: self.port, admin: self.port }
    }

    /// The addresses of the first tasks.
    pub(crate) fn first(count: usize) -> Vec<Ipv4Addr> {
        (0..count).map(address).collect()
    }

    /// Sets which tasks no longer answer; all others do.
    pub(crate) fn set_gone(&self, tasks: &[Ipv4Addr]) {
        *self.gone.lock().unwrap() = tasks.iter().map(|task| IpAddr::V4(*task)).collect();
    }
}

/// The client sends its request at once, so one thread can answer all of them.
fn answer(mut stream: TcpStream) {
    let patience = Some(Duration::from_millis(500));
    if stream.set_read_timeout(patience).is_ok() && stream.read(&mut [0; 2048]).is_ok_and(|length| length > 0)
    {
        // An error means that the client no longer wants the answer.
        let _ = stream.write_all(ANSWER);
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.ended.store(true, std::sync::atomic::Ordering::Relaxed);
        // Ends the wait for the next connection.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
