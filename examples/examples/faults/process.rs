//! One of our services, started again whenever it ends, as an orchestrator would.

use std::{
    fs::OpenOptions,
    io::Write as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use vote_testkit::Service;

/// How long after its end it is started again.
const RESTART_AFTER: Duration = Duration::from_millis(500);
/// How much of a log an unexpected exit is reported with.
const TAIL_LINES: usize = 15;

/// A service and how to start it.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) name: String,
    program: PathBuf,
    environment: Vec<(String, String)>,
    service: Service,
    /// Killed by a fault that also starts it again.
    killed: bool,
    ended_at: Option<Instant>,
    logs: PathBuf,
}

impl Process {
    /// Starts it; its logs will be added to a file in `logs`.
    pub(crate) fn start(
        name: &str,
        program: PathBuf,
        environment: Vec<(String, String)>,
        logs: &Path,
    ) -> Self {
        let service = launch(&program, &environment);
        Self {
            name: name.to_owned(),
            program,
            environment,
            service,
            killed: false,
            ended_at: None,
            logs: logs.to_owned(),
        }
    }

    pub(crate) fn signal(&self, signal: &str) {
        self.service.signal(signal);
    }

    /// Kills it for good, until [`revive`](Self::revive).
    pub(crate) fn kill(&mut self) {
        self.killed = true;
        self.service.signal("KILL");
        // The kernel needs a moment; a new one on the same port needs the old one gone.
        let _ = self.service.wait_exit(Duration::from_secs(10));
    }

    pub(crate) fn revive(&mut self) {
        self.restart();
        self.killed = false;
    }

    /// Sees whether it ended by itself, and starts it again then; says so with the end of its log.
    pub(crate) fn supervise(&mut self) -> Option<String> {
        if self.killed {
            return None;
        }
        let exit = self.service.wait_exit(Duration::ZERO)?;
        let since = *self.ended_at.get_or_insert_with(Instant::now);
        if since.elapsed() < RESTART_AFTER {
            return None;
        }
        let log = self.service.log();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
        self.restart();
        Some(format!("{} ended by itself, {exit:?}: {tail}", self.name))
    }

    fn restart(&mut self) {
        self.save_log();
        self.ended_at = None;
        self.service = launch(&self.program, &self.environment);
    }

    /// Keeps the log, which goes with the process.
    pub(crate) fn save_log(&self) {
        save(&self.logs, &self.name, &self.service.log());
    }
}

/// Adds a log to a file of this name. A log that can't be kept must not end a run.
pub(crate) fn save(logs: &Path, name: &str, text: &str) {
    let path = logs.join(format!("{name}.log"));
    let saved = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    if let Err(e) = saved {
        eprintln!("faults: {}: {e}", path.display());
    }
}

fn launch(program: &Path, environment: &[(String, String)]) -> Service {
    let environment: Vec<(&str, &str)> =
        environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    Service::start(program, &[], &environment)
}
