//! Free TCP ports.

use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

const FIRST: u32 = 10_240;
/// Below the ports that Linux (32768 and up), macOS and the BSDs (49152 and up) give to outgoing connections.
const COUNT: u32 = 32_768 - FIRST;

/// A loopback TCP port that nothing listens on, and that this process has not been given before.
///
/// It isn't one that the system chose (port 0), since those are also the source ports of outgoing
/// connections: while a server is down, a client that tries to reconnect could be given the server's own
/// port, be connected to itself, and keep the server from coming back. Another process may still take the
/// port first, so whoever can, tries again with another.
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
    fn no_port_is_given_twice() {
        let mut ports: Vec<u16> = (0..100).map(|_| free_port()).collect();
        ports.sort_unstable();
        ports.dedup();

        assert_eq!(ports.len(), 100);
    }

    #[test]
    fn a_port_in_use_is_not_given() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, free_port())).unwrap();

        assert_ne!(free_port(), taken.local_addr().unwrap().port());
    }
}
