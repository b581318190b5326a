//! A Postgres server for tests.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use crate::{Child, SkewedClock, cpu, dir, port, program};

mod install;
mod standby;

use install::Install;

/// Time limit of a start, which allows for crash recovery on a slow disk.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Settings that differ from initdb's defaults. `fsync` and `synchronous_commit` stay on: the program under test
/// refuses a server without them.
const SETTINGS: [(&str, &str); 5] = [
    ("listen_addresses", "127.0.0.1"),
    ("max_connections", "200"),
    ("shared_buffers", "128MB"),
    // Uses files in the data directory, so that a killed server leaves nothing in /dev/shm.
    ("dynamic_shared_memory_type", "mmap"),
    ("log_line_prefix", "%m [%p] %d "),
];

/// Signal on which the postmaster ends its sessions at once, without a checkpoint, and frees its shared memory, which
/// a SIGKILL would leave behind.
const IMMEDIATE: &str = "QUIT";

/// Signal on which the postmaster rolls back open transactions, writes a checkpoint and exits.
const FAST: &str = "INT";

/// A running Postgres with an empty cluster: superuser `postgres`, no password, UTF-8, C locale.
///
/// If the tests run as root, it runs as the user `postgres`, since it refuses to run as root.
#[derive(Debug)]
pub struct Postgres {
    install: Install,
    child: Mutex<Child>,
    dir: PathBuf,
    port: u16,
    /// Environment variables of the server in addition to the usual ones.
    environment: Vec<(String, String)>,
}

impl Postgres {
    /// Starts a new cluster, which takes a second or two. Most tests need only a [`Self::database`] in the
    /// [`Self::shared`] cluster.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a new cluster with other settings, such as `("fsync", "off")`: names and values as in
    /// `postgresql.conf`, the values without quotes.
    pub fn start_with(settings: &[(&str, &str)]) -> Self {
        Self::start_in(settings, Vec::new())
    }

    /// Starts a new cluster like [`Self::start_with`], whose server has this clock, also after a restart.
    pub fn start_with_clock(settings: &[(&str, &str)], clock: &SkewedClock) -> Self {
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Self::start_in(settings, clock.environment().map(owned).to_vec())
    }

    fn start_in(settings: &[(&str, &str)], environment: Vec<(String, String)>) -> Self {
        let install = Install::find();
        let dir = new_dir(&install);
        let mut initdb = install.server_command("initdb");
        initdb.arg("-D").arg(data(&dir)).args(["-U", "postgres", "-A", "trust", "-E", "UTF8"]);
        initdb.args(["--locale=C", "--no-sync"]).env("HOME", &dir).env("LC_ALL", "C");
        let child = Child::start(&initdb, dir.clone(), IMMEDIATE);
        if !child.wait_exit(READY_WITHIN).is_some_and(|exit| exit.success()) {
            panic!("initdb failed\n{}", child.tail());
        }
        append_settings(&dir, &SETTINGS);
        append_settings(&dir, settings);
        Self::serve(install, child, dir, environment)
    }

    /// Starts a server on the cluster in `dir`. It replaces `child`, the program that created the cluster.
    fn serve(install: Install, mut child: Child, dir: PathBuf, environment: Vec<(String, String)>) -> Self {
        for _ in 0..5 {
            let port = port::free_port();
            child.replace(&server(&install, &dir, port, &environment));
            if wait_ready(&install, &child, &dir, port) {
                return Self { install, child: Mutex::new(child), dir, port, environment };
            }
        }
        panic!("no free port for Postgres in 5 attempts\n{}", child.tail());
    }

