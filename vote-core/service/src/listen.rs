//! Listening sockets.

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that the kernel completes and holds until they are accepted. At a spike they come faster than an
/// event loop gets round; the kernel lowers it to `net.core.somaxconn` (4096 on Linux since 5.4).
const BACKLOG: i32 = 4096;

/// Listens on `addr`; the socket is ready for `tokio::net::TcpListener::from_std`.
///
/// With `reuse_port` several sockets may share the address, one for each thread, and the kernel spreads connections
/// over them. Without it a second process on the same address is an error, as it should be.
///
/// # Errors
/// With the address in the message, when it is in use or not one of this machine.
pub fn listen(addr: SocketAddr, reuse_port: bool) -> io::Result<TcpListener> {
    open(addr, reuse_port).map_err(|e| io::Error::new(e.kind(), format!("can't listen on {addr}: {e}")))
}

fn open(addr: SocketAddr, reuse_port: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    // Else a restart must wait until the kernel has forgotten the old connections.
    socket.set_reuse_address(true)?;
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: &str = "127.0.0.1:0";

    #[test]
    fn an_address_in_use_is_named() {
        let first = listen(ANY.parse().unwrap(), false).unwrap();
        let addr = first.local_addr().unwrap();
        let e = listen(addr, false).unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::AddrInUse);
        assert!(e.to_string().contains(&addr.to_string()), "{e}");
    }

    #[test]
    fn threads_may_share_an_address() {
        let first = listen(ANY.parse().unwrap(), true).unwrap();
        listen(first.local_addr().unwrap(), true).unwrap();
    }
}
