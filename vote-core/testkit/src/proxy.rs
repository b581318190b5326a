//! A TCP proxy that can cut its connections or switch to another server.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::port;

/// A TCP proxy on a loopback port. Dropping it ends all its connections.
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
    /// Both ends of each connection, by a sequence number.
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
    /// Starts a proxy to this port of 127.0.0.1.
    pub fn to(port: u16) -> Self {
        let mut bound = (0..5).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, port::free_port())));
        let Some(listener) = bound.find_map(Result::ok) else {
            panic!("no free port for a proxy in 5 attempts")
        };
        let address = match listener.local_addr() {
            Ok(address) => address,
            Err(error) => panic!("can't get the address of a proxy: {error}"),
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
                // Fails if the client has given up or the server is down; the next connection may succeed.
                let _ = client.and_then(|client| relay(client, &shared));
            }
        });
        proxy
    }

    /// Returns the port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Ends all connections, and every new one at once, until the proxy is [healed](Self::heal).
    pub fn cut(&self) {
        let mut state = lock(&self.shared);
        state.is_cut = true;
        state.end_connections();
    }

    /// Accepts connections again after a [cut](Self::cut).
    pub fn heal(&self) {
        lock(&self.shared).is_cut = false;
    }

    /// Ends all connections and directs new ones to this port of 127.0.0.1. Also heals a [cut](Self::cut).
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
        // Wakes the listener, which then sees that the proxy has ended.
        let _ = TcpStream::connect(self.address);
    }
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn lock(shared: &Mutex<State>) -> MutexGuard<'_, State> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Shuts down both directions of a connection. Ignores errors, since the connection may already have ended.
fn end(stream: &TcpStream) {
    let _ = stream.shutdown(Shutdown::Both);
}

/// Copies bytes in both directions, each on a thread of its own, until one side closes; then closes both.
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
        // The proxy may have been cut, switched or dropped while this connection was being made.
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
            // However the copying ends, both sides are closed.
            let _ = io::copy(&mut from, &mut to);
            end(&from);
            end(&to);
            lock(&shared).open.remove(&number);
        });
    }
    Ok(())
}
