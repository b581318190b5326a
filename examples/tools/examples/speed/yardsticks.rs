//! Servers that a frontend is compared with, each with one thread or process that serves.

use std::{env, fs, net::SocketAddr, path::PathBuf, process::Command};

use tempfile::TempDir;
use vote_testkit::{Child, Redis, free_port};

/// A server that answers every request.
pub(crate) struct Yardstick {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Yardstick {
    pub(crate) fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Starts a [bare hyper server](crate::bare) with this answer.
    pub(crate) fn bare(answer: &[u8]) -> Self {
        let (folder, address) = place();
        let file = folder.join("answer");
        fs::write(&file, answer).unwrap();
        let mut command = Command::new(env::current_exe().unwrap());
        command.arg("bare").arg(address.port().to_string()).arg(file);
        Self { child: Child::start(&command, folder, "KILL"), address }
    }

    /// Starts an nginx that answers with 202.
    pub(crate) fn nginx() -> Self {
        let (folder, address) = place();
        let (file, here) = (folder.join("nginx.conf"), folder.display());
        let config = format!(
            "daemon off;\nworker_processes 1;\npid {here}/pid;\nerror_log {here}/error.log;\n\
             events {{ worker_connections 4096; }}\n\
             http {{\n  access_log off;\n  keepalive_requests 1000000000;\n  client_body_temp_path {here}/body;\n\
             server {{ listen {address}; location / {{ return 202; }} }}\n}}\n"
        );
        fs::write(&file, config).unwrap();
        // Its workers run as another user, who must reach the folder.
        fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let mut command = Command::new("nginx");
        command.arg("-e").arg(folder.join("error.log")).arg("-c").arg(file);
        Self { child: Child::start(&command, folder, "TERM"), address }
    }

    /// Starts a webdis that appends to streams of this Redis.
    pub(crate) fn webdis(redis: &Redis) -> Self {
        let (folder, address) = place();
        let file = folder.join("webdis.json");
        let config = serde_json::json!({
            "redis_host": "127.0.0.1", "redis_port": redis.port(), "http_host": "127.0.0.1",
            "http_port": address.port(), "threads": 1, "pool_size": 20, "daemonize": false, "websockets": false,
            "database": 0, "verbosity": 0, "logfile": folder.join("webdis.log"),
        });
        fs::write(&file, config.to_string()).unwrap();
        let mut command = Command::new("webdis");
        command.arg(file);
        Self { child: Child::start(&command, folder, "KILL"), address }
    }
}

/// Returns a new folder, which the process started in it removes, and a free address.
fn place() -> (PathBuf, SocketAddr) {
    let folder = TempDir::with_prefix("vote-speed-").unwrap().keep();
    (folder, SocketAddr::from(([127, 0, 0, 1], free_port())))
}
