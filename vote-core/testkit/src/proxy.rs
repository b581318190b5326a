//! A TCP proxy that can be cut, or pointed at another server.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::port;

/// A loopback port behind which there is another server. It ends, with all its connections, when dropped.
#[derive(Debug)]
pub struct TcpProxy {
    address: SocketAddr,
    shared: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    upstream: SocketAddr,
    is_cut: bool,
    has_ended: bool,
    /// Both ends of each connection, by a number.
    open: BTreeMap<u64, [TcpStream; 2]>,
    next: u64,
}

impl State {
    fn end_connections(&mut self) {
        for stream in std::mem::take(&mut self.open).into_values().flatten() {
            end(&stream);
        }
    }
}

impl TcpProxy {
    /// A proxy to this port of 127.0.0.1.
    pub fn to(port: u16) -> Self {
        let mut bound = (0..5).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, port::free_port())));
        let Some(listener) = bound.find_map(Result::ok) else { panic!("no port for a proxy in 5 attempts") };
        let address = match listener.local_addr() {
            Ok(address) => address,
            Err(error) => panic!("a proxy has no address: {error}"),
        };
        let shared = Arc::new(Mutex::new(State {
            upstream: loopback(port),
            is_cut: false,
            has_ended: false,
            open: BTreeMap::new(),
            next: 0,
        }));
        let proxy = Self { address, shared: Arc::clone(&shared) };
        thread::spawn(move || {
            for client in listener.incoming() {
                if lock(&shared).has_ended {
                    return;
                }
                // A client that gave up, or a server that is not there: the next one may have more luck.
                let _ = client.and_then(|client| relay(client, &shared));
            }
        });
        proxy
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Ends all connections, and new ones at once, until it is [healed](Self::heal).
    pub fn cut(&self) {
        let mut state = lock(&self.shared);
        state.is_cut = true;
        state.end_connections();
    }

    /// Takes connections again.
    pub fn heal(&self) {
        lock(&self.shared).is_cut = false;
    }

    /// Ends all connections and leads new ones to this port of 127.0.0.1, also if it was cut.
    pub fn switch_to(&self, port: u16) {
        let mut state = lock(&self.shared);
        state.upstream = loopback(port);
        state.is_cut = false;
        state.end_connections();
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        let mut state = lock(&self.shared);
        state.has_ended = true;
        state.end_connections();
        drop(state);
        // The listener learns it from one more connection.
        let _ = TcpStream::connect(self.address);
    }
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn lock(shared: &Mutex<State>) -> MutexGuard<'_, State> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends both directions; one that is over already is no matter.
fn end(stream: &TcpStream) {
    let _ = stream.shutdown(Shutdown::Both);
}

/// Moves bytes both ways, by a thread each, until one side ends, which then ends for the other as well.
fn relay(client: TcpStream, shared: &Arc<Mutex<State>>) -> io::Result<()> {
    let upstream = {
        let state = lock(shared);
        if state.is_cut {
            return Ok(());
        }
        state.upstream
    };
    let server = TcpStream::connect(upstream)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let ends = [client.try_clone()?, server.try_clone()?];
    let number = {
        let mut state = lock(shared);
        // It may have been cut or switched while this one connected.
        if state.is_cut || state.has_ended || state.upstream != upstream {
            return Ok(());
        }
        state.next += 1;
        let number = state.next;
        state.open.insert(number, ends);
        number
    };
    let (from_client, from_server) = (client.try_clone()?, server.try_clone()?);
    for (mut from, mut to) in [(from_client, server), (from_server, client)] {
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            // However it ends, it ends for both.
            let _ = io::copy(&mut from, &mut to);
            end(&from);
            end(&to);
            lock(&shared).open.remove(&number);
        });
    }
    Ok(())
}
