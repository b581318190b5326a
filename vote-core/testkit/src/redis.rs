//! A Redis server for tests.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use crate::{Child, dir, port, program};

mod replica;

const REMEDY: &str = "apt-get install redis-server on Debian and Ubuntu; elsewhere install Redis 7.0 or \
                      newer, or Valkey, so that its server and its cli are on PATH";

const READY_WITHIN: Duration = Duration::from_secs(20);

/// Settings that a queue requires of its Redis, so that no acknowledged vote is lost.
const DURABLE: [(&str, &str); 5] = [
    ("appendonly", "yes"),
    ("appendfsync", "always"),
    ("no-appendfsync-on-rewrite", "no"),
    ("maxmemory-policy", "noeviction"),
    ("save", "\"\""),
];

/// A running Redis (or Valkey) with an empty data directory, on a loopback port and a Unix socket.
#[derive(Debug)]
pub struct Redis {
    child: Mutex<Child>,
    dir: PathBuf,
    port: u16,
}

impl Redis {
    /// Starts a durable Redis: `appendonly yes`, `appendfsync always`, `no-appendfsync-on-rewrite no`,
    /// `maxmemory-policy noeviction`, no snapshots.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a Redis with other settings, such as `("appendfsync", "everysec")`: names and values as in
    /// `redis.conf`. `port`, `bind`, `unixsocket`, `dir` and `requirepass` can't be set.
    pub fn start_with(settings: &[(&str, &str)]) -> Self {
        // Panics on a missing program before there is a directory to remove.
        let (program, _) = (server_program(), cli_program());
        let dir = dir::new_dir("redis");
        let mut child = None::<Child>;
        for _ in 0..5 {
            let port = port::free_port();
            write_config(&dir, port, settings);
            let command = server(&program, &dir);
            match &mut child {
                Some(child) => child.replace(&command),
                None => child = Some(Child::start(&command, dir.clone(), "KILL")),
            }
            if let Some(started) = child.take_if(|child| wait_ready(child, &dir)) {
                return Self { child: Mutex::new(started), dir, port };
            }
        }
        panic!(
            "no free port for Redis in 5 attempts\n{}",
            child.map(|child| child.tail()).unwrap_or_default()
        );
    }

    /// Returns the server that the tests of this process share; each uses only keys with its own
    /// [`Self::unique_prefix`]. For tests that neither stop it nor change its settings.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Redis> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// Returns a key prefix that no other test uses, without a separator at its end, such as `test-4711-3`.
    pub fn unique_prefix() -> String {
        static COUNT: AtomicU64 = AtomicU64::new(1);
        format!("test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
    }

    /// Returns `redis://127.0.0.1:PORT`, which stays the same after a restart.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Returns `redis+unix:///…/redis.sock`, which stays the same after a restart.
    pub fn socket_url(&self) -> String {
        format!("redis+unix://{}", socket(&self.dir).display())
    }

    /// Returns the TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the data directory, which contains the append-only file in `appendonlydir`.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns the process id of the server.
    pub fn pid(&self) -> u32 {
        self.child().pid()
    }

    /// Returns everything that the server has logged.
    pub fn log(&self) -> String {
        self.child().log()
    }

    /// Kills the server with SIGKILL, as in a crash, and waits until it has ended.
    pub fn kill9(&self) {
        self.child().stop("KILL");
    }

    /// Starts the server again on the same port and data, first shutting it down cleanly if it is running. Returns
    /// once it has loaded its data.
    pub fn restart(&self) {
        let mut child = self.child();
        child.stop("TERM");
        for _ in 0..5 {
            child.replace(&server(&server_program(), &self.dir));
            if wait_ready(&child, &self.dir) {
                return;
            }
            // Another process has the port, perhaps only for a moment.
            std::thread::sleep(Duration::from_millis(500));
        }
        panic!("Redis can't restart: port {} is in use\n{}", self.port, child.tail());
    }

    /// Suspends the server's process: connections stay open, the kernel still accepts new ones, and commands sent
    /// meanwhile run once it is resumed.
    pub fn freeze(&self) {
        self.child().signal("STOP");
    }

    /// Resumes a frozen server.
    pub fn thaw(&self) {
        self.child().signal("CONT");
    }

    /// Runs a command with `redis-cli` and returns its output, without the last line's end. Panics on an error
    /// reply.
    pub fn cli(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(cli_program());
        command.arg("-e").arg("-s").arg(socket(&self.dir)).args(arguments);
        program::answer(&format!("redis-cli {arguments:?}"), command.output())
    }

    /// Runs a command like [`cli`](Self::cli), but returns an error reply like any other reply.
    pub fn answer(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(cli_program());
        command.arg("-s").arg(socket(&self.dir)).args(arguments);
        program::answer(&format!("redis-cli {arguments:?}"), command.output())
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn socket(dir: &Path) -> PathBuf {
    dir.join("redis.sock")
}

fn config(dir: &Path) -> PathBuf {
    dir.join("redis.conf")
}

fn server_program() -> PathBuf {
    program::require(&["redis-server", "valkey-server"], REMEDY)
}

fn cli_program() -> PathBuf {
    program::require(&["redis-cli", "valkey-cli"], REMEDY)
}

fn server(program: &Path, dir: &Path) -> Command {
    let mut command = Command::new(program);
    command.arg(config(dir));
    command
}

fn write_config(dir: &Path, port: u16, settings: &[(&str, &str)]) {
    let mut text = format!(
        "bind 127.0.0.1\nport {port}\nunixsocket {}\ndir {}\ndaemonize no\n",
        socket(dir).display(),
        dir.display()
    );
    for (name, value) in DURABLE.iter().chain(settings) {
        // A later line overrides an earlier one. Writing to a String can't fail.
        let _ = writeln!(text, "{name} {value}");
    }
    if let Err(error) = fs::write(config(dir), text) {
        panic!("can't write {}: {error}", config(dir).display());
    }
}

/// Waits until the server has loaded its data and answers, and returns true; returns false if another process has its
/// port.
fn wait_ready(child: &Child, dir: &Path) -> bool {
    // Through the socket, since another server might answer on the port. A server that asks for a password is up, too.
    let is_up = |answer: Vec<u8>| answer.starts_with(b"+PONG") || answer.starts_with(b"-NOAUTH");
    if child.wait_ready(READY_WITHIN, || ping(dir).is_ok_and(is_up)) {
        return true;
    }
    if child.tail().contains("Address already in use") {
        return false;
    }
    panic!("Redis ended during startup\n{}", child.tail());
}

fn ping(dir: &Path) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket(dir))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(b"PING\r\n")?;
    let mut answer = vec![0; 64];
    let length = stream.read(&mut answer)?;
    answer.truncate(length);
    Ok(answer)
}
