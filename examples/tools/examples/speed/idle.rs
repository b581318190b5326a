//! Memory of connections that wait for their next request.

use std::{
    env, fs,
    net::SocketAddr,
    process::{Command, ExitCode},
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use vote_testkit::{Child, Redis, Service};
use vote_tools::command::rounded;

use crate::{
    args::{Hold, Idle},
    frontend::{self, Frontend, open_queue},
    requests::Requests,
};

/// What a process that holds connections prints once all are open.
const OPEN: &str = "all connections are open";
/// Time until which all connections must be open.
const OPEN_WITHIN: Duration = Duration::from_secs(120);
/// Time after which a connection counts as idle: a frontend gives its buffers back within 10 s.
const IDLE_AFTER: Duration = Duration::from_secs(12);
/// KiB that an idle connection may take at most.
const MOST: f64 = 12.0;

/// Opens connections, sends a request over each, and never returns.
pub(crate) async fn hold(Hold { port, connections }: &Hold) -> ExitCode {
    let requests = Requests {
        address: SocketAddr::from(([127, 0, 0, 1], *port)),
        requests: [frontend::refusal()].into(),
        connections: 1,
        status: 401,
        rate: None,
    };
    let mut open = Vec::new();
    for _ in 0..*connections {
        open.push(requests.open().await);
    }
    println!("{OPEN}");
    std::future::pending().await
}

/// Measures by how much the memory of a frontend grows with idle connections.
pub(crate) async fn run(Idle { connections }: &Idle) -> Value {
    let redis = Redis::start();
    open_queue(&redis).await;
    let frontend = Frontend::start(&Service::binary("vote-frontend"), &redis);
    // What the first requests need is not a cost of a connection.
    frontend.refusals().send(Duration::from_secs(1), || [0.0]).await;
    sleep(Duration::from_secs(1)).await;
    let before = resident(frontend.pid());
    let holders = [0; 2].map(|_| {
        let mut command = Command::new(env::current_exe().unwrap());
        command.arg("hold").arg(frontend.port().to_string()).arg((connections / 2).to_string());
        Child::start(&command, TempDir::with_prefix("vote-speed-").unwrap().keep(), "KILL")
    });
    let began = Instant::now();
    while !holders.iter().all(|holder| holder.log().contains(OPEN)) {
        assert!(began.elapsed() < OPEN_WITHIN, "{}", holders.each_ref().map(Child::tail).join("\n"));
        sleep(Duration::from_millis(100)).await;
    }
    sleep(IDLE_AFTER).await;
    // The allocator gives memory back to the system when it is called for the next requests.
    frontend.refusals().send(Duration::from_secs(1), || [0.0]).await;
    sleep(Duration::from_secs(1)).await;
    let of_connection = (resident(frontend.pid()) - before) / f64::from(*connections);
    let met = of_connection <= MOST;
    let mark = if met { "met" } else { "not met" };
    eprintln!(
        "speed: {connections} idle connections take {of_connection:.1} KiB each, at most {MOST} wanted: {mark}"
    );
    json!({ "connections": connections, "kib_of_connection": rounded(of_connection), "met": met })
}

/// Returns the resident memory of a process, in KiB.
fn resident(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
