//! A Redis that can be killed, frozen, filled up and cut back to what it had synced.

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

/// Loading a log of a few hundred thousand votes takes a moment.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// What the shell counts file sizes in (POSIX, `ulimit`).
const BLOCK: u64 = 512;

/// A Redis with an append-only file that is noted to be synced.
#[derive(Debug)]
pub(crate) struct Redis {
    child: Child,
    /// Of the server.
    dir: PathBuf,
    library: PathBuf,
    records: PathBuf,
    port: u16,
}

impl Redis {
    /// Starts one in a new folder `dir`.
    ///
    /// # Errors
    /// When it does not start.
    pub(crate) fn start(dir: &Path, library: &Path, everysec: bool) -> Result<Self, String> {
        let (data, records, port) = (dir.to_owned(), dir.join("records"), free_port());
        fs::create_dir_all(&records).map_err(|e| format!("{}: {e}", records.display()))?;
        let appendfsync = if everysec { "everysec" } else { "always" };
        // No rewrites: they would only add files that are synced as a whole.
        let config = format!(
            "bind 127.0.0.1\nport {port}\ndir {}\ndaemonize no\nsave \"\"\nappendonly yes\nappendfsync {appendfsync}\n\
             no-appendfsync-on-rewrite no\nmaxmemory-policy noeviction\nauto-aof-rewrite-percentage 0\n",
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

    /// Starts it again, killing it first if it runs.
    ///
    /// # Errors
    /// When it does not start.
    pub(crate) fn restart(&mut self) -> Result<(), String> {
        self.child.replace(&command(&self.dir, &self.library, &self.records, None));
        self.wait_until_ready()
    }

    /// The same, on a disk that has room for this many more bytes. It may end at any time.
    ///
    /// # Errors
    /// When the size of its file can't be told.
    pub(crate) fn restart_with_room(&mut self, bytes: u64) -> Result<(), String> {
        self.child.stop("KILL");
        let length = fsyncs::length(&self.files()).map_err(|e| format!("{}: {e}", self.dir.display()))?;
        let blocks = (length + bytes) / BLOCK + 1;
        self.child.replace(&command(&self.dir, &self.library, &self.records, Some(blocks)));
        Ok(())
    }

    /// Kills it and cuts its file back to what power loss would have left.
    ///
    /// # Errors
    /// When the file can't be changed.
    pub(crate) fn cut_back(&self) -> Result<Cut, String> {
        self.kill();
        fsyncs::cut_back(&self.files(), &self.records).map_err(|e| format!("{}: {e}", self.dir.display()))
    }

    fn files(&self) -> PathBuf {
        self.dir.join("appendonlydir")
    }

    /// Runs a command by `redis-cli`; one value a line.
    ///
    /// # Errors
    /// What the server or the program said.
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
                return Err(format!("Redis does not start\n{}", self.child.tail()));
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

/// The server, its syncs noted; with a number of blocks that none of its files may exceed.
fn command(dir: &Path, library: &Path, records: &Path, blocks: Option<u64>) -> Command {
    // A write beyond the limit is then an error like that of a full disk, and no signal.
    let script = match blocks {
        Some(blocks) => format!("trap '' XFSZ; ulimit -f {blocks}; exec env \"$@\""),
        None => "exec env \"$@\"".to_owned(),
    };
    let mut command = Command::new("sh");
    command.arg("-c").arg(script).arg("sh");
    // For the server alone: the variable would load the library into every shell on the way there.
    command.arg(format!("LD_PRELOAD={}", library.display()));
    command.arg(format!("FSYNC_RECORDS={}", records.display()));
    command.arg("redis-server").arg(dir.join("redis.conf"));
    command
}