    /// Returns the server that the tests of this process share, each with its own [`Self::database`]. For tests that
    /// neither stop it nor change its settings.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// Creates an empty database with a new name and returns its URL. The database lasts as long as the server.
    pub fn database(&self) -> String {
        static COUNT: AtomicU64 = AtomicU64::new(1);
        let name = format!("test_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        // A template can't be copied while a session is connected to it. Unlike template1, template0 accepts none.
        self.psql("postgres", &format!("CREATE DATABASE {name} TEMPLATE template0"));
        self.url(&name)
    }

    /// Returns `postgres://postgres@127.0.0.1:PORT/DATABASE`, which stays the same after a restart.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// Returns the TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the directory with the Unix socket and, in `data`, the cluster.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns the process id of the postmaster.
    pub fn pid(&self) -> u32 {
        self.child().pid()
    }

    /// Returns the CPU time so far of the server's processes, without those that have ended.
    pub fn cpu(&self) -> Duration {
        let pid = self.pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        children.split_whitespace().map(cpu::used).sum()
    }

    /// Returns everything that the server has logged.
    pub fn log(&self) -> String {
        self.child().log()
    }

    /// Runs SQL with `psql` and returns the rows, one per line, their columns separated by `|`, without the last
    /// line's end. Panics on an error. Each statement is its own transaction. `database` is a name or a URL.
    pub fn psql(&self, database: &str, sql: &str) -> String {
        let mut command = self.install.client_command("psql");
        command.args(["-qAtX", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", "postgres"]);
        command.args(["-p", &self.port.to_string(), "-d", database, "-f", "-"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut psql = match command.spawn() {
            Ok(psql) => psql,
            Err(error) => panic!("can't run psql: {error}"),
        };
        let input = psql.stdin.take();
        let output = std::thread::scope(|scope| {
            // On a thread of its own, since psql writes output before it has read all input. If psql ends early, its
            // status tells.
            scope.spawn(|| input.map(|mut input| input.write_all(sql.as_bytes())));
            psql.wait_with_output()
        });
        program::answer(&format!("psql on {database}"), output)
    }

    /// Returns a command that runs a client program of this Postgres, such as `pg_dump`, connected as the superuser.
    pub fn client(&self, program: &str) -> Command {
        let mut command = self.install.client_command(program);
        command.args(["-h", "127.0.0.1", "-U", "postgres", "-p", &self.port.to_string()]);
        command
    }

    /// Shuts the server down cleanly, rolling back open transactions, and waits until it has ended.
    pub fn stop(&self) {
        self.child().stop(FAST);
    }

    /// Ends all sessions at once, without a checkpoint, as when the machine fails, and waits until the server has
    /// ended.
    pub fn stop_immediate(&self) {
        self.child().stop(IMMEDIATE);
    }

    /// Starts the server again on the same port and data, first shutting it down cleanly if it is running.
    pub fn restart(&self) {
        self.restart_after(FAST);
    }

    /// Restarts the server after ending all sessions without a checkpoint, like `pg_ctl -m immediate restart`. The
    /// server then recovers from its log, as after a crash.
    pub fn restart_immediate(&self) {
        self.restart_after(IMMEDIATE);
    }

    fn restart_after(&self, signal: &str) {
        let mut child = self.child();
        child.stop(signal);
        for _ in 0..5 {
            child.replace(&server(&self.install, &self.dir, self.port, &self.environment));
            if wait_ready(&self.install, &child, &self.dir, self.port) {
                return;
            }
            // Another process has the port, perhaps only for a moment.
            std::thread::sleep(Duration::from_millis(500));
        }
        panic!("Postgres can't restart: port {} is in use\n{}", self.port, child.tail());
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Creates a directory that the server can enter.
fn new_dir(install: &Install) -> PathBuf {
    let dir = dir::new_dir("postgres");
    if let Some((uid, gid)) = install.owner()
        && let Err(error) = chown(&dir, Some(uid), Some(gid))
    {
        panic!("can't give {} to the user postgres: {error}", dir.display());
    }
    dir
}

fn data(dir: &Path) -> PathBuf {
    dir.join("data")
}

fn server(install: &Install, dir: &Path, port: u16, environment: &[(String, String)]) -> Command {
    let mut command = install.server_command("postgres");
    // On the command line are the settings that a test must not change. The others are in the file, where ALTER SYSTEM
    // can override them.
    command.arg("-D").arg(data(dir)).arg("-k").arg(dir).args(["-p", &port.to_string()]);
    command.env("HOME", dir).env("LC_ALL", "C");
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    command
}

fn append_settings(dir: &Path, settings: &[(&str, &str)]) {
    let mut text = String::new();
    for (name, value) in settings {
        // A later line overrides an earlier one. Writing to a String can't fail.
        let _ = writeln!(text, "{name} = '{}'", value.replace('\'', "''"));
    }
    let path = data(dir).join("postgresql.conf");
    let appended =
        File::options().append(true).open(&path).and_then(|mut file| file.write_all(text.as_bytes()));
    if let Err(error) = appended {
        panic!("can't write {}: {error}", path.display());
    }
}

/// Waits until the server accepts connections, and returns true; returns false if another process has its port.
fn wait_ready(install: &Install, child: &Child, dir: &Path, port: u16) -> bool {
    let port = port.to_string();
    let ready = child.wait_ready(READY_WITHIN, || {
        // Through the socket, since another server might answer on the port.
        let mut command = install.client_command("pg_isready");
        command.arg("-q").arg("-h").arg(dir).args(["-p", &port]);
        command.status().is_ok_and(|status| status.success())
    });
    if ready {
        return true;
    }
    if child.tail().contains("Address already in use") {
        return false;
    }
    panic!("Postgres ended during startup\n{}", child.tail());
}
