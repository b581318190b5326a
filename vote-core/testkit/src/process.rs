//! Processes that never outlive the test.

use std::fmt;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::{program, wait};

const WATCHDOG: &str = include_str!("watchdog.sh");

/// Time that a program has to end after a signal other than SIGKILL. It is long because a killed program may leave
/// children behind, as initdb does on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running program, its directory and its log. Dropping the handle ends the program and removes the directory. If the
/// test process is killed or leaks the handle, the watchdog, a separate shell, does both.
#[derive(Debug)]
pub struct Child {
    dir: PathBuf,
    signal: &'static str,
    patience: Duration,
    run: Run,
}

impl Child {
    /// Starts `command` in `dir`, which the handle then owns and removes on drop.
    ///
    /// Uses the command's program, arguments, variables and working directory (`dir` unless set). The process gets
    /// PATH, HOME and the variables set on the command, and nothing else of the inherited environment. Its standard
    /// input is empty; its standard output and error go to the log.
    ///
    /// `signal` ends the program when the handle is dropped: "KILL", or another signal for a program that would leave
    /// something behind if killed, followed by SIGKILL after 30 s.
    pub fn start(command: &Command, dir: PathBuf, signal: &'static str) -> Self {
        Self::start_patiently(command, dir, signal, PATIENCE)
    }

    fn start_patiently(command: &Command, dir: PathBuf, signal: &'static str, patience: Duration) -> Self {
        let run = Run::start(command, &dir, signal, patience);
        Self { dir, signal, patience, run }
    }

    /// Ends the program, if it is still running, and starts another in the same directory, with the same signal.
    pub fn replace(&mut self, command: &Command) {
        self.stop(self.signal);
        // The old watchdog is responsible for the directory until the new one is.
        let next = Run::start(command, &self.dir, self.signal, self.patience);
        let mut previous = std::mem::replace(&mut self.run, next);
        previous.close("keep\n");
    }

    /// Returns the process id of the program itself, not of its watchdog.
    pub fn pid(&self) -> u32 {
        self.run.pid
    }

    /// Returns the directory of the program: its default working directory, which also contains the log.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Sends a signal, named without SIG: "STOP", "CONT", "TERM", "KILL", "INT". Returns false if the program has
    /// already ended.
    pub fn signal(&self, signal: &str) -> bool {
        // Once the program has ended, its process id may belong to another process.
        self.exit().is_none() && kill(signal, self.pid())
    }

    /// Sends a signal that should end the program, and waits until it has ended. Resumes a frozen program, and sends
    /// SIGKILL after 30 s. Sends nothing if the program has already ended.
    pub fn stop(&self, signal: &str) -> Exit {
        self.signal(signal);
        self.signal("CONT");
        if let Some(exit) = self.wait_exit(self.patience) {
            return exit;
        }
        self.signal("KILL");
        match self.wait_exit(PATIENCE) {
            Some(exit) => exit,
            None => panic!("process {} does not end, even after SIGKILL\n{}", self.pid(), self.tail()),
        }
    }

    /// Returns how the program ended, or `None` while it is running.
    pub fn exit(&self) -> Option<Exit> {
        self.run.read("exit").map(Exit)
    }

    /// Waits until the program has ended; returns `None` if it has not after `timeout`.
    pub fn wait_exit(&self, timeout: Duration) -> Option<Exit> {
        wait::poll(timeout, || self.exit())
    }

    /// Returns everything that the program, and those it [replaced](Self::replace), wrote to standard output and error.
    pub fn log(&self) -> String {
        read_log(&self.dir)
    }

    /// Returns the last 40 lines of the log, preceded by the path of its file, for panic messages.
    pub fn tail(&self) -> String {
        tail(&self.dir)
    }

    /// Waits until `ready` returns true. Returns false if the program ends first; panics if neither happens in time.
    pub(crate) fn wait_ready(&self, timeout: Duration, mut ready: impl FnMut() -> bool) -> bool {
        let answer = wait::poll(timeout, || match self.exit() {
            Some(_) => Some(false),
            None => ready().then_some(true),
        });
        match answer {
            Some(ready) => ready,
            None => panic!("process {} is not ready after {timeout:?}\n{}", self.pid(), self.tail()),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.run.close("");
    }
}

/// How a program ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Exit(i32);

impl Exit {
    /// True if the program exited with code 0.
    pub fn success(self) -> bool {
        self.0 == 0
    }

