//! A service of the pipeline that is restarted whenever it ends, as an orchestrator would.

use std::{
    fs::OpenOptions,
    io::Write as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use vote_testkit::Service;

/// Pause between the end of a service and its restart.
const RESTART_AFTER: Duration = Duration::from_millis(500);
/// Number of log lines with which an unexpected exit is reported.
const TAIL_LINES: usize = 15;

/// Service, with its program and environment.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) name: String,
    program: PathBuf,
    environment: Vec<(String, String)>,
    service: Service,
    /// Whether the service was killed by a fault, which also restarts it.
    killed: bool,
    ended_at: Option<Instant>,
    logs: PathBuf,
}

impl Process {
    /// Starts the service; its logs will be appended to a file in `logs`.
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

    /// Kills the service, and does not restart it before [`revive`](Self::revive).
    pub(crate) fn kill(&mut self) {
        self.killed = true;
        self.service.signal("KILL");
        // Wait for the exit: the restarted service needs the same port.
        let _ = self.service.wait_exit(Duration::from_secs(10));
    }

    /// Restarts the service after [`kill`](Self::kill).
    pub(crate) fn revive(&mut self) {
        self.restart();
        self.killed = false;
    }

    /// Kills the service and restarts it with a new value of a variable in its environment.
    pub(crate) fn restart_with(&mut self, variable: &str, value: &str) {
        self.kill();
        for (_, old) in self.environment.iter_mut().filter(|(name, _)| name == variable) {
            value.clone_into(old);
        }
        self.revive();
    }

    /// Restarts the service if it ended by itself, after a pause. Returns a description with the end of its log.
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

    /// Saves the log, which is lost when the process is dropped.
    pub(crate) fn save_log(&self) {
        save(&self.logs, &self.name, &self.service.log());
    }
}

/// Appends a log to the file of this name. A log that can't be saved does not end the run.
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
