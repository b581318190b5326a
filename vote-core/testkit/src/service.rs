//! One of our own programs, run as an operator would run it.

use std::env;
use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::{Child, Exit, dir, http, wait};

const READY_WITHIN: Duration = Duration::from_secs(20);

/// A running program with a clean environment and an empty working directory.
#[derive(Debug)]
pub struct Service {
    child: Child,
}

impl Service {
    /// Starts a program. Its environment contains only PATH, HOME and the given variables, so that the environment of
    /// the test run can't change the outcome. It runs in its own [`Self::dir`]: paths in its arguments and variables
    /// must be absolute.
    pub fn start(program: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let program = match program.canonicalize() {
            Ok(program) => program,
            Err(error) => panic!("can't run {}: {error}", program.display()),
        };
        let mut command = Command::new(program);
        command.args(arguments).envs(environment.iter().copied());
        Self { child: Child::start(&command, dir::new_dir("service"), "KILL") }
    }

    /// Returns the path of a binary of the workspace, such as `vote-worker`, built in the same profile as the calling
    /// test. Cargo builds only the binaries of the test's own package: if one of another package is missing, this
    /// panics with the command that builds it. An outdated one is not detected.
    pub fn binary(name: &str) -> PathBuf {
        built(Path::new(name), "--bins")
    }

    /// Returns the path of an example of the workspace, like [`Self::binary`].
    pub fn example(name: &str) -> PathBuf {
        built(&Path::new("examples").join(name), "--examples")
    }

    /// Returns the process id.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Returns the working directory, which is removed on drop.
    pub fn dir(&self) -> &Path {
        self.child.dir()
    }

    /// Sends a signal, named without SIG: "TERM", "INT", "KILL", "STOP", "CONT". Returns false if the program has
    /// already ended.
    pub fn signal(&self, signal: &str) -> bool {
        self.child.signal(signal)
    }

    /// Waits until the program has ended; returns `None` if it has not after `timeout`.
    pub fn wait_exit(&self, timeout: Duration) -> Option<Exit> {
        self.child.wait_exit(timeout)
    }

    /// Returns everything that the program has written to its standard output and error.
    pub fn log(&self) -> String {
        self.child.log()
    }

    /// Returns the last 40 lines of the log, for panic messages.
    pub fn tail(&self) -> String {
        self.child.tail()
    }

    /// Waits until the program accepts connections on `address` (host:port), at most 20 s.
    pub fn wait_for_port(&self, address: impl ToSocketAddrs) {
        if !self.child.wait_ready(READY_WITHIN, || TcpStream::connect(&address).is_ok()) {
            self.panic_ended();
        }
    }

    /// Waits until a GET request for `url` (http://host:port/path) is answered with a status of 200 to 299, at most
    /// 20 s.
    pub fn wait_http_ok(&self, url: &str) {
        let Some(rest) = url.strip_prefix("http://") else {
            panic!("the URL {url} does not start with http://")
        };
        let (address, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let path = if path.is_empty() { "/" } else { path };
        let mut last = String::new();
        let ready = wait::poll(READY_WITHIN, || {
            if self.child.exit().is_some() {
                return Some(false);
            }
            let answer = http::http(address, "GET", path, &[], b"");
            last = format!("{answer:?}");
            answer.is_ok_and(|answer| (200..300).contains(&answer.status)).then_some(true)
        });
        match ready {
            Some(true) => {}
            Some(false) => self.panic_ended(),
            None => panic!("{url} is not ready after {READY_WITHIN:?}: {last}\n{}", self.tail()),
        }
    }

    fn panic_ended(&self) -> ! {
        match self.child.exit() {
            Some(exit) => panic!("the service ended before it was ready: {exit:?}\n{}", self.tail()),
            None => panic!("the service is not ready\n{}", self.tail()),
        }
    }
}

/// Returns the path of a file in the folder of the build profile, the parent of the test executable's `deps`. Panics if
/// the file is missing.
fn built(file: &Path, kind: &str) -> PathBuf {
    let test = match env::current_exe() {
        Ok(test) => test,
        Err(error) => panic!("can't determine the path of this test: {error}"),
    };
    let mut profile = test.parent().unwrap_or(Path::new("."));
    // An example or a benchmark that uses the testkit is in the profile's folder or one below it.
    if profile.ends_with("deps") || profile.ends_with("examples") {
        profile = profile.parent().unwrap_or(profile);
    }
    let path = profile.join(file);
    if !path.is_file() {
        let flag = match profile.file_name().and_then(|name| name.to_str()) {
            Some("debug") | None => String::new(),
            Some(name) => format!(" --profile {name}"),
        };
        panic!("{} is not built: cargo build --workspace {kind}{flag}", path.display());
    }
    path
}