    /// Returns the exit code; `None` if a signal ended the program. A code above 128 counts as a signal, since a shell,
    /// here the watchdog, reports both in the same way.
    pub fn code(self) -> Option<i32> {
        (self.0 <= 128).then_some(self.0)
    }

    /// Returns the number of the signal that ended the program, such as 9; `None` if it exited by itself.
    pub fn signal(self) -> Option<i32> {
        (self.0 > 128).then_some(self.0 - 128)
    }
}

impl fmt::Debug for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.signal() {
            Some(signal) => write!(f, "signal {signal}"),
            None => write!(f, "exit code {}", self.0),
        }
    }
}

/// One run of a program under its own watchdog.
#[derive(Debug)]
struct Run {
    watchdog: std::process::Child,
    /// Path, without the extension, of the files that the watchdog writes.
    state: PathBuf,
    pid: u32,
}

impl Run {
    fn start(command: &Command, dir: &Path, signal: &str, patience: Duration) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let state = dir.join(format!("run-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
        let log = || match File::options().create(true).append(true).open(log_file(dir)) {
            Ok(file) => file,
            Err(error) => panic!("can't write {}: {error}", log_file(dir).display()),
        };
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(WATCHDOG).arg("watchdog").arg(&state).arg(dir).arg(signal);
        shell.arg(patience.as_secs().to_string());
        shell.arg(command.get_program()).args(command.get_args());
        shell.env_clear().env("PATH", program::search_path());
        shell.envs(std::env::var_os("HOME").map(|home| ("HOME", home)));
        shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        shell.current_dir(command.get_current_dir().unwrap_or(dir));
        shell.stdin(Stdio::piped()).stdout(log()).stderr(log());
        // A Ctrl-C in the terminal then ends the test only, and the servers shut down cleanly when the pipe closes.
        shell.process_group(0);
        let watchdog = match shell.spawn() {
            Ok(watchdog) => watchdog,
            Err(error) => panic!("can't run /bin/sh: {error}"),
        };

        let mut run = Self { watchdog, state, pid: 0 };
        match wait::poll(Duration::from_secs(10), || run.read("pid")) {
            Some(pid) => run.pid = pid,
            None => {
                run.close("keep\n");
                panic!("{} did not start within 10 s\n{}", command.get_program().display(), tail(dir));
            }
        }
        run
    }

    /// Returns the number in one of the watchdog's files; `None` until its line is completely written.
    fn read<T: std::str::FromStr>(&self, ending: &str) -> Option<T> {
        fs::read_to_string(self.state.with_extension(ending)).ok()?.strip_suffix('\n')?.parse().ok()
    }

    /// Makes the watchdog end the program, and waits for both. The watchdog also removes the directory, unless `order`
    /// is to keep it.
    fn close(&mut self, order: &str) {
        if let Some(mut pipe) = self.watchdog.stdin.take() {
            // Fails only if the watchdog has already ended, which needs no order then.
            let _ = pipe.write_all(order.as_bytes());
        }
        let _ = self.watchdog.wait();
    }
}

/// Sends a signal; returns false if there is no such process. Uses the `kill` built into the shell, which always
/// exists.
fn kill(signal: &str, pid: u32) -> bool {
    let status = Command::new("/bin/sh")
        .args(["-c", "kill -s \"$1\" \"$2\"", "kill", signal, &pid.to_string()])
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

fn log_file(dir: &Path) -> PathBuf {
    dir.join("log")
}

fn read_log(dir: &Path) -> String {
    let bytes = fs::read(log_file(dir)).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn tail(dir: &Path) -> String {
    let log = read_log(dir);
    let lines: Vec<&str> = log.lines().collect();
    let last = lines.len().saturating_sub(40);
    format!("--- {}\n{}\n---", log_file(dir).display(), lines[last..].join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_ignores_its_signal_is_killed() {
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"]);
        let dir = crate::dir::new_dir("process");
        let child = Child::start_patiently(&command, dir, "TERM", Duration::from_secs(1));
        let pid = child.pid();
        wait::poll(PATIENCE, || child.log().contains("ready").then_some(())).unwrap();

        drop(child);

        assert!(!kill("0", pid));
    }
}
