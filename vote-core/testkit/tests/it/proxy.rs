//! A proxy forwards connections, can be cut and healed, and can switch to another server.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;

use vote_testkit::{TcpProxy, free_port};

/// Starts a server that answers each byte with its name, on each connection until the client closes it. Returns its
/// port.
fn server(name: &'static str) -> u16 {
    let port = free_port();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            thread::spawn(move || {
                while client.read_exact(&mut [0]).is_ok() {
                    client.write_all(name.as_bytes()).unwrap();
                }
            });
        }
    });
    port
}

fn connect(proxy: &TcpProxy) -> TcpStream {
    TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).unwrap()
}

/// Returns the name that the server behind a connection answers; empty if the connection has ended.
fn ask(stream: &mut TcpStream) -> String {
    let mut name = vec![0; 3];
    let answer = stream.write_all(b"?").and_then(|()| stream.read_exact(&mut name));
    answer.map(|()| String::from_utf8(name).unwrap()).unwrap_or_default()
}

#[test]
fn a_cut_proxy_ends_connections_and_accepts_none_until_it_is_healed() {
    let proxy = TcpProxy::to(server("one"));
    let mut before = connect(&proxy);
    assert_eq!(ask(&mut before), "one");

    proxy.cut();
    assert_eq!(ask(&mut before), "");
    assert_eq!(ask(&mut connect(&proxy)), "");

    proxy.heal();
    assert_eq!(ask(&mut connect(&proxy)), "one");
}

#[test]
fn a_switched_proxy_directs_new_connections_to_the_other_server() {
    let proxy = TcpProxy::to(server("one"));
    let mut before = connect(&proxy);
    assert_eq!(ask(&mut before), "one");

    proxy.switch_to(server("two"));

    assert_eq!(ask(&mut before), "");
    assert_eq!(ask(&mut connect(&proxy)), "two");
}
