//! A Redis that can be killed, frozen, filled up, truncated to its synced bytes, and replaced by its replica.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use vote_testkit::{Child, free_port};

use crate::fsyncs::{self, Cut};

/// Time limit for a start, which loads a log of a few hundred thousand votes.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// Time limit for a replica to catch up: it copies a few thousand votes and writes them to its own file.
const FOLLOWS_WITHIN: Duration = Duration::from_secs(30);
/// Unit of file sizes in the shell's `ulimit`, in bytes (POSIX).
const BLOCK: u64 = 512;

/// A Redis whose syncs of its append-only file are recorded.
#[derive(Debug)]
pub(crate) struct Redis {
    child: Child,
    /// Folder of the server.
    dir: PathBuf,
    library: PathBuf,
    records: PathBuf,
    port: u16,
}

impl Redis {
    /// Starts a Redis in a new folder `dir`.
    ///
    /// # Errors
    /// Fails if the server does not start.
    pub(crate) fn start(dir: &Path, library: &Path, everysec: bool) -> Result<Self, String> {
        let (data, records, port) = (dir.to_owned(), dir.join("records"), free_port());
        fs::create_dir_all(&records).map_err(|e| format!("{}: {e}", records.display()))?;
        let appendfsync = if everysec { "everysec" } else { "always" };
        // Rewrites are off: they would only add files that are synced as a whole.
        let config = format!(
            "bind 127.0.0.1\nport {port}\ndir {}\ndaemonize no\nsave \"\"\nappendonly yes\nappendfsync {appendfsync}\n\
             no-appendfsync-on-rewrite no\nmaxmemory-policy noeviction\nauto-aof-rewrite-percentage 0\n\
             repl-diskless-sync-delay 0\n",
            data.display()
        );
        fs::write(data.join("redis.conf"), config).map_err(|e| format!("{}: {e}", data.display()))?;
        let child = Child::start(&command(&data, library, &records, None), data.clone(), "KILL");
        let redis = Self { child, dir: data, library: library.to_owned(), records, port };
        redis.wait_until_ready()?;
        Ok(redis)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    pub(crate) fn signal(&self, signal: &str) {
        self.child.signal(signal);
    }

    pub(crate) fn kill(&self) {
        self.child.stop("KILL");
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.child.exit().is_some()
    }

    pub(crate) fn log(&self) -> String {
        self.child.log()
    }

    /// Restarts the server, and kills it first if it is running.
    ///
    /// # Errors
    /// Fails if the server does not start.
    pub(crate) fn restart(&mut self) -> Result<(), String> {
        self.child.replace(&command(&self.dir, &self.library, &self.records, None));
        self.wait_until_ready()
    }

    /// Restarts the server on a disk with this many free bytes, without waiting for it. It may end at any time.
    ///
    /// # Errors
    /// Fails if the size of its files can't be read.
    pub(crate) fn restart_with_room(&mut self, bytes: u64) -> Result<(), String> {
        self.child.stop("KILL");
        let length = fsyncs::length(&self.files()).map_err(|e| format!("{}: {e}", self.dir.display()))?;
        let blocks = (length + bytes) / BLOCK + 1;
        self.child.replace(&command(&self.dir, &self.library, &self.records, Some(blocks)));
        Ok(())
    }

    /// Kills the server and truncates its files to the bytes that a power failure would leave.
    ///
    /// # Errors
    /// Fails if a file can't be changed.
    pub(crate) fn cut_back(&self) -> Result<Cut, String> {
        self.kill();
        fsyncs::cut_back(&self.files(), &self.records).map_err(|e| format!("{}: {e}", self.dir.display()))
    }

    /// Starts a replica in a new folder `dir`, and waits until it follows and has written its own file.
    ///
    /// # Errors
    /// Fails if the replica does not get that far in time.
    pub(crate) fn replica(&self, dir: &Path, everysec: bool) -> Result<Self, String> {
        let replica = Self::start(dir, &self.library, everysec)?;
        replica.cli(&["REPLICAOF", "127.0.0.1", &self.port.to_string()])?;
        // The copy is first only in memory. Until the file is rewritten, a power failure would lose all of it.
        replica.wait_until("follow", |replica| {
            let link = replica.info("replication", "master_link_status")?;
            let file = ["aof_rewrite_in_progress", "aof_rewrite_scheduled", "loading"];
            let file: Vec<_> =
                file.iter().map(|name| replica.info("persistence", name)).collect::<Result<_, _>>()?;
            let synced = replica.info("persistence", "aof_last_bgrewrite_status")?;
            Ok(link == "up" && file.iter().all(|busy| busy == "0") && synced == "ok")
        })?;
        Ok(replica)
    }

    /// Waits until a replica has everything that this server has, kills this server and promotes the replica. No client
    /// may write to this server meanwhile.
    ///
    /// # Errors
    /// Fails if the replica does not catch up in time.
    pub(crate) fn hand_over_to(&self, replica: &Self) -> Result<(), String> {
        replica.wait_until("catch up", |replica| {
            let ours = self.info("replication", "master_repl_offset")?;
            Ok(replica.info("replication", "slave_repl_offset")? == ours)
        })?;
        self.kill();
        replica.cli(&["REPLICAOF", "NO", "ONE"])?;
        // The file had another name while it was created; a write makes the next sync record its length under this one.
        replica.cli(&["SET", "faults:promoted", "1"]).map(drop)
    }

    /// Returns a value of `INFO`.
    fn info(&self, section: &str, name: &str) -> Result<String, String> {
        let text = self.cli(&["INFO", section])?;
        let value = text.lines().filter_map(|line| line.trim().split_once(':')).find(|(key, _)| *key == name);
        value
            .map(|(_, value)| value.to_owned())
            .ok_or_else(|| format!("INFO {section} has no {name}: {text}"))
    }

    fn wait_until(&self, what: &str, is_so: impl Fn(&Self) -> Result<bool, String>) -> Result<(), String> {
        let start = Instant::now();
        while !is_so(self)? {
            if start.elapsed() > FOLLOWS_WITHIN {
                return Err(format!(
                    "the replica did not {what} within {FOLLOWS_WITHIN:?}\n{}",
                    self.child.tail()
                ));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn files(&self) -> PathBuf {
        self.dir.join("appendonlydir")
    }

    /// Runs a command with `redis-cli`, and returns its output: one value per line.
    ///
    /// # Errors
    /// Fails with the output if the server or the program reports an error.
    pub(crate) fn cli(&self, arguments: &[&str]) -> Result<String, String> {
        let port = self.port.to_string();
        let output = Command::new("redis-cli")
            .args(["-e", "-p", &port])
            .args(arguments)
            .output()
            .map_err(|e| format!("can't run redis-cli: {e}"))?;
        let text = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
        if output.status.success() { Ok(text) } else { Err(format!("redis-cli {arguments:?}: {text}")) }
    }

    fn wait_until_ready(&self) -> Result<(), String> {
        let start = Instant::now();
        while !self.answers() {
            if self.has_ended() || start.elapsed() > READY_WITHIN {
                return Err(format!("Redis did not start\n{}", self.child.tail()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn answers(&self) -> bool {
        let ask = || {
            let mut stream = TcpStream::connect(self.address())?;
            stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            stream.write_all(b"PING\r\n")?;
            let mut answer = [0; 5];
            stream.read_exact(&mut answer)?;
            Ok::<_, std::io::Error>(answer)
        };
        ask().is_ok_and(|answer| &answer == b"+PONG")
    }
}

/// Returns the command that starts the server and records its syncs, optionally with a limit on the size of each file
/// in blocks.
fn command(dir: &Path, library: &Path, records: &Path, blocks: Option<u64>) -> Command {
    // Ignoring the signal turns a write beyond the limit into an error like that of a full disk.
    let script = match blocks {
        Some(blocks) => format!("trap '' XFSZ; ulimit -f {blocks}; exec env \"$@\""),
        None => "exec env \"$@\"".to_owned(),
    };
    let mut command = Command::new("sh");
    command.arg("-c").arg(script).arg("sh");
    // Set by `env` for the server alone, or the library would be loaded into the shell as well.
    command.arg(format!("LD_PRELOAD={}", library.display()));
    command.arg(format!("FSYNC_RECORDS={}", records.display()));
    command.arg("redis-server").arg(dir.join("redis.conf"));
    command
}
