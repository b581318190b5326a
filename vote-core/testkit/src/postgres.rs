//! A Postgres of its own.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use crate::{Child, dir, port, program};

mod install;
mod standby;

use install::Install;

/// Room for crash recovery on a slow disk.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// What differs from initdb's defaults. `fsync` and `synchronous_commit` stay on: the program under test
/// refuses a server without them.
const SETTINGS: [(&str, &str); 5] = [
    ("listen_addresses", "127.0.0.1"),
    ("max_connections", "200"),
    ("shared_buffers", "128MB"),
    // Files in the data directory, so that a killed server leaves nothing in /dev/shm.
    ("dynamic_shared_memory_type", "mmap"),
    ("log_line_prefix", "%m [%p] %d "),
];

/// Has the postmaster end its sessions at once, without a checkpoint, and give its shared memory back, which
/// a SIGKILL would leave behind.
const IMMEDIATE: &str = "QUIT";

/// Has the postmaster roll open transactions back, write a checkpoint and end.
const FAST: &str = "INT";

/// A running Postgres with an empty cluster: superuser `postgres`, no password, UTF-8, C locale.
///
/// When the tests run as root it runs as the user `postgres`, since it refuses to be root.
#[derive(Debug)]
pub struct Postgres {
    install: Install,
    child: Mutex<Child>,
    dir: PathBuf,
    port: u16,
}

impl Postgres {
    /// Starts a new cluster, which takes a second or two. Most tests want a [`Self::database`] in the
    /// [`Self::shared`] one instead.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a new cluster with other settings, for instance `("fsync", "off")`: name and value as in
    /// `postgresql.conf`, the value without quotes.
    pub fn start_with(settings: &[(&str, &str)]) -> Self {
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
        Self::serve(install, child, dir)
    }

    /// Starts a server on the cluster in `dir`, in the place of the program that made it.
    fn serve(install: Install, mut child: Child, dir: PathBuf) -> Self {
        for _ in 0..5 {
            let port = port::free_port();
            child.replace(&server(&install, &dir, port));
            if wait_ready(&install, &child, &dir, port) {
                return Self { install, child: Mutex::new(child), dir, port };
            }
        }
        panic!("no port for Postgres in 5 attempts\n{}", child.tail());
    }

    /// The one that the tests of this process share; each makes its own [`Self::database`]. For tests that
    /// neither stop it nor change its settings.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// Makes an empty database with a new name and returns its URL. It lasts as long as the server.
    pub fn database(&self) -> String {
        static COUNT: AtomicU64 = AtomicU64::new(1);
        let name = format!("test_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        // Unlike template1, template0 is never connected to, which would refuse the copy.
        self.psql("postgres", &format!("CREATE DATABASE {name} TEMPLATE template0"));
        self.url(&name)
    }

    /// `postgres://postgres@127.0.0.1:PORT/DATABASE`, the same after a restart.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// The TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The directory with the Unix socket and, in `data`, the cluster.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The process id of the postmaster.
    pub fn pid(&self) -> u32 {
        self.child().pid()
    }

    /// What the server has logged.
    pub fn log(&self) -> String {
        self.child().log()
    }

    /// Runs SQL by `psql` and returns the rows, one a line, their columns with `|` between, without the last
    /// line's end. An error is a panic. Each statement is its own transaction. `database` is a name or a URL.
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
            // Beside the reading, since psql answers while it reads. If it ends early, its status says so.
            scope.spawn(|| input.map(|mut input| input.write_all(sql.as_bytes())));
            psql.wait_with_output()
        });
        program::answer(&format!("psql on {database}"), output)
    }

    /// A program of this Postgres that talks to the server, such as `pg_dump`, as the superuser.
    pub fn client(&self, program: &str) -> Command {
        let mut command = self.install.client_command(program);
        command.args(["-h", "127.0.0.1", "-U", "postgres", "-p", &self.port.to_string()]);
        command
    }

    /// Stops the server in order, rolling open transactions back, and waits for its end.
    pub fn stop(&self) {
        self.child().stop(FAST);
    }

    /// Cuts all sessions without a checkpoint and waits for the end, as when the machine goes.
    pub fn stop_immediate(&self) {
        self.child().stop(IMMEDIATE);
    }

    /// Starts the server again on the same port and data, stopping it in order first if it runs.
    pub fn restart(&self) {
        self.restart_after(FAST);
    }

    /// Cuts all sessions without a checkpoint, as `pg_ctl -m immediate restart` does, and starts again: the
    /// server recovers from its log, as after a crash.
    pub fn restart_immediate(&self) {
        self.restart_after(IMMEDIATE);
    }

    fn restart_after(&self, signal: &str) {
        let mut child = self.child();
        child.stop(signal);
        for _ in 0..5 {
            child.replace(&server(&self.install, &self.dir, self.port));
            if wait_ready(&self.install, &child, &self.dir, self.port) {
                return;
            }
            // Someone sits on the port: not for long, or in vain.
            std::thread::sleep(Duration::from_millis(500));
        }
        panic!("port {} is taken, so Postgres can't restart\n{}", self.port, child.tail());
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A directory that the server can enter.
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

fn server(install: &Install, dir: &Path, port: u16) -> Command {
    let mut command = install.server_command("postgres");
    // On the command line what a test must not change; the rest is in the file, where ALTER SYSTEM can
    // override it.
    command.arg("-D").arg(data(dir)).arg("-k").arg(dir).args(["-p", &port.to_string()]);
    command.env("HOME", dir).env("LC_ALL", "C");
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

/// True once the server accepts connections; false if another process had its port.
fn wait_ready(install: &Install, child: &Child, dir: &Path, port: u16) -> bool {
    let port = port.to_string();
    let ready = child.wait_ready(READY_WITHIN, || {
        // Asked through the socket, since on the port a stranger might answer.
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
    panic!("Postgres ended at its start\n{}", child.tail());
}
