//! The results services, and what they use of the machine.

use std::{fs, net::SocketAddr, time::Duration};

use vote_testkit::{Service, free_port};

use crate::error::StreamsError;

const KEY: &str = "abababababababababababababababababababababababababababababababab";

/// Ticks of the kernel's clock for CPU times, per second: 100 on every platform of Linux.
const TICKS: u64 = 100;

/// The results services.
pub(crate) struct Services {
    services: Vec<(Service, SocketAddr)>,
}

/// What the services have used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) cpu: Duration,
    pub(crate) memory: u64,
}

impl Services {
    /// Starts services that read this store, each for this number of streams, and waits until they are ready.
    pub(crate) fn start(store: &str, streams: &[u32]) -> Self {
        let program = Service::binary("vote-results");
        let start = |streams: &u32| {
            let listen = format!("127.0.0.1:{}", free_port());
            let admin = format!("127.0.0.1:{}", free_port());
            // Four fifths of the connections may be streams.
            let connections = (streams + streams / 4 + 100).to_string();
            let environment = [
                ("VOTE_STORE", store),
                ("VOTE_RECEIPT_KEY", KEY),
                ("VOTE_LISTEN", &listen),
                ("VOTE_ADMIN_LISTEN", &admin),
                ("VOTE_MAX_CONNECTIONS", &connections),
                ("VOTE_THREADS", "1"),
            ];
            let service = Service::start(&program, &[], &environment);
            service.wait_http_ok(&format!("http://{admin}/readyz"));
            (service, listen.parse().unwrap_or_else(|e| unreachable!("{listen}: {e}")))
        };
        Self { services: streams.iter().map(start).collect() }
    }

    pub(crate) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.services.iter().map(|(_, address)| *address)
    }

    /// Returns what all services have used so far.
    pub(crate) fn usage(&self) -> Result<Usage, StreamsError> {
        let mut usage = Usage { cpu: Duration::ZERO, memory: 0 };
        for (service, _) in &self.services {
            usage.cpu += cpu(service.pid())?;
            usage.memory += memory(service.pid())?;
        }
        Ok(usage)
    }
}

fn read(path: String) -> Result<String, StreamsError> {
    fs::read_to_string(&path).map_err(|error| StreamsError::Proc { path, error })
}

fn unreadable(path: String) -> StreamsError {
    StreamsError::Proc { path, error: std::io::ErrorKind::InvalidData.into() }
}

/// Returns the CPU time of a process: fields 14 and 15 of its `stat`, counted behind the name in parentheses.
fn cpu(pid: u32) -> Result<Duration, StreamsError> {
    let path = format!("/proc/{pid}/stat");
    let stat = read(path.clone())?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |field: usize| fields.get(field)?.parse::<u64>().ok();
    let sum = ticks(11).zip(ticks(12)).map(|(user, system)| user + system).ok_or_else(|| unreadable(path))?;
    Ok(Duration::from_millis(sum * 1000 / TICKS))
}

/// Returns the resident memory of a process in bytes.
fn memory(pid: u32) -> Result<u64, StreamsError> {
    let path = format!("/proc/{pid}/status");
    let status = read(path.clone())?;
    let kilobytes = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    Ok(kilobytes.ok_or_else(|| unreadable(path))? * 1024)
}
