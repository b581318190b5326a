//! Costs of connections to HAProxy, with and without TLS.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request};
use http_body_util::Full;
use tokio::time::Instant;
use vote_testkit::{Child, free_port};
use vote_tools::{Link, cpu::process_seconds};
use vote_worker::commands::capacity::{Costs, Unit};

/// Seconds of one loop.
const SECONDS: &str = "4";

pub(super) async fn measure(costs: &mut Costs) {
    let found = |program: &str| {
        Command::new(program).arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
    };
    if !found("haproxy") || !found("openssl") {
        eprintln!(
            "scale: haproxy or openssl is not installed, so the costs of the load balancer are not measured"
        );
        return;
    }
    let site = tokio::task::spawn_blocking(|| {
        let site = Site::start();
        let of = |port, kind| site.connection(port, kind);
        let measured = [of(site.rsa, "-new"), of(site.ecdsa, "-new"), of(site.ecdsa, "-reuse")];
        (site, measured)
    });
    let (site, measured) = site.await.unwrap();
    [costs.handshake_rsa, costs.handshake_ecdsa, costs.handshake_resumed] = measured;
    costs.proxied = site.request().await;
}

/// A load balancer on one thread, and behind it another one that answers its requests.
struct Site {
    balancer: Child,
    _behind: Child,
    rsa: u16,
    ecdsa: u16,
    /// Port without TLS, whose requests are passed on.
    plain: u16,
}

impl Site {
    fn start() -> Self {
        let [rsa, ecdsa, plain, behind] = [(); 4].map(|()| free_port());
        let of_behind =
            format!("frontend site\n    bind 127.0.0.1:{behind}\n    http-request return status 200\n");
        let dir = folder();
        let at = dir.display();
        certificate(&dir, "rsa", &["-newkey", "rsa:2048"]);
        certificate(&dir, "ecdsa", &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
        let of_balancer = format!(
            "frontend site\n    bind 127.0.0.1:{rsa} ssl crt {at}/rsa.pem\n    \
             bind 127.0.0.1:{ecdsa} ssl crt {at}/ecdsa.pem\n    http-request return status 200\n\
             listen plain\n    bind 127.0.0.1:{plain}\n    option forwardfor\n    server one 127.0.0.1:{behind}\n"
        );
        Self {
            _behind: haproxy(folder(), &of_behind),
            balancer: haproxy(dir, &of_balancer),
            rsa,
            ecdsa,
            plain,
        }
    }

    /// Measures a TLS connection with one request.
    fn connection(&self, port: u16, kind: &str) -> Unit {
        let before = process_seconds(self.balancer.pid());
        let connections = connect(port, kind);
        let server = (process_seconds(self.balancer.pid()) - before) * 1e6 / connections;
        eprintln!("scale: a TLS connection to port {port} ({kind}): {server:.1} µs of HAProxy");
        Unit { client: 0.0, server }
    }

    /// Measures a request over a connection that stays open.
    async fn request(&self) -> Unit {
        let address = SocketAddr::from(([127, 0, 0, 1], self.plain));
        let host = HeaderValue::from_static("localhost");
        let mut link = Link::new(host, vec![address], Duration::from_secs(5));
        let (start, mut requests, before) = (Instant::now(), 0.0, process_seconds(self.balancer.pid()));
        while start.elapsed() < Duration::from_secs(3) {
            let answer = link.send(Request::new(Full::new(Bytes::new()))).await.unwrap();
            assert!(answer.status.is_success(), "{}", answer.status);
            requests += 1.0;
        }
        let server = (process_seconds(self.balancer.pid()) - before) * 1e6 / requests;
        eprintln!("scale: a request that is passed on: {server:.1} µs of HAProxy");
        Unit { client: 0.0, server }
    }
}

fn folder() -> PathBuf {
    let dir = tempfile::Builder::new().prefix("vote-balancer-").tempdir().unwrap().keep();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

/// Starts HAProxy in a folder, which is removed with it.
fn haproxy(dir: PathBuf, sites: &str) -> Child {
    let config = format!(
        "global\n    maxconn 2000\n    nbthread 1\n    ssl-default-bind-options ssl-min-ver TLSv1.2\n\
         defaults\n    mode http\n    timeout connect 2s\n    timeout client 30s\n    timeout server 30s\n{sites}"
    );
    fs::write(dir.join("haproxy.cfg"), config).unwrap();
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(dir.join("haproxy.cfg"));
    let child = Child::start(&command, dir, "KILL");
    std::thread::sleep(Duration::from_secs(1));
    assert!(child.exit().is_none(), "{}", child.tail());
    child
}

fn certificate(dir: &Path, name: &str, key: &[&str]) {
    let (key_file, certificate) = (dir.join(format!("{name}.key")), dir.join(format!("{name}.crt")));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=localhost"]).args(key);
    openssl.arg("-keyout").arg(&key_file).arg("-out").arg(&certificate).stderr(Stdio::null());
    assert!(openssl.status().unwrap().success(), "openssl can't make a certificate");
    let both = fs::read_to_string(certificate).unwrap() + &fs::read_to_string(key_file).unwrap();
    fs::write(dir.join(format!("{name}.pem")), both).unwrap();
}

/// Opens connections for some seconds, one after the other, each with a request; returns their number.
fn connect(port: u16, kind: &str) -> f64 {
    let address = format!("127.0.0.1:{port}");
    let mut openssl = Command::new("openssl");
    openssl.args(["s_time", "-connect", &address, kind, "-www", "/", "-time", SECONDS]).stderr(Stdio::null());
    let text = String::from_utf8(openssl.output().unwrap().stdout).unwrap();
    // "1234 connections in 1.50s; 822.67 connections/user sec, bytes read 0"; the second is in real seconds.
    let line = text.lines().rfind(|line| line.contains("connections in") && line.contains("real seconds"));
    let count = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    count.unwrap_or_else(|| panic!("openssl s_time printed: {text}"))
}
