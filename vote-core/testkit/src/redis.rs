//! A Redis of its own.

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

const REMEDY: &str = "apt-get install redis-server on Debian and Ubuntu; elsewhere install Redis 7.0 or \
                      newer, or Valkey, so that its server and its cli are on PATH";

const READY_WITHIN: Duration = Duration::from_secs(20);

/// What a queue demands of its Redis, so that it loses nothing it has acknowledged.
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

    /// Starts a Redis with other settings, for instance `("appendfsync", "everysec")`: name and value as on
    /// a line of `redis.conf`. `port`, `bind`, `unixsocket`, `dir` and `requirepass` can't be set.
    pub fn start_with(settings: &[(&str, &str)]) -> Self {
        // Before there is a directory to clear away.
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
        panic!("no port for Redis in 5 attempts\n{}", child.map(|child| child.tail()).unwrap_or_default());
    }

    /// The one that the tests of this process share; each keeps to its own keys, by
    /// a [`Self::unique_prefix`]. For tests that neither stop it nor change its settings.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Redis> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// A key prefix that nobody else has, without a separator at its end: `test-4711-3`.
    pub fn unique_prefix() -> String {
        static COUNT: AtomicU64 = AtomicU64::new(1);
        format!("test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
    }

    /// `redis://127.0.0.1:PORT`, the same after a restart.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// `redis+unix:///…/redis.sock`, the same after a restart.
    pub fn socket_url(&self) -> String {
        format!("redis+unix://{}", socket(&self.dir).display())
    }

    /// The TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The data directory. The log of appends is in `appendonlydir` in it.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The process id of the server.
    pub fn pid(&self) -> u32 {
        self.child().pid()
    }

    /// What the server has logged.
    pub fn log(&self) -> String {
        self.child().log()
    }

    /// Kills the server by SIGKILL, as a power cut would, and waits for its end.
    pub fn kill9(&self) {
        self.child().stop("KILL");
    }

    /// Starts the server again on the same port and data, shutting it down in order first if it runs. Returns
    /// once it has loaded its data.
    pub fn restart(&self) {
        let mut child = self.child();
        child.stop("TERM");
        for _ in 0..5 {
            child.replace(&server(&server_program(), &self.dir));
            if wait_ready(&child, &self.dir) {
                return;
            }
            // Someone sits on the port: not for long, or in vain.
            std::thread::sleep(Duration::from_millis(500));
        }
        panic!("port {} is taken, so Redis can't restart\n{}", self.port, child.tail());
    }

    /// Stops the server's process: connections stay open, new ones are still accepted by the kernel, and what
    /// is sent runs when it wakes.
    pub fn freeze(&self) {
        self.child().signal("STOP");
    }

    /// Wakes a frozen server.
    pub fn thaw(&self) {
        self.child().signal("CONT");
    }

    /// Runs a command by `redis-cli` and returns what it prints, without the last line's end. An error reply
    /// is a panic.
    pub fn cli(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(cli_program());
        command.arg("-e").arg("-s").arg(socket(&self.dir)).args(arguments);
        program::answer(&format!("redis-cli {arguments:?}"), command.output())
    }

    /// As [`cli`](Self::cli), where an error that Redis answers is an answer like any other.
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

/// True once the server has loaded its data and answers; false if another process had its port.
fn wait_ready(child: &Child, dir: &Path) -> bool {
    // Asked through the socket, since on the port a stranger might answer.
    if child.wait_ready(READY_WITHIN, || ping(dir).is_ok_and(|answer| answer.starts_with(b"+PONG"))) {
        return true;
    }
    if child.tail().contains("Address already in use") {
        return false;
    }
    panic!("Redis ended at its start\n{}", child.tail());
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
