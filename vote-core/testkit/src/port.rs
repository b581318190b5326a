//! Free TCP ports.

use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

const FIRST: u32 = 10_240;
/// Number of candidates, which end below the ports that Linux (32768 and up), macOS and the BSDs (49152 and up) give to
/// outgoing connections.
const COUNT: u32 = 32_768 - FIRST;

/// Returns a loopback TCP port that nothing listens on, and that was not returned before in this process.
///
/// The port is not chosen by the system (port 0), since such ports are also the source ports of outgoing connections:
/// while a server is down, a client that tries to reconnect could get the server's own port as its source, connect
/// to itself, and keep the server from restarting. Another process may still take the port first, so a caller should
/// try again with another port if it can.
pub fn free_port() -> u16 {
    // A random start keeps test processes that run at the same time apart.
    static NEXT: LazyLock<AtomicU32> =
        LazyLock::new(|| AtomicU32::new((RandomState::new().hash_one(std::process::id()) >> 33) as u32));
    for _ in 0..COUNT {
        let candidate = FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        if let Ok(port) = u16::try_from(candidate)
            && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
        {
            return port;
        }
    }
    panic!("no free TCP port on 127.0.0.1 from {FIRST} to {}", FIRST + COUNT - 1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_returned_twice() {
        let mut ports: Vec<u16> = (0..100).map(|_| free_port()).collect();
        ports.sort_unstable();
        ports.dedup();

        assert_eq!(ports.len(), 100);
    }

    #[test]
    fn a_port_in_use_is_not_returned() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, free_port())).unwrap();

        assert_ne!(free_port(), taken.local_addr().unwrap().port());
    }
}
