//! Listening sockets.

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use socket2::{Domain, Protocol, Socket, Type};

/// Number of completed connections that the kernel holds until they are accepted. In a spike they arrive faster than an
/// event loop accepts them. The kernel caps the number at `net.core.somaxconn` (4096 on Linux since 5.4).
const BACKLOG: i32 = 4096;

/// Listens on `addr` with a non-blocking socket, ready for `tokio::net::TcpListener::from_std`.
///
/// With `reuse_port`, several sockets may share the address, one per thread, and the kernel distributes connections
/// among them. Without it, a second process on the same address gets an error, as it should.
///
/// # Errors
/// Fails if the address is in use or does not belong to this machine; the message contains the address.
pub fn listen(addr: SocketAddr, reuse_port: bool) -> io::Result<TcpListener> {
    open(addr, reuse_port).map_err(|e| io::Error::new(e.kind(), format!("can't listen on {addr}: {e}")))
}

fn open(addr: SocketAddr, reuse_port: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    // Otherwise a restart would have to wait until the kernel has forgotten the old connections.
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
    fn an_address_in_use_is_named_in_the_error() {
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
