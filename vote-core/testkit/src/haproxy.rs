//! An HAProxy for tests.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::{Child, dir, http, program};

const REMEDY: &str = "deploy/test fetches the program; or apt-get install haproxy on Debian and Ubuntu; elsewhere \
                      install HAProxy 2.6 or newer, so that its program is on PATH";

const READY_WITHIN: Duration = Duration::from_secs(20);

/// A running HAProxy.
#[derive(Debug)]
pub struct Haproxy {
    child: Child,
}

impl Haproxy {
    /// Starts an HAProxy with this configuration and these environment variables, which the configuration may use.
    /// Returns once `address` (host:port) answers `GET /healthz`.
    pub fn start(config: &str, environment: &[(&str, &str)], address: &str) -> Self {
        let program = program();
        let dir = dir::new_dir("haproxy");
        let file = dir.join("haproxy.cfg");
        if let Err(error) = fs::write(&file, config) {
            panic!("can't write {}: {error}", file.display());
        }
        let mut command = Command::new(program);
        command.arg("-db").arg("-f").arg(file).envs(environment.iter().copied());
        let child = Child::start(&command, dir, "KILL");
        let answers =
            || http::http(address, "GET", "/healthz", &[], b"").is_ok_and(|answer| answer.status == 200);
        if !child.wait_ready(READY_WITHIN, answers) {
            panic!("HAProxy ended during startup\n{}", child.tail());
        }
        Self { child }
    }

    /// Returns the process id.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Returns the last 40 lines of its log, for panic messages.
    pub fn tail(&self) -> String {
        self.child.tail()
    }
}

/// The folder of the program is on the search path of root only.
fn program() -> PathBuf {
    let installed = PathBuf::from("/usr/sbin/haproxy");
    match program::find(&["haproxy"]) {
        Some(found) => found,
        None if installed.is_file() => installed,
        None => program::require(&["haproxy"], REMEDY),
    }
}
